//! One simulation run: the actions of each step and the checks after it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use retrocap::interface::Interfaces;
use retrocap::judge::Pins;
use retrocap::packet::LinkType;
use retrocap::query::{History, Packets, Request};
use retrocap::store::Rank;
use retrocap::store::retention::Policy;
use retrocap::time::Timestamp;

use super::recorder::Recorder;
use super::sessions::Depth;
use super::setup::Setup;
use super::traffic::{Random, SECOND, Sent, Traffic};

const PINS: usize = 12;
/// Ports that pins match.
const PINNED: [u16; 4] = [7000, 7001, 502, 8080];

pub(crate) struct Run {
    setup: Setup,
    traffic: Traffic,
    random: Random,
    recorders: Vec<Recorder>,
    pins: Arc<Pins>,
    history: History,
    /// Port of each pin, by place.
    pinned: [Option<u16>; PINS],
    /// Sessions that a pin has protected at any time.
    ever_pinned: HashSet<(usize, u32)>,
}

/// A reader that can stall for many steps.
struct Reader<'h> {
    packets: Packets<'h>,
    latest: Timestamp,
    seen: BTreeSet<(usize, u64)>,
}

impl Run {
    pub(crate) fn new(seed: u64, setup: &Setup) -> Self {
        let pins = Arc::new(Pins::new(setup.pinned_bytes * setup.workers as u64));
        let recorders: Vec<_> = (0..setup.workers).map(|_| Recorder::new(setup, &pins)).collect();
        let interfaces = Arc::new(Interfaces::default());
        for (index, name) in (1..).zip(["eth0", "eth1"]) {
            interfaces.intern(name, index, LinkType::ETHERNET).unwrap();
        }
        let history = History::new(recorders.iter().map(|recorder| recorder.worker.clone()).collect(), interfaces);
        Self {
            setup: setup.clone(),
            traffic: Traffic::new(seed),
            random: Random(seed ^ 0x9a7),
            recorders,
            pins,
            history,
            pinned: [None; PINS],
            ever_pinned: HashSet::new(),
        }
    }

    pub(crate) fn go(&mut self, steps: u64) {
        // Readers borrow the history while everything else changes, so they get their own copy.
        let history = History::new(self.history.workers.clone(), Arc::clone(&self.history.interfaces));
        let mut readers: Vec<Reader<'_>> = Vec::new();
        for step in 0..steps {
            self.change_something();
            let mut sent: Vec<Vec<Sent>> = vec![Vec::new(); self.setup.workers];
            for mut packet in self.traffic.step() {
                let worker = (packet.pair.a.0 ^ packet.pair.b.0 ^ u32::from(packet.pair.a.1)) as usize % sent.len();
                packet.time -= worker as u64 * 2_000_000;
                sent[worker].push(packet);
            }
            for (recorder, sent) in self.recorders.iter_mut().zip(&sent) {
                recorder.receive(sent, self.setup.burst);
            }
            if self.setup.check {
                let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.check()));
                if let Err(panic) = checked {
                    println!("after step {step}");
                    std::panic::resume_unwind(panic);
                }
                self.read(&history, &mut readers, step);
            }
        }
        self.report();
    }

    /// All retained packets in export order: worker, sequence number, time and bytes.
    pub(crate) fn kept(&self) -> Vec<(usize, u64, u64, Vec<u8>)> {
        let mut packets = self.history.packets(&Request::default()).unwrap();
        let mut kept = Vec::new();
        while let Some(found) = packets.next() {
            kept.push((found.worker, found.header.sequence, found.packet.time.0, found.packet.data.to_vec()));
        }
        kept
    }

    /// Randomly adds, removes and expires pins, and changes policies and filters.
    fn change_something(&mut self) {
        let before = self.pinned;
        match self.random.below(100) {
            0..5 => {
                let port = self.random.of(&PINNED);
                let since = Timestamp(self.traffic.now);
                let until = Timestamp(self.traffic.now + self.random.between(10, 20_000) * SECOND);
                // As the service does: the sessions of stored packets are searched for.
                let expression = format!("port {port}");
                let request = Request { expression: expression.clone(), ..Request::default() };
                let found = self.history.found_sessions(&request).unwrap();
                if let Ok(pin) = self.pins.add(&expression, since, until) {
                    self.pins.note_found(pin.id, Arc::new(found));
                    self.pinned[pin.place] = Some(port);
                }
            }
            5..7 => {
                if let Some(pin) = self.pins.list().first() {
                    self.pins.remove(pin.id);
                    self.pinned[pin.place] = None;
                }
            }
            7..9 => {
                let steepness = self.random.of(&[0.3, 1.0, 1.7]);
                let policy = Policy::steepness(steepness);
                let filtering = self.random.percent(30);
                for recorder in &mut self.recorders {
                    recorder.change(filtering, &policy);
                }
            }
            _ => {
                self.pins.expire(Timestamp(self.traffic.now));
                let left = self.pins.list();
                for place in 0..PINS {
                    if left.iter().all(|pin| pin.place != place) {
                        self.pinned[place] = None;
                    }
                }
            }
        }
        let bits =
            |wanted: &dyn Fn(usize) -> bool| (0..PINS).filter(|&p| wanted(p)).fold(0u16, |bits, p| bits | 1 << p);
        let ended = bits(&|place| before[place].is_some() && self.pinned[place].is_none());
        let new = bits(&|place| before[place].is_none() && self.pinned[place].is_some());
        for recorder in &mut self.recorders {
            recorder.pipeline.refresh();
            if ended | new != 0
                && let Some(oracle) = &mut recorder.oracle
            {
                oracle.set_pins(self.pinned, ended, new);
            }
        }
    }

    fn check(&mut self) {
        for worker in 0..self.recorders.len() {
            self.recorders[worker].check_counts();
            let segments = self.contents(worker);
            self.check_budget(worker);
            let mut there = vec![false; self.recorders[worker].stored.len()];
            let (mut packets, mut bytes) = (0, 0);
            for &sequence in segments.iter().flat_map(|(_, sequences)| sequences) {
                let was = std::mem::replace(&mut there[index(sequence)], true);
                assert!(!was, "packet {sequence} is there twice");
                packets += 1;
                bytes += self.stored(worker, sequence).0.captured as u64;
            }
            let retained = self.recorders[worker].totals().retained;
            assert_eq!((retained.packets, retained.bytes), (packets, bytes));
            self.check_whole(worker, &there);
            self.check_sessions(worker, &there);
            if let Some(oracle) = &self.recorders[worker].oracle {
                let mut expected = oracle.contents();
                expected.sort();
                assert_same(&segments, &expected);
            }
        }
    }

    fn stored(&self, worker: usize, sequence: u64) -> &(Sent, Option<u32>) {
        &self.recorders[worker].stored[index(sequence)]
    }

    /// The sequence numbers in each segment, with its rank. Records the session slots of new packets.
    fn contents(&mut self, worker: usize) -> Vec<(u8, Vec<u64>)> {
        let recorder = &mut self.recorders[worker];
        let segments = Arc::clone(&recorder.worker.segments);
        let mut all = Vec::new();
        for view in segments.views() {
            let mut cursor = segments.cursor(view);
            let mut sequences = Vec::new();
            while let Some(record) = segments.next(&mut cursor).expect("nobody evicts meanwhile") {
                let header = record.header;
                let (sent, slot) = &mut recorder.stored[index(header.sequence)];
                assert_eq!((header.time.0, header.captured_len as usize), (sent.time, sent.captured));
                assert_eq!(header.interface.0, sent.pair.interface);
                assert_eq!(*slot.get_or_insert(header.session.0), header.session.0);
                sequences.push(header.sequence);
            }
            assert_eq!(view.packets, sequences.len() as u64);
            assert!(sequences.is_sorted(), "a segment is in the order of arrival");
            all.push((view.rank.0, sequences));
        }
        all.sort();
        all
    }

    /// Checks that segments fit into the store and that pins stay within their limit.
    fn check_budget(&self, worker: usize) {
        let recorder = &self.recorders[worker];
        let segments = &recorder.worker.segments;
        let taken: u64 = segments.views().map(|view| view.memory_bytes()).sum();
        assert!(taken <= segments.capacity_bytes(), "{taken} of {}", segments.capacity_bytes());
        assert!(segments.capacity_bytes() <= self.setup.store_bytes);
        let tally = &recorder.worker.tally;
        let pinned: u64 = (0..PINS).map(|place| tally.pinned_bytes(place)).sum();
        assert!(pinned <= self.setup.pinned_bytes, "pins have {pinned} of {}", self.setup.pinned_bytes);
        if let Some(oracle) = &recorder.oracle {
            assert_eq!(pinned, oracle.pinned_pages() as u64 * 4096);
            for place in 0..PINS {
                assert_eq!(tally.refused_packets(place), oracle.refused[place], "refused of pin {place}");
            }
        }
    }

    /// Checks that every packet newer than the newest evicted packet is retained.
    fn check_whole(&self, worker: usize, there: &[bool]) {
        let recorder = &self.recorders[worker];
        let lost_until = recorder.totals().lost_until;
        for (sequence, (sent, _)) in recorder.stored.iter().enumerate() {
            let whole = lost_until.is_none_or(|lost| sent.time > lost.0);
            assert!(!whole || there[sequence], "packet {sequence} is newer than {lost_until:?} and gone");
        }
    }

    /// Checks that the session table matches the retained packets. Counts sessions without their first packet and
    /// sessions with gaps.
    fn check_sessions(&mut self, worker: usize, there: &[bool]) {
        let recorder = &mut self.recorders[worker];
        let totals = recorder.totals();
        let mut by_slot: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for (sequence, (_, slot)) in (0..).zip(&recorder.stored) {
            if let Some(slot) = slot {
                by_slot.entry(*slot).or_default().push(sequence);
            }
        }
        for session in recorder.worker.sessions.sessions() {
            let all = by_slot.get(&session.slot.0).map_or(&[][..], Vec::as_slice);
            let all = &all[all.partition_point(|&sequence| sequence < session.first_sequence)..];
            let kept: Vec<u64> = all.iter().copied().filter(|&sequence| there[index(sequence)]).collect();
            let bytes: usize = kept.iter().map(|&at| recorder.stored[index(at)].0.captured).sum();
            assert_eq!((session.kept_packets, session.kept_bytes), (kept.len() as u64, bytes as u64), "{session:?}");
            if session.marks().pins != 0 {
                self.ever_pinned.insert((worker, session.slot.0));
            }
            if let Some(oracle) = &recorder.oracle {
                let expected = &oracle.sessions.all[session.slot.0 as usize];
                // Readers see both sides swapped if the ports show better which side is the responder.
                let turned = session.packets.originator != expected.packets.0;
                let (originator, responder) = (session.packets.originator, session.packets.responder);
                let packets = if turned { (responder, originator) } else { (originator, responder) };
                let marks = (session.marks().class, session.marks().flood, session.marks().pins);
                assert_eq!(session.first_sequence, expected.first_sequence, "{session:?}\n{expected:?}");
                assert_eq!((packets, session.last.0), (expected.packets, expected.last), "{session:?}\n{expected:?}");
                assert_eq!(marks, (expected.class, expected.flood, expected.pins), "{session:?}\n{expected:?}");
                assert_eq!(session.kept_packets, expected.kept_packets);
            }
            let Some(&first) = kept.first() else { continue };
            recorder.looked_at += 1;
            if first != session.first_sequence {
                recorder.headless.insert((session.slot.0, session.first_sequence));
                assert!(totals.carried.lost > 0 || !self.setup.entries_suffice, "headless: {session:?} {kept:?}");
                let counted = totals.carried.headless + totals.carried.untracked;
                assert!(recorder.headless.len() as u64 <= counted, "only {counted} headless sessions are counted");
            }
            // A long session keeps its start and its latest packets. This is a hole and does not count as a gap.
            let is_short = session.last.0.saturating_sub(session.first.0) <= 20 * SECOND;
            if is_short
                && !self.ever_pinned.contains(&(worker, session.slot.0))
                && has_gap(&recorder.stored, all, there, totals.lost_until)
            {
                recorder.gaps += 1;
            }
        }
    }

    /// Advances some readers by a few packets. Sometimes starts a new reader, and every tenth step reads the whole
    /// history.
    fn read<'h>(&mut self, history: &'h History, readers: &mut Vec<Reader<'h>>, step: u64) {
        if readers.len() < 3 && self.random.percent(10) {
            let packets = history.packets(&Request::default()).unwrap();
            readers.push(Reader { packets, latest: Timestamp::MIN, seen: BTreeSet::new() });
        }
        let mut left = Vec::new();
        for mut reader in readers.drain(..) {
            let count = if self.random.percent(80) { 0 } else { self.random.below(300) };
            if self.read_some(&mut reader, count) {
                left.push(reader);
            }
        }
        *readers = left;
        if step.is_multiple_of(10) {
            let packets = history.packets(&Request::default()).unwrap();
            let mut reader = Reader { packets, latest: Timestamp::MIN, seen: BTreeSet::new() };
            assert!(!self.read_some(&mut reader, u64::MAX));
            let summary = reader.packets.summary();
            assert_eq!(summary.packets, history.totals().retained.packets, "an export has everything that is there");
            assert_eq!(summary.overtaken, 0);
        }
    }

    /// Reads up to `count` packets. Returns false at the end.
    fn read_some(&self, reader: &mut Reader<'_>, count: u64) -> bool {
        for _ in 0..count {
            let Some(found) = reader.packets.next() else { return false };
            assert!(found.packet.time >= reader.latest, "exports are sorted");
            reader.latest = found.packet.time;
            let (worker, sequence) = (found.worker, found.header.sequence);
            let (sent, _) = self.stored(worker, sequence);
            assert_eq!(found.packet.time.0, sent.time);
            assert!(found.packet.data == sent.frame(), "packet {sequence} is not what was sent");
            assert!(reader.seen.insert((worker, sequence)), "packet {sequence} came twice");
        }
        true
    }

    fn report(&self) {
        for (worker, recorder) in self.recorders.iter().enumerate() {
            let totals = recorder.totals();
            println!(
                "  worker {worker}: {} stored, {} kept, {} carried, {} lost, {} segments packed; {} sessions headless; of {} looks at sessions {} with a gap",
                totals.stored.packets,
                totals.retained.packets,
                totals.carried.volume.packets,
                totals.carried.lost,
                totals.packed.segments,
                recorder.headless.len(),
                recorder.looked_at,
                recorder.gaps,
            );
            // A session misses a part while the segment with an earlier part of the same rank is gone. The store has only
            // a few dozen segments, so that this is one of many dozen sessions and not one of a thousand as in a real
            // store (`make retention` gives that figure). Of 18 seeds, the worst showed 4.7 %.
            let bounded = !self.setup.entries_suffice || recorder.gaps * 100 <= recorder.looked_at * 6;
            assert!(bounded, "{} of {} looks at sessions show a gap", recorder.gaps, recorder.looked_at);
        }
    }
}

fn index(sequence: u64) -> usize {
    usize::try_from(sequence).unwrap()
}

/// Whether a session misses a packet of a lower rank than a later retained packet. Ignores retained packets newer than
/// `lost_until` and packets that close the session.
fn has_gap(stored: &[(Sent, Option<u32>)], all: &[u64], there: &[bool], lost_until: Option<Timestamp>) -> bool {
    let mut missing: Option<Rank> = None;
    let mut depth = Depth::default();
    for &sequence in all {
        let (sent, _) = &stored[index(sequence)];
        let rank = Rank::of_packet(depth.of_next(sent), sent.len as u64);
        if sent.tcp_flags & (super::traffic::FIN | super::traffic::RST) != 0 {
            continue;
        }
        if !there[index(sequence)] {
            missing.get_or_insert(rank);
        } else if lost_until.is_some_and(|lost| sent.time <= lost.0) && missing.is_some_and(|missing| missing < rank) {
            return true;
        }
    }
    false
}

fn assert_same(segments: &[(u8, Vec<u64>)], expected: &[(u8, Vec<u64>)]) {
    if segments == expected {
        return;
    }
    let shown = |all: &[(u8, Vec<u64>)], others: &[(u8, Vec<u64>)]| -> Vec<String> {
        let only = all.iter().filter(|segment| !others.contains(segment));
        only.map(|(rank, s)| format!("rank {rank}: {} from {:?} to {:?}", s.len(), s.first(), s.last())).collect()
    };
    panic!(
        "the oracle keeps something else\n only the store: {:#?}\n only the oracle: {:#?}",
        shown(segments, expected),
        shown(expected, segments)
    );
}
