//! Files of NFS that were read or written. NFS 3 opens and closes none: an object ends when all of it was read, when what was
//! written is committed, or with the session.

use std::collections::HashMap;

use streams::Sender;

use crate::parser::{Input, ParserOutput};
use crate::shared_file::{Content, REMEMBERED_MAX, SharedFile, end_all};

/// A file handle: at most 64 bytes, which say nothing to others than the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Handle {
    len: u8,
    bytes: [u8; 64],
}

impl Handle {
    pub(crate) fn new(handle: &[u8]) -> Self {
        let mut bytes = [0; 64];
        let len = handle.len().min(bytes.len());
        bytes[..len].copy_from_slice(&handle[..len]);
        Self { len: u8::try_from(len).unwrap_or(64), bytes }
    }
}

/// The files of a session.
#[derive(Debug, Default)]
pub(crate) struct NfsFiles {
    files: HashMap<Handle, SharedFile>,
}

impl NfsFiles {
    fn file(&mut self, handle: Handle) -> Option<&mut SharedFile> {
        if !self.files.contains_key(&handle) && self.files.len() >= REMEMBERED_MAX {
            return None;
        }
        Some(self.files.entry(handle).or_default())
    }

    /// A file has this name.
    pub(crate) fn name(&mut self, handle: Handle, name: String) {
        if let Some(file) = self.file(handle) {
            file.name = name;
        }
    }

    /// A file has this size.
    pub(crate) fn is_of(&mut self, handle: Handle, size: Option<u64>) {
        if let Some(file) = self.file(handle) {
            file.size = size.or(file.size);
        }
    }

    /// Content of a file, `place` in the message.
    pub(crate) fn content(
        &mut self,
        handle: Handle,
        offset: u64,
        place: (usize, u32),
        input: Input<'_>,
        out: &mut ParserOutput<'_>,
    ) -> Option<Content> {
        let named = |path: &str| (path.to_owned(), path.to_owned());
        self.file(handle)?.content(named, offset, place, input, out)
    }

    /// What was written to a file is complete.
    pub(crate) fn close(&mut self, handle: Handle, out: &mut ParserOutput<'_>) {
        if let Some(file) = self.files.get_mut(&handle)
            && let Some((object, Sender::Originator)) = file.object
        {
            file.object = None;
            out.finish(object, Some(file.end));
        }
    }

    /// The session ends.
    pub(crate) fn end(&mut self, out: &mut ParserOutput<'_>) {
        let size = |file: &SharedFile, sender| if sender == Sender::Originator { Some(file.end) } else { file.size };
        end_all(std::mem::take(&mut self.files).into_values(), size, out);
    }
}
