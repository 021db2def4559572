//! Tests of what the engine guarantees for classes and pins.

use std::sync::Arc;

use retrocap::budget::Split;
use retrocap::counters::DropReason;
use retrocap::filter::Endpoints;
use retrocap::judge::pins::FoundInWorker;
use retrocap::judge::{Class, Classes, Pin, Pins, SessionFilter};
use retrocap::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use retrocap::pipeline::{Config, Pipeline};
use retrocap::session::Session;
use retrocap::time::Timestamp;

const SECOND: u64 = 1_000_000_000;
const BEGIN: u64 = 1_795_341_600 * SECOND;

/// A recorder with a budget of 16 MiB and a memory limit for pins.
struct Recorder {
    pipeline: Pipeline,
    pins: Arc<Pins>,
    sent: u64,
}

impl Recorder {
    fn new(classes: &[Class], pinned_bytes: u64) -> Self {
        let split = Split::new(16 << 20, 1, false).unwrap();
        let pins = Arc::new(Pins::new(pinned_bytes));
        let config = Config {
            classes: Classes::new(classes, split.store_bytes).unwrap(),
            pins: Arc::clone(&pins),
            pinned_bytes,
            ..Config::new(split.sessions_bytes, split.store_bytes)
        };
        Self { pipeline: Pipeline::new(config).unwrap(), pins, sent: 0 }
    }

    /// Sends a UDP packet of `len` bytes between 10.0.0.1 and a host.
    fn send(&mut self, second: u64, host: u32, port: u16, out: bool, len: usize) {
        let (a, b) = ([10, 0, 0, 1], (0xc000_0000 | host).to_be_bytes());
        let (from, to, ports) = if out { (a, b, [40_000u16, port]) } else { (b, a, [port, 40_000]) };
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
        frame.extend(u16::try_from(len - 14).unwrap().to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend(from);
        frame.extend(to);
        frame.extend(ports.map(u16::to_be_bytes).concat());
        frame.extend(u16::try_from(len - 34).unwrap().to_be_bytes());
        frame.extend([0, 0]);
        frame.resize(len, 7);
        self.sent += 1;
        self.pipeline.refresh();
        self.pipeline.ingest(&[Packet {
            time: Timestamp(BEGIN + second * SECOND + self.sent % 1000),
            interface: InterfaceId(0),
            link_type: LinkType::ETHERNET,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: u32::try_from(len).unwrap(),
            drops_before: 0,
            data: &frame,
        }]);
    }

    /// Makes a pin, and finds the sessions of stored packets that match, as the service does.
    fn pin(&mut self, expression: &str, until: Timestamp) -> Pin {
        let pin = self.pins.add(expression, Timestamp(BEGIN), until).unwrap();
        self.pipeline.publish();
        let sessions = self.pipeline.worker().sessions;
        let mut filter = SessionFilter::new(expression).unwrap();
        let mut slots = vec![0; 1024];
        for session in sessions.sessions().filter(|session| filter.matches(&Endpoints::from(&session.key))) {
            slots[session.slot.0 as usize / 64] |= 1 << (session.slot.0 % 64);
        }
        let found = FoundInWorker { sessions, stored: self.sent, slots };
        self.pins.note_found(pin.id, Arc::new(vec![found].into()));
        pin
    }

    /// Sends one hour of bulk in many sessions, several times the size of the store.
    fn flush(&mut self, from_second: u64) {
        self.bulk(from_second, 40_000);
    }

    /// Sends the first `packets` packets of this bulk.
    fn bulk(&mut self, from_second: u64, packets: u64) {
        for i in 0..packets {
            let host = 0x10_0000 + u32::try_from(i / 400).unwrap();
            self.send(from_second + i * 3600 / 40_000, host, 9999, i % 2 == 0, 1400);
        }
    }

    /// Matching sessions, each with its number of retained packets.
    fn sessions(&mut self, expression: &str) -> Vec<(Session, u64)> {
        self.pipeline.publish();
        let worker = self.pipeline.worker();
        let totals = worker.published.totals();
        let dropped: u64 = totals.dropped.iter().map(|volume| volume.packets).sum();
        assert_eq!(totals.received.packets, totals.stored.packets + totals.filtered.packets + dropped);
        assert_eq!(totals.stored.packets, totals.retained.packets + totals.evicted.packets);
        assert_eq!(totals.stored.bytes, totals.retained.bytes + totals.evicted.bytes);
        let mut filter = SessionFilter::new(expression).unwrap();
        let matching = worker.sessions.sessions().filter(|session| filter.matches(&Endpoints::from(&session.key)));
        let mut sessions: Vec<(Session, u64)> = matching.map(|session| (session, 0)).collect();
        for view in worker.segments.views() {
            let mut cursor = worker.segments.cursor(view);
            while let Some(record) = worker.segments.next(&mut cursor).unwrap() {
                let header = record.header;
                for (session, kept) in &mut sessions {
                    if session.slot == header.session && session.first_sequence <= header.sequence {
                        *kept += 1;
                    }
                }
            }
        }
        for (session, kept) in &sessions {
            assert_eq!(session.kept_packets, *kept, "the session counts the packets that are kept");
        }
        sessions
    }

    /// Number of packets sent and retained in matching sessions.
    fn seen_and_kept(&mut self, expression: &str) -> (u64, u64) {
        let sessions = self.sessions(expression);
        (sessions.iter().map(|(session, _)| session.packets.sum()).sum(), sessions.iter().map(|(_, kept)| kept).sum())
    }
}

fn class(name: &str, filter: &str) -> Class {
    Class {
        name: name.to_owned(),
        filter: filter.to_owned(),
        weight: 1.0,
        cutoff_bytes: None,
        reserve_bytes: 0,
        important: None,
    }
}

#[test]
fn a_weight_stretches_the_horizon() {
    let classes = [
        Class { weight: 1000.0, ..class("long", "port 7001") },
        Class { weight: 0.001, ..class("short", "port 7002") },
    ];
    let mut recorder = Recorder::new(&classes, 0);
    // Three sessions of 100 kB each that differ only in their port, then one hour of bulk.
    for i in 0..100 {
        for port in [7000, 7001, 7002] {
            recorder.send(i / 100, 1, port, i % 2 == 0, 1000);
        }
    }
    recorder.flush(100);
    let [plain, long, short] = [7000, 7001, 7002].map(|port| recorder.seen_and_kept(&format!("port {port}")).1);
    assert_eq!(long, 100, "all of it");
    assert!(plain < 60, "{plain} packets without a class");
    assert!(short <= plain, "{short} packets of the short class, {plain} of none");

    // Repeat with less bulk than fits beside the sessions. The class with the low weight is evicted first.
    for i in 0..100 {
        for port in [7000, 7002] {
            recorder.send(4000 + i / 100, 2, port, i % 2 == 0, 1000);
        }
    }
    recorder.bulk(4100, 500);
    let [plain, short] = [7000, 7002].map(|port| recorder.seen_and_kept(&format!("host 192.0.0.2 and port {port}")).1);
    assert_eq!(plain, 100);
    assert!(short < 60, "{short} packets of the short class");
}

#[test]
fn a_cutoff_drops_at_once_and_counts() {
    let mut recorder = Recorder::new(&[Class { cutoff_bytes: Some(5000), ..class("backup", "port 873") }], 0);
    for i in 0..50 {
        recorder.send(i / 100, 1, 873, i % 2 == 0, 1000);
        recorder.send(i / 100, 1, 874, i % 2 == 0, 1000);
    }
    assert_eq!(recorder.seen_and_kept("port 873"), (50, 5), "all were seen, the first 5000 bytes kept");
    assert_eq!(recorder.seen_and_kept("port 874"), (50, 50));
    let totals = recorder.pipeline.worker().published.totals();
    assert_eq!(totals.dropped[DropReason::ClassCutoff as usize].packets, 45);
    assert_eq!(totals.dropped[DropReason::ClassCutoff as usize].bytes, 45_000);
}

#[test]
fn a_reserve_cannot_be_taken_by_others() {
    let mut recorder = Recorder::new(&[Class { reserve_bytes: 2 << 20, ..class("industrial", "port 502") }], 0);
    // The packets lie deep in one session, so only the reserve keeps them.
    for i in 0..12_000u64 {
        recorder.send(i / 1000, 1, 502, i % 2 == 0, 120);
        recorder.send(i / 1000, 1, 503, i % 2 == 0, 120);
    }
    recorder.flush(3000);
    let (seen, kept) = recorder.seen_and_kept("port 502");
    assert_eq!(seen, 12_000);
    assert_eq!(kept, 12_000, "1.6 MB fit into 2 MiB");
    let others = recorder.seen_and_kept("port 503").1;
    assert!(others < 2000, "{others} of those without a reserve");
    let tally = recorder.pipeline.worker().tally;
    assert!(tally.class_bytes(1) >= 12_000 * 120);
}

#[test]
fn a_pin_keeps_what_is_there_and_what_still_comes() {
    let mut recorder = Recorder::new(&[], 4 << 20);
    for i in 0..300 {
        recorder.send(i / 100, 1, 7000, i % 2 == 0, 1000);
        recorder.send(i / 100, 2, 7000, i % 2 == 0, 1000);
    }
    let until = Timestamp(BEGIN + 100 * 3600 * SECOND);
    let pin = recorder.pin("host 192.0.0.1", until);
    recorder.flush(300);
    for i in 0..300 {
        recorder.send(4000 + i / 100, 1, 7001, i % 2 == 0, 1000);
        recorder.send(4000 + i / 100, 2, 7001, i % 2 == 0, 1000);
    }
    recorder.flush(5000);
    assert_eq!(recorder.seen_and_kept("host 192.0.0.1"), (600, 600), "old and new sessions are whole");
    let (seen, kept) = recorder.seen_and_kept("host 192.0.0.2");
    assert!(seen == 600 && kept < 100, "{kept} of another host");

    // The pin expires. Its packets now count as bulk, except for the start of each session.
    assert_eq!(recorder.pins.expire(Timestamp(until.0 - 1)), 0);
    assert_eq!(recorder.pins.expire(until), 1);
    assert!(!recorder.pins.remove(pin.id), "it is gone");
    recorder.flush(9000);
    let sessions = recorder.sessions("host 192.0.0.1");
    let kept: u64 = sessions.iter().map(|(_, kept)| kept).sum();
    assert!(kept < 100, "{kept}");
}

#[test]
fn pins_end_where_their_share_ends_and_who_came_first_keeps_first() {
    let mut recorder = Recorder::new(&[], 1 << 20);
    let until = Timestamp(BEGIN + 100 * 3600 * SECOND);
    recorder.pins.add("port 7000", Timestamp(BEGIN), until).unwrap();
    let second = recorder.pins.add("port 7001", Timestamp(BEGIN), until).unwrap();
    for i in 0..900 {
        recorder.send(i / 100, 1, 7000, i % 2 == 0, 1000);
    }
    // 0.9 MB are in use, so about half of these packets find no room.
    for i in 0..300 {
        recorder.send(900 + i / 100, 1, 7001, i % 2 == 0, 1000);
    }
    recorder.flush(1200);
    assert_eq!(recorder.seen_and_kept("port 7000"), (900, 900));
    let (seen, kept) = recorder.seen_and_kept("port 7001");
    assert!(seen == 300 && (80..250).contains(&kept), "{kept}");
    let tally = recorder.pipeline.worker().tally;
    let refused = tally.refused_packets(second.place);
    assert!((100..=200).contains(&refused), "{refused} were refused");
    assert!(tally.pinned_bytes(0) + tally.pinned_bytes(1) <= 1 << 20);
}

#[test]
fn places_of_pins_are_given_again_without_mixing_them_up() {
    let mut recorder = Recorder::new(&[], 4 << 20);
    let until = Timestamp(BEGIN + 100 * 3600 * SECOND);
    for round in 0..30u16 {
        let pin = recorder.pins.add(&format!("port {}", 7000 + round), Timestamp(BEGIN), until).unwrap();
        for i in 0..20 {
            recorder.send(u64::from(round) * 100 + i / 100, 1, 7000 + round, i % 2 == 0, 1000);
        }
        if round < 29 {
            assert!(recorder.pins.remove(pin.id));
        }
    }
    recorder.flush(4000);
    assert_eq!(recorder.seen_and_kept("port 7029"), (20, 20), "the last one holds");
    let kept: u64 = (7000..7029).map(|port| recorder.seen_and_kept(&format!("port {port}")).1).sum();
    assert!(kept < 29 * 10, "{kept} packets of the others");
    for i in 0..12u16 {
        let made = recorder.pins.add(&format!("port {}", 9000 + i), Timestamp(BEGIN), until);
        assert_eq!(made.is_ok(), i < 8, "nine of twelve places are not for hunts, and one of them was taken: {made:?}");
    }
}

#[test]
fn important_packets_of_a_polled_session_are_kept_with_its_start() {
    let classes = [Class { important: Some("greater 140".to_owned()), ..class("plc", "port 502") }];
    let mut recorder = Recorder::new(&classes, 0);
    // One hour of polling ten times per second, with a longer packet once a minute. The starts of 72,000 other sessions
    // fill the store several times.
    for i in 0..36_000u64 {
        let len = if i % 600 == 300 { 140 } else { 90 };
        recorder.send(i / 10, 1, 502, i % 2 == 0, len);
        for other in 0..2 {
            let host = 0x20_0000 + u32::try_from(i * 2 + other).unwrap();
            recorder.send(i / 10, host, 9999, true, 700);
        }
    }
    let (seen, kept) = recorder.seen_and_kept("port 502");
    let worker = recorder.pipeline.worker();
    let mut important = 0;
    for view in worker.segments.views() {
        let mut cursor = worker.segments.cursor(view);
        while let Some(record) = worker.segments.next(&mut cursor).unwrap() {
            important += u64::from(record.header.captured_len == 140);
        }
    }
    assert_eq!(important, 60, "all of them");
    assert!(seen == 36_000 && (100..35_000).contains(&kept), "{kept}: its start and a recent stretch beside them");
    let session = recorder.sessions("port 502")[0].0;
    let lost_until = worker.published.totals().lost_until;
    assert_eq!(session.holes(lost_until), 1);
}
