//! DHCP (RFC 2131): message types and the host's name.

use crate::cursor::Cursor;
use crate::event::Event;
use crate::fingerprint::hex;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol =
    row("dhcp", "Dynamic Host Configuration Protocol", Carrier::Udp, probe, |_| Box::new(Dhcp));

const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
const OPTIONS_AT: usize = 240;

fn probe(probe: &Probe<'_>) -> Verdict {
    let data = probe.first();
    Verdict::from_bool(matches!(data.first(), Some(1 | 2)) && data.get(236..OPTIONS_AT) == Some(&COOKIE))
}

struct Dhcp;

impl Parser for Dhcp {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let data = input.data;
        let Some(mut options) = data.get(OPTIONS_AT..).map(Cursor) else { return Step::Stop };
        let mut event = Event::new("dhcp.message", input.sender, input.offset, data.len())
            .text("client", hex(data.get(28..34).unwrap_or_default()));
        while let Some(code) = options.u8() {
            if code == 0 {
                continue;
            }
            let Some(content) = options.short().filter(|_| code != 255) else { break };
            match (code, content) {
                (53, [kind]) => {
                    let names = ["", "discover", "offer", "request", "decline", "ack", "nak", "release", "inform"];
                    let name = names.get(usize::from(*kind)).copied().unwrap_or_default();
                    event = event.number("type", *kind).word(name);
                }
                (12, name) => event = event.bytes("host_name", name),
                (50, [a, b, c, d]) => event = event.text("address", format!("{a}.{b}.{c}.{d}")),
                (60, vendor) => event = event.bytes("vendor", vendor),
                _ => {}
            }
        }
        out.emit(event);
        Step::Used(data.len())
    }
}
