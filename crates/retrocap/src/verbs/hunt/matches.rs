//! Prints matches as they are found, and remembers the sessions.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::rules::FileSearch;
use crate::options::Common;
use crate::terminal::printable::{plain, print, print_json};
use crate::verbs::analysis;
use base::interface::Interfaces;
use base::time;
use hunt::{Kind, Match, MatchSink};
use objects::{Object, ObjectSink};
use streams::Session;

/// Sessions that are remembered for `-w` and `--pin`.
const SESSIONS_MAX: usize = 65_536;

/// Prints matches.
pub(super) struct Printer {
    json: bool,
    tz: TimeZone,
    interfaces: Arc<Interfaces>,
    limit: Option<u64>,
    count: u64,
    sessions: HashMap<u64, Session>,
    failed: Option<anyhow::Error>,
}

impl Printer {
    pub(super) fn new(common: &Common, interfaces: Arc<Interfaces>, limit: Option<u64>) -> Self {
        let (tz, sessions) = (TimeZone::system(), HashMap::new());
        Self { json: common.json, tz, interfaces, limit, count: 0, sessions, failed: None }
    }

    /// Whether the limit was reached, or nobody reads on.
    pub(super) fn is_done(&self) -> bool {
        self.failed.is_some() || self.limit.is_some_and(|limit| self.count >= limit)
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The sessions that matched, in their order.
    pub(super) fn sessions(&self) -> Vec<Session> {
        let mut sessions: Vec<Session> = self.sessions.values().cloned().collect();
        sessions.sort_by_key(|session| session.number);
        sessions
    }

    /// The error of printing, if there was one.
    pub(super) fn result(&mut self) -> anyhow::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    fn add(&mut self, session: &Session, one: &Match, file: Option<&Object>) {
        if self.is_done() {
            return;
        }
        self.count += 1;
        if self.sessions.len() < SESSIONS_MAX {
            self.sessions.insert(session.number, session.clone());
        }
        let printed = if self.json {
            print_json(&format!("{}\n", self.document(session, one, file)))
        } else {
            print(&self.line(session, one, file))
        };
        self.failed = printed.err();
    }

    fn document(&self, session: &Session, one: &Match, file: Option<&Object>) -> Value {
        let file = file.map(|file| {
            json!({
                "name": file.name, "mime": file.mime, "size": file.content.len(), "sha256": file.hashes[2],
                "complete": file.complete, "protocol": file.protocol, "source": file.source,
            })
        });
        json!({
            "time": one.packet.time,
            "rule": one.rule,
            "kind": one.kind.name(),
            "flow": analysis::flow(session, &self.interfaces, ""),
            "direction": one.sender.map(|sender| sender.name()),
            "stream_offset": one.stream_offset,
            "packet": { "time": one.packet.time, "sequence": one.packet.sequence },
            "length": one.length,
            "context_hex": one.context.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "gap_before": one.gap_before,
            "file": file,
            "stage": (!one.stage.is_empty()).then_some(&one.stage),
            "detail": (!one.detail.is_empty()).then_some(&one.detail),
        })
    }

    fn line(&self, session: &Session, one: &Match, file: Option<&Object>) -> String {
        let at = time::local(one.packet.time, &self.tz);
        let stage = if one.stage.is_empty() { String::new() } else { format!(" ({})", one.stage) };
        let place = match (one.sender, one.stream_offset) {
            (Some(sender), Some(offset)) => format!("  {} at {offset}", sender.name()),
            _ => String::new(),
        };
        let shown = if one.detail.is_empty() {
            one.context.iter().map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' }).collect()
        } else {
            one.detail.clone()
        };
        let file = file.map(|file| format!("  in {} {}", file.mime, file.name)).unwrap_or_default();
        let (rule, session) = (plain(&one.rule), analysis::line(session));
        format!("{at}  {rule}{stage}  {session}{place}{}\n    {}\n", plain(&file), plain(&shown))
    }
}

/// Takes the matches of streams and messages.
pub(super) struct Matches(pub(super) Rc<RefCell<Printer>>);

impl MatchSink for Matches {
    fn found(&mut self, session: &Session, one: Match) {
        self.0.borrow_mut().add(session, &one, None);
    }
}

/// Searches the contents of files.
pub(super) struct FileMatches {
    pub(super) search: FileSearch,
    pub(super) matches: Rc<RefCell<Printer>>,
}

impl ObjectSink for FileMatches {
    fn object(&mut self, session: &Session, object: Object) {
        let found = |rule: &str, kind: Kind| Match {
            rule: rule.to_owned(),
            kind,
            stage: String::new(),
            sender: Some(object.sender),
            stream_offset: Some(object.offset),
            packet: object.packet,
            length: 0,
            context: Vec::new(),
            gap_before: false,
            detail: String::new(),
        };
        for hash in &object.hashes {
            // The hash of an object with a hole is the hash of nothing that anybody else has.
            if object.complete && self.search.indicators.fingerprint(hash) {
                let length = object.content.len() as u64;
                let one = Match { length, detail: format!("hash of {}", object.name), ..found(hash, Kind::Ioc) };
                self.matches.borrow_mut().add(session, &one, Some(&object));
            }
        }
        self.search.patterns.find(
            &object.content,
            |_| 0,
            |_, named, from, to| {
                let (begin, end) = (from.saturating_sub(32), (to.min(from + 256) + 32).min(object.content.len()));
                let context = object.content.get(begin..end).unwrap_or_default().to_vec();
                let one = Match { length: (to - from) as u64, context, ..found(&named.rule, named.kind) };
                self.matches.borrow_mut().add(session, &one, Some(&object));
            },
        );
    }
}
