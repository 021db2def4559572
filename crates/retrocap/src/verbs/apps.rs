//! `--app`: selects by the application protocol of sessions, known by content, and by what was said in it.
//!
//! The recorder keeps packets. What they say is read here, from the packets of the selection: once to learn which
//! packets or sessions are meant, and once more to pass those on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::client::RefusedRequest;
use crate::terminal::human;
use crate::terminal::printable::note;
use crate::verbs::analysis::{InputEvent, SessionInput};
use crate::verbs::chosen::ChosenPackets;
use base::interface::Interfaces;
use protocols::table::TABLE;
use protocols::{Event, ProtocolSink, Protocols};
use query::flows::{Flow, FlowApp, FlowEndpoint};
use streams::{Session, Sink, Streams};

/// Sessions that are remembered at most.
const SESSIONS_MAX: usize = 1 << 20;

/// What `--app` asks for: a protocol and perhaps a word, or any protocol.
#[derive(Clone, Debug)]
pub(crate) struct AppFilter {
    name: String,
    word: Option<String>,
}

/// Parses `modbus`, `modbus:write` or `any`.
pub(crate) fn app(text: &str) -> Result<AppFilter, String> {
    let (name, word) = text.split_once(':').map_or((text, None), |(name, word)| (name, Some(word.to_owned())));
    if name != "any" && !TABLE.iter().any(|row| row.name == name) {
        let names = TABLE.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
        return Err(format!("no protocol is called {name:?}: any, or one of {names}"));
    }
    if word.as_ref().is_some_and(String::is_empty) {
        return Err(format!("which word of {name}? try {name}:read, or {name} alone"));
    }
    Ok(AppFilter { name: name.to_owned(), word })
}

impl std::fmt::Display for AppFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.word {
            Some(word) => write!(f, "{}:{word}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl AppFilter {
    fn wants_app(&self, app: &str) -> bool {
        self.name == "any" || self.name == app
    }

    /// Whether a session of a listing is asked for.
    pub(crate) fn wants(&self, app: Option<&FlowApp>) -> bool {
        let Some(app) = app else { return self.name == "any" && self.word.is_none() };
        let said = |word: &String| app.words.iter().any(|there| there == word.as_str());
        self.wants_app(app.name.untrusted()) && self.word.as_ref().is_none_or(said)
    }

    /// Reads the packets of a selection, and finds those that are asked for: of a protocol, the whole sessions; of a
    /// word, the packets that carry it, or with `whole_sessions` their sessions.
    pub(super) fn find(
        &self,
        question: &SessionInput<'_>,
        interfaces: &Arc<Interfaces>,
        whole_sessions: bool,
    ) -> anyhow::Result<ChosenPackets> {
        let whole_sessions = whole_sessions || self.word.is_none();
        let search = AppSearch { filter: self, whole_sessions, open: HashMap::new(), chosen: ChosenPackets::default() };
        let mut reader = SessionEnds(Protocols::new(search));
        read(question, interfaces, &mut reader)?;
        let chosen = reader.0.sink.chosen;
        if chosen.left_out() > 0 {
            note(&format!(
                "retrocap: {} further packets or sessions match and are left out: narrow the question down",
                human::count(chosen.left_out())
            ));
        }
        Ok(chosen)
    }
}

fn read(question: &SessionInput<'_>, interfaces: &Arc<Interfaces>, sink: &mut dyn Sink) -> anyhow::Result<()> {
    let mut streams = Streams::default();
    question.read(interfaces, &mut |moment| {
        if let InputEvent::Packet(packet, sequence) = moment {
            streams.packet(packet, sequence, sink);
        }
        ControlFlow::Continue(())
    })?;
    streams.finish(sink);
    Ok(())
}

/// Takes what is known of a session when it ends.
trait EndOfSession {
    fn end(&mut self, session: &Session);
}

/// Passes sessions to the parsers, and says when each ends.
struct SessionEnds<F: ProtocolSink>(Protocols<F>);

impl<F: ProtocolSink + EndOfSession> Sink for SessionEnds<F> {
    fn event(&mut self, session: &Session, event: streams::Event<'_>) {
        self.0.event(session, event);
        if event == streams::Event::End {
            self.0.sink.end(session);
        }
    }
}

/// Finds packets or sessions of an application.
struct AppSearch<'a> {
    filter: &'a AppFilter,
    whole_sessions: bool,
    /// Sessions that have not ended, and whether they match.
    open: HashMap<u64, bool>,
    chosen: ChosenPackets,
}

impl ProtocolSink for AppSearch<'_> {
    fn app(&mut self, session: &Session, app: &'static str) {
        if self.filter.wants_app(app) && self.filter.word.is_none() {
            self.open.insert(session.number, true);
        }
    }

    fn event(&mut self, session: &Session, event: &Event) {
        let Some(word) = &self.filter.word else { return };
        if !self.filter.wants_app(event.app) || !event.words.contains(&word.as_str()) {
            return;
        }
        if self.whole_sessions {
            self.open.insert(session.number, true);
        } else {
            event.packets.iter().for_each(|packet| self.chosen.add_packet(session.key, packet.time));
        }
    }
}

impl EndOfSession for AppSearch<'_> {
    fn end(&mut self, session: &Session) {
        if self.open.remove(&session.number).unwrap_or(false) {
            self.chosen.add_session(session);
        }
    }
}

/// What is known of a session.
#[derive(Debug, Default)]
struct SeenApp {
    app: &'static str,
    words: BTreeSet<&'static str>,
    first: u64,
    last: u64,
}

/// The applications of sessions, by their endpoints.
#[derive(Debug, Default)]
pub(crate) struct Apps {
    open: HashMap<u64, SeenApp>,
    by_ends: HashMap<[String; 2], Vec<SeenApp>>,
    count: usize,
    /// Sessions of a listing whose application is not known, because their packets are gone.
    unknown: u64,
}

impl ProtocolSink for Apps {
    fn app(&mut self, session: &Session, app: &'static str) {
        self.open.entry(session.number).or_default().app = app;
    }

    fn event(&mut self, session: &Session, event: &Event) {
        if let Some(seen) = self.open.get_mut(&session.number) {
            seen.words.extend(event.words.iter());
        }
    }
}

impl EndOfSession for Apps {
    fn end(&mut self, session: &Session) {
        let Some(mut seen) = self.open.remove(&session.number).filter(|_| self.count < SESSIONS_MAX) else { return };
        (seen.first, seen.last) = (session.first.0, session.last.0);
        let mut ends = [session.originator().to_string(), session.responder().to_string()];
        ends.sort();
        self.count += 1;
        self.by_ends.entry(ends).or_default().push(seen);
    }
}

/// An endpoint as a session of packets names it.
fn name(end: &FlowEndpoint) -> String {
    match (&end.ip, &end.mac) {
        (Some(ip), _) if ip.untrusted().contains(':') => format!("[{}]:{}", ip.untrusted(), end.port),
        (Some(ip), _) => format!("{}:{}", ip.untrusted(), end.port),
        (None, Some(mac)) => mac.untrusted().to_owned(),
        (None, None) => "?".to_owned(),
    }
}

impl Apps {
    /// Reads the packets of a selection. SearchScope none is left, no application is known.
    pub(super) fn read(question: &SessionInput<'_>) -> anyhow::Result<Self> {
        let mut reader = SessionEnds(Protocols::new(Self::default()));
        match read(question, &Arc::default(), &mut reader) {
            Err(error) if error.downcast_ref::<RefusedRequest>().is_some_and(RefusedRequest::is_nothing_found) => {}
            read => read?,
        }
        Ok(reader.0.sink)
    }

    /// The application of a session of a listing.
    pub(crate) fn of(&mut self, flow: &Flow) -> Option<FlowApp> {
        let app = self.find(flow);
        // A session whose first packets are gone may have been of any protocol.
        self.unknown += u64::from(app.is_none() && flow.is_cut());
        app
    }

    fn find(&self, flow: &Flow) -> Option<FlowApp> {
        let mut ends = [name(&flow.originator), name(&flow.responder)];
        ends.sort();
        let (first, last) = (human::printed_time(&flow.first)?.0, human::printed_time(&flow.last)?.0);
        let of_ends = self.by_ends.get(&ends)?.iter().filter(|seen| seen.first <= last && seen.last >= first);
        let (mut name, mut words) = ("", BTreeSet::new());
        for seen in of_ends {
            name = seen.app;
            words.extend(seen.words.iter().copied());
        }
        (!name.is_empty()).then(|| FlowApp { name: name.into(), words: words.into_iter().map(Into::into).collect() })
    }

    /// How many sessions could not be read; `None` if all could.
    pub(crate) fn unknown(&self) -> Option<String> {
        let sessions = human::counted(self.unknown, "session");
        (self.unknown > 0).then(|| format!("the application of {sessions} is not known, because packets are gone"))
    }
}

/// Sums by application.
#[derive(Debug, Default)]
pub(crate) struct AppSums(BTreeMap<String, Sum>);

#[derive(Debug, Default)]
struct Sum {
    sessions: u64,
    packets: u64,
    bytes: u64,
    words: BTreeSet<String>,
}

impl AppSums {
    pub(crate) fn add(&mut self, flow: &Flow, app: Option<&FlowApp>) {
        let name = app.map(|app| app.name.untrusted().to_owned()).unwrap_or_default();
        let sum = self.0.entry(name).or_default();
        sum.sessions += 1;
        sum.packets += flow.packets.sum();
        sum.bytes += flow.bytes.sum();
        sum.words.extend(app.iter().flat_map(|app| app.words.iter().map(|word| word.untrusted().to_owned())));
    }

    /// The sums as lines, the most bytes first; `limit` of them at most.
    pub(crate) fn lines(&self, json: bool, limit: usize) -> Vec<String> {
        let mut rows: Vec<_> = self.0.iter().collect();
        rows.sort_by_key(|(name, sum)| (std::cmp::Reverse(sum.bytes), (*name).clone()));
        let line = |(name, sum): (&String, &Sum)| {
            if json {
                let row = serde_json::json!({
                    "app": (!name.is_empty()).then_some(name), "sessions": sum.sessions, "packets": sum.packets,
                    "bytes": sum.bytes, "words": sum.words,
                });
                return format!("{row}\n");
            }
            let shown = if name.is_empty() { "unknown" } else { name };
            let words = sum.words.iter().cloned().collect::<Vec<_>>().join(" ");
            let (sessions, size) = (human::counted(sum.sessions, "session"), human::size(sum.bytes));
            format!("{}\n", format!("{shown:<14} {sessions:>16} {size:>10}  {words}").trim_end())
        };
        rows.into_iter().take(limit).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_that_does_not_exist_is_refused_with_those_that_do() {
        assert!(app("modbus:write").is_ok() && app("tls").is_ok() && app("any").is_ok());
        assert!(app("modbuss").unwrap_err().contains("modbus"));
        assert!(app("modbus:").unwrap_err().contains("which word"));
    }
}
