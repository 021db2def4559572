//! What sessions carried: searches of it, and the objects in it.
//!
//! Hostile content is put together, decoded and searched here, on the thread of a query, which may read files and nothing
//! more. Memory comes on top of the budget. The constants below keep it under
//! [`CONTENTS_BYTES_MAX`](crate::answer_memory::CONTENTS_BYTES_MAX) in all: one such answer is made at a time.

pub(crate) mod apps;
pub(crate) mod files;
pub(crate) mod hunt;
pub(crate) mod said;

use std::time::{Duration, Instant};

use super::stream::{AnswerEnd, ClientGone, Sink};
use crate::audit::AuditEntry;
use crate::service::Service;
use api::Problem;
use query::Summary;
use query::explain::Cause;
use streams::Streams;

/// Bytes that wait in the streams of all sessions.
const STREAMS_BYTES: usize = 8 << 20;
/// Sessions at a time.
const SESSIONS_MAX: usize = 8192;
/// Bytes that wait in one direction.
const DIRECTION_BYTES: usize = 128 << 10;
/// Bytes that wait for a search or a parser, of all sessions.
const WAITING_BYTES: usize = 8 << 20;
/// Bytes of one object.
const OBJECT_BYTES: usize = 16 << 20;
/// Bytes of all objects that are being put together.
const OBJECTS_BYTES: usize = 20 << 20;
/// Time after which lines are sent, however few.
const SEND_EVERY: Duration = Duration::from_millis(50);

/// An empty table of streams. What a recorder lacks of a session, it has cut.
fn new_streams() -> Streams {
    let limits =
        streams::StreamLimits { direction_bytes: DIRECTION_BYTES, total_bytes: STREAMS_BYTES, sessions: SESSIONS_MAX };
    Streams::new(limits).with_cause(streams::Cause::Cut)
}

/// The bounds of objects.
fn object_limits() -> objects::ObjectLimits {
    objects::ObjectLimits { object_bytes: OBJECT_BYTES, total_bytes: OBJECTS_BYTES, ..objects::ObjectLimits::default() }
}

/// Lines of an answer, sent soon after they were found.
struct Lines {
    sink: Sink,
    count: u64,
    limit: u64,
    sent: Instant,
    closed: bool,
}

impl Lines {
    fn new(sink: Sink, limit: Option<u64>) -> Self {
        Self { sink, count: 0, limit: limit.unwrap_or(u64::MAX), sent: Instant::now(), closed: false }
    }

    /// Whether nothing more is to be found: there is enough, or nobody listens.
    fn is_done(&self) -> bool {
        self.closed || self.count >= self.limit
    }

    fn add(&mut self, line: &impl serde::Serialize) {
        if self.is_done() {
            return;
        }
        self.count += 1;
        let sent = self.sink.line(line).and_then(|()| match self.count == 1 || self.sent.elapsed() >= SEND_EVERY {
            true => self.sink.send(),
            false => Ok(()),
        });
        if self.count == 1 || self.sent.elapsed() >= SEND_EVERY {
            self.sent = Instant::now();
        }
        self.closed |= sent.is_err();
    }

    /// Ends the answer. `searched` says what was searched and what could not be.
    fn end(
        self,
        service: &Service,
        entry: AuditEntry,
        summary: Summary,
        searched: &str,
        what: &str,
    ) -> Result<(), ClientGone> {
        if self.closed {
            return Err(ClientGone);
        }
        let limited = self.count >= self.limit;
        let stopped = summary.interrupted && service.is_stopping();
        if self.count == 0 {
            let problem = match stopped {
                true => Problem::stopping(),
                false => Problem::nothing_matched(&Cause::new("never_seen", format!("{what}; {searched}"))),
            };
            entry.end(problem.outcome());
            return self.sink.refuse(problem);
        }
        let note = match (stopped, limited) {
            (true, _) => "incomplete: the recorder was stopped while this was sent",
            (false, true) => "there may be more: the limit was reached",
            (false, false) => "",
        };
        let ending = AnswerEnd {
            counts: vec![("matches", self.count), ("packets", summary.packets), ("overtaken", summary.overtaken)],
            note: note.to_owned(),
            missing: searched.to_owned(),
            ..AnswerEnd::default()
        };
        self.sink.end(ending)?;
        entry.end(if note.is_empty() { "complete" } else { note });
        Ok(())
    }
}
