//! Bytes of a direction that no parser has used, and the packets that carried them.

use std::collections::VecDeque;

use streams::{PacketRef, Run};

/// The packets that carried the waiting bytes of a direction.
#[derive(Debug, Default)]
pub(crate) struct CarryingPackets(VecDeque<(u64, u64, PacketRef)>);

impl CarryingPackets {
    /// Removes all entries, and adds the packet of one run.
    pub(crate) fn set(&mut self, run: &Run<'_>) {
        self.0.clear();
        self.add(run);
    }

    fn add(&mut self, run: &Run<'_>) {
        self.0.push_back((run.offset, run.offset + run.data.len() as u64, run.packet));
    }

    pub(crate) fn of(&self, offset: u64, len: u64) -> Vec<PacketRef> {
        let end = offset + len.max(1);
        let found = self.0.iter().filter(|(from, to, _)| *from < end && *to > offset);
        let mut packets: Vec<PacketRef> = found.map(|(.., packet)| *packet).collect();
        packets.dedup();
        packets
    }
}

/// Bytes of one direction that wait.
#[derive(Debug, Default)]
pub(crate) struct UnparsedBytes {
    pub(crate) data: Vec<u8>,
    /// Number of used bytes.
    pub(crate) used: usize,
    /// Offset of the first byte of `data`.
    pub(crate) start: u64,
    pub(crate) places: CarryingPackets,
    /// After a gap, runs are skipped until one can begin a message.
    pub(crate) lost: bool,
}

impl UnparsedBytes {
    pub(crate) fn rest(&self) -> &[u8] {
        &self.data[self.used..]
    }

    pub(crate) fn offset(&self) -> u64 {
        self.start + self.used as u64
    }

    pub(crate) fn add(&mut self, run: &Run<'_>) {
        if self.data.is_empty() {
            self.start = run.offset;
        }
        self.data.extend_from_slice(run.data);
        self.places.add(run);
    }

    /// Drops used bytes, once they are worth the cost of a move.
    pub(crate) fn release(&mut self) {
        let offset = self.offset();
        while self.places.0.front().is_some_and(|(_, end, _)| *end <= offset) {
            self.places.0.pop_front();
        }
        if self.used == self.data.len() || self.used > 64 << 10 {
            self.data.drain(..self.used);
            if self.data.capacity() > 32 << 10 && self.data.is_empty() {
                self.data = Vec::new();
            }
            self.start = offset;
            self.used = 0;
        }
    }

    pub(crate) fn clear(&mut self, next: u64) {
        self.data = Vec::new();
        self.used = 0;
        self.start = next;
        self.places.0.clear();
    }
}
