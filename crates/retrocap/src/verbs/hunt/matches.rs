//! Prints matches as they are found, and remembers the sessions.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::anyhow;
use jiff::tz::TimeZone;

use crate::alert::{self, Alert};
use crate::options::Common;
use crate::terminal::printable::{plain, print, print_json};
use crate::verbs::analysis;
use api::content::{MatchLine, MatchedObject};
use base::interface::Interfaces;
use base::time::{self, Timestamp};
use hunt::{Kind, Match, MatchSink};
use streams::{PacketRef, Session};

/// Sessions that are remembered for `-w` and `--pin`.
const SESSIONS_MAX: usize = 65_536;

/// Bytes of lines that wait to be sorted, at most.
const SORTED_BYTES_MAX: usize = 32 << 20;

/// Prints matches. Those that wait to be sorted are printed at the latest when it is dropped, such as after an error.
pub(super) struct Printer {
    json: bool,
    tz: TimeZone,
    interfaces: Arc<Interfaces>,
    limit: Option<u64>,
    count: u64,
    sessions: HashMap<u64, Session>,
    failed: Option<anyhow::Error>,
    /// Lines that wait to be sorted, and their bytes; `None` if matches are printed as they are found.
    waiting: Option<(Vec<(Timestamp, String)>, usize)>,
}

impl Drop for Printer {
    fn drop(&mut self) {
        self.end();
    }
}

impl Printer {
    pub(super) fn new(common: &Common, interfaces: Arc<Interfaces>, limit: Option<u64>) -> Self {
        let (tz, sessions) = (TimeZone::system(), HashMap::new());
        Self { json: common.json, tz, interfaces, limit, count: 0, sessions, failed: None, waiting: None }
    }

    /// Prints matches at the end, in the order of their times.
    pub(super) fn sort(&mut self) {
        self.waiting = Some((Vec::new(), 0));
    }

    /// Prints what waits.
    pub(super) fn end(&mut self) {
        let (mut lines, _) = self.waiting.take().unwrap_or_default();
        lines.sort_by_key(|(time, _)| *time);
        for (_, line) in lines {
            let printed = if self.json { print_json(&line) } else { print(&line) };
            if let Err(error) = printed {
                self.failed = Some(error);
                return;
            }
        }
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

    /// Prints an alert of another program.
    pub(super) fn alert(&mut self, session: &Session, alert: &Alert) {
        let kind = match alert.kind {
            alert::Kind::Zeek => Kind::Zeek,
            alert::Kind::Session => Kind::Tshark,
            _ => Kind::Suricata,
        };
        let one = Match {
            rule: alert.name.clone(),
            kind,
            stage: String::new(),
            sender: None,
            stream_offset: None,
            packet: PacketRef { time: alert.start, sequence: 0 },
            length: 0,
            context: Vec::new(),
            gap_before: false,
            detail: alert
                .id
                .as_ref()
                .map(|id| format!("{} {id}", kind.name()))
                .unwrap_or_else(|| kind.name().to_owned()),
        };
        self.add(session, &one, None);
    }

    /// Prints a match.
    pub(super) fn add(&mut self, session: &Session, one: &Match, file: Option<&MatchedObject>) {
        if self.is_done() {
            return;
        }
        self.count += 1;
        if self.sessions.len() < SESSIONS_MAX {
            self.sessions.insert(session.number, session.clone());
        }
        let line = if self.json {
            let line = MatchLine::new(session, one, file.cloned(), &self.interfaces);
            serde_json::to_string(&line).map(|line| format!("{line}\n")).map_err(anyhow::Error::from)
        } else {
            Ok(self.line(session, one, file))
        };
        let done = line.and_then(|line| match &mut self.waiting {
            Some((lines, bytes)) => {
                *bytes += line.len();
                lines.push((one.packet.time, line));
                if *bytes > SORTED_BYTES_MAX {
                    Err(anyhow!("too many matches to sort: leave out --sort"))
                } else {
                    Ok(())
                }
            }
            None if self.json => print_json(&line),
            None => print(&line),
        });
        self.failed = done.err();
    }

    fn line(&self, session: &Session, one: &Match, file: Option<&MatchedObject>) -> String {
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
        let file =
            file.map(|file| format!("  in {} {}", file.mime.untrusted(), file.name.untrusted())).unwrap_or_default();
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
