//! DNP3 (IEEE 1815) over TCP and UDP: link frames, transport segments, application functions.

use crate::cursor::u16_le_at;
use crate::event::Event;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = Protocol {
    resumes: |data| frame_bytes(data).is_some(),
    ..row("dnp3", "Distributed Network Protocol 3", Carrier::Both, probe, |_| Box::new(Dnp3))
};

const HEADER_BYTES: usize = 10;

/// Bytes of the frame at the start of the data: the length field counts from the control byte on, without checksums.
fn frame_bytes(data: &[u8]) -> Option<usize> {
    let [0x05, 0x64, len, ..] = data else { return None };
    let user = usize::from(*len).checked_sub(5)?;
    Some(HEADER_BYTES + user + user.div_ceil(16) * 2)
}

fn probe(probe: &Probe<'_>) -> Verdict {
    match probe.first() {
        [] | [0x05] | [0x05, 0x64] => Verdict::More,
        data => Verdict::from_bool(frame_bytes(data).is_some()),
    }
}

struct Dnp3;

impl Parser for Dnp3 {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let mut used = 0;
        loop {
            let data = &input.data[used..];
            if data.len() < 3 {
                break;
            }
            let Some(len) = frame_bytes(data) else {
                return if used > 0 { Step::Used(used) } else { Step::Stop };
            };
            let Some(frame) = data.get(..len) else { break };
            out.emit(describe(frame, Event::new("dnp3.frame", input.sender, input.offset + used as u64, len)));
            used += len;
        }
        if used > 0 { Step::Used(used) } else { Step::More }
    }
}

fn describe(frame: &[u8], event: Event) -> Event {
    let address = |at| u16_le_at(frame, at).unwrap_or(0);
    let event = event.number("destination", address(4)).number("source", address(6)).number("control", frame[3]);
    // The first block: transport header, application control, function.
    let Some(&[transport, _, function, ..]) = frame.get(HEADER_BYTES..) else { return event };
    const FIRST: u8 = 0x40;
    if transport & FIRST == 0 {
        return event;
    }
    let word = match function {
        1 => "read",
        2 => "write",
        3..=6 => "control",
        7..=12 => "control",
        13 | 14 => "restart",
        15..=19 => "control",
        20 | 21 => "write",
        24 | 23 => "time",
        25..=30 => "upload",
        32 | 33 => "login",
        129 | 130 => "data",
        _ => "",
    };
    let event = event.number("function", function).word(word);
    let restarts = matches!(function, 13 | 14);
    let event = if restarts { event.word("control") } else { event };
    // Internal indications of a response: the second byte has the error bits.
    let indications = frame.get(HEADER_BYTES + 4).copied().unwrap_or(0);
    let failed = matches!(function, 129 | 130) && indications & 0x07 != 0;
    event.word(if failed { "error" } else { "" })
}
