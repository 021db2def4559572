//! Seals what is recorded, minute by minute, and proves later that packets were in it (see [`evidence::record`]).
//!
//! ```text
//! stored ──► stays for 15 to 30 s ──► due ──► digests, starts of sessions first ──► run ──► root of the minute
//!    └─ evicted before: never read
//! ```
//!
//! A pass reads records as any reader does: it makes no worker wait. SHA-256 of a packet takes about as long as storing it, so
//! only what has stayed in memory for some time is read, and only as long as the caller permits it. What stays longest comes
//! first: the starts of sessions before deeper packets, and young segments before old ones. The records of one segment in one
//! pass are a run. What was evicted before is counted.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::History;
use base::interface::Interface;
use base::packet::{Direction, Packet, PacketFlags};
use base::time::Timestamp;
use engine::store::SegmentView;
use evidence::digest::Digest;
use evidence::merkle::{self, Path};
use evidence::record::{RUN_PACKETS_MAX, RunProof, run_leaf, run_root};

/// Runs that are remembered at least, about 100 bytes each. Packets of older runs can no longer be proven.
const RUNS_MIN: usize = 16_384;
/// Runs that are remembered for each segment: one of 256 KiB has few, so that they take less than a thousandth of memory.
const RUNS_OF_A_SEGMENT: usize = 4;

/// What is never given to another segment: worker, place in its table, and the use of that place.
type SegmentIdentity = (usize, u32, u64);

/// Seals a history.
#[derive(Debug, Default)]
pub struct RecordSealer {
    read: HashMap<SegmentIdentity, Reading>,
    /// The runs of the minute that is not sealed yet.
    open: Vec<Run>,
    minutes: VecDeque<Minute>,
    runs: usize,
    number: u64,
    /// Packets of each worker that were stored when segments were last looked at. A packet with a lower number in a segment that
    /// is new since was carried forward from another one.
    stored: Vec<u64>,
    /// Packets that were evicted before the first look.
    evicted_before: u64,
    sealed: u64,
    new_packets: u64,
}

/// What was read of a segment.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    done: u64,
    /// Packets that are old enough to be read.
    due: u64,
    /// Packets that become due next.
    ageing: u64,
    /// The number of the first packet that was not carried forward.
    new_from: u64,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    birth: SegmentIdentity,
    from: u64,
    packets: usize,
    root: Digest,
}

#[derive(Debug)]
struct Minute {
    number: u64,
    root: Digest,
    runs: Vec<Run>,
}

/// A minute that was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Its number.
    pub minute: u64,
    /// The root over its runs.
    pub root: Digest,
    /// Its runs.
    pub runs: u64,
    /// Packets sealed for the first time.
    pub packets: u64,
    /// Packets stored since the start that were evicted before they were sealed.
    pub unsealed: u64,
    /// Packets in memory that were not sealed yet.
    pub waiting: u64,
}

impl RecordSealer {
    /// Makes the packets due that were there at the last call.
    pub fn age(&mut self, history: &History) {
        for (birth, view) in self.look(history) {
            if let Some(reading) = self.read.get_mut(&birth) {
                (reading.due, reading.ageing) = (reading.ageing, view.packets);
            }
        }
    }

    /// Reads what is due, as long as `go_on` returns true.
    pub fn pass(&mut self, history: &History, go_on: &mut dyn FnMut() -> bool) {
        // The first call notes what was there before.
        if !self.stored.is_empty() && self.read.values().all(|reading| reading.due <= reading.done) {
            return;
        }
        let views = self.look(history);
        let due = |(birth, _): &(SegmentIdentity, SegmentView)| {
            self.read.get(birth).is_some_and(|reading| reading.due > reading.done)
        };
        let mut views: Vec<_> = views.into_iter().filter(due).collect();
        views.sort_by_key(|(_, view)| (view.rank, Reverse(view.newest)));
        for (birth, view) in views {
            if !go_on() {
                return;
            }
            let most = self.read.get(&birth).map_or(0, |reading| reading.due);
            self.read_segment(history, birth, view, most);
        }
    }

    /// Reads all that is there, or all segments with packets of these times, as long as `go_on` returns true.
    pub fn pass_over(
        &mut self,
        history: &History,
        span: Option<(Timestamp, Timestamp)>,
        go_on: &mut dyn FnMut() -> bool,
    ) {
        for (birth, view) in self.look(history) {
            if span.is_some_and(|(first, last)| view.oldest > last || view.newest < first) {
                continue;
            }
            if !go_on() {
                return;
            }
            self.read_segment(history, birth, view, u64::MAX);
        }
    }

    /// The segments that are there. Forgets those that are gone.
    fn look(&mut self, history: &History) -> Vec<(SegmentIdentity, SegmentView)> {
        let totals = history.workers.iter().map(|worker| worker.published.totals());
        let stored: Vec<u64> = totals.map(|totals| totals.stored.packets).collect();
        let mut views = Vec::new();
        for (worker, of_worker) in history.workers.iter().enumerate() {
            views.extend(of_worker.segments.views().map(|view| (birth(worker, &view), view)));
        }
        if self.stored.is_empty() {
            let there: u64 = views.iter().map(|(_, view)| view.packets).sum();
            self.evicted_before = stored.iter().sum::<u64>().saturating_sub(there);
        }
        for (birth, _) in &views {
            let new_from = self.stored.get(birth.0).copied().unwrap_or(0);
            self.read.entry(*birth).or_insert_with(|| Reading { new_from, ..Reading::default() });
        }
        if self.read.len() > views.len() {
            let there: HashSet<_> = views.iter().map(|(birth, _)| *birth).collect();
            self.read.retain(|birth, _| there.contains(birth));
        }
        self.stored = stored;
        views
    }

    /// Reads a segment up to packet number `most`.
    fn read_segment(&mut self, history: &History, birth: SegmentIdentity, view: SegmentView, most: u64) {
        let Some(&Reading { done, new_from, .. }) = self.read.get(&birth) else { return };
        if view.packets.min(most) <= done {
            return;
        }
        let (mut digests, mut from, mut new_packets) = (Vec::new(), done, 0);
        read_packets(history, birth.0, view, done..most, |sequence, digest| {
            digests.push(digest);
            new_packets += u64::from(sequence >= new_from);
        });
        if let Some(reading) = self.read.get_mut(&birth) {
            reading.done += digests.len() as u64;
        }
        self.sealed += new_packets;
        self.new_packets += new_packets;
        for part in digests.chunks(RUN_PACKETS_MAX) {
            self.open.push(Run { birth, from, packets: part.len(), root: run_root(part) });
            from += part.len() as u64;
        }
    }

    /// Packets in memory that were not read yet.
    pub fn waiting(&mut self, history: &History) -> u64 {
        let views = self.look(history);
        views.iter().map(|(birth, view)| self.unread(birth, view)).sum()
    }

    fn unread(&self, birth: &SegmentIdentity, view: &SegmentView) -> u64 {
        view.packets.saturating_sub(self.read.get(birth).map_or(0, |reading| reading.done))
    }

    /// Seals what was read since the last call; `None` if that is nothing.
    pub fn seal(&mut self, history: &History) -> Option<Sealed> {
        if self.open.is_empty() {
            return None;
        }
        let views = self.look(history);
        let runs = std::mem::take(&mut self.open);
        let leaves: Vec<_> = runs.iter().map(|run| run_leaf(run.root)).collect();
        let root = merkle::root(&leaves);
        let waiting = |is_counted: &dyn Fn(&Reading, &SegmentView) -> bool| -> u64 {
            let counted =
                views.iter().filter(|(birth, view)| self.read.get(birth).is_some_and(|r| is_counted(r, view)));
            counted.map(|(birth, view)| self.unread(birth, view)).sum()
        };
        // A segment of packets that were carried forward has none that was stored since and waits.
        let new_waiting = waiting(&|reading, view| view.first_sequence() >= reading.new_from);
        let all_waiting = waiting(&|_, _| true);
        let stored = self.stored.iter().sum::<u64>().saturating_sub(self.evicted_before);
        let sealed = Sealed {
            minute: self.number,
            root,
            runs: runs.len() as u64,
            packets: std::mem::take(&mut self.new_packets),
            unsealed: stored.saturating_sub(self.sealed).saturating_sub(new_waiting),
            waiting: all_waiting,
        };
        self.runs += runs.len();
        self.minutes.push_back(Minute { number: self.number, root, runs });
        self.number += 1;
        let runs_max = RUNS_MIN.max(views.len() * RUNS_OF_A_SEGMENT);
        let is_gone = |minute: &Minute, read: &HashMap<SegmentIdentity, Reading>| {
            minute.runs.iter().all(|run| !read.contains_key(&run.birth))
        };
        while self.minutes.front().is_some_and(|minute| self.runs > runs_max || is_gone(minute, &self.read)) {
            self.runs -= self.minutes.pop_front().map_or(0, |minute| minute.runs.len());
        }
        Some(sealed)
    }

    /// The proofs for packets with these digests, as far as their segments are still there: at most `most`.
    pub fn prove(
        &self,
        history: &History,
        wanted: &HashSet<Digest>,
        (first, last): (Timestamp, Timestamp),
        most: usize,
    ) -> Vec<RunProof> {
        let mut proofs = Vec::new();
        let workers = history.workers.iter().enumerate();
        let views = workers.flat_map(|(worker, of)| of.segments.views().map(move |view| (birth(worker, &view), view)));
        let views: HashMap<SegmentIdentity, SegmentView> =
            views.filter(|(_, view)| view.oldest <= last && view.newest >= first).collect();
        for minute in &self.minutes {
            let leaves: Vec<_> = minute.runs.iter().map(|run| run_leaf(run.root)).collect();
            for (number, run) in minute.runs.iter().enumerate() {
                if proofs.len() >= most {
                    return proofs;
                }
                let Some(view) = views.get(&run.birth) else { continue };
                let digests = read_run(history, run, *view);
                if digests.len() != run.packets || !digests.iter().any(|digest| wanted.contains(digest)) {
                    continue;
                }
                if let Some(path) = Path::of(&leaves, number) {
                    proofs.push(RunProof::new(minute.number, minute.root, path, &digests));
                }
            }
        }
        proofs
    }
}

fn birth(worker: usize, view: &SegmentView) -> SegmentIdentity {
    (worker, view.id.0, view.birth())
}

/// The packets of a run, if its segment is still there.
fn read_run(history: &History, run: &Run, view: SegmentView) -> Vec<Digest> {
    let mut digests = Vec::with_capacity(run.packets);
    let numbers = run.from..run.from + run.packets as u64;
    read_packets(history, run.birth.0, view, numbers, |_, digest| digests.push(digest));
    digests
}

/// Reads the packets of a segment with these numbers, as far as the segment lives.
fn read_packets(
    history: &History,
    worker: usize,
    view: SegmentView,
    numbers: Range<u64>,
    mut each: impl FnMut(u64, Digest),
) {
    let segments = &history.workers[worker].segments;
    let (mut cursor, mut data, mut number) = (segments.cursor(view), Vec::new(), 0);
    let mut interfaces: Vec<Arc<Interface>> = history.interfaces.snapshot();
    while let Ok(Some(record)) = segments.next(&mut cursor) {
        number += 1;
        if number <= numbers.start {
            continue;
        }
        if number > numbers.end {
            return;
        }
        let header = record.header;
        if segments.data(&cursor, &record, &mut data).is_err() {
            return;
        }
        let slot = usize::from(header.interface.0);
        if slot >= interfaces.len() {
            interfaces = history.interfaces.snapshot();
        }
        let Some(interface) = interfaces.get(slot) else { return };
        let packet = Packet {
            time: header.time,
            interface: header.interface,
            link_type: interface.link_type,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: header.original_len,
            drops_before: 0,
            data: &data,
        };
        each(header.sequence, Digest::of_packet(&packet));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{history, udp};
    use super::*;

    #[test]
    fn what_has_stayed_is_sealed_with_starts_first_and_the_rest_is_counted() {
        // One session that reaches deep, and many short ones.
        let deep = (0..400).map(|number| (number * 1000, udp((1, 1), (2, 2), 1000)));
        let short = (0..400).map(|number| (number * 1000 + 500, udp((3, u16::try_from(number).unwrap()), (4, 53), 30)));
        let mut packets: Vec<_> = deep.chain(short).collect();
        packets.sort();
        let history = history(4 << 20, packets);
        let mut sealer = RecordSealer::default();
        sealer.pass(&history, &mut || true);
        assert_eq!(sealer.seal(&history), None, "nothing is old enough");
        sealer.age(&history);
        sealer.pass(&history, &mut || true);
        assert_eq!((sealer.seal(&history), sealer.waiting(&history)), (None, 800), "seen for the first time");
        sealer.age(&history);
        let mut segments = 1;
        sealer.pass(&history, &mut || std::mem::replace(&mut segments, 0) > 0);
        let first = sealer.seal(&history).unwrap();
        assert_eq!((first.packets + first.waiting, first.unsealed), (800, 0));
        // The segment of the shallowest packets: all short sessions begin in it.
        assert!((390..800).contains(&first.packets), "{first:?}");
        sealer.pass_over(&history, None, &mut || true);
        let rest = sealer.seal(&history).unwrap();
        assert_eq!((first.packets + rest.packets, rest.waiting, rest.unsealed), (800, 0, 0));
        // Each packet can be proven, and none that was not there.
        let mut digests = HashSet::new();
        for (worker, of) in history.workers.iter().enumerate() {
            for view in of.segments.views() {
                read_packets(&history, worker, view, 0..u64::MAX, |_, digest| {
                    digests.insert(digest);
                });
            }
        }
        let proofs = sealer.prove(&history, &digests, (Timestamp(0), Timestamp(u64::MAX)), usize::MAX);
        let comments: Vec<String> = proofs.iter().map(RunProof::comment).collect();
        let proven = evidence::record::ProvenPackets::among(&comments);
        assert_eq!((proven.packets.len(), proven.wrong), (800, 0));
    }

    #[test]
    fn what_was_evicted_before_it_was_due_is_never_read_and_counted() {
        let packets = (0..20_000).map(|number| (number * 1000, udp((1, 1), (2, 2), 1000))).collect();
        let history = history(1 << 20, packets);
        let mut sealer = RecordSealer { stored: vec![0], ..RecordSealer::default() };
        // As if the sealer had been there from the start.
        sealer.pass_over(&history, None, &mut || true);
        let sealed = sealer.seal(&history).unwrap();
        assert!(sealed.packets < 2000, "{sealed:?}");
        assert_eq!((sealed.packets + sealed.unsealed, sealed.waiting), (20_000, 0));
        // A recorder that took the history over has nothing to do with what was evicted before.
        let mut successor = RecordSealer::default();
        successor.pass_over(&history, None, &mut || true);
        assert_eq!(successor.seal(&history).map(|sealed| sealed.unsealed), Some(0));
    }
}
