//! Fields of headers that decoding does not return, found from where the payload begins.

use decode::Decoded;

/// The acknowledgement number of a TCP packet, if its flag is set.
pub(crate) fn acknowledgement(data: &[u8], decoded: &Decoded) -> Option<u32> {
    const ACK: u8 = 16;
    if decoded.tcp_flags & ACK == 0 {
        return None;
    }
    let header = tcp(data, decoded)?;
    Some(u32::from_be_bytes(header.get(8..12)?.try_into().ok()?))
}

/// The TCP header, which ends where the payload begins. Its length is in it, so the lengths are tried.
fn tcp<'a>(data: &'a [u8], decoded: &Decoded) -> Option<&'a [u8]> {
    let end = usize::try_from(decoded.payload_offset).ok()?;
    let ports = [decoded.source_port.to_be_bytes(), decoded.destination_port.to_be_bytes()].concat();
    let before = data.get(..end)?;
    (20..=60usize).step_by(4).find_map(|len| {
        let header = before.get(before.len().checked_sub(len)?..)?;
        let states = usize::from(header.get(12)? >> 4) * 4 == len;
        (states && header.starts_with(&ports) && header.get(4..8)? == decoded.tcp_sequence.to_be_bytes())
            .then_some(header)
    })
}

/// Bytes of the transport header before the payload.
pub(crate) fn transport_bytes(data: &[u8], decoded: &Decoded) -> Option<usize> {
    match decoded.protocol {
        6 => tcp(data, decoded).map(<[u8]>::len),
        17 => Some(8),
        _ => None,
    }
}

/// A fragment's place in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentPosition {
    /// Offset in bytes in the payload of the IP header.
    pub(crate) offset: usize,
    /// Whether more fragments follow.
    pub(crate) more: bool,
}

/// The place of a fragment whose IP header, or fragment header, ends before `end`.
pub(crate) fn fragment(data: &[u8], end: usize, id: u32) -> Option<FragmentPosition> {
    let before = data.get(..end)?;
    let ipv4 = (20..=60usize).step_by(4).find_map(|len| {
        let header = before.get(before.len().checked_sub(len)?..)?;
        let (&first, field) = (header.first()?, u16::from_be_bytes(header.get(6..8)?.try_into().ok()?));
        let same = u32::from(u16::from_be_bytes(header.get(4..6)?.try_into().ok()?)) == id;
        let states = first >> 4 == 4 && usize::from(first & 15) * 4 == len;
        (states && same && field & 0x3fff != 0)
            .then_some(FragmentPosition { offset: usize::from(field & 0x1fff) * 8, more: field & 0x2000 != 0 })
    });
    ipv4.or_else(|| {
        let header = before.last_chunk::<8>()?;
        let field = u16::from_be_bytes([header[2], header[3]]);
        let same = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) == id;
        same.then_some(FragmentPosition { offset: usize::from(field & 0xfff8), more: field & 1 != 0 })
    })
}
