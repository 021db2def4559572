//! Finds the sessions that selectors, or the packets of a request, select.

use std::collections::{HashMap, HashSet};

use super::index::Index;
use super::target::Selector;
use super::{Search, SearchLimits, SessionTotals};
use crate::history::History;
use crate::merge::Packets;
use crate::request::{QueryError, Request};
use base::time::Timestamp;
use engine::session::SessionKey;

impl History {
    /// Looks up the sessions that the selectors match. With `whole`, the search returns all packets of a session that
    /// overlaps a selector's window. Otherwise it returns the packets within the window.
    pub fn search(&self, selectors: &[Selector], seed: u16, whole: bool, limits: SearchLimits) -> Search {
        let mut search = Search {
            index: Index::new(selectors, seed),
            whole_sessions: whole.then(HashMap::new),
            known: vec![SessionTotals::default(); selectors.len()],
            window: (Timestamp::MAX, Timestamp::MIN),
            ..Search::default()
        };
        for selector in selectors {
            search.reach(selector.since, selector.until);
        }
        let (since, until) = search.window;
        let mut picked = 0;
        let mut hits = Vec::new();
        for (worker, reader) in self.workers.iter().enumerate() {
            for session in reader.sessions.overlapping(since, until).filter(|session| session.packets.sum() > 0) {
                hits.clear();
                search.index.matching(&session.key, session.first, session.last, &mut hits);
                for &selection in &hits {
                    if let Some(known) = search.known.get_mut(selection as usize) {
                        known.add(&session);
                    }
                }
                if whole && !hits.is_empty() {
                    let room = limits.sessions_max.saturating_sub(picked).min(hits.len());
                    for &selection in &hits[room..] {
                        search.known[selection as usize].left_out += 1;
                    }
                    picked += room;
                    search.want_whole(worker, &session, &hits[..room]);
                }
            }
        }
        search
    }

    /// Looks up the sessions with these identities that overlap the window of `request`. The search returns all their packets.
    ///
    /// # Errors
    ///
    /// If the window of `request` is invalid.
    pub fn search_ids(
        &self,
        ids: &HashSet<u64>,
        request: &Request,
        limits: SearchLimits,
    ) -> Result<Search, QueryError> {
        let (since, until) = request.window()?;
        let mut search = Search {
            whole_sessions: Some(HashMap::new()),
            known: vec![SessionTotals::default()],
            window: (Timestamp::MAX, Timestamp::MIN),
            ..Search::default()
        };
        let mut held = 0;
        for (number, (worker, reader)) in (0u16..).zip(self.workers.iter().enumerate()) {
            let sessions = reader.sessions.overlapping(since, until).filter(|session| session.kept_packets > 0);
            for session in sessions.filter(|session| ids.contains(&self.identity(number, session))) {
                search.known[0].add(&session);
                match held < limits.sessions_max {
                    true => search.want_whole(worker, &session, &[0]),
                    false => search.known[0].left_out += 1,
                }
                held += 1;
            }
        }
        Ok(search)
    }

    /// Looks up the sessions of the packets that match `request`. The search returns these sessions whole, regardless
    /// of the window. `prepare` adapts the first pass, for example to make it interruptible.
    ///
    /// # Errors
    ///
    /// The same as for the packets of `request`.
    pub fn widen<'h>(
        &'h self,
        request: &Request,
        limits: SearchLimits,
        prepare: impl FnOnce(Packets<'h>) -> Packets<'h>,
    ) -> Result<Search, QueryError> {
        let mut search = Search {
            whole_sessions: Some(HashMap::new()),
            known: vec![SessionTotals::default()],
            window: (Timestamp::MAX, Timestamp::MIN),
            ..Search::default()
        };
        let mut left_out: HashSet<(usize, u32)> = HashSet::new();
        // Packets on disk belong to no session in memory.
        let mut packets = prepare(Packets::new(self, &Request { limit: None, ..request.clone() })?);
        let mut held = 0;
        while let Some(found) = packets.next() {
            let (worker, header) = (found.worker, found.header);
            if search.by_record(worker, &self.workers[worker].sessions, &header) == Some(true) {
                continue;
            }
            search.reach(header.time, header.time);
            let room = held < limits.sessions_max;
            match self.workers[worker].sessions.session_at(header.session, header.sequence) {
                Some(session) if room => {
                    search.known[0].add(&session);
                    search.want_whole(worker, &session, &[0]);
                    held += 1;
                }
                None if room => {
                    let decoded = decode::decode(found.packet.link_type, found.packet.data);
                    held += usize::from(search.keys.insert(SessionKey::new(&decoded, header.interface).0));
                }
                // Counts each session once, as long as there is room to remember it.
                _ if left_out.len() < limits.sessions_max / 4 => {
                    search.known[0].left_out += u64::from(left_out.insert((worker, header.session.0)));
                }
                _ => {}
            }
        }
        search.notes = packets.notes().clone();
        Ok(search)
    }
}
