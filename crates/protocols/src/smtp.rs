//! SMTP (RFC 5321) with DATA and BDAT (RFC 3030), and its mails.

use base64::Engine as _;
use streams::Sender;

use crate::event::Event;
use crate::lines::{self, Line};
use crate::object::ObjectHead;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol =
    row("smtp", "Simple Mail Transfer Protocol", Carrier::Tcp, probe, |_| Box::<Smtp>::default());

fn probe(probe: &Probe<'_>) -> Verdict {
    let [client, server] = probe.data;
    if !client.is_empty() {
        let greets = [&b"EHLO "[..], b"HELO ", b"LHLO "].map(|word| lines::starts(client, word));
        if greets.contains(&Some(true)) {
            return Verdict::Yes;
        }
        if greets.iter().all(|one| *one == Some(false)) {
            return Verdict::No;
        }
    }
    match lines::line(server) {
        Line::Whole(line, _) if lines::code(line) == Some(220) => {
            let text = String::from_utf8_lossy(line).to_ascii_uppercase();
            let named = text.contains("SMTP") || [25, 465, 587].iter().any(|port| probe.has_port(*port));
            // FTP servers greet with the same code.
            if named && !probe.has_port(21) { Verdict::Yes } else { Verdict::More }
        }
        Line::Whole(..) | Line::TooLong => Verdict::No,
        Line::More => Verdict::More,
    }
}

/// The content that a client is sending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Commands,
    /// A mail that ends with a line of one dot.
    Data { object: u64, at: u64, line_start: bool },
    /// A chunk of a mail of known length.
    Chunk { object: u64, at: u64, left: u64, last: bool },
    /// Lines with credentials.
    Credentials { plain: bool },
}

#[derive(Default)]
struct Smtp {
    state: State,
    from: String,
    /// A mail of which more chunks follow: object and bytes so far.
    chunks: Option<(u64, u64)>,
    starting_tls: bool,
    user: Option<String>,
}

impl Parser for Smtp {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        if input.sender == Sender::Responder {
            return self.reply(input, out);
        }
        match self.state {
            State::Data { object, at, line_start } => self.mail(object, at, line_start, input, out),
            State::Chunk { object, at, left, last } => {
                let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(input.data.len());
                out.content(object, at, &input.data[..bytes]);
                let (at, left) = (at + bytes as u64, left - bytes as u64);
                self.state = State::Chunk { object, at, left, last };
                self.chunk_done(out);
                Step::Used(bytes.max(1))
            }
            _ => self.command(input, out),
        }
    }

    fn gap(&mut self, sender: Sender, len: u64, out: &mut ParserOutput<'_>) -> bool {
        match &mut self.state {
            State::Data { at, line_start, .. } if sender == Sender::Originator => {
                *at += len;
                *line_start = false;
            }
            State::Chunk { at, left, .. } if sender == Sender::Originator && *left >= len => {
                *at += len;
                *left -= len;
                self.chunk_done(out);
            }
            // Lines continue behind the next line end.
            _ => {}
        }
        true
    }

    fn end(&mut self, out: &mut ParserOutput<'_>) {
        match self.state {
            State::Data { object, .. } | State::Chunk { object, .. } => out.finish(object, None),
            _ => {
                if let Some((object, _)) = self.chunks {
                    out.finish(object, None);
                }
            }
        }
    }
}

impl Smtp {
    fn mail(&mut self, object: u64, at: u64, line_start: bool, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let (bytes, used) = match lines::dotted(input.data, line_start) {
            Ok((bytes, used)) => (bytes, Some(used)),
            Err(0) => return Step::More,
            Err(bytes) => (bytes, None),
        };
        let content = lines::undotted(&input.data[..bytes], line_start);
        out.content(object, at, &content);
        let at = at + content.len() as u64;
        let line_start = input.data[..bytes].last().map_or(line_start, |byte| *byte == b'\n');
        self.state = State::Data { object, at, line_start };
        if used.is_some() {
            out.finish(object, Some(at));
            self.state = State::Commands;
        }
        Step::Used(used.unwrap_or(bytes))
    }

    fn chunk_done(&mut self, out: &mut ParserOutput<'_>) {
        if let State::Chunk { object, at, left: 0, last } = self.state {
            self.state = State::Commands;
            self.chunks = Some((object, at));
            if last {
                out.finish(object, Some(at));
                self.chunks = None;
            }
        }
    }

    fn begin(&self, input: Input<'_>, used: usize, out: &mut ParserOutput<'_>) -> u64 {
        let head = ObjectHead {
            mime_declared: "message/rfc822".to_owned(),
            source: self.from.clone(),
            is_mail: true,
            ..ObjectHead::default()
        };
        out.begin(head, input.sender, input.offset + used as u64)
    }

    fn command(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let (line, used) = match lines::line(input.data) {
            Line::Whole(line, used) => (line, used),
            Line::More => return Step::More,
            Line::TooLong => return Step::Stop,
        };
        if let State::Credentials { plain } = self.state {
            self.credentials(plain, line, input, used, out);
            return Step::Used(used);
        }
        let (word, rest) = lines::command(line);
        let event = Event::new("smtp.command", input.sender, input.offset, used).text("command", &word);
        match word.as_str() {
            "MAIL" => {
                self.from = String::from_utf8_lossy(rest).chars().take(512).collect();
                out.emit(event.bytes("argument", rest).word("write"));
            }
            "RCPT" | "HELO" | "EHLO" | "VRFY" | "EXPN" => out.emit(event.bytes("argument", rest)),
            "DATA" => {
                out.emit(event.word("write"));
                self.state = State::Data { object: self.begin(input, used, out), at: 0, line_start: true };
            }
            "BDAT" => {
                let mut words = rest.split(|byte| *byte == b' ');
                let size = words.next().and_then(|size| std::str::from_utf8(size).ok()?.parse().ok());
                let Some(left) = size else { return Step::Stop };
                let last = words.any(|word| word.eq_ignore_ascii_case(b"last"));
                out.emit(event.word("write"));
                let (object, at) = self.chunks.take().unwrap_or_else(|| (self.begin(input, used, out), 0));
                self.state = State::Chunk { object, at, left, last };
                self.chunk_done(out);
            }
            "AUTH" => {
                let (mechanism, first) = lines::command(rest);
                let plain = mechanism == "PLAIN";
                if plain || mechanism == "LOGIN" {
                    self.state = State::Credentials { plain };
                    if !first.is_empty() {
                        self.credentials(plain, first, input, used, out);
                    }
                } else {
                    out.emit(event.word("login").text("mechanism", mechanism));
                }
            }
            "STARTTLS" => self.starting_tls = true,
            _ => {}
        }
        Step::Used(used)
    }

    /// Reads a line of `AUTH PLAIN` or `AUTH LOGIN` (RFC 4954).
    fn credentials(&mut self, plain: bool, line: &[u8], input: Input<'_>, used: usize, out: &mut ParserOutput<'_>) {
        let Ok(decoded) = base64::engine::general_purpose::STANDARD.decode(line.trim_ascii()) else {
            self.state = State::Commands;
            return;
        };
        let (user, password) = if plain {
            let mut parts = decoded.split(|byte| *byte == 0).skip(1);
            let mut part = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
            (part(), part())
        } else {
            let text = String::from_utf8_lossy(&decoded).into_owned();
            let Some(user) = self.user.take() else {
                self.user = Some(text);
                return;
            };
            (user, text)
        };
        self.state = State::Commands;
        let event = Event::new("smtp.login", input.sender, input.offset, used).text("user", user);
        out.emit(event.text("password", password).number("plaintext", 1).word("login"));
    }

    fn reply(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let (line, used) = match lines::line(input.data) {
            Line::Whole(line, used) => (line, used),
            Line::More => return Step::More,
            Line::TooLong => return Step::Stop,
        };
        let Some(code) = lines::code(line) else { return Step::Used(used) };
        if self.starting_tls && code == 220 {
            out.switch("tls");
            return Step::Used(used);
        }
        if code >= 400 {
            // The server refused DATA, so no mail follows.
            if let State::Data { object, at: 0, .. } = self.state {
                out.finish(object, None);
                self.state = State::Commands;
            }
            let event = Event::new("smtp.reply", input.sender, input.offset, used).number("code", code);
            out.emit(event.bytes("text", line).word("error"));
        }
        Step::Used(used)
    }
}
