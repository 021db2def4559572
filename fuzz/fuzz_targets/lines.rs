//! Any bytes as a capture that is printed as text: one line per packet, and nothing that moves the terminal's cursor.
#![no_main]

use std::io::Cursor;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use retrocap::formats::reader::FileSource;
use retrocap::source::{Batch, Source};
use retrocap::decode::decode;
use retrocap::decode::text::{Line, Precision, TextWriter};

fuzz_target!(|bytes: &[u8]| {
    let mut source = FileSource::from_reader(Box::new(Cursor::new(bytes.to_vec())), Arc::default());
    let mut writer = TextWriter::new(jiff::tz::TimeZone::UTC, Precision::Nano);
    let (mut lines, mut packets) = (String::new(), 0);
    loop {
        let batch = source.batch(&mut |packet| {
            let decoded = decode(packet.link_type, packet.data);
            let (time, link_type, data) = (packet.time, packet.link_type, packet.data);
            let line = Line { time, link_type, data, original_len: packet.original_len, decoded: &decoded };
            writer.write(&mut lines, &line);
            packets += 1;
        });
        if !matches!(batch, Ok(Batch::More | Batch::Idle)) {
            break;
        }
    }
    assert_eq!(lines.lines().count(), packets);
    assert!(lines.chars().all(|c| c == '\n' || !c.is_control()), "{lines:?}");
});
