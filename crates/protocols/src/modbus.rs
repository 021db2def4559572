//! Modbus/TCP (MODBUS Application Protocol 1.1b3).

use streams::Sender;

use crate::cursor::u16_at;
use crate::event::Event;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = Protocol {
    resumes: |data| length(data).is_some_and(|len| data.len() >= 8 && data.len() >= len.min(12)),
    ..row("modbus", "Modbus/TCP", Carrier::Both, probe, |_| Box::new(Modbus))
};

const HEADER_BYTES: usize = 6;

/// Bytes of the message at the start of the data, if there is one.
fn length(data: &[u8]) -> Option<usize> {
    let (protocol, len) = (u16_at(data, 2)?, u16_at(data, 4)?);
    (protocol == 0 && (2..=254).contains(&len)).then_some(HEADER_BYTES + usize::from(len))
}

fn probe(probe: &Probe<'_>) -> Verdict {
    let data = probe.first();
    if data.len() < 8 {
        let zero = data.get(2..4).is_none_or(|protocol| protocol == [0, 0]);
        return if zero && (data.is_empty() || probe.has_port(502)) { Verdict::More } else { Verdict::No };
    }
    let Some(len) = length(data) else { return Verdict::No };
    // The format is loose: on another port, the function must be a common one, and the lengths must agree.
    let usual = matches!(data[7] & 0x7f, 1..=8 | 11 | 12 | 15..=17 | 20..=24 | 43);
    Verdict::from_bool(probe.has_port(502) || (usual && data.len() == len && exact(data, len)))
}

/// Whether a request or response of a common function has the expected length.
fn exact(data: &[u8], len: usize) -> bool {
    let body = len - 8;
    let count = data.get(8).map_or(0, |count| usize::from(*count));
    match data[7] {
        1..=4 => body == 4 || body == 1 + count,
        5 | 6 => body == 4,
        15 | 16 => body == 4 || data.get(12).is_some_and(|count| body == 5 + usize::from(*count)),
        43 => data.get(8) == Some(&14),
        function if function >= 0x80 => body == 1,
        _ => false,
    }
}

struct Modbus;

impl Parser for Modbus {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let data = input.data;
        if data.len() < HEADER_BYTES + 2 {
            return Step::More;
        }
        let Some(len) = length(data) else { return Step::Stop };
        let Some(message) = data.get(..len) else { return Step::More };
        let function = message[7];
        let request = input.sender == Sender::Originator;
        let name = if request { "modbus.request" } else { "modbus.response" };
        let mut event = Event::new(name, input.sender, input.offset, len)
            .number("function", function & 0x7f)
            .number("unit", message[6]);
        if function & 0x80 != 0 {
            event = event.number("exception", message.get(8).copied().unwrap_or(0)).word("error");
            out.emit(event);
            return Step::Used(len);
        }
        if request && matches!(function, 1..=6 | 15 | 16 | 22 | 23) {
            let start = u16_at(message, 8).unwrap_or(0);
            let count = if matches!(function, 5 | 6 | 22) { 1 } else { u16_at(message, 10).unwrap_or(0) };
            event = event.number("start", start).number("count", count);
        }
        let word = match function {
            1..=4 | 7 | 11 | 12 | 17 | 20 | 24 | 43 => "read",
            5 | 6 | 15 | 16 | 21 | 22 => "write",
            23 => "read",
            8 => "diagnose",
            _ => "",
        };
        let event = event.word(word);
        out.emit(if function == 23 { event.word("write") } else { event });
        Step::Used(len)
    }
}
