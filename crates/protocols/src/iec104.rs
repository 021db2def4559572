//! IEC 60870-5-104: telecontrol over TCP. A frame begins with 0x68 and its length.

use crate::event::Event;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = Protocol {
    resumes: |data| frame(data).is_some(),
    ..row("iec104", "IEC 60870-5-104", Carrier::Tcp, probe, |_| Box::new(Iec104))
};

const START: u8 = 0x68;

/// Length of the frame at the start of the data, if there is one.
fn frame(data: &[u8]) -> Option<usize> {
    let [START, len, control, a, b, c, ..] = data else { return None };
    let sane = match control & 3 {
        // A U frame has only one of six functions. An S frame has only a number.
        3 => *len == 4 && [*a, *b, *c] == [0; 3] && matches!(control, 0x07 | 0x0b | 0x13 | 0x23 | 0x43 | 0x83),
        1 => *len == 4 && *control == 1,
        _ => (13..=253).contains(len) || *len == 12,
    };
    sane.then_some(2 + usize::from(*len))
}

fn probe(probe: &Probe<'_>) -> Verdict {
    let data = probe.first();
    match data {
        [] => Verdict::More,
        [START, ..] if data.len() < 6 => Verdict::More,
        _ => Verdict::from_bool(
            frame(data).is_some() && (probe.has_port(2404) || data.len() >= frame(data).unwrap_or(0)),
        ),
    }
}

struct Iec104;

impl Parser for Iec104 {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        if input.data.len() < 6 {
            return if input.data[0] == START { Step::More } else { Step::Stop };
        }
        let Some(len) = frame(input.data) else { return Step::Stop };
        let Some(message) = input.data.get(..len) else { return Step::More };
        let event = Event::new("iec104.frame", input.sender, input.offset, len);
        match message[2] & 3 {
            3 => {
                let word = match message[2] {
                    0x07 | 0x0b => "start",
                    0x13 | 0x23 => "stop",
                    _ => "test",
                };
                out.emit(event.text("format", "U").word(word));
            }
            1 => out.emit(event.text("format", "S")),
            _ => out.emit(asdu(&message[6..], event.text("format", "I"))),
        }
        Step::Used(len)
    }
}

fn asdu(asdu: &[u8], event: Event) -> Event {
    let &[kind, qualifier, cause, originator, low, high, ref rest @ ..] = asdu else { return event };
    let word = match kind {
        1..=40 => "data",
        45..=64 => "control",
        100..=102 => "read",
        103 | 105 | 107 => "control",
        110..=113 => "write",
        120..=127 => "upload",
        _ => "",
    };
    let object = rest.first_chunk::<3>().map_or(0, |[a, b, c]| u32::from_le_bytes([*a, *b, *c, 0]));
    event
        .number("type", kind)
        .number("objects", qualifier & 0x7f)
        .number("cause", cause & 0x3f)
        .number("originator", originator)
        .number("station", u16::from_le_bytes([low, high]))
        .number("object", object)
        .word(word)
        .word(if cause & 0x40 != 0 { "error" } else { "" })
}
