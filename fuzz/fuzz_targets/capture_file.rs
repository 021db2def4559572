//! Any bytes as a capture file: reading ends, never panics, and hands over no more bytes than the input has.
#![no_main]

use std::io::Cursor;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use retrocap::formats::reader::{CAPTURED_BYTES_MAX, FileSource};
use retrocap::source::{Batch, Source};
use retrocap::interface::Interfaces;

fuzz_target!(|bytes: &[u8]| {
    let interfaces = Arc::new(Interfaces::default());
    let mut source = FileSource::from_reader(Box::new(Cursor::new(bytes.to_vec())), interfaces.clone());
    let mut captured = 0;
    let mut each = |packet: &retrocap::packet::Packet<'_>| {
        assert!(packet.data.len() <= CAPTURED_BYTES_MAX as usize);
        assert!(interfaces.interface(packet.interface).is_some());
        captured += packet.data.len();
    };
    // Each batch consumes input, recognises the format, or ends.
    for _ in 0..bytes.len() + 8 {
        match source.batch(&mut each) {
            Ok(Batch::More | Batch::Idle) => {}
            Ok(Batch::End) | Err(_) => {
                assert!(captured <= bytes.len());
                return;
            }
        }
    }
    panic!("reading does not come to an end");
});
