//! The audit log: who has read which packets, from where, and when. One JSON object a line.
//!
//! A read has two lines with one `id`: `begin`, before the first byte is looked for, and `end`, which repeats `begin` and
//! says what was given and how it ended. Refusals have files of their own, `audit.log.refusals`: a few lines for each
//! client and minute, and `refused-more` with the count of the others. What always holds: with [`Policy::Required`]
//! nothing is read whose `begin` was not written; no refusal displaces the record of a read; when rotation removes a
//! file, the line `removed` says what was in it; the files are for their owner alone and only ever appended to; what
//! could not be written is counted; no line contains a character that deceives its reader; and each line is linked to the one
//! before it, so that `retrocap evidence audit` finds a line that is missing or was changed.

mod error;
mod file;
mod refusals;
mod removed;
mod signing;
mod user_names;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::attestation::Attestation;
use super::clock::now;
use super::peer::Peer;
use api::{Problem, Role};
use base::foreign::json_document;
use base::log_limit::LogLimit;
pub use error::AuditError;
use evidence::record::SealedMinute;
use evidence::record_events::RecordEvent;
use file::{File, RECORD, REFUSALS};
use refusals::Refusals;
use signing::Signing;
use user_names::UserNames;
use writer::{Text, Writer};

/// Bytes after which a new file is begun, by default.
pub const SIZE_DEFAULT: u64 = 10 << 20;
/// Old files that are kept, by default.
pub const KEEP_DEFAULT: u32 = 9;

/// What happens to reads when the log cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Reads are refused.
    Required,
    /// Reads are served, and the failure is counted and logged.
    BestEffort,
    /// There is no log.
    #[default]
    Off,
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "required" => Ok(Self::Required),
            "best-effort" => Ok(Self::BestEffort),
            "off" => Ok(Self::Off),
            _ => Err(format!("there is no audit policy {text:?}: try required, best-effort or off")),
        }
    }
}

/// Where the log is, and how large it becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What happens when it cannot be written.
    pub policy: Policy,
    /// The file; older files have a number behind this name.
    pub path: PathBuf,
    /// Bytes after which a new file is begun.
    pub size_max: u64,
    /// Old files that are kept, at least one.
    pub keep: u32,
    /// Whether sealed minutes of the record are written, to files of their own.
    pub record: bool,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To read packets.
    Packets,
    /// To list sessions.
    Flows,
    /// To search what sessions carried.
    Hunt,
    /// To list objects, or to get one.
    Files,
    /// To make or remove a pin.
    Pin,
}

impl Action {
    /// The action that a role permits, if such actions are written down.
    pub(crate) fn of_role(role: Role) -> Option<Self> {
        match role {
            Role::Packets => Some(Self::Packets),
            Role::Flows => Some(Self::Flows),
            Role::Pin => Some(Self::Pin),
            Role::Status => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Flows => "flows",
            Self::Hunt => "hunt",
            Self::Files => "files",
            Self::Pin => "pin",
        }
    }
}

/// The log, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Audit(Option<Arc<AuditLog>>);

#[derive(Debug)]
struct AuditLog {
    config: Config,
    writer: Writer,
    refused_writer: Writer,
    /// For sealed minutes, if the record is sealed.
    record_writer: Option<Writer>,
    refusals: Mutex<Refusals>,
    user_names: UserNames,
    /// The part of ids that differs between runs.
    run: String,
    entries: AtomicU64,
    lines: AtomicU64,
    /// Lines of the record, which make the head due for a signature too.
    record_lines: AtomicU64,
    failures: AtomicU64,
    /// Why the last line could not be written, if it could not.
    failing: Mutex<Option<String>>,
    signing: Mutex<Signing>,
}

impl Audit {
    /// Opens the log for `owner`, the user and group that the process will become. Call it before privileges are dropped.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, and the policy requires it.
    pub fn open(config: Config, owner: Option<(u32, u32)>) -> Result<Self, AuditError> {
        if config.policy == Policy::Off {
            return Ok(Self(None));
        }
        let path = std::path::absolute(&config.path).unwrap_or_else(|_| config.path.clone());
        let config = Config { path, keep: config.keep.max(1), ..config };
        let mut file = File::new(config.path.clone(), config.size_max, config.keep);
        let mut refused_path = config.path.clone().into_os_string();
        refused_path.push(REFUSALS);
        let mut refused = File::new(refused_path.into(), config.size_max, 1);
        let mut record_path = config.path.clone().into_os_string();
        record_path.push(RECORD);
        let mut record = config.record.then(|| File::new(record_path.into(), config.size_max, config.keep));
        let opened = file.open_for(owner).and_then(|()| refused.open_for(owner));
        let opened = opened.and_then(|()| record.as_mut().map_or(Ok(()), |record| record.open_for(owner)));
        let failing = match opened {
            Err(error) if config.policy == Policy::Required => return Err(error),
            Err(error) => {
                tracing::error!("{error}; reads of packets are not written down");
                Some(error.source.to_string())
            }
            Ok(()) => None,
        };
        Ok(Self(Some(Arc::new(AuditLog {
            config,
            writer: Writer::new(file),
            refused_writer: Writer::new(refused),
            record_writer: record.map(Writer::new),
            refusals: Mutex::default(),
            user_names: UserNames::read(),
            run: format!("{:x}", now().unix_seconds() * 1000 + u64::from(now().subsec_nanos() / 1_000_000)),
            entries: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            record_lines: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            failing: Mutex::new(failing),
            signing: Mutex::default(),
        }))))
    }

    /// Appends on a thread of its own from now on, which calls `begin` first: threads of queries may make no files.
    ///
    /// # Errors
    ///
    /// When the system cannot make a thread.
    pub fn start(&self, begin: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let Some(log) = &self.0 else { return Ok(()) };
        let writers: Vec<_> = log.writers().collect();
        Writer::share_thread(&writers, begin)
    }

    /// What the sandbox has to permit: files that are read, and the directory that is written.
    pub fn needs(&self) -> (&'static [&'static str], Option<&Path>) {
        let Some(log) = &self.0 else { return (&[], None) };
        (user_names::FILES, log.config.path.parent())
    }

    /// Writes down that a client begins to read or to pin. It may wait for a disk: call it where that is allowed.
    ///
    /// # Errors
    ///
    /// A problem to answer with when this could not be written; nothing may be read then.
    pub fn begin(&self, peer: &Peer, action: Action, query: Value) -> Result<AuditEntry, Problem> {
        let Some(log) = &self.0 else { return Ok(AuditEntry::default()) };
        let facts = log.facts(peer, action, query);
        if let Err(reason) = log.write(&log.writer, "begin", &facts, &[])
            && log.config.policy == Policy::Required
        {
            return Err(Problem::not_audited(&log.config.path, &reason));
        }
        let begun = Some((Arc::clone(log), facts, Instant::now()));
        Ok(AuditEntry { begun, action: Some(action), packets: 0, bytes: 0, sessions: 0 })
    }

    /// Writes down that a client was refused; of many refusals their count.
    pub fn refused(&self, peer: &Peer, action: Action, query: Value, why: &str) {
        let Some(log) = &self.0 else { return };
        let facts = || {
            let mut facts = log.facts(peer, action, query);
            facts.insert("outcome".to_owned(), why.into());
            facts
        };
        let mut refusals = log.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let facts = std::cell::LazyCell::new(facts);
        let admitted = refusals.admit(&peer.holder(), Instant::now(), || facts.clone());
        drop(refusals);
        if admitted {
            // What is refused anyway need not be refused for this.
            let _ = log.write(&log.refused_writer, "refused", &facts, &[]);
        }
    }

    /// Writes the counts of refusals that were not written one by one, once their minute is over or the recorder stops. It
    /// may wait for a disk.
    pub fn summarize_refusals(&self, stopping: bool) {
        let Some(log) = &self.0 else { return };
        let summaries = log.refusals.lock().unwrap_or_else(PoisonError::into_inner).summarize(Instant::now(), stopping);
        for summary in summaries {
            let who = summary.first.unwrap_or_else(|| {
                Map::from_iter([("who".to_owned(), json!({ "several": "clients that are not distinguished" }))])
            });
            let _ = log.write(&log.refused_writer, "refused-more", &who, &[("refused", json!(summary.refused))]);
        }
    }

    /// Signs the head of the log if a day has passed, or the recorder stops, and lines were added. It may wait for a disk.
    pub(crate) fn sign_head(&self, attestation: Option<&Arc<Attestation>>, stopping: bool) {
        let (Some(log), Some(attestation)) = (&self.0, attestation) else { return };
        let lines = log.lines.load(Ordering::Relaxed) + log.record_lines.load(Ordering::Relaxed);
        let due = || log.signing.lock().unwrap_or_else(PoisonError::into_inner).is_due(lines, stopping);
        if attestation.key.is_none() || !due() {
            return;
        }
        for writer in log.writers() {
            let attestation = Arc::clone(attestation);
            if let Err(error) = writer.append(Text::OfHead(Box::new(move |head| signing::signed(&attestation, head)))) {
                tracing::warn!("the head of the audit log was not signed: {error}");
            }
        }
    }

    /// Writes a minute of the record down that was sealed. It may wait for a disk.
    pub(crate) fn sealed(&self, minute: &SealedMinute) {
        self.record_line(serde_json::to_string(minute).unwrap_or_default());
    }

    /// Writes another event of the record down. It may wait for a disk.
    pub(crate) fn record_event(&self, event: &RecordEvent) {
        self.record_line(serde_json::to_string(event).unwrap_or_default());
    }

    fn record_line(&self, line: String) {
        let Some(log) = &self.0 else { return };
        let Some(writer) = &log.record_writer else { return };
        match writer.append(Text::Line(line)) {
            Ok(()) => {
                log.record_lines.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => tracing::warn!("a line of the record was not written down: {error}"),
        }
    }

    /// Whom the log names for a client, in a word or two.
    pub(crate) fn name_of(&self, peer: &Peer) -> String {
        let (Some(uid), pid) = peer.process() else { return peer.to_string() };
        let mut who = Map::new();
        if let Some(log) = &self.0 {
            log.user_names.describe(&mut who, uid, pid);
        }
        let name = |key: &str| who.get(key).and_then(Value::as_str);
        match (name("user"), name("login_user")) {
            (Some(user), Some(login)) => format!("{user}, logged in as {login}"),
            (Some(user), None) => user.to_owned(),
            (None, _) => format!("uid {uid}"),
        }
    }

    /// Why the last line could not be written, if it could not.
    pub fn failing(&self) -> Option<String> {
        let log = self.0.as_ref()?;
        let reason = log.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let then = if log.config.policy == Policy::Required { "nothing can be read" } else { "reads leave no trace" };
        Some(format!("the audit log {} cannot be written ({reason}), so {then}", log.config.path.display()))
    }

    /// Lines that were written, and lines that were not.
    pub fn counts(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.0.as_ref().map_or((0, 0), |log| (count(&log.lines), count(&log.failures)))
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(log) => write!(f, "reads are written to {}", log.config.path.display()),
            None => f.write_str("reads are not written down"),
        }
    }
}

impl AuditLog {
    fn writers(&self) -> impl Iterator<Item = &Writer> {
        [&self.writer, &self.refused_writer].into_iter().chain(self.record_writer.as_ref())
    }

    fn facts(&self, peer: &Peer, action: Action, query: Value) -> Map<String, Value> {
        let mut who = peer.audit_fields();
        if let (Some(who), (Some(uid), pid)) = (who.as_object_mut(), peer.process()) {
            self.user_names.describe(who, uid, pid);
        }
        let number = self.entries.fetch_add(1, Ordering::Relaxed);
        let mut facts = Map::new();
        facts.insert("id".to_owned(), format!("{}-{number}", self.run).into());
        facts.insert("action".to_owned(), action.name().into());
        facts.insert("who".to_owned(), who);
        facts.insert("from".to_owned(), peer.origin().into());
        facts.insert("query".to_owned(), query);
        facts
    }

    fn write(
        &self,
        writer: &Writer,
        event: &str,
        facts: &Map<String, Value>,
        more: &[(&str, Value)],
    ) -> Result<(), String> {
        let mut line = Map::new();
        line.insert("time".to_owned(), now().to_rfc3339().into());
        line.insert("event".to_owned(), event.into());
        line.extend(facts.iter().map(|(key, value)| (key.clone(), value.clone())));
        line.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let text = json_document(&Value::Object(line).to_string()).into_owned();
        let written = writer.append(Text::Line(text));
        let outcome = written.map_err(|error| error.to_string());
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = outcome.clone().err();
        match &outcome {
            Ok(()) => self.lines.fetch_add(1, Ordering::Relaxed),
            Err(reason) => {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.admit() {
                    tracing::warn!(
                        "the audit log {} cannot be written: {reason}{left_out}",
                        self.config.path.display()
                    );
                }
                self.failures.fetch_add(1, Ordering::Relaxed)
            }
        };
        outcome
    }
}

/// A read or pin that was begun. Its end is written when it [ends](Self::end), and also when it is dropped.
#[derive(Debug, Default)]
pub struct AuditEntry {
    begun: Option<(Arc<AuditLog>, Map<String, Value>, Instant)>,
    action: Option<Action>,
    packets: u64,
    bytes: u64,
    sessions: u64,
}

impl AuditEntry {
    /// A member of the entry, such as its `id`; `None` where there is no log.
    pub(crate) fn fact(&self, name: &str) -> Option<&Value> {
        self.begun.as_ref()?.1.get(name)
    }

    /// Counts a packet of so many bytes that is given.
    pub fn packet(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    /// Counts sessions, or sums of sessions, that are listed.
    pub fn sessions(&mut self, count: usize) {
        self.sessions += count as u64;
    }

    /// Writes the end with its outcome: `complete`, or why not.
    pub fn end(mut self, outcome: &str) {
        self.finish(outcome);
    }

    fn finish(&mut self, outcome: &str) {
        let Some((log, facts, started)) = self.begun.take() else { return };
        let mut more = match self.action {
            Some(Action::Packets | Action::Hunt | Action::Files) => {
                vec![("packets", json!(self.packets)), ("bytes", json!(self.bytes))]
            }
            Some(Action::Flows) => vec![("sessions", json!(self.sessions))],
            _ => Vec::new(),
        };
        let seconds = (started.elapsed().as_secs_f64() * 1e3).round() / 1e3;
        more.extend([("seconds", json!(seconds)), ("outcome", outcome.into())]);
        // A failure is counted and logged, and `begin` was written before.
        let _ = log.write(&log.writer, "end", &facts, &more);
    }
}

impl Drop for AuditEntry {
    fn drop(&mut self) {
        self.finish("broken off by the client");
    }
}

#[cfg(test)]
mod tests;
