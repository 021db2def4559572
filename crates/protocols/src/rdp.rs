//! RDP (MS-RDPBCGR): the cookie of the connection request, and the channels that the client asks for.

use streams::Sender;

use crate::cursor::u32_le_at;
use crate::event::Event;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};
use crate::tpkt::{CONFIRM, CONNECT, DATA, Tpkt, unit};

pub(crate) const ROW: Protocol = Protocol {
    encrypted: true,
    ..row("rdp", "Remote Desktop Protocol", Carrier::Tcp, probe, |_| Box::<Rdp>::default())
};

const COOKIE: &[u8] = b"Cookie: mstshash=";
const CHANNELS_MAX: usize = 64;

fn probe(probe: &Probe<'_>) -> Verdict {
    match unit(probe.first()) {
        Tpkt::Whole(CONNECT, rest, _, _) => {
            let named = find(rest, b"Cookie: ").is_some();
            // An RDP negotiation request: type 1, length 8.
            let asks = rest.len() >= 8 && rest.ends_with(&[0, 0]) && find(rest, &[1, 0, 8, 0]).is_some();
            Verdict::from_bool(named || asks || (probe.has_port(3389) && rest.len() <= 16))
        }
        Tpkt::More => Verdict::More,
        _ => Verdict::No,
    }
}

#[derive(Default)]
struct Rdp {
    connected: bool,
}

impl Parser for Rdp {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let (kind, rest, payload, used) = match unit(input.data) {
            Tpkt::Whole(kind, rest, payload, used) => (kind, rest, payload, used),
            Tpkt::More => return Step::More,
            Tpkt::Other if input.data.first() == Some(&22) => {
                out.switch("tls");
                return Step::Switch;
            }
            Tpkt::Other => return Step::Stop,
        };
        let event = |name| Event::new(name, input.sender, input.offset, used);
        match kind {
            CONNECT => {
                let user = find(rest, COOKIE).and_then(|at| {
                    let value = &rest[at + COOKIE.len()..];
                    value.split(|byte| *byte == b'\r').next()
                });
                out.emit(event("rdp.connect").bytes("user", user.unwrap_or_default()).word("login"));
            }
            CONFIRM => {
                // Type 2: the server chose a protocol; 1 and more is TLS.
                let chosen = find(rest, &[2, 0, 8, 0]).or_else(|| find(rest, &[2, 31, 8, 0]));
                let chosen = chosen.and_then(|at| u32_le_at(rest, at + 4)).unwrap_or(0);
                out.emit(event("rdp.confirm").number("protocol", chosen));
                if chosen > 0 {
                    out.switch("tls");
                }
            }
            DATA if input.sender == Sender::Originator && !self.connected => {
                self.connected = true;
                // Channels: CS_NET (0xc003), its length, a count, then names of 8 bytes and options.
                if let Some(at) = find(payload, &[0x03, 0xc0]) {
                    let count = usize::try_from(u32_le_at(payload, at + 4).unwrap_or(0)).unwrap_or(0);
                    let names = payload.get(at + 8..).unwrap_or_default();
                    for name in names.chunks_exact(12).take(count.min(CHANNELS_MAX)) {
                        let name = name[..8].split(|byte| *byte == 0).next().unwrap_or_default();
                        out.emit(event("rdp.channel").bytes("channel", name));
                    }
                }
            }
            _ => {}
        }
        Step::Used(used)
    }
}

fn find(data: &[u8], what: &[u8]) -> Option<usize> {
    data.windows(what.len()).position(|part| part == what)
}
