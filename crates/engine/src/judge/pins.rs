//! Pins: filters whose sessions are kept whole until a given time.
//!
//! A pin means what a search with its expression means: it protects the sessions of the packets that match, those that
//! are stored and those that follow. [`Pins::add`] makes a pin on any thread. Each worker notices the change between two
//! batches. A query finds the sessions whose stored packets match, and [`Pins::note_found`] passes them on to the
//! workers, which mark them. New sessions are tested by their first packet. If a later packet can match although that one
//! does not, because the expression tests flags, lengths, payload or a direction, or headers that the session's endpoints
//! do not tell, workers test every packet as long as the pin lasts.
//!
//! The pins of hunts name sessions that were found already, by their endpoints: such a session is meant in any VLAN and
//! tunnel.
//!
//! All pins together are limited to a part of the memory. Earlier packets take precedence: a packet that exceeds the limit
//! ages like any other packet, and is counted.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::session_filter::SessionFilter;
use crate::session::{SessionArray, SessionKey, SessionMarks, SessionSlot, SessionTable};
use base::codec::{Put, Take, damaged};
use base::packet::Packet;
use base::time::Timestamp;
use filter::{Endpoints, FilterError, Outcome};

/// The part of the budget that all pins together may take, as a divisor.
pub const SHARE: u64 = 4;
/// The part of that share that the pins of hunts may take, as a divisor: whoever sends what a hunt looks for must not fill
/// the pins.
pub const HUNT_SHARE: u64 = 4;
/// The first place of the pins of hunts.
const HUNT_PLACES_FROM: usize = SessionMarks::PINS - SessionMarks::HUNT_PINS;

/// A filter whose sessions are kept whole until a given time.
#[derive(Clone, Debug)]
pub struct Pin {
    /// Unique number, never reused.
    pub id: u64,
    /// Bit of the pin in [`SessionMarks::pins`]; below [`SessionMarks::PINS`].
    pub place: usize,
    /// Time at which it was made.
    pub since: Timestamp,
    /// Time at which it ends.
    pub until: Timestamp,
    filter: SessionFilter,
    /// Sessions whose stored packets match, once they were searched for.
    found: Option<Arc<FoundSessions>>,
    /// Whether a packet after the first of a session can be the first one that matches.
    tests_packets: bool,
    /// Whether a predecessor made the pin, and has marked its sessions.
    is_taken_over: bool,
}

/// Sessions in memory with a packet that matches, one bit per slot.
#[derive(Debug, Default)]
pub struct FoundSessions(Vec<FoundInWorker>);

/// The sessions that were found in one worker.
#[derive(Debug)]
pub struct FoundInWorker {
    /// The worker's sessions.
    pub sessions: Arc<SessionArray>,
    /// Packets that the worker had stored when the search began. A session that began later is not in the set.
    pub stored: u64,
    /// One bit per slot.
    pub slots: Vec<u64>,
}

impl From<Vec<FoundInWorker>> for FoundSessions {
    fn from(workers: Vec<FoundInWorker>) -> Self {
        Self(workers)
    }
}

impl FoundSessions {
    /// Whether the search covered a session of these sessions.
    fn covers(&self, sessions: &Arc<SessionArray>, first_sequence: u64) -> bool {
        self.0.iter().any(|found| Arc::ptr_eq(&found.sessions, sessions) && first_sequence < found.stored)
    }

    /// Whether the session in `slot` of these sessions was found.
    pub fn contains(&self, sessions: &Arc<SessionArray>, slot: SessionSlot, first_sequence: u64) -> bool {
        let mut found = self.0.iter().filter(|found| Arc::ptr_eq(&found.sessions, sessions));
        found.any(|found| found.contains(slot, first_sequence))
    }

    /// Adds the sessions of another search.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl FoundInWorker {
    fn contains(&self, slot: SessionSlot, first_sequence: u64) -> bool {
        let word = usize::try_from(slot.0 / 64).ok().and_then(|word| self.slots.get(word));
        first_sequence < self.stored && word.is_some_and(|word| word >> (slot.0 % 64) & 1 != 0)
    }
}

impl Pin {
    /// The tcpdump expression.
    pub fn expression(&self) -> &str {
        self.filter.expression()
    }

    /// Whether a hunt made the pin.
    pub fn is_of_hunt(&self) -> bool {
        self.place >= HUNT_PLACES_FROM
    }

    /// Whether the pin protects this session by its endpoints, whatever its packets.
    pub fn protects_endpoints(&mut self, session: &Endpoints) -> bool {
        self.is_of_hunt() && self.filter.matches(session)
    }

    /// Whether the query that made the pin is still searching. Sessions begin meanwhile.
    fn is_searching(&self) -> bool {
        self.found.is_none() && !self.is_taken_over && !self.is_of_hunt()
    }

    /// Whether a packet of this session can match that was not tested.
    fn may_match_later(&mut self, key: &SessionKey, session: &Endpoints) -> bool {
        !self.is_of_hunt() && (key.tunnel() != 0 || self.filter.ask(session) != Outcome::Rejects)
    }

    /// Whether the pin protects a session that was there when the pin was made.
    fn protects(&mut self, known: KnownSession<'_>) -> bool {
        let session = Endpoints::from(known.key);
        if self.is_of_hunt() {
            return self.filter.matches(&session);
        }
        match &self.found {
            // The query is still searching, or a predecessor has marked the session.
            None => false,
            Some(found) if found.covers(known.sessions, known.first_sequence) => {
                found.contains(known.sessions, known.slot, known.first_sequence)
            }
            // It began between the search and this call.
            Some(_) => known.key.tunnel() == 0 && self.filter.ask(&session) == Outcome::Matches,
        }
    }

    /// Whether a search found a stored packet of this session that matches.
    pub fn has_found(&self, sessions: &Arc<SessionArray>, slot: SessionSlot, first_sequence: u64) -> bool {
        self.found.as_ref().is_some_and(|found| found.contains(sessions, slot, first_sequence))
    }
}

/// A session in the array of a worker.
struct KnownSession<'a> {
    sessions: &'a Arc<SessionArray>,
    slot: SessionSlot,
    first_sequence: u64,
    key: &'a SessionKey,
}

/// Why a pin cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The filter is invalid.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// There are as many pins as allowed.
    #[error("there are {pins} such pins already, the maximum; remove one, or wait until {until}")]
    Full {
        /// How many there are.
        pins: usize,
        /// Time at which the next pin ends.
        until: Timestamp,
    },
}

/// All pins, shared by all threads.
#[derive(Debug, Default)]
pub struct Pins {
    board: Mutex<PinTable>,
    /// Incremented with every change.
    version: AtomicU64,
    limit_bytes: u64,
}

#[derive(Debug, Default)]
struct PinTable {
    next_id: u64,
    pins: Vec<Pin>,
}

impl Pins {
    /// An empty set of pins. They may take at most `limit_bytes` of all workers together.
    pub fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, ..Self::default() }
    }

    /// Maximum number of bytes that all pins together may take.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    fn board(&self) -> MutexGuard<'_, PinTable> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a pin that lasts until `until`.
    ///
    /// # Errors
    ///
    /// When the filter is invalid, or there are as many pins as allowed.
    pub fn add(&self, expression: &str, since: Timestamp, until: Timestamp) -> Result<Pin, PinError> {
        self.add_in(0..HUNT_PLACES_FROM, expression, since, until)
    }

    /// As [`add`](Self::add), for a hunt.
    ///
    /// # Errors
    ///
    /// When the filter is invalid, or there are [`SessionMarks::HUNT_PINS`] pins of hunts already.
    pub fn add_of_hunt(&self, expression: &str, since: Timestamp, until: Timestamp) -> Result<Pin, PinError> {
        self.add_in(HUNT_PLACES_FROM..SessionMarks::PINS, expression, since, until)
    }

    fn add_in(
        &self,
        mut places: Range<usize>,
        expression: &str,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Pin, PinError> {
        let filter = SessionFilter::new(expression)?;
        let mut board = self.board();
        let all = places.clone();
        let Some(place) = places.find(|place| board.pins.iter().all(|pin| pin.place != *place)) else {
            let such = board.pins.iter().filter(|pin| all.contains(&pin.place));
            let until = such.map(|pin| pin.until).min().unwrap_or(until);
            return Err(PinError::Full { pins: all.len(), until });
        };
        board.next_id += 1;
        let id = board.next_id;
        let pin = Pin { id, place, since, until, filter, found: None, tests_packets: false, is_taken_over: false };
        board.pins.push(pin.clone());
        self.version.fetch_add(1, Ordering::Release);
        Ok(pin)
    }

    /// Protects the sessions that were found for a pin, in addition to those that it protects already.
    pub fn note_found(&self, id: u64, found: Arc<FoundSessions>) {
        let mut board = self.board();
        if let Some(pin) = board.pins.iter_mut().find(|pin| pin.id == id) {
            pin.found = Some(found);
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Removes a pin; false if no pin has this number.
    pub fn remove(&self, id: u64) -> bool {
        self.retain(|pin| pin.id != id) > 0
    }

    /// Removes the pins that have ended, and returns how many there were.
    pub fn expire(&self, now: Timestamp) -> usize {
        self.retain(|pin| pin.until > now)
    }

    fn retain(&self, keep: impl FnMut(&Pin) -> bool) -> usize {
        let mut board = self.board();
        let before = board.pins.len();
        board.pins.retain(keep);
        let gone = before - board.pins.len();
        if gone > 0 {
            self.version.fetch_add(1, Ordering::Release);
        }
        gone
    }

    /// Serializes the pins for a successor.
    pub fn hand_over(&self, out: &mut impl Write) -> io::Result<()> {
        let board = self.board();
        out.put_u64(board.next_id)?;
        out.put_u8(u8::try_from(board.pins.len()).unwrap_or(0))?;
        for pin in &board.pins {
            out.put_u8(u8::try_from(pin.place).unwrap_or(u8::MAX))?;
            out.put_words(&[pin.id, pin.since.0, pin.until.0])?;
            out.put_text(pin.expression())?;
        }
        Ok(())
    }

    /// Reads the pins of a predecessor and keeps those that have not ended. They keep their number, place and times.
    /// Returns the active pins, one bit per place.
    ///
    /// # Errors
    ///
    /// When reading fails, or the data is damaged.
    pub fn take_over(&self, input: &mut impl Read, now: Timestamp) -> io::Result<u16> {
        let mut board = self.board();
        board.next_id = board.next_id.max(input.take_u64()?.min(u64::MAX / 2));
        for _ in 0..input.take_u8()? {
            let place = usize::from(input.take_u8()?);
            let [id, since, until] = input.take_words()?.map(Timestamp);
            let expression = input.take_text()?;
            let free = board.pins.iter().all(|pin| pin.place != place && pin.id != id.0);
            if place >= SessionMarks::PINS || !free || id.0 > board.next_id {
                return Err(damaged("a pin"));
            }
            // The expression may be invalid in another version. Such a pin is dropped.
            if until > now
                && let Ok(filter) = SessionFilter::new(&expression)
            {
                let id = id.0;
                let (tests_packets, is_taken_over) = (false, true);
                board.pins.push(Pin { id, place, since, until, filter, found: None, tests_packets, is_taken_over });
            }
        }
        self.version.fetch_add(1, Ordering::Release);
        Ok(board.pins.iter().fold(0, |bits, pin| bits | 1 << pin.place))
    }

    /// All pins, in the order of their numbers.
    pub fn list(&self) -> Vec<Pin> {
        self.board().pins.clone()
    }
}

/// Changes of pins that a worker has to apply, one bit per place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinChanges {
    /// Pins that have ended.
    pub ended: u16,
    /// Pins that are active now. A place in `ended` can be in use again by another pin.
    pub active: u16,
}

/// The pins that one worker has applied.
#[derive(Debug)]
pub struct AppliedPins {
    pins: Arc<Pins>,
    seen: u64,
    active: Vec<Pin>,
    /// Whether one of the pins tests every packet.
    tests_packets: bool,
}

impl AppliedPins {
    pub(super) fn new(pins: Arc<Pins>) -> Self {
        Self { pins, seen: 0, active: Vec::new(), tests_packets: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// Whether a pin tests every packet.
    #[inline]
    pub(super) fn test_packets(&self) -> bool {
        self.tests_packets
    }

    /// The pins that protect a session that begins with `packet`, one bit per place.
    pub(super) fn of(&mut self, packet: &Packet<'_>, key: &SessionKey, session: &Endpoints) -> u16 {
        let mut bits = 0;
        let mut is_plain = None;
        for pin in &mut self.active {
            if pin.protects_endpoints(session) || pin.filter.matches_packet(packet) {
                bits |= 1 << pin.place;
                continue;
            }
            // Labels and other headers can differ between the directions of a session.
            let is_plain =
                *is_plain.get_or_insert_with(|| decode::encapsulations(packet.link_type, packet.data).are_only_tags());
            if !is_plain || pin.may_match_later(key, session) {
                pin.tests_packets = true;
                self.tests_packets = true;
            }
        }
        bits
    }

    /// The pins beside `known` that protect a session because of a later packet of it.
    pub(super) fn of_later(&mut self, packet: &Packet<'_>, known: u16) -> u16 {
        let mut bits = 0;
        for pin in &mut self.active {
            let bit = 1 << pin.place;
            if (pin.tests_packets || pin.is_searching()) && known & bit == 0 && pin.filter.matches_packet(packet) {
                bits |= bit;
            }
        }
        bits
    }

    /// Applies changes to all sessions, if there are any.
    pub(super) fn refresh(&mut self, sessions: &mut SessionTable) -> Option<PinChanges> {
        let version = self.pins.version.load(Ordering::Acquire);
        if version == self.seen {
            return None;
        }
        // A worker never waits. If another thread holds the lock, the next call applies the change.
        let board = self.pins.board.try_lock().ok()?;
        let mut now_active = board.pins.clone();
        drop(board);
        let mut ended = 0u16;
        for pin in &self.active {
            if now_active.iter().all(|other| other.id != pin.id) {
                ended |= 1 << pin.place;
            }
        }
        for pin in &mut now_active {
            pin.tests_packets = self.active.iter().any(|old| old.id == pin.id && old.tests_packets);
        }
        let known = |pin: &Pin| self.active.iter().find(|old| old.id == pin.id);
        let new = |pin: &Pin| known(pin).is_none_or(|old| old.found.is_none() && pin.found.is_some());
        let array = sessions.array();
        sessions.update_marks(|slot, first_sequence, key, mut marks| {
            marks.pins &= !ended;
            for pin in now_active.iter_mut().filter(|pin| new(pin)) {
                if pin.protects(KnownSession { sessions: &array, slot, first_sequence, key }) {
                    marks.pins |= 1 << pin.place;
                } else if pin.may_match_later(key, &Endpoints::from(key)) {
                    pin.tests_packets = true;
                }
            }
            marks
        });
        self.tests_packets = now_active.iter().any(|pin| pin.tests_packets || pin.is_searching());
        self.active = now_active;
        self.seen = version;
        Some(PinChanges { ended, active: self.active.iter().fold(0, |bits, pin| bits | 1 << pin.place) })
    }
}
