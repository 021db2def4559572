//! FTP (RFC 959, RFC 2428): commands, and the data connections that they announce.

use std::net::{IpAddr, Ipv4Addr};

use streams::Sender;

use crate::event::Event;
use crate::lines::{self, Line};
use crate::object::ObjectHead;
use crate::parser::{ExpectedConnection, Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = row("ftp", "File Transfer Protocol", Carrier::Tcp, probe, |_| Box::<Ftp>::default());
pub(crate) const ROW_DATA: Protocol = row(
    "ftp-data",
    "data connection of FTP",
    Carrier::Tcp,
    |_| Verdict::No,
    |expected| Box::new(FtpData::new(expected)),
);

fn probe(probe: &Probe<'_>) -> Verdict {
    let [client, server] = probe.data;
    let speaks =
        [&b"USER "[..], b"AUTH TLS", b"AUTH SSL", b"FEAT\r\n", b"OPTS UTF8"].map(|word| lines::starts(client, word));
    let greeting = match lines::line(server) {
        Line::Whole(line, _) => Some(lines::code(line)),
        _ => None,
    };
    match greeting {
        Some(Some(220)) => {
            let text = String::from_utf8_lossy(&server[..server.len().min(300)]).to_ascii_uppercase();
            if speaks.contains(&Some(true)) && !text.contains("SMTP") || probe.has_port(21) || text.contains("FTP") {
                Verdict::Yes
            } else {
                Verdict::More
            }
        }
        Some(_) => Verdict::No,
        None if server.is_empty() => {
            let asks = speaks.contains(&Some(true)) && probe.has_port(21);
            if asks { Verdict::Yes } else { Verdict::More }
        }
        None => Verdict::More,
    }
}

#[derive(Default)]
struct Ftp {
    user: String,
    /// The endpoint of the next data connection.
    data: Option<(IpAddr, u16)>,
    /// The content of the next data connection, if the command came first.
    wanted: Option<(String, String)>,
    starting_tls: bool,
}

impl Parser for Ftp {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let (line, used) = match lines::line(input.data) {
            Line::Whole(line, used) => (line, used),
            Line::More => return Step::More,
            Line::TooLong => return Step::Stop,
        };
        match input.sender {
            Sender::Originator => self.command(line, used, input, out),
            Sender::Responder => self.reply(line, used, input, out),
        }
        Step::Used(used)
    }

    fn gap(&mut self, _sender: Sender, _len: u64, _out: &mut ParserOutput<'_>) -> bool {
        true
    }
}

impl Ftp {
    fn command(&mut self, line: &[u8], used: usize, input: Input<'_>, out: &mut ParserOutput<'_>) {
        let (word, rest) = lines::command(line);
        let argument = String::from_utf8_lossy(rest).into_owned();
        let event = Event::new("ftp.command", input.sender, input.offset, used).text("command", &word);
        let event = match word.as_str() {
            "USER" => {
                self.user = argument.chars().take(256).collect();
                event.text("user", &self.user)
            }
            "PASS" => event.text("user", &self.user).text("password", &argument).number("plaintext", 1).word("login"),
            "RETR" | "LIST" | "NLST" | "MLSD" => event.text("argument", &argument).word("read"),
            "STOR" | "APPE" | "STOU" => event.text("argument", &argument).word("write").word("upload"),
            "DELE" | "RNFR" | "RNTO" | "MKD" | "RMD" | "SITE" => event.text("argument", &argument).word("write"),
            _ => event.text("argument", &argument),
        };
        out.emit(event);
        match word.as_str() {
            "PORT" => self.data = port(rest),
            "EPRT" => self.data = extended_port(&argument),
            "RETR" | "STOR" | "APPE" | "STOU" | "LIST" | "NLST" | "MLSD" => {
                self.wanted = Some((argument, word));
                self.announce(out);
            }
            "AUTH" => self.starting_tls = true,
            _ => {}
        }
    }

    fn reply(&mut self, line: &[u8], used: usize, input: Input<'_>, out: &mut ParserOutput<'_>) {
        let Some(code) = lines::code(line) else { return };
        let within = |open: u8, close: u8| {
            let from = line.iter().position(|byte| *byte == open)? + 1;
            let to = line.iter().rposition(|byte| *byte == close)?;
            line.get(from..to)
        };
        match code {
            227 => self.data = within(b'(', b')').or(line.get(4..)).and_then(port),
            229 => {
                let number = within(b'(', b')').and_then(|text| {
                    let text = String::from_utf8_lossy(text).into_owned();
                    text.trim_matches(|c: char| !c.is_ascii_digit()).parse().ok()
                });
                self.data = number.and_then(|port| Some((out.session().responder().ip?, port)));
            }
            234 if self.starting_tls => out.switch("tls"),
            _ => {}
        }
        if matches!(code, 227 | 229) && self.data.is_some() {
            // The connection may open before the command that names its content.
            self.wanted = None;
            self.announce(out);
        }
        if code >= 400 {
            let event = Event::new("ftp.reply", input.sender, input.offset, used).number("code", code);
            out.emit(event.bytes("text", line).word("error"));
        }
    }

    fn announce(&mut self, out: &mut ParserOutput<'_>) {
        if let Some((ip, port)) = self.data {
            let (name, source) = self.wanted.clone().unwrap_or_default();
            let name = name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
            out.expect(ip, port, ExpectedConnection { protocol: "ftp-data", name, source });
        }
    }
}

/// `h1,h2,h3,h4,p1,p2`.
fn port(text: &[u8]) -> Option<(IpAddr, u16)> {
    let text = std::str::from_utf8(text).ok()?;
    let text = text.trim_matches(|c: char| !c.is_ascii_digit());
    let numbers: Vec<u8> = text.split(',').map(|number| number.trim().parse().ok()).collect::<Option<_>>()?;
    let &[a, b, c, d, high, low] = numbers.as_slice() else { return None };
    Some((Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low])))
}

/// `|1|10.0.0.1|6275|`.
fn extended_port(text: &str) -> Option<(IpAddr, u16)> {
    let mut parts = text.split(text.chars().next()?).skip(2);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A data connection: one object in one direction.
struct FtpData {
    expected: ExpectedConnection,
    object: Option<(u64, u64)>,
}

impl FtpData {
    fn new(expected: Option<ExpectedConnection>) -> Self {
        let none = || ExpectedConnection { protocol: "ftp-data", name: String::new(), source: String::new() };
        Self { expected: expected.unwrap_or_else(none), object: None }
    }
}

impl Parser for FtpData {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let (object, at) = self.object.unwrap_or_else(|| {
            let head = ObjectHead {
                protocol: "ftp",
                name: self.expected.name.clone(),
                source: self.expected.source.clone(),
                ..ObjectHead::default()
            };
            (out.begin(head, input.sender, input.offset), 0)
        });
        out.content(object, at, input.data);
        self.object = Some((object, at + input.data.len() as u64));
        Step::Used(input.data.len())
    }

    fn gap(&mut self, _sender: Sender, len: u64, _out: &mut ParserOutput<'_>) -> bool {
        if let Some((_, at)) = &mut self.object {
            *at += len;
        }
        true
    }

    fn end(&mut self, out: &mut ParserOutput<'_>) {
        if let Some((object, size)) = self.object {
            out.finish(object, Some(size));
        }
    }
}
