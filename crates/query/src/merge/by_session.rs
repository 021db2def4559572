//! Narrows a query by what the table of sessions knows, so that most packets are never read.
//!
//! Endpoints are asked of the table. Packets are read only where the table cannot answer: if their session was forgotten, and
//! at the starts of sessions, which show what a session says. Where no session was ever forgotten, deeper ranks are not read.

use std::cmp::Reverse;

use super::super::notes::SessionBits;
use super::Packets;
use super::narrowed::{Mask, Masks, Narrowed, OnlySessions, SessionQuestion, StoredPacket};
use base::time::Timestamp;
use engine::session::{SessionKey, SessionSlot};
use engine::store::{Cursor, RecordAt, SegmentEvicted, SegmentView};

/// Bytes of a packet that are read.
const START_BYTES: u32 = 192;
/// The last rank in which streams are looked at: an answer over TCP follows the handshake.
const RANK_MAX: u8 = 1;
const TCP: u8 = 6;

/// What is known of the sessions of a worker.
struct KnownSessions {
    /// Whether all packets are of sessions that have a slot.
    are_all: bool,
    /// The first packet of the session that has a slot; `u64::MAX` if none has.
    first_sequences: Vec<u64>,
}

/// Sessions that were found so far.
struct Found {
    /// Those of which the first packet is enough.
    once: SessionBits,
    /// Those of which all are wanted.
    whole: SessionBits,
    /// Sessions of messages.
    messages: SessionBits,
}

impl Packets<'_> {
    /// Whether the query can be narrowed by sessions alone: no condition is put on packets.
    pub fn can_narrow_by_session(&self) -> bool {
        self.can_narrow()
            && self.filter.is_none()
            && !self.selectors.needs_session()
            && self.selectors.is_any_interface()
    }

    /// Narrows the query to the sessions that are wanted. Call it before the first packet was taken.
    pub fn narrow_by_session(&mut self, question: &mut dyn SessionQuestion) -> Narrowed {
        let mut segments = std::mem::take(&mut self.waiting);
        segments.sort_unstable_by_key(|(worker, view)| (*worker, view.rank.0, view.first_sequence()));
        let mut masks = Masks::new(segments.len(), self.history.workers.len());
        let bits = || SessionBits::new(self.history);
        let mut found = Found { once: bits(), whole: bits(), messages: bits() };
        let mut narrowed = Narrowed::default();
        let known: Vec<KnownSessions> = (0..self.history.workers.len())
            .map(|worker| self.known_sessions(worker, question, &mut found, &mut masks, &mut narrowed))
            .collect();
        for &(worker, view) in &segments {
            if is_deep(view, &known[worker]) {
                narrowed.packets += view.packets;
                narrowed.bytes += view.captured_bytes;
                continue;
            }
            let mut mask = Mask::new(masks.words);
            let mut asked = Asked { question: &mut *question, found: &mut found, wanted: &mut masks.wanted[worker] };
            match self.each_outline(worker, view, &known[worker], &mut asked, &mut mask, &mut narrowed) {
                Ok(true) => masks.add(worker, view, mask),
                Ok(false) => {
                    narrowed.interrupted = true;
                    self.summary.interrupted = true;
                    break;
                }
                Err(unread) => self.summary.overtaken += unread,
            }
        }
        if narrowed.interrupted {
            segments.clear();
        }
        let spans: Vec<Vec<(Timestamp, Timestamp)>> =
            (0..known.len()).map(|worker| self.spans(worker, &found)).collect();
        segments.retain(|(worker, view)| match is_deep(*view, &known[*worker]) {
            true => meets(&spans[*worker], view),
            false => masks.have_wanted(*worker, view),
        });
        segments.sort_unstable_by_key(|(worker, view)| Reverse((view.oldest, *worker, view.id.0)));
        self.waiting = segments;
        self.only = Some(OnlySessions::new(found.whole, found.once));
        narrowed
    }

    /// Asks the table of sessions.
    fn known_sessions(
        &self,
        worker: usize,
        question: &mut dyn SessionQuestion,
        found: &mut Found,
        masks: &mut Masks,
        narrowed: &mut Narrowed,
    ) -> KnownSessions {
        let sessions = &self.history.workers[worker].sessions;
        let mut first_sequences = vec![u64::MAX; sessions.used() as usize];
        for session in sessions.overlapping(self.window.0, self.window.1) {
            if let Some(first) = first_sequences.get_mut(session.slot.0 as usize) {
                *first = session.first_sequence;
            }
            narrowed.sessions += 1;
            narrowed.cut_sessions += u64::from(session.kept_packets < session.packets.sum());
            if session.key.protocol() != TCP {
                found.messages.insert(worker, session.slot);
            }
            if question.is_wanted(&session.key) {
                found.once.insert(worker, session.slot);
                masks.wanted[worker].insert(session.slot);
            }
        }
        let are_all = sessions.archived() == 0 && sessions.unlisted() == 0;
        KnownSessions { are_all, first_sequences }
    }

    /// When wanted sessions had packets, in order and without overlaps.
    fn spans(&self, worker: usize, found: &Found) -> Vec<(Timestamp, Timestamp)> {
        let sessions = self.history.workers[worker].sessions.overlapping(self.window.0, self.window.1);
        let wanted = sessions
            .filter(|session| found.once.contains(worker, session.slot) || found.whole.contains(worker, session.slot));
        let mut spans: Vec<_> = wanted.map(|session| (session.first, session.last)).collect();
        spans.sort_unstable();
        spans.dedup_by(|next, before| {
            let joins = next.0 <= before.1;
            if joins {
                before.1 = before.1.max(next.1);
            }
            joins
        });
        spans
    }

    /// Reads the headers of a segment, and the packets about which the table does not say enough. Returns whether it came to
    /// the end, or how many packets were evicted before.
    fn each_outline(
        &mut self,
        worker: usize,
        view: SegmentView,
        known: &KnownSessions,
        asked: &mut Asked<'_>,
        mask: &mut Mask,
        narrowed: &mut Narrowed,
    ) -> Result<bool, u64> {
        self.each_stored(worker, view, |packets, cursor, record| {
            let header = record.header;
            let in_window = (packets.window.0..=packets.window.1).contains(&header.time);
            if !in_window || header.sequence >= packets.arrived_before[worker] {
                return Ok(());
            }
            narrowed.packets += 1;
            narrowed.bytes += u64::from(header.captured_len);
            mask.insert(header.session);
            let first = known.first_sequences.get(header.session.0 as usize);
            let is_known = first.is_some_and(|first| *first <= header.sequence);
            let is_message = asked.found.messages.contains(worker, header.session);
            if is_known && view.rank.0 > RANK_MAX && !is_message {
                return Ok(());
            }
            packets.ask(worker, cursor, record, is_known, asked)
        })
    }

    /// Reads the start of a packet, and asks about it.
    fn ask(
        &mut self,
        worker: usize,
        cursor: &Cursor,
        mut record: RecordAt,
        is_known: bool,
        asked: &mut Asked<'_>,
    ) -> Result<(), SegmentEvicted> {
        let header = record.header;
        let Some(link_type) = self.interface_of(&header).map(|interface| interface.link_type) else { return Ok(()) };
        record.header.captured_len = header.captured_len.min(START_BYTES);
        self.history.workers[worker].segments.data(cursor, &record, &mut self.data)?;
        let slot = header.session;
        let packet = StoredPacket { worker, slot, arrival: header.sequence, link_type, data: &self.data };
        if !is_known {
            let decoded = decode::decode(link_type, &self.data);
            if asked.question.is_wanted(&SessionKey::new(&decoded, header.interface).0) {
                // The slot may have had several sessions, so that one packet is not enough.
                asked.want(worker, slot);
            }
        }
        if asked.question.may_say(&packet) {
            asked.want(worker, slot);
        }
        Ok(())
    }
}

/// Whether a segment need not be read, because the table and the starts of sessions say all of it.
fn is_deep(view: SegmentView, known: &KnownSessions) -> bool {
    known.are_all && view.rank.0 > RANK_MAX
}

/// Whether a segment has packets of a time in one of these spans.
fn meets(spans: &[(Timestamp, Timestamp)], view: &SegmentView) -> bool {
    let at = spans.partition_point(|(_, last)| *last < view.oldest);
    spans.get(at).is_some_and(|(first, _)| *first <= view.newest)
}

/// A question, and what it found.
struct Asked<'a> {
    question: &'a mut dyn SessionQuestion,
    found: &'a mut Found,
    wanted: &'a mut Mask,
}

impl Asked<'_> {
    fn want(&mut self, worker: usize, slot: SessionSlot) {
        self.found.whole.insert(worker, slot);
        self.found.once.remove(worker, slot);
        self.wanted.insert(slot);
    }
}
