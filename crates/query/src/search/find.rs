//! Finds the sessions that selectors, or the packets of a request, select.

use std::collections::{HashMap, HashSet};

use super::index::Index;
use super::on_disk::{DiskSearch, DiskSessions, Noted, conditions_of, each_packet};
use super::target::Selector;
use super::{Search, SearchLimits, SessionTotals};
use crate::history::History;
use crate::merge::{FROM_DISK, Packets};
use crate::request::{QueryError, Request, Tier};
use base::packet::InterfaceId;
use base::time::Timestamp;
use engine::session::{SessionKey, SessionSlot};
use spool::read::Selection;

/// A session on disk takes as much memory as so many in memory.
const DISK_SESSIONS_DIVISOR: usize = 2;

impl History {
    /// Looks up the sessions that the selectors match. With `whole`, the search returns all packets of a session that
    /// overlaps a selector's window. Otherwise it returns the packets within the window. `stop` ends the search early.
    pub fn search(
        &self,
        selectors: &[Selector],
        seed: u16,
        whole: bool,
        limits: SearchLimits,
        stop: &dyn Fn() -> bool,
    ) -> Search {
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
        self.search_disk(&mut search, (since, until), conditions_of(selectors, seed), limits, stop);
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

    /// Looks on disk for the sessions of selectors, if whole ones are wanted.
    fn search_disk(
        &self,
        search: &mut Search,
        window: (Timestamp, Timestamp),
        any: Vec<spool::index::Condition>,
        limits: SearchLimits,
        stop: &dyn Fn() -> bool,
    ) {
        let Some(disk) = self.disk_of(None) else { return };
        let mut asked = DiskSearch { window, any, ..DiskSearch::default() };
        if search.whole_sessions.is_some() {
            let mut sessions = DiskSessions::default();
            self.want_on_disk(search, &mut sessions);
            let selection = Selection {
                since: Some(window.0),
                until: Some(window.1),
                any: asked.any.clone(),
                ..Selection::default()
            };
            let mut hits = Vec::new();
            let room = limits.sessions_max / DISK_SESSIONS_DIVISOR;
            each_packet(disk, &selection, &mut asked.unread, stop, &mut |found| {
                let time = found.packet.time;
                let key = sessions.key(&found.interface.name, found.interface.link_type, found.packet.data);
                hits.clear();
                search.index.matching(&key, time, time, &mut hits);
                if hits.is_empty() {
                    return;
                }
                let noted = sessions.found(key, time, &hits, room);
                for hit in &hits {
                    let Some(known) = search.known.get_mut(*hit as usize) else { continue };
                    known.sessions += u64::from(noted == Noted::New);
                    known.left_out += u64::from(noted == Noted::LeftOut);
                }
            });
            sessions.grow(disk, &mut asked.unread, stop);
            self.want_in_memory(search, &mut sessions, None);
            asked.sessions = Some(sessions);
        }
        search.disk = Some(asked);
    }

    /// Adds the sessions of memory that a search wants whole to those on disk: memory may have lost packets of them.
    fn want_on_disk(&self, search: &Search, sessions: &mut DiskSessions) {
        for (&(worker, slot), wanted) in search.whole_sessions.iter().flatten() {
            let Some(worker) = self.workers.get(worker) else { continue };
            // A session that left its slot meanwhile is forgotten.
            if let Some(session) = worker.sessions.session(SessionSlot(slot))
                && session.first_sequence == wanted.first_sequence
            {
                let key = sessions.at(&self.interface_name(session.key.interface()), &session.key);
                sessions.known(key, session.first, session.last, &wanted.selections);
            }
        }
    }

    /// Wants the packets in memory of sessions that were found on disk.
    fn want_in_memory(&self, search: &mut Search, sessions: &mut DiskSessions, tier: Option<Tier>) {
        if tier == Some(Tier::Disk) {
            return;
        }
        let (since, until) = sessions.window();
        for (number, worker) in self.workers.iter().enumerate() {
            for session in worker.sessions.overlapping(since, until).filter(|session| session.packets.sum() > 0) {
                let is_wanted = search.whole_sessions.as_ref();
                if is_wanted.is_some_and(|wanted| wanted.contains_key(&(number, session.slot.0))) {
                    continue;
                }
                let key = sessions.at(&self.interface_name(session.key.interface()), &session.key);
                if let Some(selections) = sessions.overlapping(&key, session.first, session.last) {
                    search.want_whole(number, &session, &selections);
                    sessions.known(key, session.first, session.last, &selections);
                }
            }
        }
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
        let mut packets = prepare(self.packets(&Request { limit: None, ..request.clone() })?);
        let disk = self.disk_of(request.tier);
        let (mut sessions, room_on_disk) = (DiskSessions::default(), limits.sessions_max / DISK_SESSIONS_DIVISOR);
        let mut held = 0;
        while let Some(found) = packets.next() {
            let (worker, header) = (found.worker, found.header);
            if worker == FROM_DISK {
                let key = sessions.key(&found.interface.name, found.packet.link_type, found.packet.data);
                match sessions.found(key, header.time, &[0], room_on_disk) {
                    Noted::Known => {}
                    Noted::New => search.known[0].sessions += 1,
                    Noted::LeftOut => search.known[0].left_out += 1,
                }
                continue;
            }
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
                    if disk.is_some() {
                        let key = SessionKey::new(&decoded, InterfaceId(0)).0;
                        let key = sessions.at(&found.interface.name, &key);
                        let noted = sessions.found(key, header.time, &[0], room_on_disk);
                        search.known[0].left_out += u64::from(noted == Noted::LeftOut);
                    }
                }
                // Counts each session once, as long as there is room to remember it.
                _ if left_out.len() < limits.sessions_max / 4 => {
                    search.known[0].left_out += u64::from(left_out.insert((worker, header.session.0)));
                }
                _ => {}
            }
        }
        search.notes = packets.notes().clone();
        if let Some(disk) = disk {
            let mut asked = DiskSearch { unread: packets.disk_summary(), ..DiskSearch::default() };
            self.want_on_disk(&search, &mut sessions);
            sessions.grow(disk, &mut asked.unread, &|| packets.is_interrupted());
            self.want_in_memory(&mut search, &mut sessions, request.tier);
            asked.sessions = Some(sessions);
            search.disk = Some(asked);
        }
        Ok(search)
    }
}
