//! Packets that were found by what they say, to be picked out when they are read once more.

use std::collections::{HashMap, HashSet};

use base::packet::Packet;
use base::time::Timestamp;
use decode::Decoded;
use engine::session::SessionKey;
use streams::Session;

/// Datagrams whose fragments are picked.
const DATAGRAMS_MAX: usize = 65_536;
/// Packets and sessions that are remembered.
const CHOSEN_MAX: usize = 1 << 20;

/// Packets, and sessions with all their packets.
#[derive(Debug, Default)]
pub(crate) struct ChosenPackets {
    /// When sessions with a key began and ended.
    sessions: HashMap<SessionKey, Vec<(Timestamp, Timestamp)>>,
    packets: HashSet<(SessionKey, Timestamp)>,
    datagrams: HashSet<u64>,
    count: usize,
    left_out: u64,
}

impl ChosenPackets {
    /// These sessions.
    pub(crate) fn of_sessions(sessions: &[Session]) -> Self {
        let mut chosen = Self::default();
        sessions.iter().for_each(|session| chosen.add_session(session));
        chosen
    }

    /// Adds a session.
    pub(crate) fn add_session(&mut self, session: &Session) {
        if self.has_room() {
            self.sessions.entry(session.key).or_default().push((session.first, session.last));
        }
    }

    /// Adds the packets of a session that were captured at a time.
    pub(crate) fn add_packet(&mut self, key: SessionKey, time: Timestamp) {
        if !self.packets.contains(&(key, time)) && self.has_room() {
            self.packets.insert((key, time));
        }
    }

    fn has_room(&mut self) -> bool {
        let room = self.count < CHOSEN_MAX;
        self.count += usize::from(room);
        self.left_out += u64::from(!room);
        room
    }

    /// Whether nothing was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What found no room.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Whether a packet was found, or belongs to a session that was. Packets come in the order of their times.
    pub(crate) fn has(&mut self, packet: &Packet<'_>) -> bool {
        let decoded = decode::decode(packet.link_type, packet.data);
        let (key, _) = SessionKey::new(&decoded, packet.interface);
        let found = self.packets.contains(&(key, packet.time)) || self.in_session(&key, packet.time);
        found | self.in_datagram(found, &decoded)
    }

    fn in_session(&self, key: &SessionKey, time: Timestamp) -> bool {
        // What follows the end that was seen belongs to the session as well.
        self.sessions.get(key).is_some_and(|spans| spans.iter().any(|(first, _)| time >= *first))
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
