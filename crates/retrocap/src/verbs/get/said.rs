//! `retrocap get --streams` and `--messages`: what sessions said, as bytes in order with the gaps, or as messages of
//! application protocols, with certificates and fingerprints.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::BufReader;
use std::num::NonZeroU64;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use jiff::tz::TimeZone;

use crate::client::{self, Answer};
use crate::options::Common;
use crate::terminal::hex_dump::{self, Dump};
use crate::terminal::human;
use crate::terminal::printable::{print, print_json};
use crate::verbs::trailers;
use api::page_answers::{MessageValue, SessionMessage, StreamPart};
use api::page_parameters::{LINES_MAX, STREAM_BYTES_MAX};
use api::question::{MessageRules, MessagesQuestion, SelectionQuestion, StreamRules, StreamsQuestion};
use base::foreign::Foreign;

/// What conflicts with printing what sessions said: everything about packets and files of them.
const OTHERS: [&str; 14] = [
    "write",
    "split",
    "text",
    "format",
    "nano",
    "micro",
    "follow",
    "dedup",
    "alert",
    "name",
    "app",
    "process",
    "container",
    "seal",
];
/// Bytes of a line of an answer at most: a packet's payload in base64, or the fields of a message.
const LINE_BYTES_MAX: u64 = 4 << 20;

/// Options that print what sessions said.
#[derive(Debug, Args)]
pub(super) struct SaidArgs {
    /// Print what both sides of each session sent, in order, with the gaps; with -X or -x in hexadecimal
    #[arg(long, help_heading = "Output", conflicts_with_all = OTHERS, conflicts_with_all = ["messages", "count", "whole_sessions"])]
    streams: bool,
    /// Print the messages of application protocols, with certificates (TLS up to 1.2) and the fingerprints JA3, JA3S, JA4
    /// and HASSH
    #[arg(long, help_heading = "Output", conflicts_with_all = OTHERS, conflicts_with_all = ["whole_sessions"])]
    messages: bool,
}

impl SaidArgs {
    /// Whether one of them is given.
    pub(super) fn are_given(&self) -> bool {
        self.streams || self.messages
    }

    /// Asks the recorder and prints the answer.
    pub(super) fn print(
        &self,
        selection: SelectionQuestion,
        count: Option<NonZeroU64>,
        dump: Option<Dump>,
        common: &Common,
        tz: &TimeZone,
    ) -> anyhow::Result<()> {
        let target = match self.streams {
            true => StreamsQuestion { selection, rules: StreamRules { bytes: Some(STREAM_BYTES_MAX) } }.target(),
            false => {
                let count = Some(count.map_or(LINES_MAX, NonZeroU64::get).min(LINES_MAX));
                MessagesQuestion { selection, rules: MessageRules { count } }.target()
            }
        };
        let answer = client::get(common, &target)?;
        let trailers = answer.trailers();
        let mut sessions = Sessions { tz, dump, ends: HashMap::new(), shown: None };
        lines(answer, |line| {
            if common.json {
                return print_json(line);
            }
            let text = match self.streams {
                true => sessions.part(&read(line)?),
                false => sessions.message(&read(line)?),
            };
            print(&text)
        })?;
        trailers::ended(&trailers, common)
    }
}

fn lines(answer: Answer, mut each: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut lines = BufReader::with_capacity(64 << 10, answer);
    let mut line = String::new();
    while client::next_line(&mut lines, &mut line, LINE_BYTES_MAX)? {
        if !line.ends_with('\n') {
            line.push('\n');
        }
        each(&line)?;
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(line: &str) -> anyhow::Result<T> {
    serde_json::from_str(line).context("the recorder has another version")
}

/// The sessions of an answer, and the one whose lines are printed.
struct Sessions<'a> {
    tz: &'a TimeZone,
    dump: Option<Dump>,
    ends: HashMap<u64, (String, String)>,
    shown: Option<u64>,
}

impl Sessions<'_> {
    /// A heading when the session is another one than before.
    fn heading(&mut self, session: u64, ends: [&Option<Foreign>; 2]) -> String {
        if let [Some(originator), Some(responder)] = ends {
            let ends = (originator.terminal().to_string(), responder.terminal().to_string());
            self.ends.insert(session, ends);
        }
        if self.shown.replace(session) == Some(session) {
            return String::new();
        }
        let (originator, responder) = self.ends.get(&session).cloned().unwrap_or_default();
        format!("== {originator} -> {responder}\n")
    }

    fn time(&self, time: Option<&Foreign>) -> String {
        let time = time.and_then(|time| human::time(time.untrusted()));
        time.map_or_else(|| "-".to_owned(), |time| base::time::local(time, self.tz))
    }

    fn part(&mut self, part: &StreamPart) -> String {
        let mut text = self.heading(part.session, [&part.originator, &part.responder]);
        let direction = part.direction.terminal();
        let length = match part.length {
            0 => "bytes".to_owned(),
            length => human::counted(length, "byte"),
        };
        if let Some(gap) = &part.gap {
            let _ = writeln!(text, "! {length} of the {direction} are missing here ({})", gap.terminal());
        } else if part.conflict {
            let _ =
                writeln!(text, "! a later packet of the {direction} had other bytes for {length} at {}", part.offset);
        }
        let data = part.data.as_deref().and_then(|data| BASE64_STANDARD.decode(data).ok()).unwrap_or_default();
        if data.is_empty() {
            return text;
        }
        let sign = sign(&part.direction);
        if let Some(dump @ (Dump::Hex | Dump::HexAndAscii)) = self.dump {
            let _ = writeln!(text, "{sign} {length} at {}", part.offset);
            hex_dump::append_from(&mut text, dump, &data, part.offset);
            return text;
        }
        let printable = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
        for line in data.strip_suffix(b"\n").unwrap_or(&data).split(|byte| *byte == b'\n') {
            let line: String = line.strip_suffix(b"\r").unwrap_or(line).iter().map(printable).collect();
            let _ = writeln!(text, "{sign} {line}");
        }
        text
    }

    fn message(&mut self, message: &SessionMessage) -> String {
        let mut text = self.heading(message.session, [&message.originator, &message.responder]);
        let (time, sign) = (self.time(message.time.as_ref()), sign(&message.direction));
        let _ = write!(text, "{sign} {time}  {}", message.name.terminal());
        for word in &message.words {
            let _ = write!(text, " {}", word.terminal());
        }
        for (name, value) in &message.fields {
            let _ = match (name.as_str(), value) {
                ("not_before" | "not_after", MessageValue::Number(seconds)) => {
                    let time = jiff::Timestamp::from_second(*seconds)
                        .map_or_else(|_| seconds.to_string(), |at| at.to_string());
                    write!(text, "  {name}={time}")
                }
                (_, MessageValue::Number(number)) => write!(text, "  {name}={number}"),
                (_, MessageValue::Text(value)) => write!(text, "  {name}={:?}", value.terminal().to_string()),
            };
        }
        text.push('\n');
        text
    }
}

/// Who sent it.
fn sign(direction: &Foreign) -> char {
    if direction.untrusted() == "originator" { '>' } else { '<' }
}
