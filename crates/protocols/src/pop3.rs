//! POP3 (RFC 1939), and its mails.

use std::collections::VecDeque;

use streams::Sender;

use crate::event::Event;
use crate::lines::{self, Line};
use crate::object::ObjectHead;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = row("pop3", "Post Office Protocol", Carrier::Tcp, probe, |_| Box::<Pop3>::default());

/// Maximum number of commands that wait for their reply.
const COMMANDS_MAX: usize = 64;

fn probe(probe: &Probe<'_>) -> Verdict {
    let [client, server] = probe.data;
    if server.is_empty() {
        return if probe.has_port(110) && !client.is_empty() { Verdict::More } else { Verdict::No };
    }
    match lines::starts(server, b"+OK") {
        Some(true) => Verdict::Yes,
        Some(false) => Verdict::No,
        None => Verdict::More,
    }
}

/// The kind of reply to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Line,
    Lines,
    Mail,
    StartTls,
}

#[derive(Default)]
struct Pop3 {
    replies: VecDeque<Reply>,
    /// The reply of several lines that is being received: the object of a mail and its bytes so far, or no mail.
    body: Option<(Option<u64>, u64, bool)>,
    user: String,
    greeted: bool,
}

impl Parser for Pop3 {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        if let (Sender::Responder, Some((object, at, line_start))) = (input.sender, self.body) {
            let (bytes, used) = match lines::dotted(input.data, line_start) {
                Ok((bytes, used)) => (bytes, Some(used)),
                Err(0) => return Step::More,
                Err(bytes) => (bytes, None),
            };
            let content = lines::undotted(&input.data[..bytes], line_start);
            let next = at + content.len() as u64;
            if let Some(object) = object {
                out.content(object, at, &content);
                if used.is_some() {
                    out.finish(object, Some(next));
                }
            }
            let line_start = input.data[..bytes].last().map_or(line_start, |byte| *byte == b'\n');
            self.body = used.is_none().then_some((object, next, line_start));
            return Step::Used(used.unwrap_or(bytes));
        }
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

    fn gap(&mut self, sender: Sender, len: u64, _out: &mut ParserOutput<'_>) -> bool {
        if let (Sender::Responder, Some((_, at, line_start))) = (sender, &mut self.body) {
            *at += len;
            *line_start = false;
        }
        true
    }

    fn end(&mut self, out: &mut ParserOutput<'_>) {
        if let Some((Some(object), ..)) = self.body {
            out.finish(object, None);
        }
    }
}

impl Pop3 {
    fn command(&mut self, line: &[u8], used: usize, input: Input<'_>, out: &mut ParserOutput<'_>) {
        let (word, rest) = lines::command(line);
        let event = Event::new("pop3.command", input.sender, input.offset, used).text("command", &word);
        let event = match word.as_str() {
            "USER" => {
                self.user = String::from_utf8_lossy(rest).chars().take(256).collect();
                event.text("user", &self.user)
            }
            "PASS" => event.text("user", &self.user).bytes("password", rest).number("plaintext", 1).word("login"),
            "APOP" => event.bytes("user", rest).word("login"),
            "RETR" | "TOP" => event.bytes("argument", rest).word("read"),
            "DELE" => event.bytes("argument", rest).word("write"),
            _ => event,
        };
        out.emit(event);
        let reply = match word.as_str() {
            "RETR" | "TOP" => Reply::Mail,
            "CAPA" => Reply::Lines,
            "LIST" | "UIDL" if rest.is_empty() => Reply::Lines,
            "STLS" => Reply::StartTls,
            _ => Reply::Line,
        };
        if self.replies.len() < COMMANDS_MAX {
            self.replies.push_back(reply);
        }
    }

    fn reply(&mut self, line: &[u8], used: usize, input: Input<'_>, out: &mut ParserOutput<'_>) {
        if !self.greeted {
            self.greeted = true;
            return;
        }
        let reply = self.replies.pop_front().unwrap_or(Reply::Line);
        if line.starts_with(b"-ERR") {
            let event = Event::new("pop3.reply", input.sender, input.offset, used);
            out.emit(event.bytes("text", line).word("error"));
            return;
        }
        match reply {
            Reply::Line => {}
            Reply::StartTls => out.switch("tls"),
            Reply::Lines => self.body = Some((None, 0, true)),
            Reply::Mail => {
                let head = ObjectHead {
                    mime_declared: "message/rfc822".to_owned(),
                    is_mail: true,
                    source: self.user.clone(),
                    ..ObjectHead::default()
                };
                let object = out.begin(head, input.sender, input.offset + used as u64);
                self.body = Some((Some(object), 0, true));
            }
        }
    }
}
