//! Any capture through the whole path: decoding, sessions, storing with eviction, query and export. Counts add up,
//! and a query finds exactly what is retained.

#![no_main]

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use retrocap::formats::reader::FileSource;
use retrocap::interface::Interfaces;
use retrocap::pipeline::{Config, Pipeline};
use retrocap::query::{History, Request};
use retrocap::store::Store;

fuzz_target!(|data: &[u8]| {
    let interfaces = Arc::new(Interfaces::default());
    let mut source = FileSource::from_reader(Box::new(Cursor::new(data.to_vec())), Arc::clone(&interfaces));
    let mut pipeline = Pipeline::new(Config { pinned_bytes: 1 << 20, ..Config::new(1 << 20, Store::BYTES_MIN) })
    .unwrap();
    let _ = pipeline.run(&mut source, &AtomicBool::new(false));
    let history = History::new(vec![pipeline.worker()], interfaces);
    let totals = history.totals();
    assert_eq!(
        totals.received.packets,
        totals.stored.packets + totals.filtered.packets + totals.dropped.iter().map(|d| d.packets).sum::<u64>()
    );
    assert_eq!(totals.stored.bytes, totals.retained.bytes + totals.evicted.bytes);
    let mut packets = history.packets(&Request::default()).unwrap();
    let mut found = 0;
    while packets.next().is_some() {
        found += 1;
    }
    assert_eq!(found, totals.retained.packets);
});
