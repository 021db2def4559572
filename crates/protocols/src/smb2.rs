//! SMB 2 and 3 (MS-SMB2) over TCP, with and without NetBIOS sessions, and the files that are read and written.

use std::collections::HashMap;

use streams::Sender;

use crate::cursor::{u16_le_at, u32_le_at, u64_le_at, utf16};
use crate::event::Event;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};
use crate::shared_file::{Content, REMEMBERED_MAX};
use crate::smb_files::{FrameRest, OpenFiles};

pub(crate) const ROW: Protocol = Protocol {
    resumes: |data| data.get(4..8) == Some(MAGIC),
    ..row("smb2", "Server Message Block 2 and 3", Carrier::Tcp, probe, |_| Box::<Smb2>::default())
};

const MAGIC: &[u8] = b"\xfeSMB";
const ENCRYPTED: &[u8] = b"\xfdSMB";
const HEADER_BYTES: usize = 64;
/// The size of a message is 24 bits.
const MESSAGE_BYTES_MAX: usize = 1 << 24;
/// Maximum number of compounded messages in a frame.
const COMPOUNDED_MAX: usize = 64;

const NAMES: [&str; 19] = [
    "negotiate",
    "session_setup",
    "logoff",
    "tree_connect",
    "tree_disconnect",
    "create",
    "close",
    "flush",
    "read",
    "write",
    "lock",
    "ioctl",
    "cancel",
    "echo",
    "query_directory",
    "change_notify",
    "query_info",
    "set_info",
    "oplock_break",
];

fn probe(probe: &Probe<'_>) -> Verdict {
    let data = probe.first();
    if data.len() < 8 {
        return if data.first().is_none_or(|first| matches!(first, 0 | 0x81)) { Verdict::More } else { Verdict::No };
    }
    // On port 139, a NetBIOS session request comes first.
    let netbios = data[0] == 0x81 && data[1] == 0 && probe.has_port(139);
    // A client that supports both versions begins with SMB 1, and offers "SMB 2" in it.
    let both = data.get(4..8) == Some(b"\xffSMB") && probe.data[1].get(4..8) == Some(MAGIC);
    if data.get(4..8) == Some(MAGIC) || data.get(4..8) == Some(ENCRYPTED) || both {
        return Verdict::Yes;
    }
    if netbios || (data.get(4..8) == Some(b"\xffSMB") && probe.data[1].len() < 8) { Verdict::More } else { Verdict::No }
}

/// A request that waits for its response.
#[derive(Clone, Debug)]
enum Request {
    Create(String),
    Read { file: u128, offset: u64 },
    Tree(String),
    Close(u128),
}

#[derive(Default)]
struct Smb2 {
    requests: HashMap<u64, Request>,
    files: OpenFiles,
    rest: FrameRest,
}

impl Parser for Smb2 {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        if let Some(step) = self.rest.data(input, out) {
            return step;
        }
        let Some(frame) = input.data.first_chunk::<4>() else { return Step::More };
        let len = usize::from(frame[1]) << 16 | usize::from(frame[2]) << 8 | usize::from(frame[3]);
        if frame[0] != 0 {
            // Other NetBIOS session messages.
            return if matches!(frame[0], 0x81..=0x85) && len < 256 { wait(input, 4 + len) } else { Step::Stop };
        }
        if len > MESSAGE_BYTES_MAX || len == 0 {
            return Step::Stop;
        }
        let whole = input.data.len() >= 4 + len;
        let message = &input.data[4..input.data.len().min(4 + len)];
        if message.len() < HEADER_BYTES + 64 && !whole {
            return Step::More;
        }
        if !message.starts_with(MAGIC) {
            if message.starts_with(ENCRYPTED) {
                let event = Event::new("smb2.encrypted", input.sender, input.offset, 4 + len);
                out.emit(event.word("encrypted"));
            }
            return self.rest.skip(len, input);
        }
        self.frame(message, len, whole, input, out)
    }

    fn gap(&mut self, sender: Sender, len: u64, _out: &mut ParserOutput<'_>) -> bool {
        self.rest.gap(sender, len)
    }

    fn end(&mut self, out: &mut ParserOutput<'_>) {
        self.files.end(out);
    }
}

fn wait(input: Input<'_>, used: usize) -> Step {
    if input.data.len() < used { Step::More } else { Step::Used(used) }
}

impl Smb2 {
    /// Reads the messages of a frame. The content of a read or write is passed on before all of it is received.
    fn frame(&mut self, message: &[u8], len: usize, whole: bool, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let mut at = 0;
        for _ in 0..COMPOUNDED_MAX {
            let Some(part) = message.get(at..) else { break };
            if !part.starts_with(MAGIC) || part.len() < HEADER_BYTES {
                break;
            }
            let next = usize::try_from(u32_le_at(part, 20).unwrap_or(0)).unwrap_or(0);
            let end = if next > 0 { part.len().min(next) } else { part.len() };
            let content = self.message(&part[..end], input, out);
            if let Some(content) = content {
                let content = Content { from: at + content.from, ..content };
                if let Some(step) = self.rest.pass(content, message, len, input, out) {
                    return step;
                }
            } else if !whole && next == 0 && !is_bulk(part) {
                // Other messages are short, but must be complete up to their names.
                return Step::More;
            }
            if next == 0 {
                break;
            }
            at += next;
        }
        self.rest.skip(len, input)
    }

    /// Reads a message. Returns the content of a read or write: where it is in the message.
    fn message(&mut self, part: &[u8], input: Input<'_>, out: &mut ParserOutput<'_>) -> Option<Content> {
        let command = u16_le_at(part, 12)?;
        let response = u32_le_at(part, 16)? & 1 != 0;
        let status = u32_le_at(part, 8)?;
        let id = u64_le_at(part, 24)?;
        let body = part.get(HEADER_BYTES..)?;
        let name = NAMES.get(usize::from(command)).copied().unwrap_or("other");
        let event =
            Event::new(if response { "smb2.response" } else { "smb2.request" }, input.sender, input.offset, part.len());
        let event = event.text("command", name).number("code", command);
        if response {
            // STATUS_MORE_PROCESSING_REQUIRED and STATUS_PENDING are not errors.
            let failed = status >> 30 == 3 && status != 0xc000_0016;
            if failed {
                out.emit(event.number("status", status).word("error"));
                self.requests.remove(&id);
                return None;
            }
            return self.response((command, id, status), body, input, out);
        }
        self.request((command, id), (part, body), event, input, out)
    }

    fn request(
        &mut self,
        (command, id): (u16, u64),
        (part, body): (&[u8], &[u8]),
        event: Event,
        input: Input<'_>,
        out: &mut ParserOutput<'_>,
    ) -> Option<Content> {
        let word = match command {
            1 => "login",
            8 => "read",
            9 => "write",
            _ => "",
        };
        let event = event.word(word);
        let text = |offset: u16, len: u16| {
            let from = usize::from(offset);
            utf16(part.get(from..from + usize::from(len)).unwrap_or_default())
        };
        match command {
            3 => {
                let path = text(u16_le_at(body, 4)?, u16_le_at(body, 6)?);
                out.emit(event.text("path", &path));
                self.remember(id, Request::Tree(path));
            }
            5 => {
                let name = text(u16_le_at(body, 44)?, u16_le_at(body, 46)?);
                let access = u32_le_at(body, 24)?;
                // FILE_WRITE_DATA, FILE_APPEND_DATA, DELETE, GENERIC_WRITE.
                let writes = access & 0x4001_0006 != 0;
                out.emit(event.text("name", &name).number("access", access).word(if writes { "write" } else { "" }));
                self.remember(id, Request::Create(name));
            }
            6 => {
                out.emit(event);
                self.remember(id, Request::Close(file_id(body, 8)?));
            }
            8 => {
                let (file, offset) = (file_id(body, 16)?, u64_le_at(body, 8)?);
                out.emit(event.number("offset", offset).number("length", u32_le_at(body, 4)?));
                self.remember(id, Request::Read { file, offset });
            }
            9 => {
                let (from, len) = (u16_le_at(body, 2)?, u32_le_at(body, 4)?);
                let (offset, file) = (u64_le_at(body, 8)?, file_id(body, 16)?);
                out.emit(event.number("offset", offset).number("length", len).word("upload"));
                return self.files.content(file, offset, (from.into(), len), input, out);
            }
            17 => out.emit(event.word("write")),
            _ => out.emit(event),
        }
        None
    }

    fn response(
        &mut self,
        (command, id, status): (u16, u64, u32),
        body: &[u8],
        input: Input<'_>,
        out: &mut ParserOutput<'_>,
    ) -> Option<Content> {
        if status != 0 {
            return None;
        }
        let request = self.requests.remove(&id)?;
        match (command, request) {
            (3, Request::Tree(path)) => self.files.share = path,
            (5, Request::Create(name)) => {
                self.files.open(file_id(body, 64)?, name, u64_le_at(body, 48)?);
            }
            (6, Request::Close(file)) => self.files.close(file, out),
            (8, Request::Read { file, offset }) => {
                let place = (usize::from(*body.get(2)?), u32_le_at(body, 4)?);
                return self.files.content(file, offset, place, input, out);
            }
            _ => {}
        }
        None
    }

    fn remember(&mut self, id: u64, request: Request) {
        if self.requests.len() < REMEMBERED_MAX {
            self.requests.insert(id, request);
        }
    }
}

/// Whether a message is a read response or a write, whose content is passed on as it is received.
fn is_bulk(part: &[u8]) -> bool {
    matches!((u16_le_at(part, 12), u32_le_at(part, 16).map(|flags| flags & 1)), (Some(8), Some(1)) | (Some(9), Some(0)))
}

fn file_id(body: &[u8], at: usize) -> Option<u128> {
    Some(u128::from(u64_le_at(body, at)?) | u128::from(u64_le_at(body, at + 8)?) << 64)
}
