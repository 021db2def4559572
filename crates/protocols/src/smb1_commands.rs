//! Commands of SMB 1 (MS-CIFS, MS-SMB) that open, read, write and close files.

use std::collections::HashMap;

use crate::cursor::{u16_le_at, u32_le_at, u64_le_at, utf16};
use crate::parser::{Input, ParserOutput};
use crate::shared_file::{Content, REMEMBERED_MAX};
use crate::smb_files::OpenFiles;

pub(crate) const HEADER_BYTES: usize = 32;
/// Commands of one message, which follow each other.
const CHAINED_MAX: usize = 8;
/// There is no further command.
const NO_FURTHER: u8 = 0xff;
/// Names are in UTF-16.
const UNICODE: u16 = 0x8000;

const CLOSE: u8 = 0x04;
const OPEN_ANDX: u8 = 0x2d;
const READ_ANDX: u8 = 0x2e;
const WRITE_ANDX: u8 = 0x2f;
const TREE_CONNECT_ANDX: u8 = 0x75;
const NT_CREATE_ANDX: u8 = 0xa2;

/// A request that waits for its response.
#[derive(Debug)]
enum Request {
    Open(String),
    Read { file: u16, offset: u64 },
    Tree(String),
    Close(u16),
}

/// The files of a session.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    requests: HashMap<(u32, u8), Request>,
    pub(crate) files: OpenFiles,
}

/// A message, and what its header says.
#[derive(Clone, Copy)]
struct Message<'a> {
    bytes: &'a [u8],
    is_response: bool,
    is_unicode: bool,
    /// The process and the number that a response repeats.
    id: u32,
}

/// One command: its parameters, and the bytes after them.
#[derive(Clone, Copy)]
struct Command<'a> {
    code: u8,
    words: &'a [u8],
    /// Where its bytes begin in the message.
    bytes_at: usize,
}

impl Commands {
    /// Reads the commands of a message. Returns the content of the first read or write among them.
    pub(crate) fn message(&mut self, bytes: &[u8], input: Input<'_>, out: &mut ParserOutput<'_>) -> Option<Content> {
        let (flags, flags2) = (*bytes.get(9)?, u16_le_at(bytes, 10)?);
        let id = u32::from(u16_le_at(bytes, 26)?) << 16 | u32::from(u16_le_at(bytes, 30)?);
        let message = Message { bytes, is_response: flags & 0x80 != 0, is_unicode: flags2 & UNICODE != 0, id };
        let failed = message.is_response && u32_le_at(bytes, 5)? != 0;
        let (mut code, mut at, mut content) = (*bytes.get(4)?, HEADER_BYTES, None);
        for _ in 0..CHAINED_MAX {
            let words = usize::from(*bytes.get(at)?) * 2;
            let Some(parameters) = bytes.get(at + 1..at + 1 + words) else { break };
            let command = Command { code, words: parameters, bytes_at: at + 1 + words + 2 };
            if failed {
                self.requests.remove(&(id, code));
                break;
            }
            let found = match message.is_response {
                true => self.response(message, command, input, out),
                false => self.request(message, command, input, out),
            };
            content = content.or(found);
            let chains = matches!(code, OPEN_ANDX | READ_ANDX | WRITE_ANDX | TREE_CONNECT_ANDX | NT_CREATE_ANDX | 0x73);
            let next = (parameters.first().copied(), u16_le_at(parameters, 2));
            match next {
                (Some(further), Some(offset)) if chains && further != NO_FURTHER && usize::from(offset) > at => {
                    (code, at) = (further, usize::from(offset));
                }
                _ => break,
            }
        }
        content
    }

    fn request(
        &mut self,
        message: Message<'_>,
        command: Command<'_>,
        input: Input<'_>,
        out: &mut ParserOutput<'_>,
    ) -> Option<Content> {
        let words = command.words;
        let request = match command.code {
            NT_CREATE_ANDX => Request::Open(message.text(command.bytes_at, Some(u16_le_at(words, 5)?))),
            OPEN_ANDX => Request::Open(message.text(command.bytes_at, None)),
            READ_ANDX => {
                let high = u32_le_at(words, 20).unwrap_or(0);
                let offset = u64::from(high) << 32 | u64::from(u32_le_at(words, 6)?);
                Request::Read { file: u16_le_at(words, 4)?, offset }
            }
            TREE_CONNECT_ANDX => {
                let password = usize::from(u16_le_at(words, 6)?);
                Request::Tree(message.text(command.bytes_at + password, None))
            }
            CLOSE => Request::Close(u16_le_at(words, 0)?),
            WRITE_ANDX => {
                let high = u32_le_at(words, 24).unwrap_or(0);
                let offset = u64::from(high) << 32 | u64::from(u32_le_at(words, 6)?);
                let len = u32::from(u16_le_at(words, 18)?) << 16 | u32::from(u16_le_at(words, 20)?);
                let place = (usize::from(u16_le_at(words, 22)?), len);
                return self.files.content(u16_le_at(words, 4)?.into(), offset, place, input, out);
            }
            _ => return None,
        };
        if self.requests.len() < REMEMBERED_MAX {
            self.requests.insert((message.id, command.code), request);
        }
        None
    }

    fn response(
        &mut self,
        message: Message<'_>,
        command: Command<'_>,
        input: Input<'_>,
        out: &mut ParserOutput<'_>,
    ) -> Option<Content> {
        let words = command.words;
        match self.requests.remove(&(message.id, command.code))? {
            Request::Tree(path) => self.files.share = path,
            Request::Open(name) if command.code == NT_CREATE_ANDX => {
                self.files.open(u16_le_at(words, 5)?.into(), name, u64_le_at(words, 55)?);
            }
            Request::Open(name) => {
                self.files.open(u16_le_at(words, 4)?.into(), name, u32_le_at(words, 12)?.into());
            }
            Request::Close(file) => self.files.close(file.into(), out),
            Request::Read { file, offset } => {
                let len = u32::from(u16_le_at(words, 14)?) << 16 | u32::from(u16_le_at(words, 10)?);
                let place = (usize::from(u16_le_at(words, 12)?), len);
                return self.files.content(file.into(), offset, place, input, out);
            }
        }
        None
    }
}

impl Message<'_> {
    /// The text at a place, of `len` bytes or up to its end.
    fn text(self, at: usize, len: Option<u16>) -> String {
        if !self.is_unicode {
            let bytes = self.bytes.get(at..).unwrap_or_default();
            let bytes = bytes.get(..len.map_or(bytes.len(), usize::from)).unwrap_or(bytes);
            let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
            return String::from_utf8_lossy(&bytes[..end]).into_owned();
        }
        // It begins at an even place of the message.
        let bytes = self.bytes.get(at.next_multiple_of(2)..).unwrap_or_default();
        let bytes = bytes.get(..len.map_or(bytes.len(), usize::from)).unwrap_or(bytes);
        let end = bytes.chunks_exact(2).position(|two| two == [0, 0]).map_or(bytes.len(), |end| end * 2);
        utf16(&bytes[..end])
    }
}
