//! PROFINET DCP (IEC 61158-6-10): discovery, and the commands that name a device and set its address.

use crate::cursor::Cursor;
use crate::event::Event;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = row("profinet-dcp", "PROFINET DCP", Carrier::Link(0x8892), probe, |_| Box::new(Dcp));

const BLOCKS_MAX: usize = 32;

fn probe(probe: &Probe<'_>) -> Verdict {
    Verdict::from_bool(probe.carrier == Carrier::Link(0x8892) && matches!(probe.first(), [0xfe, 0xfc..=0xff, ..]))
}

struct Dcp;

impl Parser for Dcp {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let event = Event::new("profinet.dcp", input.sender, input.offset, input.data.len());
        if let Some(event) = message(input.data, event) {
            out.emit(event);
        }
        Step::Used(input.data.len())
    }
}

fn message(data: &[u8], event: Event) -> Option<Event> {
    let mut cursor = Cursor(data);
    let frame = cursor.u16()?;
    if !(0xfefc..=0xfeff).contains(&frame) {
        return None;
    }
    let (service, kind) = (cursor.u8()?, cursor.u8()?);
    cursor.skip(6)?;
    let mut blocks = Cursor(cursor.long()?);
    let mut options = Vec::new();
    while let (Some(option), Some(sub)) = (blocks.u8(), blocks.u8()) {
        let Some(len) = blocks.u16() else { break };
        options.push(format!("{option}.{sub}"));
        if blocks.skip(usize::from(len)).is_none() || options.len() == BLOCKS_MAX {
            break;
        }
        if len % 2 == 1 {
            let _ = blocks.skip(1);
        }
    }
    let word = match (service, kind) {
        (4, 0) => "write",
        (3, 0) => "read",
        (5 | 6, _) => "identify",
        _ => "",
    };
    let event = event.number("frame", frame).number("service", service).number("type", kind);
    Some(event.text("blocks", options.join(" ")).word(word).word(if kind == 5 { "error" } else { "" }))
}
