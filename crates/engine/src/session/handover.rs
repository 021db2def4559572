//! Hands sessions over to the next recorder, and takes them over from the previous one.
//!
//! If the new array is at least as large, sessions keep their slots, so that packets that refer to a slot stay valid.
//! In a smaller array, surplus sessions move to the archive in the same order as during recording.

use std::io::{self, Read, Write};

use super::archive::ArchiveWriter;
use super::columns;
use super::depth::{Distance, LostParts};
use super::key::SessionKey;
use super::marks::SessionMarks;
use super::summary::SessionSlot;
use super::summary::{PerSide, Session, TCP, flag};
use super::table::SessionTable;
use crate::id_mapping::{IdMapping, NO_SLOT};
use base::codec::{Put, Take, damaged};
use base::time::Timestamp;

/// Entries that are wiped and returned to the system at a time.
const RELEASED_SLOTS: u32 = 4096;
/// Upper bound for a session's packet and byte counts, so that sums over many sessions do not overflow.
const BYTES_MAX: u64 = 1 << 48;
/// Upper bound for all other counts. Real counts stay far below it, and sums of a few do not overflow.
const COUNT_MAX: u64 = 1 << 56;

impl SessionTable {
    /// Writes all sessions, and wipes each part of the memory once it is written.
    pub(crate) fn hand_over(&mut self, out: &mut impl Write) -> io::Result<()> {
        let array = self.array();
        out.put_u64(self.now().0)?;
        array.start_counts().hand_over(out)?;
        array.servers().hand_over(out)?;
        let archive = array.archive();
        out.put_u64(archive.unlisted())?;
        out.put_u64(archive.oldest())?;
        for (earliest, latest, compressed) in archive.blocks() {
            out.put_u32(u32::try_from(compressed.len()).unwrap_or(0))?;
            out.put_words(&[earliest, latest])?;
            out.write_all(&compressed)?;
        }
        out.put_u32(0)?;
        let pending: Vec<_> = archive.pending_sessions().collect();
        out.put_u32(u32::try_from(pending.len()).unwrap_or(0))?;
        for session in &pending {
            // A pending session holds its ordinal here, which means nothing to the next recorder.
            put_session(out, &Session { first_sequence: 0, ..*session }, false)?;
        }
        archive.release();
        let used = self.used();
        out.put_u32(used)?;
        for from in (0..used).step_by(RELEASED_SLOTS as usize) {
            let slots = from..from.saturating_add(RELEASED_SLOTS).min(used);
            for slot in slots.clone() {
                let (session, is_indexed) = self.known(slot);
                put_session(out, &session, is_indexed)?;
            }
            array.release(slots);
        }
        Ok(())
    }

    /// Takes over the sessions of one worker. Returns the new slot of each, and `NO_SLOT` for those that went to the
    /// archive.
    ///
    /// # Errors
    ///
    /// If the input ends early or contradicts itself.
    pub(crate) fn take_over(&mut self, input: &mut impl Read, ids: &IdMapping) -> io::Result<Vec<u32>> {
        self.advance(Timestamp(input.take_u64()?));
        let array = self.array();
        array.start_counts().take_over(input, self.now())?;
        array.servers().take_over(input)?;
        let archive = array.archive();
        ArchiveWriter::add_unlisted(archive, count(input.take_u64()?)?);
        archive.begin_at(count(input.take_u64()?)?);
        let mut compressed = Vec::new();
        loop {
            let len = input.take_u32()? as usize;
            if len == 0 {
                break;
            }
            if len > 2 * columns::RAW_BYTES_MAX {
                return Err(damaged("the length of past sessions"));
            }
            let [earliest, latest] = input.take_words()?;
            compressed.resize(len, 0);
            input.read_exact(&mut compressed)?;
            self.archive_writer().add_block(archive, earliest, latest, &compressed);
        }
        for _ in 0..input.take_u32()? {
            let (session, _) = take_session(input, ids)?;
            self.archive_writer().add(archive, &session);
        }
        let mut places = Vec::new();
        let mut owners = Vec::new();
        for number in 0..input.take_u32()? {
            let (session, is_indexed) = take_session(input, ids)?;
            let slot = self.place(&session, is_indexed);
            // The session that had this slot has moved to the archive.
            let slots = slot as usize + 1;
            if owners.len() < slots {
                owners.resize(slots, NO_SLOT);
            }
            if let Some(left) = places.get_mut(owners[slot as usize] as usize) {
                *left = NO_SLOT;
            }
            owners[slot as usize] = number;
            places.push(slot);
        }
        Ok(places)
    }

    /// Gives a session an entry of the array.
    fn place(&mut self, session: &Session, is_indexed: bool) -> u32 {
        let slot = self.claim_slot(self.now(), session.first_sequence);
        let array = self.array();
        let Some(entry) = array.entry(SessionSlot(slot)) else { return slot };
        let unqueued = Session { flags: session.flags & !flag::QUEUED, ..*session };
        entry.restore(&unqueued, session.first_sequence);
        if is_indexed {
            let hash = self.hash(&session.key);
            match self.find(hash, &session.key) {
                // If two sessions have the same key, only the later one receives further packets.
                Some(other) if self.known(other).0.first_sequence >= session.first_sequence => {}
                Some(other) => {
                    self.index().remove(hash, other);
                    self.index().insert(hash, slot);
                }
                None => self.index().insert(hash, slot),
            }
        }
        slot
    }

    /// Counts packet `sequence`, which was taken over, as stored for the session in `slot`.
    pub(crate) fn kept_again(&mut self, slot: SessionSlot, sequence: u64, captured_bytes: u64) {
        let array = self.array();
        if let Some(entry) = array.entry(slot).filter(|entry| entry.in_use() && entry.first_sequence() <= sequence) {
            entry.kept_more(captured_bytes);
        }
    }

    /// Ends the takeover of packets: queues the sessions without stored packets for reuse, oldest eviction first.
    pub(crate) fn taken_over(&mut self) {
        let array = self.array();
        let empty = |slot: &u32| {
            let entry = array.entry(SessionSlot(*slot));
            entry.is_some_and(|entry| entry.kept_packets() == 0 && !entry.is_queued())
        };
        let mut emptied: Vec<u32> = (0..self.used()).filter(empty).collect();
        let entry = |slot: u32| array.entry(SessionSlot(slot));
        emptied.sort_by_key(|slot| entry(*slot).map(|entry| entry.cut_at()));
        for slot in emptied {
            if let Some(entry) = entry(slot) {
                entry.set_queued(true);
                self.queue_for_reuse(slot);
            }
        }
    }
}

fn put_session(out: &mut impl Write, session: &Session, is_indexed: bool) -> io::Result<()> {
    out.put_u32(session.flags)?;
    out.put_u8(u8::from(is_indexed))?;
    let cut_at = session.cut_at.map_or(0, |at| at.0) & !LostParts::MASK | session.lost.to_bits();
    let [kb, ten_kb] = session.distances;
    out.put_words(&[session.first_sequence, session.first.0, session.last.0, cut_at])?;
    out.put_words(&[session.packets.originator, session.packets.responder])?;
    out.put_words(&[session.bytes.originator, session.bytes.responder])?;
    out.put_u16(kb.0)?;
    out.put_u16(ten_kb.0)?;
    out.put_words(&session.key.0)
}

fn take_session(input: &mut impl Read, ids: &IdMapping) -> io::Result<(Session, bool)> {
    let flags = input.take_u32()?;
    let is_indexed = input.take_u8()? == 1;
    let [first_sequence, first, last, cut_at] = input.take_words()?;
    let [by_originator, by_responder, bytes, bytes_back] = input.take_words()?;
    let distances = [Distance(input.take_u16()?), Distance(input.take_u16()?)];
    let mut key = SessionKey(input.take_words()?);
    key.move_to(ids.interface(key.interface())?);
    if first > last {
        return Err(damaged("the times of a session"));
    }
    let marks = ids.marks(SessionMarks::from_bits(flags >> flag::MARKS_SHIFT));
    let below = flags & ((1 << flag::MARKS_SHIFT) - 1) & !flag::TCP;
    let tcp = if key.protocol() == TCP { flag::TCP } else { 0 };
    let session = Session {
        slot: SessionSlot::ARCHIVED,
        key,
        first_sequence: ids.sequence(first_sequence)?,
        first: Timestamp(first),
        last: Timestamp(last),
        packets: PerSide { originator: by_originator.min(BYTES_MAX), responder: by_responder.min(BYTES_MAX) },
        bytes: PerSide { originator: bytes.min(BYTES_MAX), responder: bytes_back.min(BYTES_MAX) },
        kept_packets: 0,
        kept_bytes: 0,
        cut_at: Some(Timestamp(cut_at & !LostParts::MASK)).filter(|at| at.0 > 0),
        lost: LostParts::from_bits(cut_at),
        distances,
        flags: below | tcp | marks.to_bits() << flag::MARKS_SHIFT,
    };
    Ok((session, is_indexed))
}

fn count(value: u64) -> io::Result<u64> {
    if value < COUNT_MAX { Ok(value) } else { Err(damaged("a count")) }
}
