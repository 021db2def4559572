//! What prints a packet: its line so far, and the bytes that are left of it.

use std::fmt::Write as _;

use crate::Decoded;
use base::packet::LinkType;
use base::time::Timestamp;

/// The input of one line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The time of capture.
    pub time: Timestamp,
    /// The link type of the packet.
    pub link_type: LinkType,
    /// The captured bytes.
    pub data: &'a [u8],
    /// The length of the packet on the wire, in bytes.
    pub original_len: u32,
    /// The decoded headers of the packet.
    pub decoded: &'a Decoded,
}

/// Prints one packet. A function that returns `None` reached the end of the captured bytes.
pub(super) struct Printer<'a> {
    pub(super) out: &'a mut String,
    pub(super) line: &'a Line<'a>,
    /// The length of the packet on the wire, in bytes.
    pub(super) wire: u32,
    /// Addresses and protocol of the IP header that was printed.
    pub(super) printed: Option<(u128, u128, u8)>,
}

/// The captured bytes of a layer, and the layer's length on the wire in bytes.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    pub(super) data: &'a [u8],
    pub(super) wire: u32,
}

impl<'a> Layer<'a> {
    pub(super) fn skip(self, bytes: usize) -> Option<Self> {
        Some(Self { data: self.data.get(bytes..)?, wire: self.wire.saturating_sub(u32::try_from(bytes).ok()?) })
    }

    /// Limits the layer to the length stated in a header. The rest is padding.
    pub(super) fn cut(self, wire: u32) -> Self {
        let captured = usize::try_from(wire).unwrap_or(usize::MAX).min(self.data.len());
        Self { data: self.data.get(..captured).unwrap_or_default(), wire }
    }

    pub(super) fn u8(self, at: usize) -> Option<u8> {
        self.data.get(at).copied()
    }

    pub(super) fn u16(self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(*self.data.get(at..)?.first_chunk()?))
    }

    pub(super) fn u32(self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(*self.data.get(at..)?.first_chunk()?))
    }
}

impl Printer<'_> {
    pub(super) fn put(&mut self, arguments: std::fmt::Arguments<'_>) {
        let _ = self.out.write_fmt(arguments);
    }
}

pub(super) fn length(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}
