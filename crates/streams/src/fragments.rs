//! Joins the fragments of IP datagrams that carry UDP or TCP.
//!
//! Incomplete datagrams are kept in a table of fixed size; the oldest is dropped to make room. Where fragments overlap, the
//! first bytes are kept.

use std::collections::{BTreeMap, VecDeque};

use decode::Decoded;

use crate::header;

/// Maximum number of incomplete datagrams.
const DATAGRAMS_MAX: usize = 64;
/// Payload bytes of a datagram, the limit of IP.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Maximum number of fragments of a datagram.
const FRAGMENTS_MAX: usize = 128;

/// A datagram whose fragments have not all come.
#[derive(Debug, Default)]
struct Datagram {
    id: u64,
    /// The headers of the first fragment.
    first: Option<Decoded>,
    /// Bytes of the transport header.
    header_bytes: usize,
    /// Content by offset in the IP payload.
    parts: BTreeMap<usize, Vec<u8>>,
    /// Bytes of the IP payload, once the last fragment has come.
    total: Option<usize>,
    broken: bool,
}

/// Datagrams whose fragments have not all come.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    datagrams: VecDeque<Datagram>,
    /// Datagrams that were inconsistent, or dropped before they were complete.
    pub(crate) incomplete: u64,
}

impl Fragments {
    /// Takes a fragment. Returns the headers and the payload of the datagram when it is whole.
    pub(crate) fn join(&mut self, data: &[u8], decoded: &Decoded) -> Option<(Decoded, Vec<u8>)> {
        let fragment = decoded.fragment?;
        let start = usize::try_from(decoded.payload_offset).ok()?;
        let len = usize::try_from(decoded.payload_len).ok()?;
        let (mut begin, mut header_bytes) = (start, 0);
        if fragment.first {
            header_bytes = header::transport_bytes(data, decoded)?;
            begin = start.checked_sub(header_bytes)?;
        }
        let place = header::fragment(data, begin, fragment.id)?;
        let content = data.get(start..start.checked_add(len)?);
        let at = self.datagrams.iter().position(|one| one.id == decoded.datagram).unwrap_or_else(|| {
            if self.datagrams.len() == DATAGRAMS_MAX {
                self.datagrams.pop_front();
                self.incomplete += 1;
            }
            self.datagrams.push_back(Datagram { id: decoded.datagram, ..Datagram::default() });
            self.datagrams.len() - 1
        });
        let datagram = self.datagrams.get_mut(at)?;
        datagram.add(place, header_bytes, decoded, content);
        if !datagram.broken && !datagram.is_whole() {
            return None;
        }
        let datagram = self.datagrams.remove(at)?;
        if datagram.broken {
            self.incomplete += 1;
            return None;
        }
        datagram.joined()
    }
}

impl Datagram {
    fn add(&mut self, place: header::FragmentPosition, header_bytes: usize, decoded: &Decoded, content: Option<&[u8]>) {
        let Some(content) = content else {
            self.broken = true;
            return;
        };
        let offset = place.offset + header_bytes;
        let end = offset + content.len();
        if decoded.fragment.is_some_and(|fragment| fragment.first) {
            self.first = self.first.or(Some(*decoded));
            self.header_bytes = header_bytes;
        }
        if !place.more {
            self.total = self.total.or(Some(end));
        }
        self.broken |= end > DATAGRAM_BYTES_MAX || self.parts.len() >= FRAGMENTS_MAX;
        if !self.broken {
            self.parts.entry(offset).or_insert_with(|| content.to_vec());
        }
    }

    /// Whether the parts cover everything after the transport header.
    fn is_whole(&self) -> bool {
        let (Some(total), Some(_)) = (self.total, &self.first) else { return false };
        let mut at = self.header_bytes;
        for (&offset, part) in &self.parts {
            if offset > at {
                return false;
            }
            at = at.max(offset + part.len());
        }
        at >= total
    }

    fn joined(self) -> Option<(Decoded, Vec<u8>)> {
        let mut payload = Vec::new();
        for (offset, part) in self.parts {
            let known = (self.header_bytes + payload.len()).saturating_sub(offset);
            payload.extend_from_slice(part.get(known..).unwrap_or_default());
        }
        payload.truncate(self.total?.saturating_sub(self.header_bytes));
        Some((self.first?, payload))
    }
}
