//! Files that a session of SMB has open, and the objects that are read from them or written to them.

use std::collections::HashMap;

use streams::Sender;

use crate::object::ObjectHead;
use crate::parser::{Input, ParserOutput, Step};

/// Maximum number of stored requests, and of open files.
pub(crate) const REMEMBERED_MAX: usize = 1024;

/// An open file.
#[derive(Clone, Debug, Default)]
struct File {
    name: String,
    size: Option<u64>,
    object: Option<(u64, Sender)>,
    /// The end of the content that was read or written.
    end: u64,
}

/// The open files, by their identifier.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    files: HashMap<u128, File>,
    /// The path of the share.
    pub(crate) share: String,
}

/// Where content lies in a message, and where it belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    pub(crate) object: u64,
    /// Offset in the object.
    pub(crate) at: u64,
    /// Offset in the message.
    pub(crate) from: usize,
    pub(crate) len: usize,
}

impl OpenFiles {
    /// A file was opened.
    pub(crate) fn open(&mut self, id: u128, name: String, size: u64) {
        if self.files.len() < REMEMBERED_MAX {
            let size = (size > 0).then_some(size);
            self.files.insert(id, File { name, size, ..File::default() });
        }
    }

    /// A file was closed.
    pub(crate) fn close(&mut self, id: u128, out: &mut ParserOutput<'_>) {
        if let Some(file) = self.files.remove(&id)
            && let Some((object, sender)) = file.object
        {
            // The written content ends where the last write ended.
            let size = if sender == Sender::Originator { Some(file.end) } else { file.size.or(Some(file.end)) };
            out.finish(object, size);
        }
    }

    /// The session ends.
    pub(crate) fn end(&mut self, out: &mut ParserOutput<'_>) {
        let mut open: Vec<_> = std::mem::take(&mut self.files).into_values().collect();
        open.sort_by_key(|file| file.object.map(|(object, _)| object));
        for file in open {
            if let Some((object, _)) = file.object {
                out.finish(object, file.size);
            }
        }
    }

    /// Content of a file, `len` bytes from `from` in the message.
    pub(crate) fn content(
        &mut self,
        id: u128,
        offset: u64,
        (from, len): (usize, u32),
        input: Input<'_>,
        out: &mut ParserOutput<'_>,
    ) -> Option<Content> {
        let object = self.object(id, input, out)?;
        let end = offset.checked_add(u64::from(len))?;
        if let Some(file) = self.files.get_mut(&id) {
            file.end = file.end.max(end);
        }
        Some(Content { object, at: offset, from, len: usize::try_from(len).ok()? })
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
            source: format!("{}\\{}", self.share, file.name.trim_start_matches('\\')),
            ..ObjectHead::default()
        };
        let object = out.begin(head, input.sender, input.offset);
        if let Some((former, _)) = file.object.replace((object, input.sender)) {
            out.finish(former, file.size);
        }
        Some(object)
    }
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

/// What is left of a frame: content that is passed on, then bytes that are skipped.
#[derive(Debug, Default)]
pub(crate) struct FrameRest {
    bulk: [Option<Bulk>; 2],
    skip: [usize; 2],
}

impl FrameRest {
    /// Takes what belongs to the rest of the latest frame; `None` if a frame begins here.
    pub(crate) fn data(&mut self, input: Input<'_>, out: &mut ParserOutput<'_>) -> Option<Step> {
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
            return Some(Step::Used(bytes.max(1)));
        }
        if self.skip[at] > 0 {
            let bytes = self.skip[at].min(input.data.len());
            self.skip[at] -= bytes;
            return Some(Step::Used(bytes));
        }
        None
    }

    /// Bytes are missing. Returns whether all of them belong to the rest of a frame.
    pub(crate) fn gap(&mut self, sender: Sender, len: u64) -> bool {
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

    /// Skips the rest of a frame of `len` bytes after its first four, of which `input` has a part. Returns the step.
    pub(crate) fn skip(&mut self, len: usize, input: Input<'_>) -> Step {
        let there = input.data.len().min(4 + len);
        self.skip[input.sender.index()] = 4 + len - there;
        Step::Used(there)
    }

    /// Passes on the content of a frame as far as it is there; `message` is the part of the frame that is. Returns the step
    /// if some of the content will come later.
    pub(crate) fn pass(
        &mut self,
        content: Content,
        message: &[u8],
        len: usize,
        input: Input<'_>,
        out: &mut ParserOutput<'_>,
    ) -> Option<Step> {
        let Content { object, at, from, len: bytes } = content;
        // The frame has the length that counts.
        let bytes = bytes.min(len.saturating_sub(from));
        let here = message.get(from..).map_or(0, |rest| rest.len().min(bytes));
        out.content(object, at, message.get(from..from + here).unwrap_or_default());
        if here == bytes {
            return None;
        }
        // Content that begins later than what is there needs the whole head of the frame.
        let before = from.saturating_sub(message.len());
        let (left, after) = (bytes - here, len - from - bytes);
        if before > 0 {
            return None;
        }
        self.bulk[input.sender.index()] = Some(Bulk { object, at: at + here as u64, left, after });
        Some(Step::Used(input.data.len()))
    }
}
