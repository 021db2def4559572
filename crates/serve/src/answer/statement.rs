//! What an export states about itself: recorder, clock, reader, question, window and loss.

use super::super::audit::AuditEntry;
use super::super::clock::now;
use super::super::peer::Peer;
use super::super::service::Service;
use api::describe;
use base::time::Timestamp;
use evidence::statement::{Loss, Question, Statement, Window};
use query::{Request, Summary};
use serde_json::{Value, json};

/// The times of the packets that were sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SentTimes(Option<(Timestamp, Timestamp)>);

impl SentTimes {
    pub(crate) fn add(&mut self, time: Timestamp) {
        let (first, last) = self.0.get_or_insert((time, time));
        (*first, *last) = ((*first).min(time), (*last).max(time));
    }
}

/// What is known at the end of an export.
pub(crate) struct Outcome<'a> {
    pub(crate) entry: &'a AuditEntry,
    pub(crate) peer: &'a Peer,
    pub(crate) summary: Summary,
    pub(crate) span: SentTimes,
    pub(crate) dropped_within: u64,
    pub(crate) cut: u64,
    pub(crate) note: &'a str,
    pub(crate) missing: &'a str,
}

impl Outcome<'_> {
    /// The comments that state what an export is; none where there is no recorder. `asked` is the question in words.
    pub(crate) fn statement(&self, service: &Service, request: &Request, asked: String) -> Vec<String> {
        let Some(attestation) = &service.attestation else { return Vec::new() };
        let outcome = self;
        let fact = |name: &str| outcome.entry.fact(name).cloned();
        let history = service.history();
        let totals = history.totals();
        let text = |time: Timestamp| time.to_rfc3339();
        let statement = Statement {
            recorder: attestation.identity.clone(),
            clock: attestation.clock.statement(),
            reader: json!({
                "who": fact("who").unwrap_or_else(|| outcome.peer.audit_fields()),
                "from": outcome.peer.origin(),
            }),
            question: Question {
                words: asked,
                query: fact("query").unwrap_or_else(|| describe::audit(request)),
                audit_id: fact("id").as_ref().and_then(Value::as_str).map(str::to_owned),
            },
            window: Window {
                since: request.since.map(text),
                until: request.until.map(text),
                first: outcome.span.0.map(|(first, _)| text(first)),
                last: outcome.span.0.map(|(_, last)| text(last)),
                packets: outcome.summary.packets,
                exported: now().to_rfc3339(),
            },
            loss: Loss {
                kernel_dropped: totals.kernel_dropped,
                kernel_dropped_within: outcome.dropped_within,
                evicted: totals.evicted.packets,
                whole_since: history.whole_since().map(text),
                overtaken: outcome.summary.overtaken,
                cut: outcome.cut,
                note: outcome.note.to_owned(),
                missing: outcome.missing.to_owned(),
            },
        };
        let mut comments = attestation.words(&statement);
        comments.push(statement.comment());
        comments
    }
}
