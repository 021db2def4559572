//! Reads the packets of a selection, in order, for verbs that look into sessions.

use std::io::Read;
use std::ops::ControlFlow;
use std::sync::Arc;

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::client::{self, Trailers};
use crate::options::Common;
use crate::terminal::progress::{Progress, ProgressCounts};
use crate::verbs::selection::{Around, Selection};
use api::question::{ExportQuestion, PacketsQuestion};
use base::interface::Interfaces;
use base::packet::Packet;
use base::source::{Batch, Source as _};
use engine::session::Endpoint;
use engine::session::community_id::CommunityId;
use formats::reader::FileSource;
use streams::Session;

/// What is read.
pub(super) struct SessionInput<'a> {
    pub(super) common: &'a Common,
    pub(super) selection: &'a Selection,
    pub(super) around: &'a Around,
    pub(super) follow: bool,
    pub(super) whole_sessions: bool,
}

/// A packet, or a moment in which no further packet has come.
pub(super) enum InputEvent<'a, 'p> {
    Packet(&'a Packet<'p>, u64),
    Pause,
}

impl SessionInput<'_> {
    /// Reads the packets until the end, or until `each` breaks off. Returns the trailers of the answer.
    pub(super) fn read(
        &self,
        interfaces: &Arc<Interfaces>,
        each: &mut dyn FnMut(InputEvent<'_, '_>) -> ControlFlow<()>,
    ) -> anyhow::Result<Trailers> {
        let (tz, now) = (TimeZone::system(), self.common.now());
        let mut selection = self.selection.clone();
        if self.follow {
            selection.ahead(now, &tz)?;
        }
        let export = ExportQuestion {
            whole_sessions: self.whole_sessions.then_some(true),
            follow: self.follow.then_some(true),
            ..ExportQuestion::default()
        };
        let selection = selection.question(Some(self.around), now, &tz)?;
        let mut answer = client::get(self.common, &PacketsQuestion { selection, export }.target())?;
        if self.follow {
            answer.end_when_interrupted();
        }
        let (trailers, interrupted) = (answer.trailers(), answer.interrupted());
        let counts = Arc::<ProgressCounts>::default();
        let shown = Arc::clone(&counts);
        let _progress = Progress::start(self.common, move || shown.done());
        let reader: Box<dyn Read + Send> = Box::new(answer);
        let mut source = FileSource::from_reader(reader, Arc::clone(interfaces));
        let (mut sequence, mut bytes, mut ended) = (0, 0, false);
        loop {
            let batch = source.batch(&mut |packet| {
                if !ended {
                    sequence += 1;
                    bytes += packet.data.len() as u64;
                    ended = each(InputEvent::Packet(packet, sequence)).is_break();
                }
            });
            counts.set(sequence, bytes, None);
            if ended {
                return Ok(trailers);
            }
            match batch {
                Ok(Batch::End) => return Ok(trailers),
                Err(_) if interrupted.is_interrupted() => return Ok(trailers),
                more => more?,
            };
            if self.follow && each(InputEvent::Pause).is_break() {
                return Ok(trailers);
            }
        }
    }
}

/// A session in JSON, with the keys of a flow.
pub(super) fn flow(session: &Session, interfaces: &Interfaces, app: &str) -> Value {
    let end = |endpoint: Endpoint| match endpoint.ip {
        Some(ip) => json!({ "ip": ip.to_string(), "port": endpoint.port }),
        None => json!({ "ip": null, "port": 0, "mac": endpoint.to_string() }),
    };
    let interface = interfaces.interface(session.key.interface());
    let mut flow = json!({
        "first": session.first,
        "last": session.last,
        "proto": session.protocol_name(),
        "originator": end(session.originator()),
        "responder": end(session.responder()),
        "interface": interface.map(|interface| interface.name.clone()).unwrap_or_default(),
        "packets": { "originator": session.packets[0], "responder": session.packets[1] },
        "bytes": { "originator": session.wire_bytes[0], "responder": session.wire_bytes[1] },
        "community_id": CommunityId::new(&session.key, 0).map(|id| id.to_string()),
        "vlan": session.key.vlan(),
    });
    if !app.is_empty() {
        flow["app"] = json!({ "name": app });
    }
    flow
}

/// A session in one line: `tcp 10.0.0.1:1000 > 192.0.2.7:443`.
pub(super) fn line(session: &Session) -> String {
    format!("{} {} > {}", session.protocol_name(), session.originator(), session.responder())
}
