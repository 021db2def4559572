//! IMAP (RFC 9051): logins, and the literals of fetched and appended mails.

use streams::Sender;

use crate::event::Event;
use crate::lines::{self, Line};
use crate::object::ObjectHead;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol =
    row("imap", "Internet Message Access Protocol", Carrier::Tcp, probe, |_| Box::<Imap>::default());

/// Minimum length of a mail. Shorter literals are names or passwords.
const MAIL_BYTES_MIN: u64 = 16;

fn probe(probe: &Probe<'_>) -> Verdict {
    let [client, server] = probe.data;
    let greets = [&b"* OK"[..], b"* PREAUTH", b"* BYE"].map(|word| lines::starts(server, word));
    if greets.contains(&Some(true)) {
        return Verdict::Yes;
    }
    if server.is_empty() && probe.has_port(143) && !client.is_empty() {
        return Verdict::More;
    }
    if greets.iter().all(|one| *one == Some(false)) { Verdict::No } else { Verdict::More }
}

/// A literal that a sender is sending.
#[derive(Clone, Copy, Debug)]
struct Literal {
    object: Option<u64>,
    at: u64,
    left: u64,
}

#[derive(Default)]
struct Imap {
    literals: [Option<Literal>; 2],
    starting_tls: Option<String>,
    /// The mail that is being appended.
    appends: bool,
}

impl Parser for Imap {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let at = input.sender.index();
        if let Some(mut literal) = self.literals[at] {
            let bytes = usize::try_from(literal.left).unwrap_or(usize::MAX).min(input.data.len());
            if let Some(object) = literal.object {
                out.content(object, literal.at, &input.data[..bytes]);
            }
            literal.at += bytes as u64;
            literal.left -= bytes as u64;
            self.literals[at] = Some(literal);
            self.literal_done(at, out);
            return Step::Used(bytes.max(1));
        }
        let (line, used) = match lines::line(input.data) {
            Line::Whole(line, used) => (line, used),
            Line::More => return Step::More,
            Line::TooLong => return Step::Stop,
        };
        match input.sender {
            Sender::Originator => self.command(line, used, input, out),
            Sender::Responder => self.response(line, used, input, out),
        }
        self.literal(line, used, input, out);
        Step::Used(used)
    }

    fn gap(&mut self, sender: Sender, len: u64, out: &mut ParserOutput<'_>) -> bool {
        if let Some(literal) = &mut self.literals[sender.index()] {
            literal.at += len.min(literal.left);
            literal.left -= len.min(literal.left);
            self.literal_done(sender.index(), out);
        }
        true
    }

    fn end(&mut self, out: &mut ParserOutput<'_>) {
        for literal in self.literals.iter().flatten() {
            if let Some(object) = literal.object {
                out.finish(object, None);
            }
        }
    }
}

impl Imap {
    fn literal_done(&mut self, at: usize, out: &mut ParserOutput<'_>) {
        if let Some(Literal { object, at: size, left: 0 }) = self.literals[at] {
            if let Some(object) = object {
                out.finish(object, Some(size));
            }
            self.literals[at] = None;
        }
    }

    /// Begins a literal, if the line announces one: `{310}`, `{310+}`.
    fn literal(&mut self, line: &[u8], used: usize, input: Input<'_>, out: &mut ParserOutput<'_>) {
        let Some(size) = announced(line) else { return };
        let mail = contains(line, b"BODY[") || contains(line, b"RFC822");
        let fetched = input.sender == Sender::Responder && mail;
        let mut object = None;
        if size >= MAIL_BYTES_MIN && (fetched || self.appends) {
            // Of the parts of a mail, only the headers and the whole count as a mail.
            let whole = !contains(line, b"BODY[")
                || contains(line, b"BODY[]")
                || contains(line, b"BODY[HEADER")
                || contains(line, b"BODY[TEXT");
            let head = ObjectHead {
                mime_declared: if whole { "message/rfc822".to_owned() } else { String::new() },
                size_declared: Some(size),
                source: String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned(),
                is_mail: whole,
                ..ObjectHead::default()
            };
            object = Some(out.begin(head, input.sender, input.offset + used as u64));
        }
        self.appends = false;
        if size > 0 {
            self.literals[input.sender.index()] = Some(Literal { object, at: 0, left: size });
        }
    }

    fn command(&mut self, line: &[u8], used: usize, input: Input<'_>, out: &mut ParserOutput<'_>) {
        let (tag, rest) = lines::command(line);
        let (word, rest) = lines::command(rest);
        let event = Event::new("imap.command", input.sender, input.offset, used).text("command", &word);
        let event = match word.as_str() {
            "LOGIN" => {
                let text = String::from_utf8_lossy(rest).replace('"', "");
                let (user, password) = text.split_once(' ').unwrap_or((&text, ""));
                event.text("user", user).text("password", password).number("plaintext", 1).word("login")
            }
            "AUTHENTICATE" => event.bytes("mechanism", rest).word("login"),
            "FETCH" | "UID" | "SEARCH" | "SELECT" | "EXAMINE" => event.bytes("argument", rest).word("read"),
            "APPEND" | "STORE" | "COPY" | "DELETE" | "EXPUNGE" => {
                self.appends = word == "APPEND";
                event.bytes("argument", rest).word("write")
            }
            "STARTTLS" => {
                self.starting_tls = Some(tag);
                event
            }
            _ => event,
        };
        out.emit(event);
    }

    fn response(&mut self, line: &[u8], used: usize, input: Input<'_>, out: &mut ParserOutput<'_>) {
        let (tag, rest) = lines::command(line);
        let (word, _) = lines::command(rest);
        if self.starting_tls.as_ref() == Some(&tag) && word == "OK" {
            out.switch("tls");
        }
        if tag != "*" && matches!(word.as_str(), "NO" | "BAD") {
            let event = Event::new("imap.response", input.sender, input.offset, used);
            out.emit(event.bytes("text", line).word("error"));
        }
    }
}

fn announced(line: &[u8]) -> Option<u64> {
    let inner = line.strip_suffix(b"}")?;
    let open = inner.iter().rposition(|byte| *byte == b'{')?;
    let digits = inner[open + 1..].strip_suffix(b"+").unwrap_or(&inner[open + 1..]);
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn contains(line: &[u8], word: &[u8]) -> bool {
    line.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}
