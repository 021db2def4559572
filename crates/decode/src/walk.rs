//! The way through the headers of a packet.

use super::decoded::{Decoded, MAX_DEPTH, Network, Stop};
use super::layer::Step;
use super::tunnel_id::{TunnelKind, mix};

/// The state of decoding, layer by layer.
pub(super) struct Walk<'a> {
    /// Captured bytes not decoded yet, at most up to the end of the current layer.
    pub(super) rest: &'a [u8],
    /// Bytes of that layer that follow `rest` on the wire and were not captured.
    pub(super) missing: usize,
    /// Whether a header states the end of that layer. Otherwise the layer ends with the captured bytes.
    pub(super) bounded: bool,
    /// Offset of `rest` in the captured bytes.
    pub(super) offset: usize,
    /// The number of layers counted against [`MAX_DEPTH`].
    pub(super) opened: u8,
    /// Like [`Decoded::tunnel`], and includes tunnels whose inner headers are not decoded yet.
    pub(super) tunnel: u32,
    /// The result so far.
    pub(super) decoded: &'a mut Decoded,
}

impl<'a> Walk<'a> {
    pub(super) fn new(data: &'a [u8], decoded: &'a mut Decoded) -> Self {
        Self { rest: data, missing: 0, bounded: false, offset: 0, opened: 0, tunnel: 0, decoded }
    }

    /// Returns the next `N` bytes without consuming them.
    #[inline]
    pub(super) fn peek<const N: usize>(&self) -> Step<&'a [u8; N]> {
        match self.rest.first_chunk() {
            Some(header) => Step::Continue(header),
            None => Step::Break(self.short_of(N)),
        }
    }

    /// Consumes and returns the next `N` bytes.
    #[inline]
    pub(super) fn take<const N: usize>(&mut self) -> Step<&'a [u8; N]> {
        match self.rest.split_first_chunk() {
            Some((header, rest)) => {
                self.rest = rest;
                self.offset += N;
                Step::Continue(header)
            }
            None => Step::Break(self.short_of(N)),
        }
    }

    /// Skips the next `len` bytes.
    #[inline]
    pub(super) fn skip(&mut self, len: usize) -> Step<()> {
        match self.rest.get(len..) {
            Some(rest) => {
                self.rest = rest;
                self.offset += len;
                Step::Continue(())
            }
            None => Step::Break(self.short_of(len)),
        }
    }

    /// Returns the reason why a header of `len` bytes is incomplete.
    #[cold]
    pub(super) fn short_of(&self, len: usize) -> Stop {
        if self.bounded && self.wire_len() < len && self.decoded.fragment.is_none() {
            Stop::Malformed
        } else {
            Stop::Truncated
        }
    }

    /// Returns the number of bytes on the wire from here to the end of the layer.
    #[inline]
    pub(super) fn wire_len(&self) -> usize {
        self.rest.len() + self.missing
    }

    /// Limits the layer to `len` bytes from here, or to the end of the enclosing layer, whichever is less.
    #[inline]
    pub(super) fn limit(&mut self, len: usize) {
        if let Some(rest) = self.rest.get(..len) {
            self.rest = rest;
            self.missing = 0;
        } else {
            let beyond = len - self.rest.len();
            self.missing = if self.bounded { self.missing.min(beyond) } else { beyond };
        }
        self.bounded = true;
    }

    /// Marks the current position as the start of the payload.
    #[inline]
    pub(super) fn mark_payload(&mut self) {
        self.decoded.payload_offset = saturate(self.offset);
        self.decoded.payload_len = saturate(self.wire_len());
    }

    /// Marks the payload after a transport header of `len` bytes, which may be incomplete.
    #[inline]
    pub(super) fn mark_payload_after(&mut self, len: usize) -> Step<()> {
        if let Step::Break(stop) = self.skip(len) {
            self.decoded.payload_offset = saturate(self.offset + self.rest.len());
            self.decoded.payload_len = saturate(self.wire_len().saturating_sub(len));
            return Step::Break(stop);
        }
        self.mark_payload();
        Step::Continue(())
    }

    /// Counts one more header that can be nested without limit.
    pub(super) fn count_layer(&mut self) -> Step<()> {
        if self.opened >= MAX_DEPTH {
            return Step::Break(Stop::TooDeep);
        }
        self.opened += 1;
        Step::Continue(())
    }

    /// Enters a tag or label.
    pub(super) fn open_label(&mut self) -> Step<()> {
        self.count_layer()?;
        self.decoded.depth += 1;
        Step::Continue(())
    }

    /// Enters a tunnel. The next decoded endpoints are inside it.
    pub(super) fn open_tunnel(&mut self, kind: TunnelKind, id: u32) -> Step<()> {
        self.open_label()?;
        self.tunnel = mix(self.tunnel, kind, id);
        Step::Continue(())
    }

    /// Records the endpoints of a decoded link or network layer as the innermost ones.
    #[inline]
    pub(super) fn understood(&mut self, network: Network, protocol: u8, source: u128, destination: u128) {
        let decoded = &mut *self.decoded;
        decoded.network = network;
        decoded.protocol = protocol;
        decoded.source = source;
        decoded.destination = destination;
        decoded.source_port = 0;
        decoded.destination_port = 0;
        decoded.tunnel = self.tunnel;
        self.mark_payload();
    }
}

/// Converts a length to 32 bits. Lengths of packets always fit.
#[inline]
pub(super) fn saturate(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
