//! NFS 3 (RFC 1813) over TCP and UDP: its calls, and the files that are read and written. Of NFS 2 and 4, that they are used.

use std::collections::HashMap;

use streams::Sender;

use crate::cursor::Cursor;
use crate::event::Event;
use crate::nfs_files::{Handle, NfsFiles};
use crate::parser::{Input, Parser, ParserOutput, Step};
use crate::probe::{Carrier, Probe, Verdict};
use crate::protocol::{Protocol, row};
use crate::shared_file::Content;
use crate::smb_files::FrameRest;

pub(crate) const ROW: Protocol = Protocol {
    resumes: |data| data.get(4..).is_some_and(|message| is_call(message) == Some(true)),
    ..row("nfs", "Network File System", Carrier::Both, probe, |_| Box::<Nfs>::default())
};

/// The program number of NFS (RFC 5531).
const PROGRAM: u32 = 100_003;
/// The last fragment of a record has this bit.
const LAST: u32 = 0x8000_0000;
/// Larger records are not of NFS.
const RECORD_BYTES_MAX: u32 = 1 << 24;
/// Bytes of a record that are read at once: its headers, handles and names.
const HEAD_BYTES: usize = 1024;
/// Calls that wait for their replies.
const CALLS_MAX: usize = 1024;
/// Bytes of a file handle.
const HANDLE_BYTES_MAX: u32 = 64;

const NAMES: [&str; 22] = [
    "null",
    "getattr",
    "setattr",
    "lookup",
    "access",
    "readlink",
    "read",
    "write",
    "create",
    "mkdir",
    "symlink",
    "mknod",
    "remove",
    "rmdir",
    "rename",
    "link",
    "readdir",
    "readdirplus",
    "fsstat",
    "fsinfo",
    "pathconf",
    "commit",
];
const LOOKUP: u32 = 3;
const READ: u32 = 6;
const WRITE: u32 = 7;
const CREATE: u32 = 8;
const COMMIT: u32 = 21;

fn probe(probe: &Probe<'_>) -> Verdict {
    let data = probe.data[0];
    let message = if probe.carrier == Carrier::Tcp {
        let Some(marker) = Cursor(data).u32() else { return Verdict::More };
        if !(24..RECORD_BYTES_MAX).contains(&(marker & !LAST)) {
            return Verdict::No;
        }
        &data[4..]
    } else {
        data
    };
    match is_call(message) {
        Some(yes) => Verdict::from_bool(yes),
        None if probe.carrier == Carrier::Tcp && message.get(4..8).is_none_or(|call| call == [0; 4]) => Verdict::More,
        None => Verdict::No,
    }
}

/// Whether a message is a call of NFS; `None` if it is too short.
fn is_call(message: &[u8]) -> Option<bool> {
    let mut fields = Cursor(message);
    fields.u32()?;
    let (call, version, program, nfs) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
    Some((call, version, program) == (0, 2, PROGRAM) && (2..=4).contains(&nfs))
}

/// A call that waits for its reply.
#[derive(Debug)]
enum Call {
    /// Of a file in a folder.
    Named(String),
    Read {
        file: Handle,
        offset: u64,
    },
    Commit(Handle),
}

#[derive(Default)]
struct Nfs {
    calls: HashMap<u32, Call>,
    files: NfsFiles,
    rest: FrameRest,
}

impl Parser for Nfs {
    fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Step {
        if out.session().is_messages() {
            if let Some(content) = self.message(input.data, input.data.len(), input, out) {
                let bytes = input.data.get(content.from..).unwrap_or_default();
                out.content(content.object, content.at, &bytes[..bytes.len().min(content.len)]);
            }
            return Step::Used(input.data.len());
        }
        if let Some(step) = self.rest.data(input, out) {
            return step;
        }
        let Some(marker) = Cursor(input.data).u32() else { return Step::More };
        let len = marker & !LAST;
        if len > RECORD_BYTES_MAX {
            return Step::Stop;
        }
        let len = usize::try_from(len).unwrap_or(0);
        let there = input.data.len().min(4 + len);
        if there < (4 + len).min(HEAD_BYTES) {
            return Step::More;
        }
        let message = &input.data[4..there];
        if let Some(content) = self.message(message, len, input, out)
            && let Some(step) = self.rest.pass(content, message, len, input, out)
        {
            return step;
        }
        self.rest.skip(len, input)
    }

    fn gap(&mut self, sender: Sender, len: u64, _out: &mut ParserOutput<'_>) -> bool {
        self.rest.gap(sender, len)
    }

    fn end(&mut self, out: &mut ParserOutput<'_>) {
        self.files.end(out);
    }
}

impl Nfs {
    /// Reads a call or a reply. Returns the content of a read or write.
    fn message(&mut self, message: &[u8], len: usize, input: Input<'_>, out: &mut ParserOutput<'_>) -> Option<Content> {
        let mut fields = Cursor(message);
        let id = fields.u32()?;
        match (fields.u32()?, input.sender) {
            (0, Sender::Originator) => self.call(id, message, len, input, out),
            (1, Sender::Responder) => self.reply(id, message, input, out),
            _ => None,
        }
    }

    fn call(
        &mut self,
        id: u32,
        message: &[u8],
        len: usize,
        input: Input<'_>,
        out: &mut ParserOutput<'_>,
    ) -> Option<Content> {
        if is_call(message) != Some(true) {
            return None;
        }
        let mut fields = Cursor(message.get(16..)?);
        let (version, procedure) = (fields.u32()?, fields.u32()?);
        // The credentials and the verifier.
        for _ in 0..2 {
            fields.u32()?;
            opaque(&mut fields, 400)?;
        }
        let name = if version == 3 { NAMES.get(procedure as usize).copied().unwrap_or("other") } else { "" };
        let event = Event::new("nfs.call", input.sender, input.offset, len).number("version", version);
        let event = event.number("code", procedure).text("procedure", name);
        let event = match procedure {
            READ if version == 3 => event.word("read"),
            2 | 7..=15 | COMMIT if version == 3 => event.word("write"),
            _ => event,
        };
        if version != 3 {
            out.emit(event);
            return None;
        }
        let (call, event, content) = self.arguments(procedure, message, fields, event, input, out);
        out.emit(event);
        if let Some(call) = call
            && self.calls.len() < CALLS_MAX
        {
            self.calls.insert(id, call);
        }
        content
    }

    fn arguments(
        &mut self,
        procedure: u32,
        message: &[u8],
        mut fields: Cursor<'_>,
        event: Event,
        input: Input<'_>,
        out: &mut ParserOutput<'_>,
    ) -> (Option<Call>, Event, Option<Content>) {
        let Some(file) = opaque(&mut fields, HANDLE_BYTES_MAX) else { return (None, event, None) };
        match procedure {
            LOOKUP | CREATE => {
                let name = opaque(&mut fields, 255).map(|name| String::from_utf8_lossy(name).into_owned());
                let name = name.unwrap_or_default();
                (Some(Call::Named(name.clone())), event.text("name", &name), None)
            }
            READ => {
                let (Some(offset), Some(count)) = (u64_of(&mut fields), fields.u32()) else {
                    return (None, event, None);
                };
                let event = event.number("offset", offset).number("length", count);
                (Some(Call::Read { file: Handle::new(file), offset }), event, None)
            }
            WRITE => {
                let place = (u64_of(&mut fields), fields.u32(), fields.u32(), fields.u32());
                let (Some(offset), Some(_), Some(_), Some(len)) = place else { return (None, event, None) };
                let event = event.number("offset", offset).number("length", len).word("upload");
                let from = message.len() - fields.0.len();
                (None, event, self.files.content(Handle::new(file), offset, (from, len), input, out))
            }
            COMMIT => (Some(Call::Commit(Handle::new(file))), event, None),
            _ => (None, event, None),
        }
    }

    fn reply(&mut self, id: u32, message: &[u8], input: Input<'_>, out: &mut ParserOutput<'_>) -> Option<Content> {
        let call = self.calls.remove(&id)?;
        let mut fields = Cursor(message.get(8..)?);
        // Accepted, the verifier, success, and the status of NFS.
        let (accepted, _) = (fields.u32()?, fields.u32()?);
        opaque(&mut fields, 400)?;
        if (accepted, fields.u32()?, fields.u32()?) != (0, 0, 0) {
            return None;
        }
        match call {
            Call::Named(name) => {
                // A created file has its handle behind a flag; a handle that was looked up begins with its length.
                let mut found = fields;
                let handle = match found.u32()? {
                    1 => opaque(&mut found, HANDLE_BYTES_MAX),
                    _ => opaque(&mut fields, HANDLE_BYTES_MAX),
                };
                self.files.name(Handle::new(handle?), name);
                None
            }
            Call::Read { file, offset } => {
                let size = attributes(&mut fields)?;
                let (_count, is_end, len) = (fields.u32()?, fields.u32()?, fields.u32()?);
                let from = message.len() - fields.0.len();
                let end = offset.checked_add(len.into()).filter(|_| is_end == 1);
                self.files.is_of(file, end.or(size));
                self.files.content(file, offset, (from, len), input, out)
            }
            Call::Commit(file) => {
                self.files.close(file, out);
                None
            }
        }
    }
}

/// A field whose length precedes it in four bytes, filled up to a multiple of four.
fn opaque<'a>(fields: &mut Cursor<'a>, most: u32) -> Option<&'a [u8]> {
    let len = fields.u32().filter(|&len| len <= most)?;
    let bytes = fields.take(usize::try_from(len).ok()?)?;
    fields.skip(usize::try_from(len.next_multiple_of(4) - len).ok()?)?;
    Some(bytes)
}

fn u64_of(fields: &mut Cursor<'_>) -> Option<u64> {
    Some(u64::from(fields.u32()?) << 32 | u64::from(fields.u32()?))
}

/// The attributes of a file, if they follow: its size.
fn attributes(fields: &mut Cursor<'_>) -> Option<Option<u64>> {
    if fields.u32()? == 0 {
        return Some(None);
    }
    // Type, mode, links, user and group come before the size.
    fields.skip(20)?;
    let size = u64_of(fields)?;
    fields.skip(84 - 28)?;
    Some(Some(size))
}
