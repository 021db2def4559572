//! TPKT and COTP (RFC 1006, RFC 905), which carry RDP, S7comm and MMS.

use crate::cursor::u16_at;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = row("cotp", "ISO transport over TCP", Carrier::Tcp, probe, |_| Box::new(Cotp));

const HEADER_BYTES: usize = 4;
/// A COTP data unit (DT).
pub(crate) const DATA: u8 = 0xf0;
/// A connection request (CR) and its confirmation (CC).
pub(crate) const CONNECT: u8 = 0xe0;
pub(crate) const CONFIRM: u8 = 0xd0;

/// The start of the input.
pub(crate) enum Tpkt<'a> {
    /// Kind, the COTP header after the kind, payload, and total length.
    Whole(u8, &'a [u8], &'a [u8], usize),
    More,
    Other,
}

/// Reads a TPKT.
pub(crate) fn unit(data: &[u8]) -> Tpkt<'_> {
    match data {
        [3, 0, ..] => {}
        [3] | [] => return Tpkt::More,
        _ => return Tpkt::Other,
    }
    let Some(len) = u16_at(data, 2).map(usize::from) else { return Tpkt::More };
    if len < HEADER_BYTES + 3 {
        return Tpkt::Other;
    }
    let Some(cotp) = data.get(HEADER_BYTES..len) else { return Tpkt::More };
    let header = usize::from(cotp[0]);
    match (cotp.get(1), cotp.get(2..=header), cotp.get(header + 1..)) {
        (Some(kind), Some(rest), Some(payload)) => Tpkt::Whole(*kind & 0xf0, rest, payload, len),
        _ => Tpkt::Other,
    }
}

fn probe(probe: &Probe<'_>) -> Verdict {
    match unit(probe.first()) {
        Tpkt::Whole(CONNECT | CONFIRM, ..) => {
            // The first data unit identifies the protocol above.
            let longest = probe.data.iter().map(|data| data.len()).max().unwrap_or(0);
            if longest > 512 { Verdict::Yes } else { Verdict::More }
        }
        Tpkt::Whole(DATA, ..) => Verdict::Yes,
        Tpkt::More if !probe.first().is_empty() => Verdict::More,
        _ => Verdict::No,
    }
}

struct Cotp;

impl Parser for Cotp {
    fn data(&mut self, input: Input<'_>, _out: &mut ParserOutput<'_>) -> Step {
        match unit(input.data) {
            Tpkt::Whole(.., used) => Step::Used(used),
            Tpkt::More => Step::More,
            Tpkt::Other => Step::Stop,
        }
    }
}
