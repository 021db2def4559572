//! Record of all sent packets in order of arrival, as the reference for measurements.

use retrocap::time::Timestamp;

use crate::campus::Frame;

/// Part of a session that must be retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// The first packet.
    Start,
    /// The packets of the first 1,000 bytes.
    Kilobyte,
    /// The packets of the first 10,000 bytes.
    TenKilobytes,
    /// All packets.
    Whole,
}

impl Level {
    pub(crate) const ALL: [Self; 4] = [Self::Start, Self::Kilobyte, Self::TenKilobytes, Self::Whole];

    /// Packets that begin at or after this offset are not part of the level.
    pub(crate) fn end_bytes(self) -> u64 {
        match self {
            Self::Start => 1,
            Self::Kilobyte => 1_000,
            Self::TenKilobytes => 10_000,
            Self::Whole => u64::MAX,
        }
    }
}

/// Position of a packet in its session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Session number, from 0.
    pub(crate) session: u32,
    /// Packet number in the session, from 0.
    pub(crate) index: u32,
}

/// A session and its packets sent so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// Time of the first packet.
    pub(crate) start: Timestamp,
    /// Offset of the last packet in the session, in bytes.
    pub(crate) last_offset: u64,
    /// Number of packets in each level.
    pub(crate) packets: [u32; Level::ALL.len()],
    /// Packet numbers of the closing packets, one from each side.
    closes: [u32; 2],
}

impl Sent {
    /// Whether this packet closes the session. The recorder keeps such packets with the start of the session.
    pub(crate) fn closes_with(&self, index: u32) -> bool {
        self.closes.contains(&index)
    }
}

/// All sent packets. A packet's number is its position in the order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    places: Vec<Place>,
    sessions: Vec<Sent>,
}

impl Truth {
    /// Adds the next packet.
    pub(crate) fn note(&mut self, frame: &Frame<'_>) {
        self.places.push(Place { session: frame.session, index: frame.index });
        if frame.index == 0 {
            let start = frame.packet.time;
            self.sessions.push(Sent { start, last_offset: 0, packets: [0; Level::ALL.len()], closes: [u32::MAX; 2] });
        }
        let Some(session) = self.sessions.get_mut(frame.session as usize) else {
            unreachable!("sessions are counted in the order of their starts");
        };
        session.last_offset = frame.offset;
        for (packets, level) in session.packets.iter_mut().zip(Level::ALL) {
            *packets += u32::from(frame.offset < level.end_bytes());
        }
        if frame.closes {
            session.closes = [session.closes[1], frame.index];
        }
    }

    /// Number of packets sent.
    pub(crate) fn packets(&self) -> u64 {
        self.places.len() as u64
    }

    /// The sessions in order of start.
    pub(crate) fn sessions(&self) -> &[Sent] {
        &self.sessions
    }

    /// The position of a packet in its session.
    pub(crate) fn place(&self, number: u64) -> Place {
        self.places[number as usize]
    }
}
