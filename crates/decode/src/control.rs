//! Recognizes control messages of industrial protocols: writes, commands, starts and stops, downloads.
//!
//! A class of sessions can keep packets with such messages for as long as the start of a session. A tcpdump expression
//! sees one place of a packet only. Controllers put several messages into one segment, so these functions go through
//! all messages of a packet: Modbus, DNP3, IEC 60870-5-104, S7comm, and CIP over EtherNet/IP, over IPv4 and IPv6, with
//! tags and in tunnels. The port selects the protocol.
//!
//! There is no reassembly. A message that begins in an earlier segment is not seen, and a segment that begins inside a
//! message is only read on where the protocol marks its messages (DNP3). The input is untrusted: no function panics or
//! indexes, and the work is linear in the length of the packet.

use super::decoded::Network;
use super::layers::decode;
use base::packet::LinkType;

const TCP: u8 = 6;
const UDP: u8 = 17;

const MODBUS: u16 = 502;
const S7COMM: u16 = 102;
const IEC104: u16 = 2404;
const DNP3: u16 = 20_000;
const ENIP: u16 = 44_818;

/// Services of one packet that are looked at. A multiple service packet can name the same bytes again and again.
const CIP_SERVICES_MAX: u32 = 256;

/// Whether a packet has a message that changes something in a controller.
pub fn is_control(link_type: LinkType, packet: &[u8]) -> bool {
    let decoded = decode(link_type, packet);
    let is_later_fragment = decoded.fragment.is_some_and(|fragment| !fragment.first);
    if decoded.network == Network::Link || !matches!(decoded.protocol, TCP | UDP) || is_later_fragment {
        return false;
    }
    let from = usize::try_from(decoded.payload_offset).unwrap_or(usize::MAX);
    let len = usize::try_from(decoded.payload_len).unwrap_or(usize::MAX);
    let payload = packet.get(from..).unwrap_or_default();
    let payload = payload.get(..len).unwrap_or(payload);
    let is_tcp = decoded.protocol == TCP;
    match (decoded.destination_port, decoded.source_port) {
        // Here responses have the numbers of their requests, so the direction counts.
        (MODBUS, _) => any_message(payload, modbus),
        (S7COMM, _) if is_tcp => any_message(payload, s7comm),
        (ENIP, _) => {
            let mut left = CIP_SERVICES_MAX;
            any_message(payload, |rest| enip(rest, &mut left))
        }
        (IEC104, _) | (_, IEC104) if is_tcp => any_message(payload, iec104),
        (DNP3, _) | (_, DNP3) => any_message(payload, dnp3),
        _ => false,
    }
}

/// A message at the start of some bytes: its length, and whether it changes something. The length can exceed the bytes.
struct Message {
    bytes: usize,
    is_control: bool,
}

/// Whether one of the messages that follow each other in `payload` changes something.
fn any_message(payload: &[u8], mut read: impl FnMut(&[u8]) -> Option<Message>) -> bool {
    let mut rest = payload;
    while let Some(message) = read(rest) {
        if message.is_control {
            return true;
        }
        match rest.get(message.bytes.max(1)..) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    false
}

/// Modbus application protocol: transaction, protocol 0, length, unit, function (Modbus Messaging on TCP/IP 1.0b).
fn modbus(bytes: &[u8]) -> Option<Message> {
    let [_, _, 0, 0, high, low, _, function, data @ ..] = bytes else { return None };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    if !(2..=254).contains(&len) {
        return None;
    }
    let is_control = match function {
        // Write coils, registers and file records; mask, and read and write registers.
        5 | 6 | 15 | 16 | 21..=23 => true,
        // Diagnostics: restart communications, force listen only mode, clear counters.
        8 => matches!(data, [0, 1 | 4 | 10, ..]),
        _ => false,
    };
    Some(Message { bytes: 6 + len, is_control })
}

/// An APDU of IEC 60870-5-104: 0x68, length, four control bytes, and an ASDU in those of format I.
fn iec104(bytes: &[u8]) -> Option<Message> {
    let [0x68, len @ 4..=253, control, _, _, _, asdu @ ..] = bytes else { return None };
    let asdu = asdu.get(..usize::from(*len) - 4).unwrap_or(asdu);
    let is_control = match (control & 1, asdu.first()) {
        // Commands, set points, reset of a process, parameters, and files.
        (0, Some(45..=64 | 105 | 110..=127)) => true,
        // STARTDT and STOPDT, activation.
        _ => matches!(control, 0x07 | 0x13),
    };
    Some(Message { bytes: 2 + usize::from(*len), is_control })
}

/// A link frame of DNP3 (IEEE 1815): 0x0564, length, control, two addresses, CRC, then blocks of 16 bytes with a CRC.
fn dnp3(bytes: &[u8]) -> Option<Message> {
    const HEADER_BYTES: usize = 10;
    const FIRST: u8 = 0x40;
    let [5, 0x64, len @ 5..=255, _, ..] = bytes else {
        // The segment begins inside a frame.
        let next = bytes.get(1..)?.windows(2).position(|two| two == [5, 0x64])?;
        return Some(Message { bytes: 1 + next, is_control: false });
    };
    let user = usize::from(*len) - 5;
    // Transport header, application control, function.
    let is_control = match bytes.get(HEADER_BYTES..).unwrap_or_default() {
        // Everything but reads, confirmations, the assignment of classes, times and responses.
        [transport, _, function, ..] if user >= 3 && transport & FIRST != 0 => matches!(function, 2..=21 | 25..=31),
        _ => false,
    };
    Some(Message { bytes: HEADER_BYTES + user + user.div_ceil(16) * 2, is_control })
}

/// TPKT (RFC 1006), the data unit of COTP (RFC 905), and an S7comm message.
fn s7comm(bytes: &[u8]) -> Option<Message> {
    let [3, _, high, low, unit @ ..] = bytes else { return None };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    if len < 7 {
        return None;
    }
    let unit = unit.get(..len - 4).unwrap_or(unit);
    let is_control = match unit {
        // A job: its parameters follow a header of ten bytes.
        [2, 0xf0, _, 0x32, 1, _, _, _, _, _, _, _, _, function, ..] => {
            // Write, download, upload, program invocation, stop.
            matches!(function, 5 | 0x1a..=0x1f | 0x28 | 0x29)
        }
        // User data: a request of the group "time" that sets the clock.
        [2, 0xf0, _, 0x32, 7, _, _, _, _, _, _, _, _, _, _, _, _, _, 0x47, function, ..] => matches!(function, 2 | 4),
        _ => false,
    };
    Some(Message { bytes: len, is_control })
}

/// An EtherNet/IP encapsulation: a header of 24 bytes, and in SendRRData and SendUnitData a list of items with CIP.
fn enip(bytes: &[u8], left: &mut u32) -> Option<Message> {
    const HEADER_BYTES: usize = 24;
    let (command, len) = (u16_at(bytes, 0)?, usize::from(u16_at(bytes, 2)?));
    if command > 0x70 {
        return None;
    }
    let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let body = body.get(..len).unwrap_or(body);
    let is_control = matches!(command, 0x6f | 0x70) && items_have_control(body, left);
    Some(Message { bytes: HEADER_BYTES + len, is_control })
}

/// Whether an item of the common packet format, after interface handle and timeout, has a service that changes
/// something.
fn items_have_control(body: &[u8], left: &mut u32) -> bool {
    const ITEMS_MAX: u16 = 8;
    let mut at = 8;
    for _ in 0..u16_at(body, 6).unwrap_or(0).min(ITEMS_MAX) {
        let (Some(kind), Some(len)) = (u16_at(body, at), u16_at(body, at + 2)) else { return false };
        let (from, len) = (at + 4, usize::from(len));
        let content = body.get(from..).unwrap_or_default();
        let content = content.get(..len).unwrap_or(content);
        let cip = match kind {
            0xb2 => content,
            // A connected message begins with a sequence count.
            0xb1 => content.get(2..).unwrap_or_default(),
            _ => &[],
        };
        if cip_is_control(cip, 2, left) {
            return true;
        }
        at = from + len;
    }
    false
}

/// Whether a CIP request changes something, or carries a request that does. Requests are nested `depth` times at most.
fn cip_is_control(cip: &[u8], depth: u8, left: &mut u32) -> bool {
    const CONNECTION_MANAGER: [u8; 2] = [0x20, 6];
    let Some(rest) = left.checked_sub(1) else { return false };
    *left = rest;
    let [service, words, ..] = cip else { return false };
    let path_end = 2 + usize::from(*words) * 2;
    let to_connections = cip.get(2..4) == Some(&CONNECTION_MANAGER[..]);
    let data = cip.get(path_end..).unwrap_or_default();
    match service {
        // Set attributes, reset, start, stop, create, delete, apply attributes.
        0x02 | 0x04..=0x09 | 0x0d | 0x10 => true,
        // Write tag, read-modify-write tag, write tag fragmented. Of the connection manager, 0x4e closes a connection.
        0x4d | 0x4e | 0x53 => !to_connections,
        // Unconnected send: timing, length, request. Of other objects, 0x52 reads a tag.
        0x52 if to_connections && depth > 0 => {
            let request = data.get(4..).unwrap_or_default();
            let len = usize::from(u16_at(data, 2).unwrap_or(0));
            cip_is_control(request.get(..len).unwrap_or(request), depth - 1, left)
        }
        // Multiple service packet: count, offsets, requests.
        0x0a if depth > 0 => {
            let count = u32::from(u16_at(data, 0).unwrap_or(0)).min(CIP_SERVICES_MAX);
            let requests = data.get(2..).unwrap_or_default().chunks_exact(2).zip(0..count);
            let mut requests = requests.filter_map(|(at, _)| data.get(usize::from(u16_at(at, 0)?)..));
            requests.any(|request| cip_is_control(request, 0, left))
        }
        _ => false,
    }
}

/// A number at an offset, the low byte first.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

#[cfg(test)]
mod tests;
