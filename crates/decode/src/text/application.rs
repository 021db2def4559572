//! Prints application payloads: DNS questions and answers, HTTP requests and status lines, TLS handshakes.
//!
//! DNS and HTTP have the format of tcpdump, TLS names that of tshark. All text from packets is escaped, so that it
//! cannot contain terminal control sequences.

use std::fmt::Write as _;

use simple_dns::rdata::RData;
use simple_dns::{Name, OPCODE, Packet, PacketFlag, RCODE, ResourceRecord};

use crate::names::{self, Parsed};
use crate::{Decoded, Network};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// DNS, multicast DNS and LLMNR.
const DNS_PORTS: [u16; 3] = [53, 5353, 5355];
/// The maximum number of answers printed. The line also states their total number.
const ANSWERS_MAX: usize = 16;
/// The maximum number of bytes printed of a request line, a status line or a text record.
const TEXT_CHARS_MAX: usize = 160;
/// The minimum sizes in bytes of a question (root name, type, class) and of a record (also lifetime and length).
const QUESTION_BYTES_MIN: usize = 5;
const RECORD_BYTES_MIN: usize = 11;
const DNS_HEADER_BYTES: usize = 12;

/// Appends the payload of the innermost session if its protocol is supported.
pub(super) fn write(out: &mut String, decoded: &Decoded, data: &[u8]) {
    if decoded.network == Network::Link || decoded.payload_offset == 0 || decoded.fragment.is_some_and(|f| !f.first) {
        return;
    }
    let begin = usize::try_from(decoded.payload_offset).unwrap_or(usize::MAX);
    let len = usize::try_from(decoded.payload_len).unwrap_or(usize::MAX);
    let Some(payload) = data.get(begin..) else { return };
    let payload = payload.get(..len).unwrap_or(payload);
    if payload.is_empty() {
        return;
    }
    let is_dns = DNS_PORTS.iter().any(|port| [decoded.source_port, decoded.destination_port].contains(port));
    match decoded.protocol {
        UDP if is_dns => dns(out, payload, len),
        TCP if is_dns => {
            // A length precedes each message (RFC 7766).
            if let Some((prefix, message)) = payload.split_first_chunk() {
                let bytes = usize::from(u16::from_be_bytes(*prefix));
                dns(out, message.get(..bytes).unwrap_or(message), bytes);
            }
        }
        TCP => {
            if let Some(line) = http_line(payload) {
                out.push_str(": HTTP: ");
                push_text(out, line);
            } else {
                tls(out, payload);
            }
        }
        // SSDP requests are HTTP over UDP.
        UDP => {
            if let Some(line) = http_line(payload) {
                out.push_str(": HTTP: ");
                push_text(out, line);
            }
        }
        _ => {}
    }
}

/// Returns the first line of an HTTP/1 request or response.
fn http_line(payload: &[u8]) -> Option<&[u8]> {
    // A payload shorter than a method cannot be recognised as a request.
    let is_request = payload.len() >= 16 && names::begins_with_method(payload);
    if !is_request && !payload.starts_with(b"HTTP/1.") {
        return None;
    }
    let end = payload.iter().position(|&byte| byte == b'\n').unwrap_or(payload.len());
    let line = payload.get(..end)?.trim_ascii_end();
    // A request line ends with its version. Without a line feed, the rest is in the next packet.
    let has_version = line.windows(6).any(|part| part == b"HTTP/1");
    (has_version || end == payload.len()).then_some(line)
}

const HANDSHAKE_RECORD: u8 = 22;
const ALERT_RECORD: u8 = 21;

fn tls(out: &mut String, payload: &[u8]) {
    let [kind, 3, 0..=4, length_high, length_low, rest @ ..] = payload else { return };
    let length = usize::from(u16::from_be_bytes([*length_high, *length_low]));
    match (*kind, rest) {
        (HANDSHAKE_RECORD, [1, ..]) => match names::server_name(payload) {
            Parsed::Name(name) => drop(write!(out, ": TLS Client Hello (SNI={name})")),
            Parsed::More | Parsed::Nothing => out.push_str(": TLS Client Hello"),
        },
        (HANDSHAKE_RECORD, [2, ..]) => out.push_str(": TLS Server Hello"),
        (HANDSHAKE_RECORD, [11, ..]) => out.push_str(": TLS Certificate"),
        // Encrypted alerts are longer than two bytes.
        (ALERT_RECORD, [level @ 1..=2, description]) if length == 2 => {
            let level = if *level == 1 { "warning" } else { "fatal" };
            let _ = write!(out, ": TLS Alert ({level}, {})", alert_name(*description));
        }
        _ => {}
    }
}

/// Returns the name of a TLS alert (RFC 8446, section 6, and RFC 5246).
fn alert_name(description: u8) -> String {
    let name = match description {
        0 => "close notify",
        10 => "unexpected message",
        20 => "bad record mac",
        22 => "record overflow",
        40 => "handshake failure",
        42 => "bad certificate",
        44 => "certificate revoked",
        45 => "certificate expired",
        46 => "certificate unknown",
        47 => "illegal parameter",
        48 => "unknown ca",
        49 => "access denied",
        50 => "decode error",
        51 => "decrypt error",
        70 => "protocol version",
        71 => "insufficient security",
        80 => "internal error",
        86 => "inappropriate fallback",
        90 => "user canceled",
        112 => "unrecognized name",
        116 => "certificate required",
        120 => "no application protocol",
        other => return format!("description {other}"),
    };
    name.to_owned()
}

fn dns(out: &mut String, message: &[u8], len: usize) {
    let Some(packet) = parse_dns(message) else {
        // The message is truncated, damaged, or not supported by the library. Its question may still be readable.
        if let Parsed::Name(question) = names::dns_question(message) {
            let _ = write!(out, ": DNS {}? {}. ({len})", question.kind, question.name.trim_end_matches('.'));
        }
        return;
    };
    let is_response = packet.has_flags(PacketFlag::RESPONSE);
    let _ = write!(out, ": DNS {}", packet.id());
    if is_response {
        match packet.rcode() {
            RCODE::NoError => {}
            RCODE::FormatError => out.push_str(" FormErr"),
            RCODE::ServerFailure => out.push_str(" ServFail"),
            RCODE::NameError => out.push_str(" NXDomain"),
            RCODE::NotImplemented => out.push_str(" NotImp"),
            RCODE::Refused => out.push_str(" Refused"),
            other => drop(write!(out, " {other:?}")),
        }
        // The marks of tcpdump: authoritative, recursion not available, truncated.
        for (is_set, mark) in [
            (packet.has_flags(PacketFlag::AUTHORITATIVE_ANSWER), '*'),
            (!packet.has_flags(PacketFlag::RECURSION_AVAILABLE), '-'),
            (packet.has_flags(PacketFlag::TRUNCATION), '|'),
        ] {
            if is_set {
                out.push(mark);
            }
        }
    } else if packet.has_flags(PacketFlag::RECURSION_DESIRED) {
        out.push('+');
    }
    if packet.opcode() != OPCODE::StandardQuery {
        let _ = write!(out, " {:?}", packet.opcode());
    }
    if is_response {
        let additional = packet.additional_records.len() + usize::from(packet.opt().is_some());
        let _ = write!(out, " {}/{}/{additional}", packet.answers.len(), packet.name_servers.len());
    }
    for question in packet.questions.iter().take(ANSWERS_MAX) {
        let _ = write!(out, " {}? ", type_name(u16::from(question.qtype)));
        push_name(out, &question.qname);
    }
    for (place, record) in packet.answers.iter().take(ANSWERS_MAX).enumerate() {
        out.push_str(if place == 0 { " " } else { ", " });
        push_record(out, record);
    }
    if packet.answers.len() > ANSWERS_MAX {
        out.push_str(", …");
    }
    let _ = write!(out, " ({len})");
}

/// Parses a message if it is long enough for its record counts. The library allocates memory according to the counts
/// before it reads the records.
fn parse_dns(message: &[u8]) -> Option<Packet<'_>> {
    let header: &[u8; DNS_HEADER_BYTES] = message.first_chunk()?;
    let count = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
    let bytes_min = count(4) * QUESTION_BYTES_MIN + (count(6) + count(8) + count(10)) * RECORD_BYTES_MIN;
    if message.len() < DNS_HEADER_BYTES + bytes_min {
        return None;
    }
    Packet::parse(message).ok()
}

fn push_record(out: &mut String, record: &ResourceRecord<'_>) {
    let kind = type_name(u16::from(record.rdata.type_code()));
    let _ = write!(out, "{kind} ");
    match &record.rdata {
        RData::A(a) => drop(write!(out, "{}", std::net::Ipv4Addr::from_bits(a.address))),
        RData::AAAA(a) => drop(write!(out, "{}", std::net::Ipv6Addr::from_bits(a.address))),
        RData::CNAME(name) => push_name(out, &name.0),
        RData::NS(name) => push_name(out, &name.0),
        RData::PTR(name) => push_name(out, &name.0),
        RData::MX(mx) => {
            push_name(out, &mx.exchange);
            let _ = write!(out, " {}", mx.preference);
        }
        RData::SRV(srv) => {
            push_name(out, &srv.target);
            let _ = write!(out, ":{} {} {}", srv.port, srv.priority, srv.weight);
        }
        RData::TXT(text) => {
            for (place, (key, value)) in text.iter_raw().take(ANSWERS_MAX).enumerate() {
                out.push_str(if place == 0 { "\"" } else { " \"" });
                push_text(out, key);
                if let Some(value) = value {
                    out.push('=');
                    push_text(out, value);
                }
                out.push('"');
            }
        }
        _ => {
            out.pop();
        }
    }
}

fn type_name(number: u16) -> String {
    names::type_name(usize::from(number))
}

/// Appends a name with a final dot, as tcpdump prints it.
fn push_name(out: &mut String, name: &Name<'_>) {
    for label in name.as_bytes() {
        for &byte in label {
            match byte {
                b'.' | b'\\' => out.extend(['\\', char::from(byte)]),
                _ => names::push_printable(out, byte),
            }
        }
        out.push('.');
    }
    if name.get_labels().is_empty() {
        out.push('.');
    }
}

/// Appends text. Spaces stay, and other bytes that are not printable ASCII become `\ddd`.
fn push_text(out: &mut String, text: &[u8]) {
    for &byte in text.iter().take(TEXT_CHARS_MAX) {
        match byte {
            b' ' => out.push(' '),
            b'\\' => out.push_str("\\\\"),
            _ => names::push_printable(out, byte),
        }
    }
    if text.len() > TEXT_CHARS_MAX {
        out.push('…');
    }
}
