//! Writes packets as pcapng, in the order of their times.
//!
//! Every processor fills buffers of its own, so that a file is sorted only within a buffer. Packets are held until all
//! that were written later are newer by [`HOLD`], or until there is no room for more.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How long packets are held, in units of 100 ns: five seconds. Windows writes a buffer once a second where nobody asks
/// for another time.
const HOLD: u64 = 50_000_000;
/// The most bytes that are held.
pub(super) const HELD_BYTES_MAX: usize = 32 << 20;
/// What a packet takes beside its bytes.
const OVERHEAD: usize = 64;
/// The most interfaces of one file. Packets of others are counted as not read.
const INTERFACES_MAX: usize = 1024;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

const OPTION_COMMENT: u16 = 1;
const OPTION_NAME: u16 = 2;
const OPTION_FLAGS: u16 = 2;
const OPTION_RESOLUTION: u16 = 9;
/// Packets that the operating system dropped.
const OPTION_DROPPED: u16 = 7;

/// What is not among the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) lost: u64,
    pub(super) torn: u64,
    pub(super) unread: u64,
}

/// An interface of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) number: u32,
    pub(super) link_type: u16,
    pub(super) name: String,
}

/// A packet that waits. The order of its fields is the order of packets.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held {
    time: u64,
    sequence: u64,
    interface: u32,
    direction: u32,
    len: u32,
    data: Vec<u8>,
}

impl Held {
    pub(super) fn new(time: u64, direction: u32, data: &[u8], len: usize) -> Self {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        Self { time, sequence: 0, interface: 0, direction, len, data: data.to_vec() }
    }
}

#[derive(Debug, Default)]
pub(super) struct Output {
    interfaces: Vec<Interface>,
    /// How many of them are described in the output.
    described: usize,
    begun: bool,
    held: BinaryHeap<Reverse<Held>>,
    held_bytes: usize,
    newest: u64,
    sequence: u64,
    /// Packets of interfaces for which there was no room.
    crowded: u64,
}

impl Output {
    pub(super) fn hold(&mut self, interface: Interface, mut packet: Held) {
        let is_it = |known: &Interface| (known.number, known.link_type) == (interface.number, interface.link_type);
        let at = match self.interfaces.iter().position(is_it) {
            Some(at) => at,
            None if self.interfaces.len() < INTERFACES_MAX => {
                self.interfaces.push(interface);
                self.interfaces.len() - 1
            }
            None => {
                self.crowded += 1;
                return;
            }
        };
        packet.interface = u32::try_from(at).unwrap_or(0);
        packet.sequence = self.sequence;
        self.sequence += 1;
        self.newest = self.newest.max(packet.time);
        self.held_bytes += packet.data.len() + OVERHEAD;
        self.held.push(Reverse(packet));
    }

    /// Writes what no later packet can precede, and what there is no room for.
    pub(super) fn write_old(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        while let Some(Reverse(first)) = self.held.peek() {
            if first.time.saturating_add(HOLD) >= self.newest && self.held_bytes <= HELD_BYTES_MAX {
                break;
            }
            self.write_first(out);
        }
    }

    pub(super) fn write_all(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        while !self.held.is_empty() {
            self.write_first(out);
        }
    }

    /// Writes what is not among the packets, as the statistics of the first interface.
    pub(super) fn write_end(&mut self, summary: &Summary, out: &mut Vec<u8>) {
        let Summary { lost, torn, unread } = *summary;
        let unread = unread.saturating_add(self.crowded);
        if self.interfaces.is_empty() {
            self.interfaces.push(Interface { number: 0, link_type: 1, name: "ETL".to_owned() });
        }
        self.describe(out);
        let comment = format!(
            "The trace lost {lost} events; {torn} packets lack a part; {unread} events have packets in a form that is not read."
        );
        let dropped = lost.saturating_add(torn).saturating_add(unread);
        let time = [self.newest >> 32, self.newest & u64::from(u32::MAX)];
        let mut body = 0_u32.to_le_bytes().to_vec();
        body.extend(time.iter().flat_map(|half| u32::try_from(*half).unwrap_or(0).to_le_bytes()));
        if dropped > 0 {
            option(&mut body, OPTION_COMMENT, comment.as_bytes());
        }
        option(&mut body, OPTION_DROPPED, &dropped.to_le_bytes());
        option(&mut body, 0, &[]);
        block(out, INTERFACE_STATISTICS, &body);
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.begun {
            return;
        }
        self.begun = true;
        // Byte order, version 1.0, unknown length.
        let mut body = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
        body.extend([1, 0, 0, 0]);
        body.extend(u64::MAX.to_le_bytes());
        block(out, SECTION_HEADER, &body);
    }

    fn describe(&mut self, out: &mut Vec<u8>) {
        for interface in self.interfaces.iter().skip(self.described) {
            let mut body = interface.link_type.to_le_bytes().to_vec();
            body.extend([0; 6]);
            option(&mut body, OPTION_NAME, interface.name.as_bytes());
            // Times count units of 100 ns.
            option(&mut body, OPTION_RESOLUTION, &[7]);
            option(&mut body, 0, &[]);
            block(out, INTERFACE_DESCRIPTION, &body);
        }
        self.described = self.interfaces.len();
    }

    fn write_first(&mut self, out: &mut Vec<u8>) {
        self.describe(out);
        let Some(Reverse(packet)) = self.held.pop() else { return };
        self.held_bytes = self.held_bytes.saturating_sub(packet.data.len() + OVERHEAD);
        let captured = u32::try_from(packet.data.len()).unwrap_or(u32::MAX);
        let halves = [packet.time >> 32, packet.time & u64::from(u32::MAX)];
        let [high, low] = halves.map(|half| u32::try_from(half).unwrap_or(0));
        let mut body = Vec::with_capacity(packet.data.len() + OVERHEAD);
        for word in [packet.interface, high, low, captured, packet.len.max(captured)] {
            body.extend(word.to_le_bytes());
        }
        body.extend(&packet.data);
        body.resize(body.len().next_multiple_of(4), 0);
        if packet.direction != 0 {
            option(&mut body, OPTION_FLAGS, &packet.direction.to_le_bytes());
            option(&mut body, 0, &[]);
        }
        block(out, ENHANCED_PACKET, &body);
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(0).to_le_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn block(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let len = u32::try_from(body.len() + 12).unwrap_or(u32::MAX).to_le_bytes();
    out.extend(kind.to_le_bytes());
    out.extend(len);
    out.extend(body);
    out.extend(len);
}
