//! Packets made in code: in memory, as a capture file, and as a stream of history.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use retrocap::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use retrocap::time::Timestamp;

/// Lengths of the Internet mix: seven small packets, four middle ones, one large.
pub(crate) const IMIX: &[usize] = &[64, 64, 64, 64, 64, 64, 64, 570, 570, 570, 570, 1514];

/// Numbers without order, the same each time.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(end)).unwrap_or(0)
    }
}

/// Writes an Ethernet/IPv4/UDP frame of `len` bytes of session `session`.
pub(crate) fn write_frame(out: &mut Vec<u8>, session: u32, len: usize) {
    let end = out.len() + len;
    let ip_len = u16::try_from(len - 14).unwrap_or(u16::MAX);
    out.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0]);
    out.extend(ip_len.to_be_bytes());
    out.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    out.extend((0x0a00_0000 | session >> 4).to_be_bytes());
    out.extend([192, 0, 2, 1]);
    out.extend((1024 + u16::try_from(session & 15).unwrap_or(0)).to_be_bytes());
    out.extend(443u16.to_be_bytes());
    out.extend((ip_len - 20).to_be_bytes());
    out.extend([0, 0]);
    out.resize(end, 0x5a);
}

/// Frames one after another in memory, as in a ring.
pub(crate) struct Frames {
    pub(crate) memory: Vec<u8>,
    /// Where each begins, how long it is, and its interface.
    pub(crate) frames: Vec<(usize, usize, u16)>,
}

impl Frames {
    /// About `bytes` of packets with these lengths in turn, of sessions and interfaces at random.
    pub(crate) fn new(bytes: usize, lens: &[usize], sessions: u32, interfaces: u16) -> Self {
        let count = bytes / (lens.iter().sum::<usize>() / lens.len());
        let (mut memory, mut frames, mut random) = (Vec::with_capacity(bytes), Vec::with_capacity(count), Random(1));
        for i in 0..count {
            let len = lens[i % lens.len()];
            let session = random.below(sessions);
            // A session stays on its interface.
            let interface = u16::try_from(session % u32::from(interfaces)).unwrap_or(0);
            frames.push((memory.len(), len, interface));
            write_frame(&mut memory, session, len);
        }
        Self { memory, frames }
    }

    /// A packet as a source would hand it over.
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

/// Packets of the capture file.
pub(crate) const FILE_PACKETS: u32 = 1_630_000;

/// Classic pcap of 20,000 sessions over 33 s; every fourth packet is large. Says how many bytes it has.
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

/// A history without end as a capture stream: 64 sessions at a time of 15 packets each, 1,000 hosts, about 300 kB a second
/// of packets' time, so that 1 GiB is an hour.
pub(crate) struct History {
    chunk: Vec<u8>,
    /// Where in the chunk records begin.
    records: Vec<usize>,
    micros: u64,
    chunks: u32,
}

/// Bytes from the start of a record to its source address.
const ADDRESS_AT: usize = 16 + 26;
/// Bytes from the start of a record to its source port.
const PORT_AT: usize = 16 + 34;
const SESSIONS_A_CHUNK: u32 = 1024;
const STEP_MICROS: u64 = 2_400;

impl History {
    pub(crate) fn new() -> Self {
        let (mut chunk, mut records, mut frame, mut random) = (Vec::new(), Vec::new(), Vec::new(), Random(1));
        for group in 0..SESSIONS_A_CHUNK / 64 {
            for packet in 0..15 {
                for member in 0..64 {
                    frame.clear();
                    let len = if packet % 2 == 0 { 1250 } else { 60 + random.below(240) };
                    write_frame(&mut frame, group * 64 + member, len as usize);
                    records.push(chunk.len());
                    let _ = write_record(&mut chunk, 0, &frame);
                }
            }
        }
        Self { chunk, records, micros: 1_700_000_000_000_000, chunks: 0 }
    }

    /// Host number `n` of 1,000.
    pub(crate) fn host(n: u32) -> String {
        format!("10.1.{}.{}", n % 1000 / 250, n % 250 + 1)
    }

    /// Records of the next 4 to 5 minutes, about 10 MB.
    pub(crate) fn next(&mut self) -> &[u8] {
        for (i, &at) in (0u32..).zip(&self.records) {
            self.micros += STEP_MICROS;
            let [seconds, micros] =
                [self.micros / 1_000_000, self.micros % 1_000_000].map(|part| u32::try_from(part).unwrap_or(0));
            self.chunk[at..at + 4].copy_from_slice(&seconds.to_le_bytes());
            self.chunk[at + 4..at + 8].copy_from_slice(&micros.to_le_bytes());
            // Sixteen groups of 64 sessions, their packets in turn.
            let session = i / (15 * 64) * 64 + i % 64;
            let host = (session + self.chunks * 7) % 1000;
            let [third, fourth] = [host / 250, host % 250 + 1].map(|part| u8::try_from(part).unwrap_or(0));
            self.chunk[at + ADDRESS_AT..at + ADDRESS_AT + 4].copy_from_slice(&[10, 1, third, fourth]);
            let port = u16::try_from(1024 + (self.chunks * 17 + session) % 60_000).unwrap_or(1024);
            self.chunk[at + PORT_AT..at + PORT_AT + 2].copy_from_slice(&port.to_be_bytes());
        }
        self.chunks += 1;
        &self.chunk
    }
}
