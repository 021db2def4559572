//! Pins: filters whose sessions are kept whole until a time.
//!
//! Somebody who asks makes a pin ([`Pins::add`]), on any thread; each worker notices between two batches, looks through its sessions
//! once and marks which are protected. New sessions are asked when they begin. All pins together have
//! a part of the memory; who came first keeps first, and what finds no room ages like everything else, and is counted.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::SessionFilter;
use crate::session::{SessionMarks, SessionTable};
use base::codec::{Put, Take, damaged};
use base::packet::Packet;
use base::time::Timestamp;
use filter::{Endpoints, FilterError};

/// The part of the budget that all pins together may take, as a divisor.
pub const SHARE: u64 = 4;

/// A pin.
#[derive(Clone, Debug)]
pub struct Pin {
    /// Its number, never given twice.
    pub id: u64,
    /// Which of the few places it has; its sessions have this bit.
    pub place: usize,
    /// When it was made.
    pub since: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    filter: SessionFilter,
}

impl Pin {
    /// The expression.
    pub fn expression(&self) -> &str {
        self.filter.expression()
    }

    /// Whether it protects this session, as far as that can be told without its packets.
    pub fn matches(&mut self, session: &Endpoints) -> bool {
        self.filter.matches(session)
    }
}

/// Why there is no new pin.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Its filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// All places are taken.
    #[error(
        "there are {} pins already, which is all there can be; remove one, or wait until {until}",
        SessionMarks::PINS
    )]
    Full {
        /// When the next one ends.
        until: Timestamp,
    },
}

/// All pins, as everybody sees them.
#[derive(Debug, Default)]
pub struct Pins {
    board: Mutex<Board>,
    /// Grows with every change.
    version: AtomicU64,
    limit_bytes: u64,
}

#[derive(Debug, Default)]
struct Board {
    next_id: u64,
    pins: Vec<Pin>,
}

impl Pins {
    /// No pins yet; all workers together give them `limit_bytes` at most.
    pub fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, ..Self::default() }
    }

    /// Bytes that all pins together may take.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a pin.
    ///
    /// # Errors
    ///
    /// When the filter is wrong, or there is no place.
    pub fn add(&self, expression: &str, since: Timestamp, until: Timestamp) -> Result<Pin, PinError> {
        let filter = SessionFilter::new(expression)?;
        let mut board = self.board();
        let free = (0..SessionMarks::PINS).find(|place| board.pins.iter().all(|pin| pin.place != *place));
        let Some(place) = free else {
            let until = board.pins.iter().map(|pin| pin.until).min().unwrap_or(until);
            return Err(PinError::Full { until });
        };
        board.next_id += 1;
        let pin = Pin { id: board.next_id, place, since, until, filter };
        board.pins.push(pin.clone());
        self.version.fetch_add(1, Ordering::Release);
        Ok(pin)
    }

    /// Ends a pin before its time; false when there is none of this number.
    pub fn remove(&self, id: u64) -> bool {
        self.retain(|pin| pin.id != id) > 0
    }

    /// Ends the pins whose time has come, and says how many.
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

    /// Writes them down.
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

    /// Takes over those whose time has not come; a bit for the place of each. A pin keeps its number, place and time.
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
            // What libpcap understood then it may not understand in another version.
            if until > now
                && let Ok(filter) = SessionFilter::new(&expression)
            {
                board.pins.push(Pin { id: id.0, place, since, until, filter });
            }
        }
        self.version.fetch_add(1, Ordering::Release);
        Ok(board.pins.iter().fold(0, |bits, pin| bits | 1 << pin.place))
    }

    /// All of them, in the order of their numbers.
    pub fn list(&self) -> Vec<Pin> {
        self.board().pins.clone()
    }
}

/// What a worker is to do about pins; a bit for each place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Those that have ended.
    pub ended: u16,
    /// Those that hold now; a place can have been given to another.
    pub active: u16,
}

/// What one worker knows of the pins.
#[derive(Debug)]
pub struct Watch {
    pins: Arc<Pins>,
    seen: u64,
    active: Vec<Pin>,
}

impl Watch {
    pub(super) fn new(pins: Arc<Pins>) -> Self {
        Self { pins, seen: 0, active: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// The pins that protect a session that begins with this packet.
    pub(super) fn of(&mut self, packet: &Packet<'_>, session: &Endpoints) -> u16 {
        let matching = self.active.iter_mut().filter_map(|pin| {
            let matches = pin.filter.matches_first(packet, session);
            matches.then_some(1u16 << pin.place)
        });
        matching.fold(0, |bits, bit| bits | bit)
    }

    /// Takes over what has changed, if anything has.
    pub(super) fn refresh(&mut self, sessions: &mut SessionTable) -> Option<Changed> {
        let version = self.pins.version.load(Ordering::Acquire);
        if version == self.seen {
            return None;
        }
        // Whoever holds the board does not wait for anything, but a worker waits for nobody: the next time, then.
        let board = self.pins.board.try_lock().ok()?;
        let now_active = board.pins.clone();
        drop(board);
        let mut ended = 0u16;
        for pin in &self.active {
            if now_active.iter().all(|other| other.id != pin.id) {
                ended |= 1 << pin.place;
            }
        }
        let known = |pin: &Pin| self.active.iter().any(|other| other.id == pin.id);
        let mut new: Vec<Pin> = now_active.iter().filter(|pin| !known(pin)).cloned().collect();
        sessions.update_marks(|key, mut marks| {
            marks.pins &= !ended;
            let session = Endpoints::from(key);
            for pin in &mut new {
                if pin.filter.matches(&session) {
                    marks.pins |= 1 << pin.place;
                }
            }
            marks
        });
        self.active = now_active;
        self.seen = version;
        Some(Changed { ended, active: self.active.iter().fold(0, |bits, pin| bits | 1 << pin.place) })
    }
}
