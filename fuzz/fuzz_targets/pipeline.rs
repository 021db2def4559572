//! Any capture through the whole path: decoding, sessions, storing with eviction, query and export. Counts add up,
//! and a query finds exactly what is retained.

#![no_main]

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use retrocap::formats::reader::FileSource;
use retrocap::interface::Interfaces;
use retrocap::memory::Lock;
use retrocap::pipeline::{Config, Pipeline};
use retrocap::query::{History, Memory, Request};
use retrocap::store::Store;
use retrocap::store::retention::Policy;

fuzz_target!(|data: &[u8]| {
    let interfaces = Arc::new(Interfaces::default());
    let mut source = FileSource::from_reader(Box::new(Cursor::new(data.to_vec())), Arc::clone(&interfaces));
    let mut pipeline = Pipeline::new(Config {
        sessions_bytes: 1 << 20,
        store_bytes: Store::BYTES_MIN,
        policy: Policy::default(),
        classes: retrocap::judge::Classes::default(),
        pins: Default::default(),
        pinned_bytes: 1 << 20,
        filter: None,
        snaplen: 0,
        lock: Lock::No,
        seed: 1,
    })
    .unwrap();
    let _ = pipeline.run(&mut source, &AtomicBool::new(false));
    let history = History {
        workers: vec![pipeline.worker()],
        interfaces,
        memory: Memory::default(),
        capture_filter: None.into(),
        capture_interfaces: Vec::new().into(),
        restart: Default::default(),
        community_id_seed: 0.into(),
        disk: None,
    };
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
