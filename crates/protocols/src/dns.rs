//! DNS over UDP and TCP (RFC 1035), also multicast DNS.

use simple_dns::rdata::RData;
use simple_dns::{Packet, PacketFlag, RCODE};

use crate::cursor::u16_at;
use crate::event::Event;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = row("dns", "Domain Name System", Carrier::Both, probe, |_| Box::new(Dns));

/// Maximum number of reported answers of a message.
const ANSWERS_MAX: usize = 32;

fn probe(probe: &Probe<'_>) -> Verdict {
    let data = probe.first();
    let message = if probe.carrier == Carrier::Tcp {
        let Some(len) = u16_at(data, 0) else { return Verdict::More };
        if usize::from(len) < 12 {
            return Verdict::No;
        }
        data.get(2..).unwrap_or_default()
    } else {
        data
    };
    let Some(header) = message.first_chunk::<12>() else {
        return if probe.carrier == Carrier::Tcp { Verdict::More } else { Verdict::No };
    };
    let count = |at: usize| u16_at(header, at).unwrap_or(0);
    let ports = [53, 5353, 5355].iter().any(|port| probe.has_port(*port));
    // Opcode QUERY, IQUERY, STATUS, NOTIFY or UPDATE, reserved bit clear.
    let sane =
        matches!(header[2] >> 3 & 15, 0..=2 | 4 | 5) && header[3] & 0x40 == 0 && count(4) <= 16 && count(6) <= 256;
    if !sane || (count(4) == 0 && count(6) == 0) {
        return Verdict::No;
    }
    if ports {
        return Verdict::Yes;
    }
    // On another port, the message has to be well-formed.
    let whole = if probe.carrier == Carrier::Tcp {
        message.get(..usize::from(u16_at(data, 0).unwrap_or(0)))
    } else {
        Some(message)
    };
    match whole {
        None => Verdict::More,
        Some(whole) => {
            Verdict::from_bool(count(4) == 1 && Packet::parse(whole).is_ok_and(|one| one.questions.len() == 1))
        }
    }
}

struct Dns;

impl Parser for Dns {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        if out.session().is_messages() {
            emit_message(input.data, input, input.data.len(), out);
            return Step::Used(input.data.len());
        }
        let Some(len) = u16_at(input.data, 0) else { return Step::More };
        let used = 2 + usize::from(len);
        let Some(message) = input.data.get(2..used) else { return Step::More };
        emit_message(message, input, used, out);
        Step::Used(used)
    }
}

fn emit_message(message: &[u8], input: Input<'_>, used: usize, out: &mut ParserOutput<'_>) {
    let Ok(packet) = Packet::parse(message) else { return };
    let response = packet.has_flags(PacketFlag::RESPONSE);
    let name = if response { "dns.answer" } else { "dns.query" };
    let mut event = Event::new(name, input.sender, input.offset, used).number("bytes", message.len());
    if let Some(question) = packet.questions.first() {
        let asked = question.qname.to_string();
        event = event
            .number("length", asked.len())
            .number("entropy", entropy_thousandths(host_part(&asked)))
            .number("host_length", host_part(&asked).len())
            .text("domain", domain(&asked))
            .text("question", &asked)
            .text("type", format!("{:?}", question.qtype).replace("TYPE(", "").replace(')', ""));
    }
    if !response {
        out.emit(event.word("query"));
        return;
    }
    let code = packet.rcode();
    let mut answers = Vec::new();
    for record in packet.answers.iter().take(ANSWERS_MAX) {
        match &record.rdata {
            RData::A(a) => answers.push(std::net::Ipv4Addr::from(a.address).to_string()),
            RData::AAAA(aaaa) => answers.push(std::net::Ipv6Addr::from(aaaa.address).to_string()),
            RData::CNAME(name) => answers.push(name.0.to_string()),
            RData::PTR(name) => answers.push(name.0.to_string()),
            RData::MX(mx) => answers.push(mx.exchange.to_string()),
            _ => {}
        }
    }
    let event = event.number("answers", packet.answers.len()).text("addresses", answers.join(" "));
    let failed = !matches!(code, RCODE::NoError);
    out.emit(event.text("code", format!("{code:?}")).word("answer").word(if failed { "error" } else { "" }));
}

/// The last two labels of a name.
fn domain(name: &str) -> &str {
    let name = name.trim_end_matches('.');
    let mut dots = name.rmatch_indices('.').map(|(at, _)| at);
    dots.nth(1).map_or(name, |at| &name[at + 1..])
}

/// The labels before the last two.
fn host_part(name: &str) -> &str {
    let name = name.trim_end_matches('.');
    name[..name.len() - domain(name).len()].trim_end_matches('.')
}

/// Shannon's entropy of the characters of a text, in thousandths of a bit.
#[allow(clippy::cast_possible_truncation, reason = "at most 8000")]
fn entropy_thousandths(text: &str) -> i64 {
    let mut counts = [0u32; 256];
    text.bytes().filter(|byte| *byte != b'.').for_each(|byte| counts[usize::from(byte)] += 1);
    let total = f64::from(counts.iter().sum::<u32>());
    let part = |count: &u32| f64::from(*count) / total;
    let bits: f64 = counts.iter().filter(|count| **count > 0).map(part).map(|p| -p * p.log2()).sum();
    (bits * 1000.0) as i64
}
