//! Files of NFS that were read or written. NFS 3 opens and closes none: an object ends when all of it was read, when what was
//! written is committed, or with the session.

use std::collections::HashMap;

use streams::Sender;

use crate::object::ObjectHead;
use crate::parser::{Input, ParserOutput};
use crate::smb_files::{Content, REMEMBERED_MAX};

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

#[derive(Debug, Default)]
struct File {
    name: String,
    size: Option<u64>,
    object: Option<(u64, Sender)>,
    /// The end of the content that was read or written.
    end: u64,
}

/// The files of a session.
#[derive(Debug, Default)]
pub(crate) struct NfsFiles {
    files: HashMap<Handle, File>,
}

impl NfsFiles {
    fn file(&mut self, handle: Handle) -> Option<&mut File> {
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

    /// Content of a file, `len` bytes from `from` in the message.
    pub(crate) fn content(
        &mut self,
        handle: Handle,
        offset: u64,
        (from, len): (usize, u32),
        input: Input<'_>,
        out: &mut ParserOutput<'_>,
    ) -> Option<Content> {
        let end = offset.checked_add(len.into())?;
        let file = self.file(handle)?;
        file.end = file.end.max(end);
        let object = match file.object {
            Some((object, sender)) if sender == input.sender => object,
            former => {
                if let Some((former, _)) = former {
                    out.finish(former, file.size);
                }
                let size_declared = file.size.filter(|_| input.sender == Sender::Responder);
                let head = ObjectHead {
                    name: file.name.clone(),
                    source: file.name.clone(),
                    size_declared,
                    ..ObjectHead::default()
                };
                let object = out.begin(head, input.sender, input.offset);
                file.object = Some((object, input.sender));
                object
            }
        };
        Some(Content { object, at: offset, from, len: usize::try_from(len).ok()? })
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
        let mut files: Vec<_> = std::mem::take(&mut self.files).into_values().collect();
        files.sort_by_key(|file| file.object.map(|(object, _)| object));
        for file in files {
            if let Some((object, sender)) = file.object {
                let size = if sender == Sender::Originator { Some(file.end) } else { file.size };
                out.finish(object, size);
            }
        }
    }
}
