//! Any bytes as the history that the previous recorder left: no panic, counts add up, and what was taken over is
//! found.
#![no_main]

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use retrocap::formats::reader::FileSource;
use retrocap::handover;
use retrocap::interface::Interfaces;
use retrocap::judge::Pins;
use retrocap::pipeline::{Config, Pipeline};
use retrocap::query::{History, Request};
use retrocap::store::Store;
use retrocap::time::Timestamp;

/// What is recorded after the handover.
const CAPTURE: &[u8] = include_bytes!("../seeds/capture_file/pcap-encapsulations");

fuzz_target!(|data: &[u8]| {
    let interfaces = Arc::new(Interfaces::default());
    let pins = Arc::new(Pins::new(1 << 20));
    let pipeline = Pipeline::new(Config { pins: Arc::clone(&pins), pinned_bytes: 1 << 20, ..Config::new(1 << 20, Store::BYTES_MIN) });
    let mut pipelines = [pipeline.unwrap()];
    let now = Timestamp::from_unix(1_795_345_300, 0);
    let mut rest = data;
    let before = handover::read(&mut rest, now, &interfaces, &pins, &mut pipelines);
    let mut source = FileSource::from_reader(Box::new(Cursor::new(CAPTURE.to_vec())), Arc::clone(&interfaces));
    for recorded in [false, true] {
        if recorded {
            let _ = pipelines[0].run(&mut source, &AtomicBool::new(false));
        }
        let history = History { restart: before.clone(), ..History::new(vec![pipelines[0].worker()], Arc::clone(&interfaces)) };
        let totals = history.totals();
        let dropped: u64 = totals.dropped.iter().map(|volume| volume.packets).sum();
        assert_eq!(totals.received.packets, totals.stored.packets + totals.filtered.packets + dropped);
        assert_eq!(totals.stored.packets, totals.retained.packets + totals.evicted.packets);
        assert_eq!(totals.stored.bytes, totals.retained.bytes + totals.evicted.bytes);
        let mut packets = history.packets(&Request::default()).unwrap();
        let mut found = 0;
        while packets.next().is_some() {
            found += 1;
        }
        assert_eq!(found, totals.retained.packets);
        let _ = history.workers[0].sessions.known(Timestamp::MIN, Timestamp::MAX).count();
    }
});
