//! BACnet/IP (ASHRAE 135): BVLC, network layer, application services.

use crate::cursor::{Cursor, u16_at};
use crate::event::Event;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = row("bacnet", "BACnet/IP", Carrier::Udp, probe, |_| Box::new(Bacnet));

fn probe(probe: &Probe<'_>) -> Verdict {
    let data = probe.first();
    let length = u16_at(data, 2).map(usize::from);
    Verdict::from_bool(
        matches!(data, [0x81, 0..=0x0b, ..])
            && length.is_some_and(|len| len == data.len() || (len <= data.len() && probe.has_port(47_808))),
    )
}

struct Bacnet;

impl Parser for Bacnet {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let event = Event::new("bacnet.message", input.sender, input.offset, input.data.len());
        if let Some(event) = message(input.data, event) {
            out.emit(event);
        }
        Step::Used(input.data.len())
    }
}

fn message(data: &[u8], event: Event) -> Option<Event> {
    let mut cursor = Cursor(data);
    cursor.u8()?;
    let function = cursor.u8()?;
    cursor.u16()?;
    let event = event.number("bvlc", function);
    match function {
        // Forwarded messages have the origin before the network layer.
        4 => cursor.skip(6)?,
        9..=11 => {}
        _ => return Some(event),
    }
    let (version, control) = (cursor.u8()?, cursor.u8()?);
    if version != 1 {
        return None;
    }
    if control & 0x20 != 0 {
        cursor.u16()?;
        cursor.short()?;
    }
    if control & 0x08 != 0 {
        cursor.u16()?;
        cursor.short()?;
    }
    if control & 0x20 != 0 {
        cursor.u8()?;
    }
    if control & 0x80 != 0 {
        return Some(event.number("network_message", cursor.u8()?));
    }
    let kind = cursor.u8()?;
    let event = event.number("type", kind >> 4);
    match kind >> 4 {
        0 => {
            cursor.skip(2)?;
            if kind & 8 != 0 {
                cursor.skip(2)?;
            }
            let service = cursor.u8()?;
            Some(event.number("service", service).word(match service {
                6 | 12 | 13 | 14 | 26 => "read",
                7 | 8 | 9 | 10 | 11 | 15 | 16 => "write",
                17 | 20 | 0 => "control",
                5 => "subscribe",
                _ => "",
            }))
        }
        1 => {
            let service = cursor.u8()?;
            Some(event.number("service", service).word(match service {
                0 | 1 | 7 | 8 => "identify",
                2 | 3 => "data",
                6 | 9 => "time",
                _ => "",
            }))
        }
        2 => {
            cursor.skip(1)?;
            Some(event.number("service", cursor.u8()?))
        }
        3 => {
            cursor.skip(1)?;
            if kind & 8 != 0 {
                cursor.skip(2)?;
            }
            Some(event.number("service", cursor.u8()?).word("data"))
        }
        5 => {
            cursor.skip(1)?;
            Some(event.number("service", cursor.u8()?).word("error"))
        }
        6 | 7 => Some(event.word("error")),
        _ => Some(event),
    }
}
