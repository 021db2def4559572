//! Writes or pins the sessions that matched.

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
use crate::verbs::analysis::SessionInput;
use crate::verbs::chosen_export::ChosenExport;
use api::bodies::NewPin;
use api::path;
use base::interface::Interfaces;
use formats::writer::{Format, Precision};
use streams::{ChosenPackets, Session};

/// Sessions of one pin: its expression has a limit of terms.
const PIN_SESSIONS: usize = 12;
/// Pins that hunts may have at a time.
const PINS_MAX: usize = 3;

/// Reads the packets again, and writes those of the sessions that matched.
pub(super) fn write(
    question: SessionInput<'_>,
    path: &Path,
    mode: FileMode,
    sessions: &[Session],
    interfaces: &Arc<Interfaces>,
) -> anyhow::Result<()> {
    let output = Output::open(path, mode)?;
    let quiet = question.common.quiet;
    let export = ChosenExport {
        question,
        chosen: ChosenPackets::of_sessions(sessions),
        interfaces: Arc::clone(interfaces),
        format: Format::Pcapng,
        precision: Precision::Nano,
        limit: u64::MAX,
        comments: &["the sessions in which retrocap hunt found something".to_owned()],
    };
    let left_out = export.chosen.left_out();
    let exported = export.into_output(output)?;
    if left_out > 0 {
        let sessions = human::counted(left_out, "session");
        note(&format!("retrocap: {sessions} that matched are not in the file: there are too many for one search"));
    }
    if !quiet {
        note(&format!("retrocap: wrote {} -> {}", human::counted(exported.packets, "packet"), path.display()));
    }
    Ok(())
}

/// Pins sessions, as many as one hunt may.
pub(super) fn pin(common: &Common, time: Duration, sessions: &[Session]) -> anyhow::Result<()> {
    let mut expressions: Vec<String> = sessions.iter().filter_map(expression).collect();
    expressions.sort();
    expressions.dedup();
    let most = PINS_MAX * PIN_SESSIONS;
    let left_out = expressions.len().saturating_sub(most);
    for sessions in expressions[..expressions.len().min(most)].chunks(PIN_SESSIONS) {
        let filter = sessions.iter().map(|one| format!("({one})")).collect::<Vec<_>>().join(" or ");
        let body = serde_json::to_string(&NewPin { filter, for_s: time.as_secs_f64(), hunt: true })?;
        client::ask(common, Method::POST, path::PINS, Some(body))
            .and_then(|mut answer| answer.document())
            .with_context(|| format!("cannot pin {}", human::counted(sessions.len() as u64, "session")))?;
    }
    if !common.quiet {
        let made = human::counted(expressions.len().min(most) as u64, "session");
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
