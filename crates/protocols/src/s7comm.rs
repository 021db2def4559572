//! S7comm and S7comm-plus, the protocols of Siemens controllers, over COTP.
//!
//! Function codes as Wireshark's dissector `s7comm` names them.

use crate::cursor::u16_at;
use crate::event::Event;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};
use crate::tpkt::{CONFIRM, CONNECT, DATA, Tpkt, unit};

pub(crate) const ROW: Protocol = Protocol {
    resumes: |data| matches!(unit(data), Tpkt::Whole(DATA, _, [0x32 | 0x72, ..], _)),
    ..row("s7comm", "Siemens S7", Carrier::Tcp, probe, |_| Box::new(S7))
};

fn probe(probe: &Probe<'_>) -> Verdict {
    let mut more = false;
    for data in probe.data {
        let mut rest = data;
        loop {
            match unit(rest) {
                Tpkt::Whole(DATA, _, [0x32 | 0x72, ..], _) => return Verdict::Yes,
                Tpkt::Whole(CONNECT | CONFIRM, _, _, used) => rest = &rest[used..],
                Tpkt::Whole(..) => return Verdict::No,
                Tpkt::More => {
                    more = true;
                    break;
                }
                Tpkt::Other => {
                    if !rest.is_empty() {
                        return Verdict::No;
                    }
                    more = true;
                    break;
                }
            }
        }
    }
    // At least the TPKT header must be complete.
    if more && probe.first().first().is_none_or(|first| *first == 3) { Verdict::More } else { Verdict::No }
}

struct S7;

impl Parser for S7 {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let (kind, payload, used) = match unit(input.data) {
            Tpkt::Whole(kind, _, payload, used) => (kind, payload, used),
            Tpkt::More => return Step::More,
            Tpkt::Other => return Step::Stop,
        };
        if kind == DATA
            && let Some(event) = message(payload, Event::new("s7comm.message", input.sender, input.offset, used))
        {
            out.emit(event);
        }
        Step::Used(used)
    }
}

fn message(payload: &[u8], event: Event) -> Option<Event> {
    match payload.first()? {
        0x72 => return Some(event.number("plus", 1).number("pdu", *payload.get(1)?)),
        0x32 => {}
        _ => return None,
    }
    let kind = *payload.get(1)?;
    // Acknowledgements have two additional bytes of error code.
    let header = if matches!(kind, 2 | 3) { 12 } else { 10 };
    let parameters = payload.get(header..header + usize::from(u16_at(payload, 6)?))?;
    let event = event.number("rosctr", kind);
    let failed = matches!(kind, 2 | 3) && u16_at(payload, 10) != Some(0);
    let event = event.word(if failed { "error" } else { "" });
    if kind == 7 {
        // Type and group, then subfunction.
        let group = parameters.get(5)? & 15;
        let event = event.number("group", group).number("subfunction", *parameters.get(6)?);
        let word = match group {
            1 | 2 | 4 => "read",
            3 => "upload",
            5 => "login",
            7 => "control",
            _ => "",
        };
        return Some(event.word(word));
    }
    let Some(&function) = parameters.first() else { return Some(event) };
    let word = match function {
        0x04 => "read",
        0x05 => "write",
        0x1a..=0x1c => "write",
        0x1d..=0x1f => "upload",
        0x28 => "control",
        0x29 => "stop",
        _ => "",
    };
    let event = event.number("function", function).word(word);
    let event = if matches!(function, 0x1a..=0x1c) { event.word("download") } else { event };
    Some(if function == 0x29 { event.word("control") } else { event })
}
