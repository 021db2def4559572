//! TLS and SSL 3 (RFC 8446, RFC 5246), by its records: hello, certificates up to 1.2, alerts, heartbeat (RFC 6520).

use streams::Sender;

use crate::cursor::{Cursor, u16_at};
use crate::event::Event;
use crate::parser::{ExpectedConnection, Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};
use crate::tls_handshake::{Handshake, Negotiated};

pub(crate) const ROW: Protocol = Protocol {
    encrypted: true,
    resumes: |data| is_record(data),
    ..row("tls", "TLS and SSL 3", Carrier::Tcp, probe, |_: Option<ExpectedConnection>| Box::<Tls>::default())
};

const HEADER_BYTES: usize = 5;
/// Maximum length of a record: 2^14 + 2048 (RFC 5246, 6.2.3).
const RECORD_BYTES_MAX: usize = (1 << 14) + 2048;
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const HEARTBEAT: u8 = 24;
/// Type, length, and the least padding of a heartbeat message.
const HEARTBEAT_BYTES_MIN: usize = 1 + 2 + 16;

fn is_record(data: &[u8]) -> bool {
    matches!(data, [20..=24, 3, 0..=4, high, low, ..]
        if (1..=RECORD_BYTES_MAX).contains(&(usize::from(*high) << 8 | usize::from(*low))))
}

fn probe(probe: &Probe<'_>) -> Verdict {
    match probe.first() {
        // A hello in the format of SSL 2 is not read.
        data @ [HANDSHAKE, 3, 0..=4, _, _, kind, ..] => Verdict::from_bool(is_record(data) && matches!(kind, 1 | 2)),
        [HANDSHAKE, 3, ..] | [HANDSHAKE] => Verdict::More,
        _ => Verdict::No,
    }
}

#[derive(Default)]
struct Tls {
    handshakes: [Handshake; 2],
    negotiated: Negotiated,
    /// Whether records of a sender are encrypted.
    encrypted: [bool; 2],
    /// The length of each sender's last heartbeat request.
    request_bytes: [usize; 2],
    /// Whether that request is known to have claimed more than it contained.
    request_claims: [bool; 2],
}

impl Parser for Tls {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        if !is_record(input.data) {
            return if input.data.len() < HEADER_BYTES { Step::More } else { Step::Stop };
        }
        let len = usize::from(u16_at(input.data, 3).unwrap_or(0));
        let used = HEADER_BYTES + len;
        let Some(body) = input.data.get(HEADER_BYTES..used) else { return Step::More };
        let at = input.sender.index();
        match input.data[0] {
            CHANGE_CIPHER_SPEC => self.encrypted[at] = true,
            HANDSHAKE if !self.encrypted[at] => {
                let mut handshake = std::mem::take(&mut self.handshakes[at]);
                handshake.record(body, input, &mut self.negotiated, out);
                self.handshakes[at] = handshake;
            }
            ALERT => self.alert(body, input, used, out),
            HEARTBEAT => self.heartbeat(body, input, used, out),
            _ => {}
        }
        Step::Used(used)
    }

    fn gap(&mut self, sender: Sender, _len: u64, _out: &mut ParserOutput<'_>) -> bool {
        self.handshakes[sender.index()] = Handshake::default();
        false
    }
}

impl Tls {
    fn alert(&self, body: &[u8], input: Input<'_>, used: usize, out: &mut ParserOutput<'_>) {
        let &[level, description] = body else { return };
        let event = Event::new("tls.alert", input.sender, input.offset, used).number("level", level);
        // A closing notification is not an error.
        out.emit(event.number("description", description).word(if description == 0 { "close" } else { "error" }));
    }

    /// Reports a heartbeat: by how much the claimed length exceeds the content (`excess`), and by how much a response
    /// is longer than the request before it (`leaked`).
    fn heartbeat(&mut self, body: &[u8], input: Input<'_>, used: usize, out: &mut ParserOutput<'_>) {
        let at = input.sender.index();
        let other = input.sender.other().index();
        let event = Event::new("tls.heartbeat", input.sender, input.offset, used).number("length", body.len());
        let signed = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let encrypted = self.encrypted[at];
        let (kind, excess, event) = if encrypted {
            let least = HEARTBEAT_BYTES_MIN + self.negotiated.overhead_bytes();
            // Only the order distinguishes requests from responses.
            let kind = if self.request_bytes[other] > 0 { 2 } else { 1 };
            let excess = signed(least) - signed(body.len());
            (kind, excess, event.number("minimum", least).number("encrypted", 1))
        } else {
            let mut cursor = Cursor(body);
            let (Some(kind), Some(claimed)) = (cursor.u8(), cursor.u16()) else { return };
            let excess = signed(HEARTBEAT_BYTES_MIN + usize::from(claimed)) - signed(body.len());
            (kind, excess, event.number("claimed", claimed).number("encrypted", 0))
        };
        let event = event.text("kind", if kind == 1 { "request" } else { "response" });
        let mut leaked = 0;
        if kind == 1 {
            self.request_bytes[at] = body.len();
            self.request_claims[at] = encrypted || excess > 0;
        } else {
            leaked = signed(body.len()) - signed(self.request_bytes[other]);
            // Padding is random: a longer response is a leak only if the request claimed too much.
            if self.request_bytes[other] == 0 || !self.request_claims[other] {
                leaked = 0;
            }
        }
        out.emit(event.number("excess", excess).number("leaked", leaked).word("heartbeat"));
    }
}
