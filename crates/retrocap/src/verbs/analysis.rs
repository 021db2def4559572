//! Reads the packets of a selection, in order, for verbs that look into sessions.

use std::io::Read;
use std::ops::ControlFlow;
use std::sync::Arc;

use hyper::{Method, StatusCode};
use jiff::tz::TimeZone;

use crate::client::{self, RefusedRequest, Trailers};
use crate::options::Common;
use crate::terminal::progress::{Progress, ProgressCounts};
use crate::verbs::selection::{Selection, TimeWindowArgs};
use crate::verbs::trailers::MISSING;
use crate::{offline, offline_spool};
use api::candidates::CandidateList;
use api::path;
use api::question::{ExportQuestion, PacketsQuestion, SelectionQuestion};
use base::interface::Interfaces;
use base::packet::Packet;
use base::source::{Batch, Source as _};
use formats::reader::FileSource;
use hunt::narrow::CandidateQuery;
use query::UnopenedPackets;
use streams::Session;

/// What is read.
pub(super) struct SessionInput<'a> {
    pub(super) common: &'a Common,
    pub(super) selection: &'a Selection,
    pub(super) around: &'a TimeWindowArgs,
    pub(super) follow: bool,
    pub(super) whole_sessions: bool,
    /// What is searched for, if the recorder may leave out sessions in which it cannot be found.
    pub(super) narrowed: Option<&'a CandidateQuery>,
}

/// A packet, or a moment in which no further packet has come.
pub(super) enum InputEvent<'a, 'p> {
    Packet(&'a Packet<'p>, u64),
    Pause,
}

impl SessionInput<'_> {
    /// Asks for the packets; if the recorder cannot narrow them down, for all of them.
    fn answer(&self, selection: SelectionQuestion, export: ExportQuestion) -> anyhow::Result<client::Answer> {
        if let Some(wanted) = self.narrowed {
            let target = format!("{}?{}", path::HUNT, selection.write());
            let body = serde_json::to_string(&CandidateList::new(wanted))?;
            match client::ask(self.common, Method::POST, target.trim_end_matches('?'), Some(body)) {
                Err(error) if is_unavailable(&error) => {}
                answer => return answer,
            }
        }
        client::get(self.common, &PacketsQuestion { selection, export }.target())
    }

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
        let mut answer = self.answer(selection, export)?;
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
        let mut unopened = UnopenedPackets::default();
        loop {
            let batch = source.batch(&mut |packet| {
                if !ended {
                    sequence += 1;
                    bytes += packet.data.len() as u64;
                    unopened.look_at(packet.link_type, packet.data);
                    ended = each(InputEvent::Packet(packet, sequence)).is_break();
                }
            });
            counts.set(sequence, bytes, None);
            if ended {
                break;
            }
            match batch {
                Ok(Batch::End) => break,
                Err(_) if interrupted.is_interrupted() => break,
                more => more?,
            };
            if self.follow && each(InputEvent::Pause).is_break() {
                break;
            }
        }
        // A question with a condition has its own count, of packets that cannot come.
        let is_named = trailers.text(MISSING).is_some_and(|text| text.untrusted().contains("not opened"));
        if let Some(sentence) = unopened.sentence().filter(|_| !is_named) {
            trailers.add(MISSING, &sentence);
        }
        Ok(trailers)
    }
}

/// Whether a recorder cannot narrow packets down: others search, it has no memory for that, or it is an older one.
fn is_unavailable(error: &anyhow::Error) -> bool {
    let status = error.downcast_ref::<RefusedRequest>().map(|refused| refused.status);
    let unavailable = [
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED,
        StatusCode::PAYLOAD_TOO_LARGE,
    ];
    status.is_some_and(|status| unavailable.contains(&status))
}

/// Runs a verb against the recorder, against capture files, or against the files of a spool.
pub(super) fn reading(
    common: &Common,
    selection: &Selection,
    verb: impl FnOnce(&Common) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    match selection.spool() {
        Some(spool) => offline_spool::packets(common, spool, verb),
        None => offline::reading(common, &selection.read, verb),
    }
}

/// A session in one line: `tcp 10.0.0.1:1000 > 192.0.2.7:443`.
pub(super) fn line(session: &Session) -> String {
    format!("{} {} > {}", session.protocol_name(), session.originator(), session.responder())
}
