//! Objects that a session carries: files, bodies, mails. A parser passes them on in parts, as they come.

use streams::{PacketRef, Sender};

/// What is known of an object when it begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectHead {
    /// The number of the object in its session; parts name it.
    pub id: u64,
    /// `http`, `smtp` and so on.
    pub protocol: &'static str,
    /// The name that was claimed: untrusted.
    pub name: String,
    /// The media type that was claimed: untrusted.
    pub mime_declared: String,
    /// The size that was claimed, before decoding.
    pub size_declared: Option<u64>,
    /// Content codings in the order in which they were applied: `gzip`, `br`.
    pub encodings: Vec<String>,
    /// Where it came from, as a URL or path: untrusted.
    pub source: String,
    /// The offset of the first byte in the whole object, of a part of it.
    pub range_from: u64,
    /// The size of the whole object, if this is a part of it.
    pub range_total: Option<u64>,
    /// The boundary of a `multipart/*` body, and whether the object is a mail, so that its parts are objects.
    pub is_mail: bool,
}

/// A part of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectPart<'a> {
    /// An object begins.
    Begin {
        /// What is known of it.
        head: ObjectHead,
        /// Who sends it.
        sender: Sender,
        /// The packet in which it begins.
        packet: PacketRef,
        /// The offset in its stream at which it begins.
        offset: u64,
    },
    /// The bytes at an offset of the object.
    Data {
        /// Which object.
        id: u64,
        /// Offset in the object.
        at: u64,
        /// The content.
        bytes: &'a [u8],
    },
    /// The object ends.
    End {
        /// Which object.
        id: u64,
        /// Its size, if its end was seen; `None` if it ends early.
        size: Option<u64>,
    },
}
