//! NTP (RFC 5905), with the control and private modes that amplify attacks.

use crate::event::Event;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = row("ntp", "Network Time Protocol", Carrier::Udp, probe, |_| Box::new(Ntp));

fn probe(probe: &Probe<'_>) -> Verdict {
    let data = probe.first();
    let Some(first) = data.first() else { return Verdict::No };
    let (version, mode) = (first >> 3 & 7, first & 7);
    let time = data.len() >= 48 && (1..=5).contains(&mode);
    let control = matches!(mode, 6 | 7) && data.len() >= 8;
    Verdict::from_bool(probe.has_port(123) && (1..=4).contains(&version) && (time || control))
}

struct Ntp;

impl Parser for Ntp {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let mode = input.data[0] & 7;
        let event = Event::new("ntp.message", input.sender, input.offset, input.data.len()).number("mode", mode);
        let event = event.number("version", input.data[0] >> 3 & 7);
        out.emit(event.word(match mode {
            6 | 7 => "control",
            5 => "broadcast",
            _ => "time",
        }));
        Step::Used(input.data.len())
    }
}
