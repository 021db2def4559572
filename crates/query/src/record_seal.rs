//! Seals what is recorded, minute by minute, and proves later that packets were in it (see [`evidence::record`]).
//!
//! A pass reads the records that segments got since the last pass, as any reader does: it makes no worker wait. The
//! records of one segment in one pass are a run. What was evicted before a pass came is counted.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::History;
use base::interface::Interface;
use base::packet::{Direction, Packet, PacketFlags};
use base::time::Timestamp;
use engine::store::SegmentView;
use evidence::digest::Digest;
use evidence::merkle::{self, Path};
use evidence::record::{RUN_PACKETS_MAX, RunProof, run_leaf, run_root};

/// Runs that are remembered, about 100 bytes each. Packets of older runs can no longer be proven.
const RUNS_MAX: usize = 16_384;

/// What is never given to another segment: worker, place in its table, and the use of that place.
type SegmentIdentity = (usize, u32, u64);

/// Seals a history.
#[derive(Debug, Default)]
pub struct RecordSealer {
    /// Packets that were read of each segment.
    read: HashMap<SegmentIdentity, u64>,
    /// The runs of the minute that is not sealed yet.
    open: Vec<Run>,
    minutes: VecDeque<Minute>,
    runs: usize,
    number: u64,
    /// Packets stored before the last pass, of each worker: what has a lower number was carried forward.
    stored_before: Vec<u64>,
    sealed: u64,
    new_packets: u64,
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
    /// Packets stored since the start that were evicted before they could be sealed.
    pub unsealed: u64,
}

impl RecordSealer {
    /// Reads what was recorded since the last pass.
    pub fn pass(&mut self, history: &History) {
        let stored: Vec<u64> = history.workers.iter().map(|worker| worker.published.totals().stored.packets).collect();
        let mut alive = HashSet::new();
        for (worker, of_worker) in history.workers.iter().enumerate() {
            let carried_below = self.stored_before.get(worker).copied().unwrap_or(0);
            for view in of_worker.segments.views() {
                let birth = birth(worker, &view);
                alive.insert(birth);
                let done = self.read.get(&birth).copied().unwrap_or(0);
                if view.packets > done {
                    self.read_segment(history, birth, view, done, carried_below);
                }
            }
        }
        self.read.retain(|birth, _| alive.contains(birth));
        self.stored_before = stored;
    }

    /// Reads a segment from packet number `done` on.
    fn read_segment(
        &mut self,
        history: &History,
        birth: SegmentIdentity,
        view: SegmentView,
        done: u64,
        carried_below: u64,
    ) {
        let mut digests = Vec::new();
        let mut from = done;
        let mut new_packets = 0;
        read_packets(history, birth.0, view, done, |sequence, digest| {
            digests.push(digest);
            new_packets += u64::from(sequence >= carried_below);
        });
        self.read.insert(birth, done + digests.len() as u64);
        self.sealed += new_packets;
        self.new_packets += new_packets;
        for part in digests.chunks(RUN_PACKETS_MAX) {
            self.open.push(Run { birth, from, packets: part.len(), root: run_root(part) });
            from += part.len() as u64;
        }
    }

    /// Seals the minute; `None` if nothing was recorded in it.
    pub fn seal(&mut self, history: &History) -> Option<Sealed> {
        self.pass(history);
        if self.open.is_empty() {
            return None;
        }
        let runs = std::mem::take(&mut self.open);
        let leaves: Vec<_> = runs.iter().map(|run| run_leaf(run.root)).collect();
        let root = merkle::root(&leaves);
        let stored: u64 = self.stored_before.iter().sum();
        let sealed = Sealed {
            minute: self.number,
            root,
            runs: runs.len() as u64,
            packets: std::mem::take(&mut self.new_packets),
            unsealed: stored.saturating_sub(self.sealed),
        };
        self.runs += runs.len();
        self.minutes.push_back(Minute { number: self.number, root, runs });
        self.number += 1;
        let is_gone = |minute: &Minute, read: &HashMap<SegmentIdentity, u64>| {
            minute.runs.iter().all(|run| !read.contains_key(&run.birth))
        };
        while self.minutes.front().is_some_and(|minute| self.runs > RUNS_MAX || is_gone(minute, &self.read)) {
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
    read_packets(history, run.birth.0, view, run.from, |_, digest| {
        if digests.len() < run.packets {
            digests.push(digest);
        }
    });
    digests
}

/// Reads the packets of a segment from number `from` on, as far as the segment lives.
fn read_packets(history: &History, worker: usize, view: SegmentView, from: u64, mut each: impl FnMut(u64, Digest)) {
    let segments = &history.workers[worker].segments;
    let (mut cursor, mut data, mut number) = (segments.cursor(view), Vec::new(), 0);
    let mut interfaces: Vec<Arc<Interface>> = history.interfaces.snapshot();
    while let Ok(Some(record)) = segments.next(&mut cursor) {
        number += 1;
        if number <= from {
            continue;
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
