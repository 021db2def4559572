//! SIP (RFC 3261) over UDP and TCP: start lines.

use crate::event::Event;
use crate::lines::{self, Line};
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = Protocol {
    resumes: |data| is_start(data),
    ..row("sip", "Session Initiation Protocol", Carrier::Both, probe, |_| Box::<Sip>::default())
};

fn is_start(data: &[u8]) -> bool {
    matches!(lines::line(data), Line::Whole(line, _) if line.starts_with(b"SIP/2.0 ") || line.ends_with(b" SIP/2.0"))
}

fn probe(probe: &Probe<'_>) -> Verdict {
    let data = probe.first();
    match lines::line(data) {
        Line::Whole(..) => Verdict::from_bool(is_start(data)),
        // A method or the version is in capitals.
        Line::More if data.len() < 300 && data.first().is_none_or(u8::is_ascii_uppercase) => Verdict::More,
        _ => Verdict::No,
    }
}

#[derive(Default)]
struct Sip {
    body: [usize; 2],
}

impl Parser for Sip {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let at = input.sender.index();
        let messages = out.session().is_messages();
        if self.body[at] > 0 && !messages {
            let bytes = self.body[at].min(input.data.len());
            self.body[at] -= bytes;
            return Step::Used(bytes);
        }
        let Line::Whole(line, used) = lines::line(input.data) else { return Step::More };
        if line.is_empty() {
            return Step::Used(used);
        }
        let end = input.data.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end.or_else(|| messages.then_some(input.data.len().saturating_sub(4))) else {
            return Step::More;
        };
        if !is_start(input.data) {
            return Step::Stop;
        }
        let head = String::from_utf8_lossy(&input.data[..end]);
        let field = |name: &str, short: &str| {
            head.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                let key = key.trim();
                (key.eq_ignore_ascii_case(name) || key.eq_ignore_ascii_case(short)).then(|| value.trim().to_owned())
            })
        };
        let event = Event::new("sip.message", input.sender, input.offset, end + 4)
            .text("from", field("from", "f").unwrap_or_default())
            .text("to", field("to", "t").unwrap_or_default());
        let (word, rest) = lines::command(line);
        let event = if word.starts_with("SIP/") {
            let status = lines::code(rest).unwrap_or(0);
            event.number("status", status).word(if status >= 400 { "error" } else { "" })
        } else {
            let login = field("authorization", "").is_some();
            let name = match word.as_str() {
                "INVITE" => "invite",
                "REGISTER" => "register",
                "BYE" => "bye",
                _ => "",
            };
            event.text("method", word).word(name).word(if login { "login" } else { "" })
        };
        out.emit(event);
        self.body[at] = field("content-length", "l").and_then(|len| len.parse().ok()).unwrap_or(0);
        Step::Used((end + 4).min(input.data.len()))
    }
}
