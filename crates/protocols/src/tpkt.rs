//! TPKT and COTP (RFC 1006, RFC 905), which carry RDP, S7comm and MMS.

use crate::cursor::u16_at;
use crate::parser::{Input, Out, Parser, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = row("cotp", "ISO transport over TCP", Carrier::Tcp, probe, |_| Box::new(Cotp));

const HEADER_BYTES: usize = 4;
/// A COTP data unit (DT).
pub(crate) const DATA: u8 = 0xf0;
/// A connection request (CR) and its confirmation (CC).
pub(crate) const CONNECT: u8 = 0xe0;
pub(crate) const CONFIRM: u8 = 0xd0;

/// What is at the start of the input.
pub(crate) enum Unit<'a> {
    /// Kind, the COTP header after the kind, payload, bytes in all.
    Whole(u8, &'a [u8], &'a [u8], usize),
    More,
    Other,
}

/// Reads a TPKT.
pub(crate) fn unit(data: &[u8]) -> Unit<'_> {
    match data {
        [3, 0, ..] => {}
        [3] | [] => return Unit::More,
        _ => return Unit::Other,
    }
    let Some(len) = u16_at(data, 2).map(usize::from) else { return Unit::More };
    if len < HEADER_BYTES + 3 {
        return Unit::Other;
    }
    let Some(cotp) = data.get(HEADER_BYTES..len) else { return Unit::More };
    let header = usize::from(cotp[0]);
    match (cotp.get(1), cotp.get(2..=header), cotp.get(header + 1..)) {
        (Some(kind), Some(rest), Some(payload)) => Unit::Whole(*kind & 0xf0, rest, payload, len),
        _ => Unit::Other,
    }
}

fn probe(probe: &Probe<'_>) -> Verdict {
    match unit(probe.first()) {
        Unit::Whole(CONNECT | CONFIRM, ..) => {
            // The first data unit tells what is carried.
            let longest = probe.data.iter().map(|data| data.len()).max().unwrap_or(0);
            if longest > 512 { Verdict::Yes } else { Verdict::More }
        }
        Unit::Whole(DATA, ..) => Verdict::Yes,
        Unit::More if !probe.first().is_empty() => Verdict::More,
        _ => Verdict::No,
    }
}

struct Cotp;

impl Parser for Cotp {
    fn data(&mut self, input: Input<'_>, _out: &mut Out<'_>) -> Step {
        match unit(input.data) {
            Unit::Whole(.., used) => Step::Used(used),
            Unit::More => Step::More,
            Unit::Other => Step::Stop,
        }
    }
}
