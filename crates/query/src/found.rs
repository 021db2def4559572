//! Results of a search: packets and counts.

use base::interface::Interface;
use base::packet::{LinkType, Packet};
use engine::store::record::RecordHeader;

/// A packet that a search found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The packet.
    pub packet: Packet<'a>,
    /// The interface that captured it.
    pub interface: &'a Interface,
    /// The header of its record.
    pub header: RecordHeader,
    /// Index of the worker that stores it; `usize::MAX` for a packet from disk.
    pub worker: usize,
    /// Indices of the selectors of a [`Search`](super::search::Search) that select it, ascending; empty without a
    /// `Search`.
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
        let packet = Self::packet(&header, interface.link_type, data);
        Self { packet, interface, header, worker, selections }
    }

    /// A packet from its record.
    pub(super) fn packet(header: &RecordHeader, link_type: LinkType, data: &'a [u8]) -> Packet<'a> {
        Packet {
            time: header.time,
            interface: header.interface,
            link_type,
            direction: header.direction,
            flags: header.flags,
            original_len: header.original_len,
            drops_before: header.drops_before,
            data,
        }
    }
}

/// Counts of a query, finished or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Packets found.
    pub packets: u64,
    /// Captured bytes of these packets.
    pub bytes: u64,
    /// Packets evicted before the query read them, whether or not they would match.
    pub overtaken: u64,
    /// Packets that come from disk and are not in memory.
    pub from_disk: u64,
    /// Packets returned out of time order because a read-ahead limit was reached.
    pub unsorted: u64,
    /// Further copies of packets that were captured twice: returned, or left out if the request asks for that.
    pub copies: u64,
    /// Whether the limit ended the query.
    pub limited: bool,
    /// Whether an interrupt ended the query.
    pub interrupted: bool,
}
