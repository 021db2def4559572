//! Writes or pins the sessions that matched.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper::Method;

use crate::client;
use crate::options::Common;
use crate::terminal::human;
use crate::terminal::output::{FileMode, Output};
use crate::terminal::printable::note;
use crate::verbs::analysis::{InputEvent, SessionInput};
use api::bodies::NewPin;
use api::path;
use base::interface::Interfaces;
use base::packet::Packet;
use base::time::Timestamp;
use decode::Decoded;
use engine::session::SessionKey;
use formats::writer::{Exporter, Format, Options};
use streams::Session;

/// Pins that one hunt makes. Whoever sends the pattern must not fill the pins.
const PINS_MAX: usize = 64;
/// Datagrams whose fragments are written.
const DATAGRAMS_MAX: usize = 65_536;

/// The packets of sessions.
struct SessionPackets {
    /// When sessions with a key began and ended.
    spans: HashMap<SessionKey, Vec<(Timestamp, Timestamp)>>,
    datagrams: HashSet<u64>,
}

impl SessionPackets {
    fn new(sessions: &[Session]) -> Self {
        let mut spans: HashMap<SessionKey, Vec<_>> = HashMap::new();
        for session in sessions {
            spans.entry(session.key).or_default().push((session.first, session.last));
        }
        Self { spans, datagrams: HashSet::new() }
    }

    fn has(&mut self, packet: &Packet<'_>, decoded: &Decoded) -> bool {
        let (key, _) = SessionKey::new(decoded, packet.interface);
        // The match may have come before the session's end, so what follows belongs to it as well.
        let chosen = self.spans.get(&key).is_some_and(|spans| spans.iter().any(|(first, _)| packet.time >= *first));
        if decoded.fragment.is_some() && chosen && self.datagrams.len() < DATAGRAMS_MAX {
            self.datagrams.insert(decoded.datagram);
        }
        chosen || (decoded.fragment.is_some() && self.datagrams.contains(&decoded.datagram))
    }
}

/// Reads the packets again, and writes those of the sessions that matched.
pub(super) fn write(
    question: &SessionInput<'_>,
    path: &Path,
    mode: FileMode,
    sessions: &[Session],
    interfaces: &Arc<Interfaces>,
) -> anyhow::Result<()> {
    let mut output = Output::open(path, mode)?;
    let mut exporter = Exporter::new(Format::Pcapng, Options::default());
    exporter.begin(output.buffer(), &["the sessions in which retrocap hunt found something".to_owned()]);
    let (mut chosen, mut packets, mut failed) = (SessionPackets::new(sessions), 0u64, None);
    question.read(interfaces, &mut |moment| {
        let InputEvent::Packet(packet, _) = moment else { return ControlFlow::Continue(()) };
        let decoded = decode::decode(packet.link_type, packet.data);
        let Some(interface) = interfaces.interface(packet.interface).filter(|_| chosen.has(packet, &decoded)) else {
            return ControlFlow::Continue(());
        };
        packets += 1;
        let written = exporter.packet(output.buffer(), &interface, packet).map_err(anyhow::Error::from);
        match written.and_then(|()| output.write_some()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    exporter.end(output.buffer(), &[], &[]);
    output.finish()?;
    if !question.common.quiet {
        note(&format!("retrocap: wrote {} -> {}", human::counted(packets, "packet"), path.display()));
    }
    Ok(())
}

/// Pins sessions, as many as one hunt may.
pub(super) fn pin(common: &Common, time: Duration, sessions: &[Session]) -> anyhow::Result<()> {
    let mut expressions: Vec<String> = sessions.iter().filter_map(expression).collect();
    expressions.sort();
    expressions.dedup();
    let left_out = expressions.len().saturating_sub(PINS_MAX);
    for expression in expressions.iter().take(PINS_MAX) {
        let body = serde_json::to_string(&NewPin { filter: expression.clone(), for_s: time.as_secs_f64() })?;
        client::ask(common, Method::POST, path::PINS, Some(body))
            .and_then(|mut answer| answer.document())
            .with_context(|| format!("cannot pin {expression}"))?;
    }
    if !common.quiet {
        let made = human::counted(expressions.len().min(PINS_MAX) as u64, "session");
        let more = if left_out > 0 { format!("; {left_out} more are not pinned") } else { String::new() };
        note(&format!("retrocap: pinned {made}{more}"));
    }
    Ok(())
}

/// A tcpdump expression for a session.
fn expression(session: &Session) -> Option<String> {
    let (a, b) = (session.originator(), session.responder());
    let hosts = format!("host {} and host {}", a.ip?, b.ip?);
    Some(match session.protocol_name().as_str() {
        protocol @ ("tcp" | "udp" | "sctp") => {
            format!("{protocol} and {hosts} and port {} and port {}", a.port, b.port)
        }
        _ => hosts,
    })
}
