//! EtherNet/IP with CIP (ODVA volumes 1 and 2): encapsulation commands, and the services inside.

use crate::cursor::{Cursor, u16_le_at};
use crate::event::Event;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = Protocol {
    resumes: |data| header(data).is_some(),
    ..row("enip", "EtherNet/IP and CIP", Carrier::Both, probe, |_| Box::new(Enip))
};

const HEADER_BYTES: usize = 24;
const SEND_RR_DATA: u16 = 0x6f;
const SEND_UNIT_DATA: u16 = 0x70;
/// Maximum number of reported services of a packed request.
const SERVICES_MAX: usize = 64;

/// Command and bytes of a message.
fn header(data: &[u8]) -> Option<(u16, usize)> {
    let mut cursor = Cursor(data.get(..HEADER_BYTES)?);
    let (command, len) = (cursor.u16_le()?, cursor.u16_le()?);
    cursor.u32_le()?;
    let status = cursor.u32_le()?;
    cursor.skip(8)?;
    let options = cursor.u32_le()?;
    let known = matches!(command, 0 | 0x01 | 0x04 | 0x63..=0x66 | SEND_RR_DATA | SEND_UNIT_DATA | 0x72 | 0x73);
    let empty = matches!(command, 0x63 | 0x64) || len > 0 || command == 0x66;
    (known && empty && options == 0 && status <= 0x6a && command != 0)
        .then_some((command, HEADER_BYTES + usize::from(len)))
}

fn probe(probe: &Probe<'_>) -> Verdict {
    let data = probe.first();
    if data.len() < HEADER_BYTES {
        let may = matches!(data.first(), None | Some(0x01 | 0x04 | 0x63..=0x66 | 0x6f | 0x70))
            && data.get(1).is_none_or(|b| *b == 0);
        return if may && probe.carrier == Carrier::Tcp { Verdict::More } else { Verdict::No };
    }
    let at_port = probe.has_port(44_818) || probe.has_port(2222);
    Verdict::from_bool(header(data).is_some_and(|(_, len)| at_port || len == data.len()))
}

struct Enip;

impl Parser for Enip {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        if input.data.len() < HEADER_BYTES {
            return Step::More;
        }
        let Some((command, len)) = header(input.data) else { return Step::Stop };
        let Some(message) = input.data.get(..len) else { return Step::More };
        let event = Event::new("enip.message", input.sender, input.offset, len).number("command", command);
        let event = event.word(match command {
            0x63 | 0x64 | 0x04 => "identify",
            0x65 => "open",
            0x66 => "close",
            _ => "",
        });
        out.emit(event);
        if matches!(command, SEND_RR_DATA | SEND_UNIT_DATA)
            && let Some(cip) = item(&message[HEADER_BYTES..])
        {
            emit_message(cip, input, len, out);
        }
        Step::Used(len)
    }
}

/// The data item of the common packet format.
fn item(body: &[u8]) -> Option<&[u8]> {
    let mut cursor = Cursor(body);
    cursor.skip(6)?;
    let count = cursor.u16_le()?;
    for _ in 0..count.min(8) {
        let (kind, len) = (cursor.u16_le()?, cursor.u16_le()?);
        let content = cursor.take(usize::from(len))?;
        match kind {
            0xb2 => return Some(content),
            // A connected message begins with a sequence count.
            0xb1 => return content.get(2..),
            _ => {}
        }
    }
    None
}

fn emit_message(cip: &[u8], input: Input<'_>, len: usize, out: &mut ParserOutput<'_>) {
    let Some(event) = service(cip, Event::new("enip.cip", input.sender, input.offset, len)) else { return };
    out.emit(event);
    // An unconnected send and a multiple service packet contain other services; so does the answer to the latter.
    let path = 2 + cip.get(1).map_or(0, |words| usize::from(*words) * 2);
    match cip.first() {
        Some(0x52) => {
            let inner = u16_le_at(cip, path + 2).map(usize::from);
            let inner = inner.and_then(|len| cip.get(path + 4..path + 4 + len));
            if let Some(event) =
                inner.and_then(|inner| service(inner, Event::new("enip.cip", input.sender, input.offset, len)))
            {
                out.emit(event);
            }
        }
        Some(0x0a) => emit_several(cip, path, input, len, out),
        Some(0x8a) => {
            let status = 4 + cip.get(3).map_or(0, |words| usize::from(*words) * 2);
            emit_several(cip, status, input, len, out);
        }
        _ => {}
    }
}

/// The services of a multiple service packet, whose number and places lie at `list`.
fn emit_several(cip: &[u8], list: usize, input: Input<'_>, len: usize, out: &mut ParserOutput<'_>) {
    let count = u16_le_at(cip, list).map_or(0, usize::from).min(SERVICES_MAX);
    for number in 0..count {
        let at = u16_le_at(cip, list + 2 + number * 2).map(usize::from);
        let inner = at.and_then(|at| cip.get(list + at..));
        if let Some(event) =
            inner.and_then(|inner| service(inner, Event::new("enip.cip", input.sender, input.offset, len)))
        {
            out.emit(event);
        }
    }
}

fn service(cip: &[u8], event: Event) -> Option<Event> {
    let code = *cip.first()?;
    let response = code & 0x80 != 0;
    let code = code & 0x7f;
    let mut event = event.number("service", code).number("response", u8::from(response));
    if response {
        let status = *cip.get(2)?;
        event = event.number("status", status).word(if status == 0 { "" } else { "error" });
    } else if let Some((class, instance)) = path(cip) {
        event = event.number("class", class).number("instance", instance);
    }
    Some(event.word(match code {
        0x01 | 0x03 | 0x0e | 0x4c | 0x52 if code != 0x52 => "read",
        0x02 | 0x04 | 0x10 | 0x4d | 0x53 | 0x4e => "write",
        0x05..=0x07 => "control",
        0x08 | 0x09 => "write",
        0x4b | 0x50 => "upload",
        _ => "",
    }))
}

/// Class and instance of a request path.
fn path(cip: &[u8]) -> Option<(u16, u16)> {
    let words = usize::from(*cip.get(1)?);
    let mut cursor = Cursor(cip.get(2..2 + words * 2)?);
    let (mut class, mut instance) = (0, 0);
    while let Some(segment) = cursor.u8() {
        let value = match segment & 3 {
            0 => u16::from(cursor.u8()?),
            _ => {
                cursor.u8()?;
                cursor.u16_le()?
            }
        };
        match segment & 0xfc {
            0x20 => class = value,
            0x24 => instance = value,
            _ => break,
        }
    }
    Some((class, instance))
}
