//! OPC UA over TCP (OPC 10000-6): the messages of a connection.

use crate::cursor::u32_le_at;
use crate::event::Event;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = Protocol {
    resumes: |data| kind(data).is_some(),
    ..row("opcua", "OPC Unified Architecture", Carrier::Tcp, probe, |_| Box::<OpcUa>::default())
};

const MESSAGE_BYTES_MAX: usize = 16 << 20;

fn kind(data: &[u8]) -> Option<&'static str> {
    let [a, b, c, chunk, ..] = data else { return None };
    if !matches!(chunk, b'F' | b'C' | b'A') {
        return None;
    }
    Some(match [*a, *b, *c] {
        [b'H', b'E', b'L'] => "hello",
        [b'A', b'C', b'K'] => "acknowledge",
        [b'E', b'R', b'R'] => "error",
        [b'R', b'H', b'E'] => "reverse_hello",
        [b'O', b'P', b'N'] => "open",
        [b'C', b'L', b'O'] => "close",
        [b'M', b'S', b'G'] => "message",
        _ => return None,
    })
}

fn probe(probe: &Probe<'_>) -> Verdict {
    let data = probe.first();
    if data.len() < 8 {
        return if data.is_empty() || b"HELFOPNFMSGFRHEF".windows(data.len().min(4)).any(|part| data.starts_with(part)) {
            Verdict::More
        } else {
            Verdict::No
        };
    }
    let len = usize::try_from(u32_le_at(data, 4).unwrap_or(0)).unwrap_or(0);
    Verdict::from_bool(kind(data).is_some() && (8..MESSAGE_BYTES_MAX).contains(&len))
}

#[derive(Default)]
struct OpcUa {
    skip: [usize; 2],
}

impl Parser for OpcUa {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let at = input.sender.index();
        if self.skip[at] > 0 {
            let bytes = self.skip[at].min(input.data.len());
            self.skip[at] -= bytes;
            return Step::Used(bytes);
        }
        let Some(len) = u32_le_at(input.data, 4) else { return Step::More };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let Some(kind) = kind(input.data).filter(|_| (8..MESSAGE_BYTES_MAX).contains(&len)) else { return Step::Stop };
        if input.data.len() < len.min(512) {
            return Step::More;
        }
        let mut event = Event::new("opcua.message", input.sender, input.offset, len).text("kind", kind);
        if kind == "hello" {
            let url = u32_le_at(input.data, 28).and_then(|len| input.data.get(32..32 + usize::try_from(len).ok()?));
            event = event.bytes("url", url.unwrap_or_default());
        }
        out.emit(event.word(if kind == "message" { "" } else { kind }));
        let there = input.data.len().min(len);
        self.skip[at] = len - there;
        Step::Used(there)
    }
}
