//! `app=` of packets and sessions: reads what packets say, to choose among them.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::{WAITING_BYTES, new_streams};
use crate::quota::Share;
use crate::service::Service;
use api::{Problem, describe};
use engine::session::Session;
use protocols::{AppFilter, AppSearch, ProtocolSink, SessionApps, SessionEnds};
use query::explain::Cause;
use query::flows::FlowApp;
use query::search::SearchLimits;
use query::{Packets, Request, counted};
use streams::ChosenPackets;

use super::super::stream::Sink;

/// Bytes for the packets that were chosen, beside the streams that are read.
const CHOSEN_BYTES: usize = 24 << 20;
/// Sessions whose application is noted: some 20 MB while the list grows.
const APPS_MAX: usize = 131_072;

/// A question for an application. Nobody else reads contents meanwhile.
#[derive(Debug)]
pub(crate) struct AppQuestion {
    pub(crate) filter: AppFilter,
    /// If set, all packets of the sessions of the selection are read, as many sessions as fit.
    pub(crate) whole_sessions: Option<SearchLimits>,
    /// If set, the sessions with these identities are read, and no others.
    pub(crate) ids: Option<Arc<HashSet<u64>>>,
    /// Kept until the answer has ended.
    pub(crate) _places: Vec<Share>,
}

impl AppQuestion {
    /// The packets of the selection, from the first one on, and what finds no room among them.
    fn packets<'s>(
        &self,
        service: &'s Service,
        sink: &Sink,
        request: &Request,
    ) -> Result<(Packets<'s>, Option<String>), Problem> {
        let history = service.history();
        let interruptible = |packets: Packets<'s>| {
            packets.interrupted_by(Arc::clone(&sink.gone)).interrupted_by(Arc::clone(&service.stopping))
        };
        let Some(limits) = self.whole_sessions else { return Ok((interruptible(history.packets(request)?), None)) };
        let search = match &self.ids {
            Some(ids) => history.search_ids(ids, request, limits)?,
            None => history.widen(request, limits, interruptible)?,
        };
        let left_out: u64 = search.known.iter().map(|known| known.left_out).sum();
        let lacks = (left_out > 0).then(|| counted(left_out, "session was not read", "sessions were not read"));
        let Request { limit, dedup, tier, .. } = *request;
        let rest = Request { limit, dedup, tier, ..Request::default() };
        Ok((interruptible(history.searched(&rest, search)?), lacks))
    }

    /// Reads the packets of the selection. Returns how many there were, and why some may be missing in the result.
    fn read<F: ProtocolSink>(
        &self,
        service: &Service,
        sink: &Sink,
        request: &Request,
        into: &mut SessionEnds<F>,
    ) -> Result<(u64, Vec<String>), Problem>
    where
        SessionEnds<F>: streams::Sink,
    {
        let request = Request { limit: None, dedup: false, ..request.clone() };
        let (mut packets, lacks) = self.packets(service, sink, &request)?;
        let (mut streams, mut sequence) = (new_streams(), 0);
        while let Some(found) = packets.next() {
            sequence += 1;
            streams.packet(&found.packet, sequence, into);
        }
        let summary = packets.summary();
        if summary.interrupted {
            return Err(Problem::stopping());
        }
        streams.finish(into);
        let early = streams.counts().ended_early;
        let in_part = counted(early, "session was read in part", "sessions were read in part");
        let in_part = (early > 0).then(|| format!("{in_part}, because too many were open at a time"));
        let overtaken = counted(summary.overtaken, "packet was evicted", "packets were evicted");
        let overtaken = (summary.overtaken > 0).then(|| format!("{overtaken} before it was read"));
        Ok((sequence, [lacks, in_part, overtaken].into_iter().flatten().collect()))
    }

    /// The packets of the selection that the filter asks for, and what is not among them; an empty text if nothing.
    pub(crate) fn chosen<'s>(
        &self,
        service: &'s Service,
        sink: &Sink,
        request: &Request,
    ) -> Result<(Packets<'s>, String), Problem> {
        let chosen = ChosenPackets::with_bytes_max(CHOSEN_BYTES);
        let mut search = AppSearch::new(&self.filter, self.whole_sessions.is_some(), chosen);
        search.0 = search.0.with_waiting_bytes_max(WAITING_BYTES);
        let (read, mut lacks) = self.read(service, sink, request, &mut search)?;
        let mut chosen = search.0.sink.chosen;
        if read == 0 {
            return Err(service
                .history()
                .explain_nothing(request, None)
                .map_or_else(Into::into, |cause| Problem::nothing_matched(&cause)));
        }
        if chosen.left_out() > 0 {
            lacks.push(counted(
                chosen.left_out(),
                "further packet or session matches",
                "further packets or sessions match",
            ));
        }
        let lacks = incomplete(&lacks);
        if chosen.is_empty() {
            let sentence = format!(
                "none of {} carries {}; of encrypted sessions, only the start is read{}{lacks}",
                counted(read, "packet that matches", "packets that match"),
                self.filter,
                if lacks.is_empty() { "" } else { "; " }
            );
            return Err(Problem::nothing_matched(&Cause::new("never_seen", sentence)));
        }
        let (packets, _) = self.packets(service, sink, request)?;
        Ok((packets.picked_by(move |packet| chosen.has(packet)), lacks))
    }

    /// The applications of the sessions of the selection.
    pub(crate) fn apps(&self, service: &Service, sink: &Sink, request: &Request) -> Result<AppsOfSessions, Problem> {
        let mut reader = SessionApps::new(APPS_MAX);
        reader.0 = reader.0.with_waiting_bytes_max(WAITING_BYTES);
        let (_, lacks) = self.read(service, sink, request, &mut reader)?;
        let mut apps = reader.0.sink;
        apps.sort();
        Ok(AppsOfSessions { apps, filter: self.filter.clone(), lacks, unknown: 0 })
    }

    /// The question in words.
    pub(crate) fn sentence(&self, request: &Request) -> String {
        let of = if self.whole_sessions.is_some() { "the whole sessions of " } else { "" };
        format!("{of}{} that carries {}", describe::sentence(request), self.filter)
    }
}

fn incomplete(lacks: &[String]) -> String {
    match lacks {
        [] => String::new(),
        lacks => format!("incomplete: {}; narrow it down with since, until or an expression", lacks.join(", ")),
    }
}

/// What sessions of a listing carry.
#[derive(Debug)]
pub(crate) struct AppsOfSessions {
    apps: SessionApps,
    filter: AppFilter,
    lacks: Vec<String>,
    unknown: u64,
}

impl AppsOfSessions {
    /// Whether the filter asks for a session; sets `app` to what is known of it. It comes with what the log of sessions
    /// knows.
    pub(crate) fn wants(&mut self, session: &Session, app: &mut Option<FlowApp>) -> bool {
        let (mut name, mut words) = ("", BTreeSet::new());
        for seen in self.apps.find(session.key, session.first, session.last) {
            name = seen.app;
            words.extend(self.apps.words(seen));
        }
        if !name.is_empty() {
            *app = Some(FlowApp { name: name.into(), words: words.into_iter().map(Into::into).collect() });
        }
        // A session whose first packets are gone may have been of any protocol.
        self.unknown += u64::from(app.is_none() && session.kept_packets < session.packets.sum());
        let said = |word: &str| app.as_ref().is_some_and(|app| app.words.iter().any(|there| there == word));
        self.filter.wants_session(app.as_ref().map(|app| app.name.untrusted()), said)
    }

    /// What is not known; empty if nothing.
    pub(crate) fn note(&self) -> String {
        let mut lacks = self.lacks.clone();
        if self.apps.left_out() > 0 {
            lacks.push(counted(self.apps.left_out(), "session would not fit", "sessions would not fit"));
        }
        let mut notes = vec![incomplete(&lacks)];
        if self.unknown > 0 {
            let sessions = counted(self.unknown, "session", "sessions");
            notes.push(format!("the application of {sessions} is not known, because packets are gone from memory"));
        }
        notes.retain(|note| !note.is_empty());
        notes.join("; ")
    }

    /// Why none of the sessions that were looked at is listed.
    pub(crate) fn nothing(&self, looked_at: u64) -> String {
        let sessions = counted(looked_at, "session", "sessions");
        let note = self.note();
        let separator = if note.is_empty() { "" } else { "; " };
        format!("none of {sessions} is known to carry {}{separator}{note}", self.filter)
    }
}
