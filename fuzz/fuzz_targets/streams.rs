//! Any capture as streams: within a direction, runs and gaps join without overlap, memory stays within its limits, and
//! every session ends.

#![no_main]

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use retrocap::formats::reader::FileSource;
use retrocap::source::{Batch, Source};
use retrocap::streams::{Event, Session, StreamLimits, Streams};

const LIMITS: StreamLimits = StreamLimits { direction_bytes: 16 << 10, total_bytes: 64 << 10, sessions: 16 };
/// What one packet may add before room is made.
const PACKET_BYTES_MAX: usize = 320 << 10;

#[derive(Default)]
struct Offsets(HashMap<u64, [u64; 2]>);

impl retrocap::streams::Sink for Offsets {
    fn event(&mut self, session: &Session, event: Event<'_>) {
        let next = |offsets: &mut Self, sender: usize, offset: u64, len: u64| {
            let at = &mut offsets.0.get_mut(&session.number).expect("a session that has begun")[sender];
            assert_eq!(*at, offset, "runs and gaps join");
            *at += len;
        };
        match event {
            Event::Begin => assert!(self.0.insert(session.number, [0; 2]).is_none()),
            Event::Run(run) => next(self, run.sender.index(), run.offset, run.data.len() as u64),
            Event::Gap(gap) if gap.len > 0 => next(self, gap.sender.index(), gap.offset, gap.len),
            Event::Gap(_) | Event::Conflict(_) => {}
            Event::End => assert!(self.0.remove(&session.number).is_some()),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut source = FileSource::from_reader(Box::new(Cursor::new(data.to_vec())), Arc::default());
    let (mut streams, mut offsets, mut sequence) = (Streams::new(LIMITS), Offsets::default(), 0);
    loop {
        let batch = source.batch(&mut |packet| {
            sequence += 1;
            streams.packet(packet, sequence, &mut offsets);
            assert!(streams.held_bytes() <= LIMITS.total_bytes + PACKET_BYTES_MAX);
        });
        if !matches!(batch, Ok(Batch::More)) {
            break;
        }
    }
    streams.finish(&mut offsets);
    assert!(offsets.0.is_empty(), "every session ends");
});
