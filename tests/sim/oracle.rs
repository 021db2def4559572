//! Retention oracle: applies the retention rules to one list of segments, which it scans in full for every decision.

use retrocap::store::retention::Policy;

use super::fifo::{ELEPHANT_SHARE, ELEPHANTS, Fifo, PLENTY_MIDDLE};
pub(crate) use super::kept::{Oracle, PINS, Terms};
use super::segments::{Band, PAGE, Queue, Record, Segment, bytes_of, rank_of_packet};
use super::sessions::{Observed, Sessions};
use super::traffic::{SECOND, Sent};

const SEGMENT: usize = 64 << 10;
const HEADER_MAX: usize = 28;
/// Number of pages reserved for carried packets.
const CARRIED_PAGES: usize = 4;

impl Oracle {
    pub(crate) fn new(pages: usize, pinned_bytes: u64, policy: Policy, classes: Vec<Terms>) -> Self {
        Self {
            sessions: Sessions::default(),
            policy,
            classes,
            pins: [None; PINS],
            refused: [0; PINS],
            pages,
            pinned_pages_max: (usize::try_from(pinned_bytes).unwrap() / PAGE).min(pages / 2),
            segments: Vec::new(),
            ticks: 0,
            clock: None,
            fifo: Fifo::default(),
            plenty: false,
            sequence: 0,
            dropped: (0, 0),
            lost_until: None,
            carried: 0,
            lost: 0,
        }
    }

    /// Processes a packet. `flood_of` returns the flood of a new session.
    pub(crate) fn receive(&mut self, sent: &Sent, flood_of: impl Fn(usize) -> u8) -> Observed {
        let captured = sent.captured;
        let observed = self.sessions.observe(sent, self.sequence);
        if observed.begins {
            let pins = &self.pins;
            let session = &mut self.sessions.all[observed.session];
            let class = self.classes.iter().position(|terms| session.has_port(terms.port));
            session.class = class.map_or(0, |at| u8::try_from(at + 1).unwrap());
            session.pins = bits(pins, |port| session.has_port(port));
            session.flood = flood_of(observed.session);
        }
        let session = &mut self.sessions.all[observed.session];
        // A later packet that matches is enough, too.
        session.pins |= bits(&self.pins, |port| session.has_port(port));
        if observed.answered && session.flood == 1 {
            session.flood = 7;
        }
        let cutoff = session.class.checked_sub(1).and_then(|at| self.classes[usize::from(at)].cutoff);
        if session.pins == 0 && !observed.closes && cutoff.is_some_and(|cutoff| observed.offset >= cutoff) {
            self.dropped = (self.dropped.0 + 1, self.dropped.1 + captured as u64);
            return observed;
        }
        let store = self.pages * PAGE;
        let rank = match rank_of_packet(observed.depth, sent.len as u64) {
            6 if self.plenty && observed.depth < PLENTY_MIDDLE => 5,
            rank => rank,
        };
        let is_elephant = rank == 6 && observed.offset >= (self.pages / ELEPHANT_SHARE * PAGE) as u64;
        let elephant = if is_elephant { u8::try_from(1 + observed.session % ELEPHANTS).unwrap() } else { 0 };
        let line = if observed.closes { 0 } else { rank + 2 };
        let (class, flood) = (session.class, session.kept_with());
        // A class with default settings has no queues of its own.
        let is_plain = |terms: &Terms| terms.reserve == 0 && (terms.weight - 1.0).abs() < f64::EPSILON;
        let class =
            if class.checked_sub(1).is_some_and(|at| is_plain(&self.classes[usize::from(at)])) { 0 } else { class };
        let place = Queue::Ranked { class, line, flood };
        let place = if place.band() == Band::Bulk { Queue::Ranked { class, line, flood: elephant } } else { place };
        self.advance(sent.time);
        if !is_elephant {
            self.fifo.count(HEADER_MAX + captured, store, self.ticks);
        }
        let record = Record {
            sequence: self.sequence,
            time: sent.time,
            captured,
            session: observed.session,
            interface: sent.pair.interface,
            rare: captured != sent.len || sent.drops_before != 0,
        };
        self.sequence += 1;
        self.append(record, place);
        observed
    }

    /// Sets the current pins. `ended` and `new` have one bit per place.
    pub(crate) fn set_pins(&mut self, now: [Option<u16>; PINS], ended: u16, new: u16) {
        for session in &mut self.sessions.all {
            session.pins &= !ended;
            // A pin protects the sessions of stored packets that match.
            if session.kept_packets > 0 {
                session.pins |= bits(&now, |port| session.has_port(port)) & new;
            }
        }
        for place in (0..PINS).filter(|place| ended >> place & 1 == 1) {
            self.refused[place] = 0;
            let (mut released, others): (Vec<_>, Vec<_>) =
                self.segments.drain(..).partition(|segment| segment.queue == Queue::Pinned(place));
            for segment in &mut released {
                segment.queue = Queue::Released;
                segment.open = false;
            }
            self.segments = others;
            self.segments.append(&mut released);
        }
        self.pins = now;
    }

    /// Retained sequence numbers by segment, with the rank that readers see.
    pub(crate) fn contents(&self) -> Vec<(u8, Vec<u64>)> {
        let of = |segment: &Segment| {
            let rank = if let Queue::Ranked { line, .. } = segment.queue { line.saturating_sub(2) } else { 0 };
            (rank, segment.records.iter().map(|record| record.sequence).collect())
        };
        self.segments.iter().map(of).collect()
    }

    pub(crate) fn pinned_pages(&self) -> usize {
        self.pages_where(|queue| matches!(queue, Queue::Pinned(_)))
    }

    /// Ignores up to 10 s of disorder, follows a clock that was set back, and counts at most 10 minutes for a jump.
    fn advance(&mut self, to: u64) {
        match self.clock {
            Some(last) if to >= last => {
                self.ticks += (to - last).min(600 * SECOND);
                self.clock = Some(to);
            }
            Some(last) if last - to <= 10 * SECOND => {}
            _ => self.clock = Some(to),
        }
    }

    fn append(&mut self, record: Record, place: Queue) {
        // The store counts the packet before it makes room for it.
        self.count_kept(&record);
        let record_max = HEADER_MAX + record.captured;
        let queue = self.pin_with_room(record.session, record_max).unwrap_or(place);
        self.seal_unless_it_continues(queue, &record);
        while !self.has_room(queue, record_max, CARRIED_PAGES) {
            assert!(self.evict_one(), "nothing left to evict");
        }
        self.write(queue, record);
    }

    fn pin_with_room(&mut self, session: usize, record_max: usize) -> Option<Queue> {
        let place = self.first_pin(session)?;
        let queue = Queue::Pinned(place);
        let room = self.open(queue).map_or(0, |at| self.segments[at].room());
        let more = record_max.saturating_sub(room).div_ceil(PAGE).max(usize::from(room == 0));
        if self.pinned_pages() + more <= self.pinned_pages_max {
            return Some(queue);
        }
        self.refused[place] += 1;
        None
    }

    fn first_pin(&self, session: usize) -> Option<usize> {
        (0..PINS).find(|&place| self.pins[place].is_some() && self.sessions.all[session].pins >> place & 1 == 1)
    }

    fn open(&self, queue: Queue) -> Option<usize> {
        self.segments.iter().position(|segment| segment.open && segment.queue == queue)
    }

    fn seal_unless_it_continues(&mut self, queue: Queue, record: &Record) {
        let Some(at) = self.open(queue) else { return };
        let segment = &self.segments[at];
        let last = segment.records.last().unwrap();
        let continues = segment.bytes + HEADER_MAX + record.captured <= SEGMENT
            && bytes_of(record.time.abs_diff(last.time)) <= 6
            && record.sequence > last.sequence
            && record.sequence - last.sequence <= 1 << 24;
        self.segments[at].open = continues;
    }

    fn has_room(&self, queue: Queue, record_max: usize, spare: usize) -> bool {
        let open = self.open(queue);
        let room = open.map_or(0, |at| self.segments[at].room());
        let needed = record_max.saturating_sub(room).div_ceil(PAGE);
        self.free_pages() >= needed + spare && (open.is_some() || self.segments.len() < self.pages / 4)
    }

    fn free_pages(&self) -> usize {
        self.pages - self.pages_where(|_| true)
    }

    fn write(&mut self, queue: Queue, record: Record) {
        let at = self.open(queue).unwrap_or_else(|| {
            let opened_ticks = self.ticks;
            self.segments.push(Segment { queue, records: Vec::new(), bytes: 0, opened_ticks, open: true });
            self.segments.len() - 1
        });
        self.segments[at].push(record);
    }

    fn count_kept(&mut self, record: &Record) {
        let session = &mut self.sessions.all[record.session];
        session.kept_packets += 1;
        session.kept_bytes += record.captured as u64;
    }

    fn evict_one(&mut self) -> bool {
        let Some((at, younger)) = self.victim() else { return false };
        self.check_rule(at, younger);
        self.evict(at, younger);
        true
    }

    /// Evicts a segment. Its packets from `younger` on stay in its queue.
    fn evict(&mut self, at: usize, younger: Option<usize>) {
        let (from, was_open) = (self.segments[at].queue, self.segments[at].open);
        let mut records = self.segments[at].records.clone();
        let younger = younger.map(|younger| records.split_off(younger)).unwrap_or_default();
        let opened_ticks = younger.first().map(|first| self.ticks_of(at, first));
        let is_slow = self.ticks - self.segments[at].opened_ticks >= 60 * SECOND;
        for record in &records {
            let session = &mut self.sessions.all[record.session];
            session.kept_packets -= 1;
            session.kept_bytes -= record.captured as u64;
        }
        let mut picked: Vec<(Record, Queue)> = Vec::new();
        for record in records {
            match self.needed(&record, from, is_slow, &picked) {
                Some(to) if !matches!(to, Queue::Heads { .. }) || self.heads_have_room(&picked, &record) => {
                    picked.push((record, to));
                    continue;
                }
                Some(_) => self.lost += 1,
                None => {}
            }
            self.gone(&record);
        }
        self.segments.remove(at);
        let stay = younger.len();
        let moved = younger.into_iter().map(|record| (record, from)).chain(picked);
        let mut full = false;
        for (number, (record, to)) in moved.enumerate() {
            if !full {
                self.seal_unless_it_continues(to, &record);
                full = !self.has_room(to, HEADER_MAX + record.captured, 0);
            }
            assert!(!full || number >= stay, "the younger half always has room");
            if full {
                self.lost += 1;
                self.gone(&record);
            } else {
                self.carried += 1;
                if number >= stay {
                    self.count_kept(&record);
                }
                self.write(to, record);
            }
        }
        if let Some(opened_ticks) = opened_ticks {
            let at = self.segments.iter().position(|segment| segment.queue == from).unwrap();
            (self.segments[at].opened_ticks, self.segments[at].open) = (opened_ticks, was_open);
        }
    }

    fn gone(&mut self, record: &Record) {
        self.lost_until = self.lost_until.max(Some(record.time));
        let session = &mut self.sessions.all[record.session];
        session.first_is_lost |= session.first_sequence == record.sequence;
        self.sessions.lost(record.session);
    }

    /// The queue into which a packet must be carried before its segment is evicted, or `None` if it may be lost.
    fn needed(&self, record: &Record, from: Queue, is_slow: bool, picked: &[(Record, Queue)]) -> Option<Queue> {
        let picked = picked.iter().filter(|(_, to)| !matches!(to, Queue::Heads { .. })).map(|(record, _)| record);
        let coming: usize = picked.chain([record]).map(|record| record.captured + HEADER_MAX).sum();
        // The packets of each pin can begin a new page.
        let pages = coming.div_ceil(PAGE) + self.pins.iter().flatten().count();
        if !matches!(from, Queue::Pinned(_))
            && let Some(place) = self.first_pin(record.session)
            && self.pinned_pages() + pages <= self.pinned_pages_max
        {
            return Some(Queue::Pinned(place));
        }
        let now = self.clock.unwrap_or(0);
        let flood = self.sessions.all[record.session].kept_with();
        let has_left = from.flood() != 0 && self.sessions.all[record.session].flood == 7;
        let needed = if from.has_starts() && has_left {
            true
        } else if from.has_starts() && (flood == 0 || is_slow) {
            self.sessions.needs_start(record.session, record.sequence, now)
        } else {
            self.sessions.is_first_of_more(record.session, record.sequence)
        };
        let pinned = !matches!(from, Queue::Pinned(_)) && self.first_pin(record.session).is_some();
        let first = self.sessions.all[record.session].first_sequence == record.sequence;
        (needed || (pinned && first)).then_some(Queue::Heads { flood })
    }

    /// Whether carried starts stay within an eighth of the store, including those of the segment being evicted.
    fn heads_have_room(&self, picked: &[(Record, Queue)], record: &Record) -> bool {
        let heads = self.segments.iter().filter(|segment| matches!(segment.queue, Queue::Heads { .. }));
        let there: usize = heads.map(|segment| segment.bytes).sum();
        let picked = picked.iter().filter(|(_, to)| matches!(to, Queue::Heads { .. })).map(|(record, _)| record);
        let coming: usize = picked.chain([record]).map(|record| record.captured + HEADER_MAX).sum();
        there + coming <= self.pages * PAGE / 8
    }
}

fn bits(pins: &[Option<u16>; PINS], matches: impl Fn(u16) -> bool) -> u16 {
    (0..PINS).filter(|&place| pins[place].is_some_and(&matches)).fold(0, |bits, place| bits | 1 << place)
}
