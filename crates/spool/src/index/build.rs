//! Builds the index of a file while the file is written.

use std::collections::hash_map::Entry;
use std::hash::BuildHasher as _;

use super::closed::{ClosedCounts, ClosedPackets};
use super::{
    AnyOf, CHUNKS, CLOSED, COUNT, Chunk, ChunkSet, Condition, INTERFACES, IPV4, IPV6, PORTS, SESSIONS, UNKNOWN, varint,
};
use base::packet::{InterfaceId, LinkType};
use base::time::Timestamp;
use decode::{Decoded, Network, Openness, Stop};
use engine::session::SessionKey;
use engine::session::community_id::CommunityId;
use engine::session::key::Side;

/// Number of chunks at which a file is sealed.
const CHUNKS_MAX: usize = 1 << 14;

const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;

/// The index of an unsealed file.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    chunks: Vec<Chunk>,
    /// pcapng blocks of the interfaces.
    interfaces: Vec<u8>,
    /// Pairs of a 64-bit key and a chunk, as `key << 16 | chunk`. Pairs of the open chunk come last and are not sorted.
    ipv4: Postings,
    ports: Postings,
    sessions: Postings,
    ipv6: Vec<(u128, u16)>,
    ipv6_sorted: usize,
    /// Sessions of the open chunk whose keys are in the index, and whether their packets were opened.
    seen: foldhash::HashMap<u64, Openness>,
    closed: ClosedCounts,
    hasher: foldhash::fast::FixedState,
    captured_bytes: u64,
}

/// Keys and their chunks.
#[derive(Clone, Debug, Default)]
struct Postings {
    pairs: Vec<u64>,
    /// Pairs of closed chunks; those of one chunk are sorted and distinct.
    sorted: usize,
}

impl Postings {
    fn add(&mut self, key: u64, chunk: u16) {
        let pair = key << 16 | u64::from(chunk);
        if self.pairs.get(self.sorted..).and_then(<[u64]>::last) != Some(&pair) {
            self.pairs.push(pair);
        }
    }

    fn close_chunk(&mut self) {
        let mut tail = self.pairs.split_off(self.sorted);
        tail.sort_unstable();
        tail.dedup();
        self.pairs.append(&mut tail);
        self.sorted = self.pairs.len();
    }

    /// Writes the table, and returns the number of distinct keys.
    fn encode(&mut self, out: &mut Vec<u8>) -> u64 {
        self.pairs.sort_unstable();
        self.pairs.dedup();
        self.sorted = self.pairs.len();
        let pairs = self.pairs.iter().map(|pair| (u128::from(pair >> 16), low16(*pair)));
        encode(pairs, out)
    }

    fn select(&self, admits: &dyn Fn(u128) -> bool, set: &mut ChunkSet) {
        for pair in &self.pairs {
            if admits((pair >> 16).into()) {
                set.insert(low16(*pair).into());
            }
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the low 16 bits are meant")]
fn low16(value: u64) -> u16 {
    value as u16
}

/// Writes sorted, distinct pairs, and returns the number of distinct keys.
fn encode(pairs: impl Iterator<Item = (u128, u16)>, out: &mut Vec<u8>) -> u64 {
    let mut pairs = pairs.peekable();
    let (mut previous, mut keys) = (0, 0);
    let mut chunks: Vec<u16> = Vec::new();
    while let Some((key, chunk)) = pairs.next() {
        chunks.push(chunk);
        if pairs.peek().is_some_and(|(next, _)| *next == key) {
            continue;
        }
        varint::put(out, key - previous);
        (previous, keys) = (key, keys + 1);
        match chunks[..] {
            [only] => varint::put(out, u128::from(only) << 1),
            _ => {
                varint::put(out, (chunks.len() as u128) << 1 | 1);
                let mut before = 0;
                for chunk in &chunks {
                    varint::put(out, (chunk - before).into());
                    before = *chunk;
                }
            }
        }
        chunks.clear();
    }
    keys
}

impl Builder {
    /// Adds a packet of the open chunk.
    pub fn packet(&mut self, time: Timestamp, link_type: LinkType, data: &[u8]) {
        if self.chunks.is_empty() {
            self.chunks.push(Chunk::default());
        }
        let number = low16(self.chunks.len() as u64 - 1);
        let Some(chunk) = self.chunks.last_mut() else { return };
        chunk.packets += 1;
        let (oldest, newest) = chunk.times.unwrap_or((time, time));
        chunk.times = Some((oldest.min(time), newest.max(time)));
        self.captured_bytes += data.len() as u64;
        let decoded = decode::decode(link_type, data);
        // An expression can match headers that the decoder rejects or does not reach.
        let doubtful = matches!(decoded.stop, Stop::Truncated | Stop::Malformed | Stop::TooDeep);
        if decoded.depth > 0 || doubtful {
            self.outer_addresses(link_type, data, number);
        }
        if matches!(decoded.ethertype, ARP | RARP) {
            self.arp_addresses(data, number);
        }
        let no_ports = doubtful || decoded.fragment.is_some_and(|fragment| !fragment.first);
        let (key, _) = SessionKey::new(&decoded, InterfaceId(0));
        let openness = match self.seen.entry(self.hasher.hash_one((key, no_ports))) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let ports = [Side::Low, Side::High].map(|side| key.port(side));
                let openness = *entry.insert(decode::openness(key.network(), key.ethertype(), key.protocol(), ports));
                self.session(&decoded, &key, no_ports, number);
                openness
            }
        };
        let kind = match openness {
            Openness::Closed(kind) => Some(kind),
            Openness::Opened if !no_ports => None,
            Openness::Opened | Openness::Unsure => decode::unopened(link_type, data),
        };
        if let Some(kind) = kind {
            self.closed.add(number, kind);
        }
    }

    fn session(&mut self, decoded: &Decoded, key: &SessionKey, no_ports: bool, chunk: u16) {
        for side in [Side::Low, Side::High] {
            match decoded.network {
                Network::Ipv4 => self.ipv4.add(u64::try_from(key.address(side)).unwrap_or(0), chunk),
                Network::Ipv6 => self.ipv6.push((key.address(side), chunk)),
                Network::Link => {}
            }
            let port = if no_ports { UNKNOWN } else { u64::from(key.port(side)) };
            self.ports.add(port, chunk);
        }
        let session = match CommunityId::new(key, 0) {
            Some(id) if !no_ports => u64::from(id.prefix().max(1)),
            _ => UNKNOWN,
        };
        self.sessions.add(session, chunk);
    }

    /// Adds the addresses that an expression finds in the outermost headers.
    fn outer_addresses(&mut self, link_type: LinkType, data: &[u8], chunk: u16) {
        // If the decoder finds no network layer, look behind an Ethernet header.
        const ETHERNET_BYTES: usize = 14;
        let offset = decode::network_offset(link_type, data).unwrap_or(ETHERNET_BYTES);
        let Some(network) = data.get(offset..) else { return };
        let ipv6 = |at: usize| network.get(at..)?.first_chunk().map(|bytes| u128::from_be_bytes(*bytes));
        match network.first().map(|first| first >> 4) {
            Some(4) => self.ipv4_at(network, [12, 16], chunk),
            Some(6) => [8, 24].into_iter().filter_map(ipv6).for_each(|address| {
                let noted = self.ipv6.get(self.ipv6_sorted..).unwrap_or_default();
                if !noted.iter().rev().take(4).any(|other| *other == (address, chunk)) {
                    self.ipv6.push((address, chunk));
                }
            }),
            _ => {}
        }
    }

    /// Adds the addresses in ARP over Ethernet for IPv4 (RFC 826), which expressions can test too.
    fn arp_addresses(&mut self, data: &[u8], chunk: u16) {
        const START: [u8; 6] = [0, 1, 8, 0, 6, 4];
        const HEADERS_BYTES_MAX: usize = 64;
        let start = &data[..data.len().min(HEADERS_BYTES_MAX)];
        if let Some(at) = start.windows(START.len()).position(|window| window == START) {
            self.ipv4_at(&data[at..], [14, 24], chunk);
        }
    }

    fn ipv4_at(&mut self, data: &[u8], places: [usize; 2], chunk: u16) {
        for at in places {
            if let Some(bytes) = data.get(at..).and_then(|data| data.first_chunk()) {
                self.ipv4.add(u32::from_be_bytes(*bytes).into(), chunk);
            }
        }
    }

    /// Adds the pcapng block of an interface, in the order of the file.
    pub fn interface(&mut self, block: &[u8]) {
        self.interfaces.extend_from_slice(block);
    }

    /// Extends the open chunk by committed bytes of the file.
    pub fn commit(&mut self, offset: u64, len: u64, plain_len: u64) {
        if self.chunks.is_empty() {
            self.chunks.push(Chunk::default());
        }
        let Some(chunk) = self.chunks.last_mut() else { return };
        if chunk.len == 0 {
            chunk.offset = offset;
        }
        chunk.len = (offset + len).saturating_sub(chunk.offset);
        chunk.plain_len += plain_len;
    }

    /// Plain bytes of the open chunk.
    pub fn open_bytes(&self) -> u64 {
        self.chunks.last().map_or(0, |chunk| chunk.plain_len)
    }

    /// Closes the open chunk. The next packet opens another.
    pub fn close_chunk(&mut self) {
        if self.chunks.last().is_none_or(|chunk| chunk.len == 0) {
            return;
        }
        self.ipv4.close_chunk();
        self.ports.close_chunk();
        self.sessions.close_chunk();
        let mut tail = self.ipv6.split_off(self.ipv6_sorted);
        tail.sort_unstable();
        tail.dedup();
        self.ipv6.append(&mut tail);
        self.ipv6_sorted = self.ipv6.len();
        self.seen.clear();
        self.chunks.push(Chunk::default());
    }

    /// Whether the file must be sealed so that a flood of addresses or sessions cannot make the index large. A key
    /// takes 8 bytes.
    pub fn is_full(&self, keys_max: usize) -> bool {
        let keys = self.ipv4.pairs.len() + self.ports.pairs.len() + self.sessions.pairs.len() + 3 * self.ipv6.len();
        keys >= keys_max || self.chunks.len() >= CHUNKS_MAX
    }

    /// The chunks with committed bytes.
    pub fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter().filter(|chunk| chunk.len > 0)
    }

    /// The pcapng blocks of the interfaces.
    pub fn interfaces(&self) -> &[u8] {
        &self.interfaces
    }

    /// Packets so far.
    pub fn packets(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.packets).sum()
    }

    /// Captured bytes so far.
    pub fn captured_bytes(&self) -> u64 {
        self.captured_bytes
    }

    /// Earliest and latest packet time.
    pub fn times(&self) -> Option<(Timestamp, Timestamp)> {
        let times = self.chunks.iter().filter_map(|chunk| chunk.times);
        times.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
    }

    /// The chunks that may meet a condition.
    pub fn select(&self, condition: &Condition) -> ChunkSet {
        let mut set = ChunkSet::default();
        self.select_keys(condition.section(), &|key| condition.admits(key), &mut set);
        set
    }

    /// The chunks that may meet one of several conditions.
    pub fn select_any(&self, any: &AnyOf) -> ChunkSet {
        let mut set = ChunkSet::default();
        for section in any.sections() {
            self.select_keys(section, &|key| any.admits(section, key), &mut set);
        }
        set
    }

    fn select_keys(&self, section: usize, admits: &dyn Fn(u128) -> bool, set: &mut ChunkSet) {
        match section {
            IPV4 => self.ipv4.select(admits, set),
            PORTS => self.ports.select(admits, set),
            SESSIONS => self.sessions.select(admits, set),
            _ => {
                let found = self.ipv6.iter().filter(|(key, _)| admits(*key));
                found.for_each(|(_, chunk)| set.insert((*chunk).into()));
            }
        }
    }

    /// Adds the packets that were not opened, of the chunks with these numbers.
    pub fn sum_closed(&self, is_wanted: &dyn Fn(usize) -> bool, sum: &mut ClosedPackets) {
        self.closed.sum(is_wanted, sum);
    }

    /// The payloads of all sections, and the number of distinct sessions.
    pub fn finish(mut self) -> ([Vec<u8>; COUNT], u64) {
        let mut sections: [Vec<u8>; COUNT] = Default::default();
        let mut end = 0;
        for chunk in self.chunks.iter().filter(|chunk| chunk.len > 0) {
            let (oldest, newest) = chunk.times.unwrap_or((Timestamp::MAX, Timestamp::MIN));
            let span = newest.0.wrapping_sub(oldest.0);
            let numbers = [chunk.offset.saturating_sub(end), chunk.len, chunk.plain_len, chunk.packets, oldest.0, span];
            numbers.into_iter().for_each(|number| varint::put(&mut sections[CHUNKS], number.into()));
            end = chunk.offset + chunk.len;
        }
        sections[INTERFACES] = std::mem::take(&mut self.interfaces);
        self.ipv4.encode(&mut sections[IPV4]);
        self.ipv6.sort_unstable();
        self.ipv6.dedup();
        encode(self.ipv6.iter().copied(), &mut sections[IPV6]);
        self.ports.encode(&mut sections[PORTS]);
        let sessions = self.sessions.encode(&mut sections[SESSIONS]);
        sections[CLOSED] = self.closed.encode();
        (sections, sessions)
    }
}
