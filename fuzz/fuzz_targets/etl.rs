//! Any bytes as a trace file of Windows: reading ends, and gives little more than it gets.
#![no_main]

use std::io::{Cursor, Read};
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use retrocap::formats::etl::ToPcapng;
use retrocap::formats::reader::FileSource;
use retrocap::interface::Interfaces;
use retrocap::source::{Batch, Source};

fuzz_target!(|bytes: &[u8]| {
    let mut pcapng = Vec::new();
    let _ = ToPcapng::new(Cursor::new(bytes)).read_to_end(&mut pcapng);
    // A section, an interface for every packet of at least 92 bytes, and the statistics.
    assert!(pcapng.len() <= 1024 + 4 * bytes.len(), "{} of {}", pcapng.len(), bytes.len());
    let mut source = FileSource::from_reader(Box::new(Cursor::new(pcapng.clone())), Arc::new(Interfaces::default()));
    for _ in 0..pcapng.len() + 8 {
        match source.batch(&mut |_| {}) {
            Ok(Batch::More | Batch::Idle) => {}
            Ok(Batch::End) => return,
            Err(error) => panic!("what was converted cannot be read: {error}"),
        }
    }
    panic!("reading does not come to an end");
});
