//! Objects that a session transfers: files, bodies, mails. A parser passes them on in parts, as they are received.

use streams::{PacketRef, Sender};

/// The properties of an object that are known at its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectHead {
    /// The number of the object in its session, by which parts refer to it.
    pub id: u64,
    /// The protocol: `http`, `smtp` and so on.
    pub protocol: &'static str,
    /// The claimed name: untrusted.
    pub name: String,
    /// The claimed media type: untrusted.
    pub mime_declared: String,
    /// The claimed size, before decoding.
    pub size_declared: Option<u64>,
    /// Content codings in the order in which they were applied: `gzip`, `br`.
    pub encodings: Vec<String>,
    /// Its URL or path: untrusted.
    pub source: String,
    /// If this is a part of an object, the offset of its first byte in the whole object.
    pub range_from: u64,
    /// If this is a part of an object, the size of the whole object.
    pub range_total: Option<u64>,
    /// The boundary of a `multipart/*` body, and whether the object is a mail; the parts of both are objects.
    pub is_mail: bool,
}

/// A part of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectPart<'a> {
    /// An object begins.
    Begin {
        /// Its properties.
        head: ObjectHead,
        /// The sender.
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
