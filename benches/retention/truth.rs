//! What was sent, in the order it was sent: the generator's own record, against which everything kept is held.

use retrocap::time::Timestamp;

use crate::campus::Frame;

/// How much of a session one asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Its first packet.
    Start,
    /// The packets of its first 1,000 bytes.
    Kilobyte,
    /// The packets of its first 10,000 bytes.
    TenKilobytes,
    /// All of its packets.
    Whole,
}

impl Level {
    pub(crate) const ALL: [Self; 4] = [Self::Start, Self::Kilobyte, Self::TenKilobytes, Self::Whole];

    /// Packets that begin at or after this offset are not asked for.
    pub(crate) fn end_bytes(self) -> u64 {
        match self {
            Self::Start => 1,
            Self::Kilobyte => 1_000,
            Self::TenKilobytes => 10_000,
            Self::Whole => u64::MAX,
        }
    }
}

/// A packet's place in its session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Which session.
    pub(crate) session: u32,
    /// Which packet of it, from 0.
    pub(crate) index: u32,
}

/// A session as far as it was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// Time of its first packet.
    pub(crate) start: Timestamp,
    /// Where its last packet begins.
    pub(crate) last_offset: u64,
    /// For each level, how many packets it takes.
    pub(crate) packets: [u32; Level::ALL.len()],
    /// The packets that close it, one from each side.
    closes: [u32; 2],
}

impl Sent {
    /// Whether a packet of it is one that closes it, and so kept with its start.
    pub(crate) fn closes_with(&self, index: u32) -> bool {
        self.closes.contains(&index)
    }
}

/// Everything that was sent. A packet's number is its place in the order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    places: Vec<Place>,
    sessions: Vec<Sent>,
}

impl Truth {
    /// Takes note of the next packet.
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

    /// How many packets were sent.
    pub(crate) fn packets(&self) -> u64 {
        self.places.len() as u64
    }

    /// The sessions by their starts.
    pub(crate) fn sessions(&self) -> &[Sent] {
        &self.sessions
    }

    /// The place of a packet.
    pub(crate) fn place(&self, number: u64) -> Place {
        self.places[number as usize]
    }
}
