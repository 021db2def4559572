//! TFTP (RFC 1350, RFC 2348): requests, and the session in which the other side answers from a new port.

use crate::cursor::{Cursor, u16_at};
use crate::event::Event;
use crate::object::ObjectHead;
use crate::parser::{ExpectedConnection, Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol =
    row("tftp", "Trivial File Transfer Protocol", Carrier::Udp, probe, |expected| Box::new(Tftp::new(expected)));

const READ: u16 = 1;
const WRITE: u16 = 2;
const DATA: u16 = 3;
const ERROR: u16 = 5;
const OPTIONS: u16 = 6;
const BLOCK_BYTES_DEFAULT: usize = 512;

fn probe(probe: &Probe<'_>) -> Verdict {
    let data = probe.first();
    Verdict::from_bool(matches!(u16_at(data, 0), Some(READ | WRITE)) && request(data).is_some())
}

/// File name, mode and options of a request.
fn request(data: &[u8]) -> Option<(String, Vec<(String, String)>)> {
    let mut parts = data.get(2..)?.strip_suffix(b"\0")?.split(|byte| *byte == 0);
    let mut text = || parts.next().map(|part| String::from_utf8_lossy(part).into_owned());
    let (name, mode) = (text()?, text()?);
    if !["octet", "netascii", "mail"].iter().any(|one| mode.eq_ignore_ascii_case(one)) {
        return None;
    }
    let mut options = Vec::new();
    while let (Some(key), Some(value)) = (text(), text()) {
        options.push((key.to_ascii_lowercase(), value));
    }
    Some((name, options))
}

struct Tftp {
    name: String,
    block_bytes: usize,
    object: Option<(u64, u64)>,
    /// The number of the next block.
    next: u64,
}

impl Tftp {
    fn new(expected: Option<ExpectedConnection>) -> Self {
        let expected =
            expected.unwrap_or(ExpectedConnection { protocol: "tftp", name: String::new(), source: String::new() });
        let block_bytes = expected.source.parse().unwrap_or(BLOCK_BYTES_DEFAULT);
        Self { name: expected.name, block_bytes, object: None, next: 1 }
    }

    fn block(&mut self, data: &[u8], input: Input<'_>, out: &mut ParserOutput<'_>) -> Option<()> {
        let mut cursor = Cursor(data);
        let number = u64::from(cursor.u16()?);
        // Block numbers wrap in large files.
        let distance = number.wrapping_sub(self.next) & 0xffff;
        if distance > 0x7fff {
            return None;
        }
        self.next += distance;
        let (object, size) = self.object.unwrap_or_else(|| {
            let name = self.name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
            let head = ObjectHead { name, source: self.name.clone(), ..ObjectHead::default() };
            (out.begin(head, input.sender, input.offset), 0)
        });
        let at = (self.next - 1) * self.block_bytes as u64;
        out.content(object, at, cursor.0);
        let end = at + cursor.0.len() as u64;
        self.object = Some((object, size.max(end)));
        self.next += 1;
        if cursor.0.len() < self.block_bytes {
            out.finish(object, Some(end));
            self.object = None;
            self.name = String::new();
        }
        Some(())
    }
}

impl Parser for Tftp {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let Some(kind) = u16_at(input.data, 0) else { return Step::More };
        match kind {
            READ | WRITE => {
                let Some((name, options)) = request(input.data) else { return Step::More };
                let block = options.iter().find(|(key, _)| key == "blksize").map(|(_, value)| value.clone());
                let word = if kind == READ { "read" } else { "write" };
                let event = Event::new("tftp.request", input.sender, input.offset, input.data.len());
                out.emit(event.text("name", &name).word(word).word(if kind == WRITE { "upload" } else { "" }));
                let client = out.session().endpoint(input.sender);
                if let Some(ip) = client.ip {
                    let expected = ExpectedConnection {
                        protocol: "tftp",
                        name: name.clone(),
                        source: block.clone().unwrap_or_default(),
                    };
                    out.expect(ip, client.port, expected);
                }
                (self.name, self.next) = (name, 1);
                self.block_bytes = block.and_then(|block| block.parse().ok()).unwrap_or(BLOCK_BYTES_DEFAULT);
            }
            DATA => {
                let _ = self.block(&input.data[2..], input, out);
            }
            ERROR => {
                let event = Event::new("tftp.error", input.sender, input.offset, input.data.len());
                out.emit(event.bytes("text", input.data.get(4..).unwrap_or_default()).word("error"));
            }
            OPTIONS => {
                // Only options that the server acknowledges apply.
                let text = String::from_utf8_lossy(&input.data[2..]).to_ascii_lowercase();
                let mut parts = text.split('\0');
                let agreed = parts.find(|part| *part == "blksize").and_then(|_| parts.next()?.parse().ok());
                self.block_bytes = agreed.unwrap_or(BLOCK_BYTES_DEFAULT);
            }
            _ => {}
        }
        Step::Used(input.data.len())
    }

    fn end(&mut self, out: &mut ParserOutput<'_>) {
        if let Some((object, _)) = self.object {
            out.finish(object, None);
        }
    }
}
