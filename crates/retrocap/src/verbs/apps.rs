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
use base::interface::Interfaces;
use engine::session::key::Side;
use protocols::{AppFilter, AppSearch, SessionApps};
use query::flows::{Flow, FlowApp, FlowEndpoint};
use streams::{ChosenPackets, Sink, Streams};

/// Sessions that are remembered at most.
const SESSIONS_MAX: usize = 1 << 20;

/// Whether a session of a listing is asked for.
pub(super) fn wants(filter: &AppFilter, app: Option<&FlowApp>) -> bool {
    let said = |word: &str| app.is_some_and(|app| app.words.iter().any(|there| there == word));
    filter.wants_session(app.map(|app| app.name.untrusted()), said)
}

/// Reads the packets of a selection, and finds those that are asked for: of a protocol, the whole sessions; of a word, the
/// packets that carry it, or with `whole_sessions` their sessions.
pub(super) fn find(
    filter: &AppFilter,
    question: &SessionInput<'_>,
    interfaces: &Arc<Interfaces>,
    whole_sessions: bool,
) -> anyhow::Result<ChosenPackets> {
    let mut search = AppSearch::new(filter, whole_sessions, ChosenPackets::default());
    read(question, interfaces, &mut search)?;
    let chosen = search.0.sink.chosen;
    if chosen.left_out() > 0 {
        note(&format!(
            "retrocap: {} further packets or sessions match and are left out: narrow the question down",
            human::count(chosen.left_out())
        ));
    }
    Ok(chosen)
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

/// The applications of sessions, by their endpoints as a listing names them.
#[derive(Debug)]
pub(crate) struct Apps {
    sessions: SessionApps,
    /// Indices into the sessions.
    by_ends: HashMap<[String; 2], Vec<usize>>,
    /// Sessions of a listing whose application is not known, because their packets are gone.
    unknown: u64,
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
    /// Reads the packets of a selection. If none is left, no application is known.
    pub(super) fn read(question: &SessionInput<'_>) -> anyhow::Result<Self> {
        let mut reader = SessionApps::new(SESSIONS_MAX);
        match read(question, &Arc::default(), &mut reader) {
            Err(error) if error.downcast_ref::<RefusedRequest>().is_some_and(RefusedRequest::is_nothing_found) => {}
            read => read?,
        }
        let sessions = reader.0.sink;
        let mut by_ends: HashMap<[String; 2], Vec<usize>> = HashMap::new();
        for (at, session) in sessions.sessions().iter().enumerate() {
            let mut ends = [Side::Low, Side::High].map(|side| session.key.endpoint(side).to_string());
            ends.sort();
            by_ends.entry(ends).or_default().push(at);
        }
        Ok(Self { sessions, by_ends, unknown: 0 })
    }

    /// The application of a session of a listing.
    pub(crate) fn of(&mut self, flow: &Flow) -> Option<FlowApp> {
        let app = self.find(flow).or_else(|| flow.app.clone());
        // A session whose first packets are gone may have been of any protocol.
        self.unknown += u64::from(app.is_none() && flow.is_cut());
        app
    }

    fn find(&self, flow: &Flow) -> Option<FlowApp> {
        let mut ends = [name(&flow.originator), name(&flow.responder)];
        ends.sort();
        let (first, last) = (human::printed_time(&flow.first)?.0, human::printed_time(&flow.last)?.0);
        let (mut name, mut words) = ("", BTreeSet::new());
        for &at in self.by_ends.get(&ends)? {
            let seen = &self.sessions.sessions()[at];
            if seen.first.0 <= last && seen.last.0 >= first {
                name = seen.app;
                words.extend(self.sessions.words(seen));
            }
        }
        (!name.is_empty()).then(|| FlowApp { name: name.into(), words: words.into_iter().map(Into::into).collect() })
    }

    /// How many sessions could not be read; `None` if all could.
    pub(crate) fn unknown(&self) -> Option<String> {
        let sessions = human::counted(self.unknown, "session");
        let gone =
            (self.unknown > 0).then(|| format!("the application of {sessions} is not known, because packets are gone"));
        let further = human::counted(self.sessions.left_out(), "further session");
        let left_out =
            (self.sessions.left_out() > 0).then(|| format!("{further} would not fit: narrow the question down"));
        let parts: Vec<String> = gone.into_iter().chain(left_out).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
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
