//! Packets made in code: in memory, as a capture file, and as an endless stream.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use retrocap::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use retrocap::time::Timestamp;

/// Frame lengths of the Internet mix: seven small packets, four medium ones, one large.
pub(crate) const IMIX: &[usize] = &[64, 64, 64, 64, 64, 64, 64, 570, 570, 570, 570, 1514];

/// Pseudo-random numbers that are the same in each run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(end)).unwrap_or(0)
    }
}

/// Writes an Ethernet/IPv4/UDP frame of `len` bytes that belongs to session `session`.
pub(crate) fn write_frame(out: &mut Vec<u8>, session: u32, len: usize) {
    let end = out.len() + len;
    let ip_len = u16::try_from(len - 14).unwrap_or(u16::MAX);
    out.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0]);
    out.extend(ip_len.to_be_bytes());
    out.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    out.extend([0; 4]);
    out.extend([192, 0, 2, 1]);
    out.extend([0; 2]);
    out.extend(443u16.to_be_bytes());
    out.extend((ip_len - 20).to_be_bytes());
    out.extend([0, 0]);
    out.resize(end, 0x5a);
    write_session(&mut out[end - len..], session);
}

/// Offsets of the addresses and of the ports in a frame, source before destination.
const ADDRESSES_AT: usize = 26;
const PORTS_AT: usize = 34;

/// Makes a frame part of session `session` by its source address and port.
fn write_session(frame: &mut [u8], session: u32) {
    let address = 0x0a00_0000 | session >> 4;
    let port = 1024 + u16::try_from(session & 15).unwrap_or(0);
    frame[ADDRESSES_AT..ADDRESSES_AT + 4].copy_from_slice(&address.to_be_bytes());
    frame[PORTS_AT..PORTS_AT + 2].copy_from_slice(&port.to_be_bytes());
}

/// Frames one after another in memory, as in a ring.
pub(crate) struct Frames {
    pub(crate) memory: Vec<u8>,
    /// Start, length and interface of each frame.
    pub(crate) frames: Vec<(usize, usize, u16)>,
    interfaces: u16,
    sessions: Sessions,
}

/// Each session once per cycle, in a different order in each cycle.
struct Sessions {
    count: u64,
    next: u64,
    step: u64,
    cycle: u64,
}

impl Sessions {
    fn new(count: u32) -> Self {
        let mut sessions = Self { count: u64::from(count), next: 0, step: 1, cycle: 0 };
        sessions.begin_cycle();
        sessions
    }

    fn begin_cycle(&mut self) {
        self.next = 0;
        self.cycle += 1;
        // A step that has no common divisor with the count visits every session.
        let common = |mut a: u64, mut b: u64| {
            while b > 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        let about = self.count * 618 / 1000 + self.cycle * 7919;
        self.step = (about..).find(|&step| common(step, self.count) == 1).unwrap_or(1);
    }

    fn next(&mut self) -> u32 {
        if self.next == self.count {
            self.begin_cycle();
        }
        let session = u128::from(self.next) * u128::from(self.step) % u128::from(self.count);
        self.next += 1;
        u32::try_from(session).unwrap_or(0)
    }
}

impl Frames {
    /// Makes about `bytes` of packets, with these lengths in turn, whose sessions and interfaces are in no order.
    pub(crate) fn new(bytes: usize, lens: &[usize], sessions: u32, interfaces: u16) -> Self {
        let count = bytes / (lens.iter().sum::<usize>() / lens.len());
        let (mut memory, mut frames) = (Vec::with_capacity(bytes), Vec::with_capacity(count));
        for i in 0..count {
            let len = lens[i % lens.len()];
            frames.push((memory.len(), len, 0));
            write_frame(&mut memory, 0, len);
        }
        let mut frames = Self { memory, frames, interfaces, sessions: Sessions::new(sessions) };
        frames.renew();
        frames
    }

    /// Writes the next sessions into the frames; there may be many more sessions than frames.
    pub(crate) fn renew(&mut self) {
        for (at, _, interface) in &mut self.frames {
            let session = self.sessions.next();
            write_session(&mut self.memory[*at..], session);
            // A session stays on one interface.
            *interface = u16::try_from(session % u32::from(self.interfaces)).unwrap_or(0);
        }
    }

    /// A packet as a source hands it over.
    pub(crate) fn packet(&self, &(at, len, interface): &(usize, usize, u16), time_ns: u64) -> Packet<'_> {
        Packet {
            time: Timestamp(time_ns),
            interface: InterfaceId(interface),
            link_type: LinkType::ETHERNET,
            direction: Direction::In,
            flags: PacketFlags::default(),
            original_len: u32::try_from(len).unwrap_or(u32::MAX),
            drops_before: 0,
            data: &self.memory[at..at + len],
        }
    }
}

/// The header of a classic capture file with microseconds.
pub(crate) const PCAP_HEADER: [u8; 24] =
    [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];

/// Packets in the capture file.
pub(crate) const FILE_PACKETS: u32 = 1_630_000;

/// Writes a classic pcap file of 20,000 sessions over 33 s, in which every fourth packet is large; returns its size
/// in bytes.
pub(crate) fn write_capture(path: &Path) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?);
    out.write_all(&PCAP_HEADER)?;
    let (mut random, mut frame, mut bytes) = (Random(1), Vec::new(), 24);
    for i in 0..FILE_PACKETS {
        let session = random.below(20_000);
        let len = if i % 4 == 0 { 742 } else { 60 + random.below(128) };
        frame.clear();
        write_frame(&mut frame, session, len as usize);
        write_record(&mut out, 1_700_000_000_000_000 + u64::from(i) * 20, &frame)?;
        bytes += 16 + u64::from(len);
    }
    out.flush()?;
    Ok(bytes)
}

fn write_record(out: &mut impl Write, micros: u64, frame: &[u8]) -> io::Result<()> {
    let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let [seconds, micros] = [micros / 1_000_000, micros % 1_000_000].map(|part| u32::try_from(part).unwrap_or(0));
    for field in [seconds, micros, len, len] {
        out.write_all(&field.to_le_bytes())?;
    }
    out.write_all(frame)
}

/// An endless history as a capture stream: 64 sessions at a time of 15 packets each, requests of 1,000 hosts and
/// responses of 250 servers, about 300 kB per second of packet time, so that 1 GiB is an hour.
pub(crate) struct History {
    chunk: Vec<u8>,
    /// Where in the chunk each record begins.
    records: Vec<usize>,
    micros: u64,
    chunks: u32,
}

/// Bytes of a record before its frame.
const RECORD_HEADER_BYTES: usize = 16;
const SESSIONS_A_CHUNK: u32 = 1024;
const PACKETS_A_SESSION: u32 = 15;
const STEP_MICROS: u64 = 2_400;

impl History {
    pub(crate) fn new() -> Self {
        let (mut chunk, mut records, mut frame, mut random) = (Vec::new(), Vec::new(), Vec::new(), Random(1));
        for _ in 0..SESSIONS_A_CHUNK / 64 {
            for packet in 0..PACKETS_A_SESSION {
                for _ in 0..64 {
                    frame.clear();
                    let len = if is_answer(packet) { 1250 } else { 60 + random.below(240) };
                    write_frame(&mut frame, 0, len as usize);
                    records.push(chunk.len());
                    let _ = write_record(&mut chunk, 0, &frame);
                }
            }
        }
        Self { chunk, records, micros: 1_700_000_000_000_000, chunks: 0 }
    }

    /// The address of host number `n` of 1,000.
    pub(crate) fn host(n: u32) -> String {
        format!("10.1.{}.{}", n % 1000 / 250, n % 250 + 1)
    }

    /// Records of the next 37 seconds, about 10 MB.
    pub(crate) fn next(&mut self) -> &[u8] {
        for (i, &at) in (0u32..).zip(&self.records) {
            self.micros += STEP_MICROS;
            let [seconds, micros] =
                [self.micros / 1_000_000, self.micros % 1_000_000].map(|part| u32::try_from(part).unwrap_or(0));
            self.chunk[at..at + 4].copy_from_slice(&seconds.to_le_bytes());
            self.chunk[at + 4..at + 8].copy_from_slice(&micros.to_le_bytes());
            // Sessions come in groups of 64, whose packets alternate.
            let session = i / (PACKETS_A_SESSION * 64) * 64 + i % 64;
            let packet = i / 64 % PACKETS_A_SESSION;
            let host = (session + self.chunks * 7) % 1000;
            let [third, fourth] = [host / 250, host % 250 + 1].map(|part| u8::try_from(part).unwrap_or(0));
            let server = u8::try_from((session + self.chunks) % 250 + 1).unwrap_or(0);
            let port = u16::try_from(1024 + (self.chunks * 17 + session) % 60_000).unwrap_or(1024);
            let (client, server) = (([10, 1, third, fourth], port), ([198, 51, 100, server], 443));
            let (from, to) = if is_answer(packet) { (server, client) } else { (client, server) };
            let frame = &mut self.chunk[at + RECORD_HEADER_BYTES..];
            frame[ADDRESSES_AT..ADDRESSES_AT + 8].copy_from_slice(&[from.0, to.0].concat());
            frame[PORTS_AT..PORTS_AT + 4].copy_from_slice(&[from.1.to_be_bytes(), to.1.to_be_bytes()].concat());
        }
        self.chunks += 1;
        &self.chunk
    }
}

/// Whether the server sends the session's packet of this number.
fn is_answer(packet: u32) -> bool {
    packet % 2 == 1
}
