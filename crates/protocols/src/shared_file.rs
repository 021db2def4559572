//! A file on a server, and the object that is read from it or written to it: for SMB and NFS.

use streams::Sender;

use crate::object::ObjectHead;
use crate::parser::{Input, ParserOutput};

/// Maximum number of stored requests, and of files.
pub(crate) const REMEMBERED_MAX: usize = 1024;

/// A file.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedFile {
    pub(crate) name: String,
    pub(crate) size: Option<u64>,
    pub(crate) object: Option<(u64, Sender)>,
    /// The end of the content that was read or written.
    pub(crate) end: u64,
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

impl SharedFile {
    /// Content of the file, `len` bytes from `from` in the message. An object begins with the first content from a side;
    /// `named` makes its name and its source.
    pub(crate) fn content(
        &mut self,
        named: impl FnOnce(&str) -> (String, String),
        offset: u64,
        (from, len): (usize, u32),
        input: Input<'_>,
        out: &mut ParserOutput<'_>,
    ) -> Option<Content> {
        self.end = self.end.max(offset.checked_add(len.into())?);
        let object = match self.object {
            Some((object, sender)) if sender == input.sender => object,
            former => {
                let (name, source) = named(&self.name);
                let size_declared = self.size.filter(|_| input.sender == Sender::Responder);
                let head = ObjectHead { name, source, size_declared, ..ObjectHead::default() };
                let object = out.begin(head, input.sender, input.offset);
                if let Some((former, _)) = former {
                    out.finish(former, self.size);
                }
                self.object = Some((object, input.sender));
                object
            }
        };
        Some(Content { object, at: offset, from, len: usize::try_from(len).ok()? })
    }
}

/// The objects of files end with their session. `size` tells the size of each file.
pub(crate) fn end_all(
    files: impl Iterator<Item = SharedFile>,
    size: impl Fn(&SharedFile, Sender) -> Option<u64>,
    out: &mut ParserOutput<'_>,
) {
    let mut files: Vec<SharedFile> = files.collect();
    files.sort_by_key(|file| file.object.map(|(object, _)| object));
    for file in files {
        if let Some((object, sender)) = file.object {
            out.finish(object, size(&file, sender));
        }
    }
}
