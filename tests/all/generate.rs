//! Captures made in code, the same for the same seed, and a reader for captures.

use std::path::Path;
use std::sync::Arc;

use retrocap::formats::reader::FileSource;
use retrocap::source::{Batch, Source, SourceError};

/// The first second of generated captures: 2026-11-22T10:00:00Z.
pub(crate) const START_S: u64 = 1_795_341_600;

/// Pseudo-random numbers from a seed (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// The header of a classic pcap file of Ethernet frames with nanoseconds.
pub(crate) fn header() -> Vec<u8> {
    let mut file = Vec::new();
    for field in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 262_144, 1] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    file
}

/// Appends one UDP packet of session `session` with `payload` bytes.
pub(crate) fn packet(file: &mut Vec<u8>, nanos: u64, session: u32, to_responder: bool, payload: u16) {
    let length = 14 + 20 + 8 + u32::from(payload);
    let seconds = u32::try_from(START_S + nanos / 1_000_000_000).unwrap();
    let fraction = u32::try_from(nanos % 1_000_000_000).unwrap();
    for field in [seconds, fraction, length, length] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    file.extend_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    file.extend_from_slice(&[0x45, 0]);
    file.extend_from_slice(&(28 + payload).to_be_bytes());
    file.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
    let [a, b, c, d] = session.to_be_bytes();
    // Each host of a /16 has 64 thousand ports.
    let (client, server) = ([10, 0, a, b], [192, 0, 2, 7]);
    let (client_port, server_port) = ([c, d], [0, 53]);
    let (from, to) = if to_responder { (client, server) } else { (server, client) };
    let (from_port, to_port) = if to_responder { (client_port, server_port) } else { (server_port, client_port) };
    for part in [&from[..], &to, &from_port, &to_port, &(8 + payload).to_be_bytes(), &[0, 0]] {
        file.extend_from_slice(part);
    }
    let byte = (session ^ fraction).to_le_bytes()[0];
    file.resize(file.len() + usize::from(payload), byte);
}

/// A capture of about `bytes`: 64 sessions at a time, most of them short, a few that carry nearly all bytes. One
/// packet in a hundred comes after a later one.
pub(crate) fn traffic(bytes: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut file = header();
    file.reserve(bytes + 4096);
    let mut left = [0u64; 64];
    let mut names = [0u32; 64];
    let (mut nanos, mut sessions) = (1_000_000u64, 1u32);
    while file.len() < bytes {
        let at = usize::try_from(random.below(64)).unwrap();
        if left[at] == 0 {
            left[at] = [200, 800, 3000, 10_000, 300_000, 3_000_000][usize::try_from(random.below(36)).unwrap() / 6];
            names[at] = sessions;
            sessions += 1;
        }
        let payload = left[at].min(20 + random.below(1400));
        left[at] -= payload;
        nanos += 1 + random.below(2_000_000);
        let back = if random.below(100) == 0 { 500_000 } else { 0 };
        packet(&mut file, nanos - back, names[at], random.below(3) == 0, u16::try_from(payload).unwrap());
    }
    file
}

/// A packet as tests compare it: time in nanoseconds, length on the wire, bytes.
pub(crate) type Plain = (u64, u32, Vec<u8>);

/// All packets of a capture, and how reading ended.
pub(crate) fn read(path: &Path) -> (Vec<Plain>, Result<(), SourceError>) {
    let mut packets = Vec::new();
    let mut source = FileSource::open(path, Arc::default()).unwrap();
    loop {
        match source.batch(&mut |packet| packets.push((packet.time.0, packet.original_len, packet.data.to_vec()))) {
            Ok(Batch::End) => return (packets, Ok(())),
            Ok(_) => {}
            Err(error) => return (packets, Err(error)),
        }
    }
}
