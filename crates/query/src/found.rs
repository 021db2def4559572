//! What a search gives: packets, and the counts of what it came to.

use base::interface::Interface;
use base::packet::Packet;
use engine::store::record::RecordHeader;

/// A packet that was found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The packet.
    pub packet: Packet<'a>,
    /// Where it was captured.
    pub interface: &'a Interface,
    /// What its record says.
    pub header: RecordHeader,
    /// Which worker keeps it.
    pub worker: usize,
    /// The selections of a [`Search`] that want it, in ascending order; empty without one.
    pub selections: &'a [u32],
}

impl<'a> Found<'a> {
    pub(super) fn new(
        header: RecordHeader,
        worker: usize,
        interface: &'a Interface,
        data: &'a [u8],
        selections: &'a [u32],
    ) -> Self {
        let packet = Packet {
            time: header.time,
            interface: header.interface,
            link_type: interface.link_type,
            direction: header.direction,
            flags: header.flags,
            original_len: header.original_len,
            drops_before: header.drops_before,
            data,
        };
        Self { packet, interface, header, worker, selections }
    }
}

/// What a finished or unfinished query came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Packets found.
    pub packets: u64,
    /// Their captured bytes.
    pub bytes: u64,
    /// Packets in the window that were evicted before the query came to them, matching or not.
    pub overtaken: u64,
    /// Packets that came out of the order of their times because too many would have had to be read ahead.
    pub unsorted: u64,
    /// Packets that were captured a second time; found, or left out where each is wanted once.
    pub copies: u64,
    /// Whether the limit ended it.
    pub limited: bool,
    /// Whether it was interrupted.
    pub interrupted: bool,
}
