//! SMB 2 and 3 (MS-SMB2) over TCP, with and without NetBIOS sessions, and the files that are read and written.

use std::collections::HashMap;

use streams::Sender;

use crate::cursor::{u16_le_at, u32_le_at, u64_le_at, utf16};
use crate::event::Event;
use crate::object::ObjectHead;
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};

pub(crate) const ROW: Protocol = Protocol {
    resumes: |data| data.get(4..8) == Some(MAGIC),
    ..row("smb2", "Server Message Block 2 and 3", Carrier::Tcp, probe, |_| Box::<Smb2>::default())
};

const MAGIC: &[u8] = b"\xfeSMB";
const ENCRYPTED: &[u8] = b"\xfdSMB";
const HEADER_BYTES: usize = 64;
/// Maximum number of stored requests and open files.
const REMEMBERED_MAX: usize = 1024;
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

/// An open file.
#[derive(Clone, Debug, Default)]
struct File {
    name: String,
    size: Option<u64>,
    object: Option<(u64, Sender)>,
    /// The end of the content that was read or written.
    end: u64,
}

/// The rest of a frame's content, which is passed on as it is received, and its destination.
#[derive(Clone, Copy, Debug)]
struct Bulk {
    object: u64,
    at: u64,
    left: usize,
    /// Bytes of the frame after it.
    after: usize,
}

#[derive(Default)]
struct Smb2 {
    requests: HashMap<u64, Request>,
    files: HashMap<u128, File>,
    /// The file of the latest create, for related operations in a compound.
    share: String,
    bulk: [Option<Bulk>; 2],
    skip: [usize; 2],
}

impl Parser for Smb2 {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        let at = input.sender.index();
        if let Some(mut bulk) = self.bulk[at] {
            let bytes = bulk.left.min(input.data.len());
            out.content(bulk.object, bulk.at, &input.data[..bytes]);
            bulk.at += bytes as u64;
            bulk.left -= bytes;
            self.bulk[at] = (bulk.left > 0).then_some(bulk);
            if bulk.left == 0 {
                self.skip[at] = bulk.after;
            }
            return Step::Used(bytes.max(1));
        }
        if self.skip[at] > 0 {
            let bytes = self.skip[at].min(input.data.len());
            self.skip[at] -= bytes;
            return Step::Used(bytes);
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
            self.skip[at] = 4 + len;
            return Step::Used(self.take_skip(at, input.data.len()));
        }
        self.frame(message, len, whole, input, out)
    }

    fn gap(&mut self, sender: Sender, len: u64, _out: &mut ParserOutput<'_>) -> bool {
        let at = sender.index();
        let bytes = usize::try_from(len).unwrap_or(usize::MAX);
        if let Some(bulk) = &mut self.bulk[at] {
            if bulk.left >= bytes {
                bulk.left -= bytes;
                bulk.at += len;
                if bulk.left == 0 {
                    self.skip[at] = bulk.after;
                    self.bulk[at] = None;
                }
                return true;
            }
            self.bulk[at] = None;
        }
        if self.skip[at] >= bytes {
            self.skip[at] -= bytes;
            return true;
        }
        self.skip[at] = 0;
        false
    }

    fn end(&mut self, out: &mut ParserOutput<'_>) {
        let mut open: Vec<_> = std::mem::take(&mut self.files).into_values().collect();
        open.sort_by_key(|file| file.object.map(|(object, _)| object));
        for file in open {
            if let Some((object, _)) = file.object {
                out.finish(object, file.size);
            }
        }
    }
}

fn wait(input: Input<'_>, used: usize) -> Step {
    if input.data.len() < used { Step::More } else { Step::Used(used) }
}

impl Smb2 {
    fn take_skip(&mut self, at: usize, available: usize) -> usize {
        let bytes = self.skip[at].min(available);
        self.skip[at] -= bytes;
        bytes
    }

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
            if let Some((object, to, from, bytes)) = content {
                // The content may not be received yet; the frame has its length.
                let from = at + from;
                let bytes = bytes.min(len.saturating_sub(from));
                let here = message.get(from..).map_or(0, |rest| rest.len().min(bytes));
                out.content(object, to, message.get(from..from + here).unwrap_or_default());
                if here < bytes {
                    let left = bytes - here;
                    let after = len - from - bytes;
                    self.bulk[input.sender.index()] = Some(Bulk { object, at: to + here as u64, left, after });
                    return Step::Used(input.data.len());
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
        let there = input.data.len().min(4 + len);
        self.skip[input.sender.index()] = 4 + len - there;
        Step::Used(there)
    }

    /// Reads a message. Returns the content of a read or write: object, offset in it, position in the frame and length.
    fn message(
        &mut self,
        part: &[u8],
        input: Input<'_>,
        out: &mut ParserOutput<'_>,
    ) -> Option<(u64, u64, usize, usize)> {
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
    ) -> Option<(u64, u64, usize, usize)> {
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
                let object = self.object(file, input, out)?;
                return self.content(file, object, offset, from, len);
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
    ) -> Option<(u64, u64, usize, usize)> {
        if status != 0 {
            return None;
        }
        let request = self.requests.remove(&id)?;
        match (command, request) {
            (3, Request::Tree(path)) => self.share = path,
            (5, Request::Create(name)) => {
                let (size, file) = (u64_le_at(body, 48)?, file_id(body, 64)?);
                if self.files.len() < REMEMBERED_MAX {
                    let size = (size > 0).then_some(size);
                    self.files.insert(file, File { name, size, ..File::default() });
                }
            }
            (6, Request::Close(file)) => {
                if let Some(file) = self.files.remove(&file)
                    && let Some((object, sender)) = file.object
                {
                    // The written content ends where the last write ended.
                    let size = if sender == Sender::Originator { Some(file.end) } else { file.size.or(Some(file.end)) };
                    out.finish(object, size);
                }
            }
            (8, Request::Read { file, offset }) => {
                let (from, len) = (u16::from(*body.get(2)?), u32_le_at(body, 4)?);
                let object = self.object(file, input, out)?;
                return self.content(file, object, offset, from, len);
            }
            _ => {}
        }
        None
    }

    fn content(
        &mut self,
        file: u128,
        object: u64,
        offset: u64,
        from: u16,
        len: u32,
    ) -> Option<(u64, u64, usize, usize)> {
        let end = offset.checked_add(u64::from(len))?;
        if let Some(file) = self.files.get_mut(&file) {
            file.end = file.end.max(end);
        }
        Some((object, offset, usize::from(from), usize::try_from(len).ok()?))
    }

    fn remember(&mut self, id: u64, request: Request) {
        if self.requests.len() < REMEMBERED_MAX {
            self.requests.insert(id, request);
        }
    }

    /// The object of a file, which starts with the file's first content.
    fn object(&mut self, id: u128, input: Input<'_>, out: &mut ParserOutput<'_>) -> Option<u64> {
        if !self.files.contains_key(&id) && self.files.len() >= REMEMBERED_MAX {
            return None;
        }
        let file = self.files.entry(id).or_default();
        if let Some((object, sender)) = file.object
            && sender == input.sender
        {
            return Some(object);
        }
        let name = file.name.rsplit('\\').next().unwrap_or_default().to_owned();
        let head = ObjectHead {
            name,
            size_declared: file.size.filter(|_| input.sender == Sender::Responder),
            source: format!("{}\\{}", self.share, file.name),
            ..ObjectHead::default()
        };
        let object = out.begin(head, input.sender, input.offset);
        if let Some((former, _)) = file.object.replace((object, input.sender)) {
            out.finish(former, file.size);
        }
        Some(object)
    }
}

/// Whether a message is a read response or a write, whose content is passed on as it is received.
fn is_bulk(part: &[u8]) -> bool {
    matches!((u16_le_at(part, 12), u32_le_at(part, 16).map(|flags| flags & 1)), (Some(8), Some(1)) | (Some(9), Some(0)))
}

fn file_id(body: &[u8], at: usize) -> Option<u128> {
    Some(u128::from(u64_le_at(body, at)?) | u128::from(u64_le_at(body, at + 8)?) << 64)
}
