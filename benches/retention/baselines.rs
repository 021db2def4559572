//! The policies that Retrocap is compared with, in the same bytes: packets first in, first out; and the same after a
//! fixed cutoff of each session at ingest, as Time Machine did it.

use std::collections::VecDeque;

use retrocap::time::Timestamp;

use crate::campus::Frame;

/// What a record costs beside the packet's bytes, as in a capture file.
const RECORD_BYTES: u64 = 16;

/// A packet that is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    /// Its number in the order of arrival.
    pub(crate) number: u64,
    /// Its time.
    pub(crate) time: Timestamp,
}

/// A ring of packets, whole or up to a cutoff.
#[derive(Debug)]
pub(crate) struct Fifo {
    /// Packets that begin at or after this offset are not kept.
    cutoff_bytes: u64,
    capacity_bytes: u64,
    used_bytes: u64,
    packets: VecDeque<(Kept, u64)>,
    lost_until: Timestamp,
    number: u64,
}

impl Fifo {
    /// A ring of `capacity_bytes` for the packets that begin below `cutoff_bytes` of their session.
    pub(crate) fn new(capacity_bytes: u64, cutoff_bytes: u64) -> Self {
        Self {
            cutoff_bytes,
            capacity_bytes,
            used_bytes: 0,
            packets: VecDeque::new(),
            lost_until: Timestamp::MIN,
            number: 0,
        }
    }

    /// Takes the next packet.
    pub(crate) fn ingest(&mut self, frame: &Frame<'_>) {
        let kept = Kept { number: self.number, time: frame.packet.time };
        self.number += 1;
        if frame.offset >= self.cutoff_bytes {
            self.lost_until = kept.time;
            return;
        }
        let bytes = frame.packet.data.len() as u64 + RECORD_BYTES;
        self.packets.push_back((kept, bytes));
        self.used_bytes += bytes;
        while self.used_bytes > self.capacity_bytes
            && let Some((lost, bytes)) = self.packets.pop_front()
        {
            self.used_bytes -= bytes;
            self.lost_until = self.lost_until.max(lost.time);
        }
    }

    /// What is there.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        self.packets.iter().map(|(kept, _)| *kept).collect()
    }

    /// Every packet after this time is there.
    pub(crate) fn lost_until(&self) -> Timestamp {
        self.lost_until
    }

    /// Bytes in use.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }
}
