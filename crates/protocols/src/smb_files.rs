//! Files that a session of SMB has open, and the objects that are read from them or written to them.

use std::collections::HashMap;

use streams::Sender;

use crate::parser::{Input, ParserOutput, Step};
use crate::shared_file::{Content, REMEMBERED_MAX, SharedFile, end_all};

/// The open files, by their identifier.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    files: HashMap<u128, SharedFile>,
    /// The path of the share.
    pub(crate) share: String,
}

impl OpenFiles {
    /// A file was opened.
    pub(crate) fn open(&mut self, id: u128, name: String, size: u64) {
        if self.files.len() < REMEMBERED_MAX {
            let size = (size > 0).then_some(size);
            self.files.insert(id, SharedFile { name, size, ..SharedFile::default() });
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
        end_all(std::mem::take(&mut self.files).into_values(), |file, _| file.size, out);
    }

    /// Content of a file, `place` in the message.
    pub(crate) fn content(
        &mut self,
        id: u128,
        offset: u64,
        place: (usize, u32),
        input: Input<'_>,
        out: &mut ParserOutput<'_>,
    ) -> Option<Content> {
        if !self.files.contains_key(&id) && self.files.len() >= REMEMBERED_MAX {
            return None;
        }
        let share = &self.share;
        let named = |path: &str| {
            let name = path.rsplit('\\').next().unwrap_or_default().to_owned();
            (name, format!("{share}\\{}", path.trim_start_matches('\\')))
        };
        self.files.entry(id).or_default().content(named, offset, place, input, out)
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
