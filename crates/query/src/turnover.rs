//! Reads the sessions that were known at one moment, each once, while sessions move from the table to the archive.
//!
//! ```text
//!   table     [ already read ][ not yet read ]        a session that leaves its entry goes to the end of the archive
//!   archive   [ archived before ][ late: archived since ]
//! ```
//!
//! The table is read before the archive, so that no session is missed. A session that was archived late is read only if it
//! was not read in the table: the archive says which entry each late session had (`SessionArray::departed`). A session
//! that began later than the moment is never read: either the number of its first packet says so, or its entry was
//! left before.
//!
//! Sessions of floods are not archived, so that those that leave the table are gone. If the archive no longer knows the
//! entry of a late session, because a reader paused for long, the session may be read twice; such sessions are counted.

use super::History;
use super::flows::MILLI_NS;
use super::notes::SessionBits;
use base::time::Timestamp;
use engine::session::{ArchivePosition, BLOCK_SESSIONS, Session, SessionArray, SessionSlot, SessionSpan};

/// Late sessions that are told apart, for each worker (512 KiB). Further ones may be read twice.
const LATE_MAX: usize = 1 << 21;

/// The sessions known when it was made.
#[derive(Debug, Default)]
pub(super) struct Turnover {
    workers: Vec<LateSessions>,
    /// Time of the newest packet.
    newest: Timestamp,
    /// The sessions of the table that are done.
    done: SessionBits,
    /// The entries whose session has left.
    left: SessionBits,
    unsure: u64,
}

/// The late sessions of a worker.
#[derive(Debug)]
struct LateSessions {
    /// Packets stored at the start.
    stored: u64,
    /// The first ordinal that is late.
    archived: u64,
    /// The first ordinal whose entry was not looked at.
    next: u64,
    /// Two bits for each late session: whether it is done, and whether that is unknown.
    bits: Vec<u64>,
}

/// Where a session was read, and what that means for a listing in several passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadFrom {
    /// In the table.
    Table,
    /// In the archive, from which it does not move.
    Archive(ArchivePosition),
    /// In the archive, to which it moved meanwhile.
    Late(ArchivePosition),
}

impl Turnover {
    pub(super) fn new(history: &History) -> Self {
        let newest = history.totals().newest.unwrap_or(Timestamp::MIN);
        let workers = history.workers.iter().map(|worker| {
            let stored = worker.published.totals().stored.packets;
            let archived = first_late(&worker.sessions);
            LateSessions { stored, archived, next: archived, bits: Vec::new() }
        });
        let workers = workers.collect();
        Self { workers, newest, done: SessionBits::new(history), left: SessionBits::new(history), unsure: 0 }
    }

    /// Time of the newest packet at the start.
    pub(super) fn newest(&self) -> Timestamp {
        self.newest
    }

    /// Late sessions that were read although they may have been read before.
    pub(super) fn unsure(&self) -> u64 {
        self.unsure
    }

    /// Calls `each` with the sessions of a worker that overlap the window and are not done.
    pub(super) fn read(
        &mut self,
        history: &History,
        worker: u16,
        window: (Timestamp, Timestamp),
        mut each: impl FnMut(ReadFrom, &Session),
    ) {
        let Some(reader) = history.workers.get(usize::from(worker)) else { return };
        let known = reader.sessions.overlapping(window.0, window.1);
        let state = |session: &Session| (session.slot, session.first_sequence);
        let in_table = self.read_table(history, worker, known, state, |session| each(ReadFrom::Table, session));
        self.read_archive(history, worker, (window, 0), &in_table, each);
    }

    /// The same, once, for the times and sums of sessions. Sessions of full blocks of the archive that are surely out of the
    /// table are left to the caller: returns the ordinal before which they lie.
    pub(super) fn read_spans(
        &mut self,
        history: &History,
        worker: u16,
        window: (Timestamp, Timestamp),
        mut each: impl FnMut(&SessionSpan),
    ) -> u64 {
        let at = usize::from(worker);
        let (Some(reader), Some(late)) = (history.workers.get(at), self.workers.get(at)) else { return 0 };
        let full = late.archived / BLOCK_SESSIONS * BLOCK_SESSIONS;
        let known = reader.sessions.spans(window.0, window.1);
        let in_table = self.read_table(history, worker, known, |span| (span.slot, span.first_sequence), &mut each);
        self.read_archive(history, worker, (window, full), &in_table, |_, session| each(&session.into()));
        full
    }

    /// Reads the table. Returns the late sessions that were read there before they left it.
    fn read_table<T>(
        &mut self,
        history: &History,
        worker: u16,
        known: impl Iterator<Item = T>,
        state: impl Fn(&T) -> (SessionSlot, u64),
        mut each: impl FnMut(&T),
    ) -> Vec<u64> {
        let at = usize::from(worker);
        let Some(sessions) = history.workers.get(at).map(|worker| &*worker.sessions) else { return Vec::new() };
        self.look(worker, sessions, None);
        let Some(stored) = self.workers.get(at).map(|late| late.stored) else { return Vec::new() };
        let mut seen = SessionBits::new(history);
        let mut in_table = Vec::new();
        for (number, session) in known.enumerate() {
            let (slot, first_sequence) = state(&session);
            if first_sequence < stored && !self.done.contains(at, slot) && !self.left.contains(at, slot) {
                seen.insert(at, slot);
                each(&session);
            }
            if number % LOOK_EVERY == 0 {
                self.look(worker, sessions, Some((&seen, &mut in_table)));
            }
        }
        self.look(worker, sessions, Some((&seen, &mut in_table)));
        in_table
    }

    /// Reads the archive, from the session with an ordinal on.
    fn read_archive(
        &mut self,
        history: &History,
        worker: u16,
        ((since, until), from): ((Timestamp, Timestamp), u64),
        in_table: &[u64],
        mut each: impl FnMut(ReadFrom, &Session),
    ) {
        let at = usize::from(worker);
        let (Some(reader), Some(departed)) = (history.workers.get(at), self.workers.get(at)) else { return };
        let (newest, mut unsure) = (self.newest, 0);
        for (place, session) in reader.sessions.past_overlapping_from(from, since, until) {
            let ordinal = session.first_sequence;
            match ordinal.checked_sub(departed.archived) {
                None => each(ReadFrom::Archive(place), &session),
                // Later ones were in the table when it was read.
                Some(_) if ordinal >= departed.next || session.first > newest => {}
                Some(late) if departed.is_done(late) || in_table.binary_search(&ordinal).is_ok() => {}
                Some(late) => {
                    unsure += u64::from(!departed.is_told_apart(late));
                    each(ReadFrom::Late(place), &session);
                }
            }
        }
        self.unsure += unsure;
    }

    /// Looks at the entries of the sessions that were archived since the last look. Adds those that were `seen` in the
    /// table to the list.
    fn look(&mut self, worker: u16, sessions: &SessionArray, mut seen: Option<(&SessionBits, &mut Vec<u64>)>) {
        let at = usize::from(worker);
        let Some(departed) = self.workers.get_mut(at) else { return };
        for ordinal in departed.next..sessions.archived() {
            let is_known = sessions.departed(ordinal);
            let is_done = match is_known {
                // The second session that leaves an entry began after the first one had left it.
                Some(slot) if self.left.contains(at, slot) => true,
                Some(slot) => {
                    self.left.insert(at, slot);
                    if let Some((seen, in_table)) = &mut seen
                        && seen.contains(at, slot)
                    {
                        in_table.push(ordinal);
                    }
                    self.done.contains(at, slot)
                }
                None => false,
            };
            departed.push(ordinal, is_done, is_known.is_some());
        }
    }

    /// Notes that a session is done: it is not read again. `false` if it has just left the table; it is then read again,
    /// in the archive.
    pub(super) fn finish(&mut self, history: &History, worker: u16, found: ReadFrom, session: &Session) -> bool {
        let at = usize::from(worker);
        let Some(reader) = history.workers.get(at) else { return true };
        self.look(worker, &reader.sessions, None);
        match found {
            ReadFrom::Archive(_) => true,
            ReadFrom::Late(_) => {
                if let Some(departed) = self.workers.get_mut(at) {
                    departed.finish(session.first_sequence);
                }
                true
            }
            ReadFrom::Table if self.left.contains(at, session.slot) => false,
            ReadFrom::Table => {
                self.done.insert(at, session.slot);
                true
            }
        }
    }
}

/// Sessions of the table between two looks at what left it.
const LOOK_EVERY: usize = 1024;

impl LateSessions {
    fn push(&mut self, ordinal: u64, is_done: bool, is_known: bool) {
        self.next = ordinal + 1;
        let Some((word, shift)) = place(ordinal.saturating_sub(self.archived)) else { return };
        if word >= self.bits.len() {
            self.bits.push(0);
        }
        self.bits[word] |= (u64::from(is_done) | u64::from(!is_known) << 1) << shift;
    }

    fn bits(&self, late: u64) -> u64 {
        let bits = place(late).and_then(|(word, shift)| self.bits.get(word).map(|bits| bits >> shift & 0b11));
        bits.unwrap_or(0b10)
    }

    fn is_done(&self, late: u64) -> bool {
        self.bits(late) & 0b01 != 0
    }

    fn is_told_apart(&self, late: u64) -> bool {
        self.bits(late) & 0b10 == 0
    }

    fn finish(&mut self, ordinal: u64) {
        if let Some((word, shift)) = place(ordinal.saturating_sub(self.archived))
            && let Some(bits) = self.bits.get_mut(word)
        {
            *bits |= 1 << shift;
        }
    }
}

/// The word and the position of the two bits of a late session; `None` beyond the maximum.
fn place(late: u64) -> Option<(usize, u64)> {
    let number = usize::try_from(late).ok().filter(|number| *number < LATE_MAX)?;
    Some((number / 32, late % 32 * 2))
}

/// The first ordinal that is not surely out of the table. The session archived last may still have its entry.
fn first_late(sessions: &SessionArray) -> u64 {
    let is_there = sessions.last_departed().and_then(|(slot, past)| {
        let there = sessions.session(slot)?;
        let is_same = there.key == past.key && there.first.0 / MILLI_NS == past.first.0 / MILLI_NS;
        is_same.then_some(past.first_sequence)
    });
    is_there.unwrap_or_else(|| sessions.archived())
}
