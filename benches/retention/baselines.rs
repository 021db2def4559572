//! Baseline policies with the same memory as Retrocap: a FIFO ring of packets, and a FIFO ring that truncates each
//! session at a fixed cutoff on arrival, like Time Machine.

use std::collections::VecDeque;

use retrocap::time::Timestamp;

use crate::campus::Frame;

/// Overhead per record in bytes, as in a pcap file.
const RECORD_BYTES: u64 = 16;

/// A retained packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    /// Position in the order of arrival, from 0.
    pub(crate) number: u64,
    /// Capture time.
    pub(crate) time: Timestamp,
}

/// A FIFO ring of packets with an optional cutoff per session.
#[derive(Debug)]
pub(crate) struct Fifo {
    /// Packets that begin at or after this offset in their session are dropped.
    cutoff_bytes: u64,
    capacity_bytes: u64,
    used_bytes: u64,
    packets: VecDeque<(Kept, u64)>,
    lost_until: Timestamp,
    number: u64,
}

impl Fifo {
    /// Creates a ring of `capacity_bytes` for packets that begin before `cutoff_bytes` in their session.
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

    /// Stores or drops the next packet.
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

    /// The retained packets, oldest first.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        self.packets.iter().map(|(kept, _)| *kept).collect()
    }

    /// Every packet after this time is retained.
    pub(crate) fn lost_until(&self) -> Timestamp {
        self.lost_until
    }

    /// Bytes in use, including the overhead of records.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }
}
