//! Packets that were found by what they say, to be picked out when they are read once more.

use std::collections::{HashMap, HashSet};

use base::packet::Packet;
use base::time::Timestamp;
use decode::Decoded;
use engine::session::SessionKey;

use crate::session::Session;

/// Bytes that are counted for a session; a map needs about this much while it grows.
const SESSION_BYTES: usize = 256;
/// Bytes that are counted for a packet; a list needs about this much while it grows.
const PACKET_BYTES: usize = 24;
/// Datagrams whose fragments are picked.
const DATAGRAMS_MAX: usize = 65_536;
/// Bytes by default.
const BYTES_MAX: usize = 64 << 20;

/// Packets, and sessions with all their packets.
#[derive(Debug)]
pub struct ChosenPackets {
    sessions: HashMap<SessionKey, ChosenSession>,
    /// Datagrams of which a fragment was picked.
    datagrams: HashSet<u64>,
    bytes: usize,
    bytes_max: usize,
    left_out: u64,
    are_sorted: bool,
}

/// What is picked of the sessions with a key.
#[derive(Debug, Default)]
struct ChosenSession {
    /// All packets from this time on. What follows the end that was seen belongs to the session as well.
    since: Option<Timestamp>,
    /// The times of single packets.
    packets: Vec<Timestamp>,
}

impl Default for ChosenPackets {
    fn default() -> Self {
        Self::with_bytes_max(BYTES_MAX)
    }
}

impl ChosenPackets {
    /// Nothing yet; what is added takes about this many bytes of memory at most.
    pub fn with_bytes_max(bytes_max: usize) -> Self {
        Self { sessions: HashMap::new(), datagrams: HashSet::new(), bytes: 0, bytes_max, left_out: 0, are_sorted: true }
    }

    /// These sessions.
    pub fn of_sessions(sessions: &[Session]) -> Self {
        let mut chosen = Self::default();
        sessions.iter().for_each(|session| chosen.add_session(session));
        chosen
    }

    /// Adds a session.
    pub fn add_session(&mut self, session: &Session) {
        if let Some(chosen) = self.room(session.key, 0) {
            chosen.since = Some(chosen.since.map_or(session.first, |since| since.min(session.first)));
        }
    }

    /// Adds the packets of a session that were captured at a time.
    pub fn add_packet(&mut self, key: SessionKey, time: Timestamp) {
        // Many messages can be in one packet.
        if self.sessions.get(&key).is_some_and(|chosen| chosen.packets.last() == Some(&time)) {
            return;
        }
        self.are_sorted = false;
        if let Some(chosen) = self.room(key, PACKET_BYTES) {
            chosen.packets.push(time);
        }
    }

    fn room(&mut self, key: SessionKey, more: usize) -> Option<&mut ChosenSession> {
        let bytes = more + if self.sessions.contains_key(&key) { 0 } else { SESSION_BYTES };
        if self.bytes + bytes > self.bytes_max {
            self.left_out += 1;
            return None;
        }
        self.bytes += bytes;
        Some(self.sessions.entry(key).or_default())
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// What found no room: packets and sessions.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Whether a packet was found, or belongs to a session that was. Packets come in the order of their times.
    pub fn has(&mut self, packet: &Packet<'_>) -> bool {
        if !std::mem::replace(&mut self.are_sorted, true) {
            self.sessions.values_mut().for_each(|chosen| chosen.packets.sort_unstable());
        }
        let decoded = decode::decode(packet.link_type, packet.data);
        let (key, _) = SessionKey::new(&decoded, packet.interface);
        let found = self.sessions.get(&key).is_some_and(|chosen| chosen.has(packet.time));
        found | self.in_datagram(found, &decoded)
    }

    fn in_datagram(&mut self, found: bool, decoded: &Decoded) -> bool {
        if decoded.fragment.is_none() {
            return false;
        }
        if found && self.datagrams.len() < DATAGRAMS_MAX {
            self.datagrams.insert(decoded.datagram);
        }
        self.datagrams.contains(&decoded.datagram)
    }
}

impl ChosenSession {
    fn has(&self, time: Timestamp) -> bool {
        self.since.is_some_and(|since| time >= since) || self.packets.binary_search(&time).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::packet::{Direction, InterfaceId, LinkType, PacketFlags};
    use engine::session::key::Side;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(seconds, 0)
    }

    /// A UDP packet of a host, in IPv4 without a link layer.
    fn udp(host: u8) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, host, 192, 0, 2, 7];
        packet.extend([0x9c, 0x40, 0, 53, 0, 8, 0, 0]);
        packet
    }

    fn packet(data: &[u8], seconds: u64) -> Packet<'_> {
        Packet {
            time: at(seconds),
            interface: InterfaceId(0),
            link_type: LinkType::RAW,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: 28,
            drops_before: 0,
            data,
        }
    }

    fn key(data: &[u8]) -> SessionKey {
        SessionKey::new(&decode::decode(LinkType::RAW, data), InterfaceId(0)).0
    }

    #[test]
    fn single_packets_and_whole_sessions_are_picked_out() {
        let (one, other, third) = (udp(1), udp(2), udp(3));
        let mut chosen = ChosenPackets::default();
        assert!(chosen.is_empty());
        for seconds in [9, 5, 5, 7] {
            chosen.add_packet(key(&one), at(seconds));
        }
        chosen.add_session(&Session::new(0, key(&other), Side::Low, true, at(6)));
        let found: Vec<u64> = (4..11).filter(|&seconds| chosen.has(&packet(&one, seconds))).collect();
        assert_eq!(found, [5, 7, 9]);
        assert!(!chosen.has(&packet(&other, 5)) && chosen.has(&packet(&other, 6)) && chosen.has(&packet(&other, 99)));
        assert!(!chosen.has(&packet(&third, 7)));
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut chosen = ChosenPackets::with_bytes_max(SESSION_BYTES + 2 * PACKET_BYTES);
        for seconds in 1..=5 {
            chosen.add_packet(key(&udp(1)), at(seconds));
        }
        chosen.add_session(&Session::new(0, key(&udp(2)), Side::Low, true, at(6)));
        assert_eq!(chosen.left_out(), 4);
        assert!(chosen.has(&packet(&udp(1), 2)) && !chosen.has(&packet(&udp(1), 3)));
    }
}
