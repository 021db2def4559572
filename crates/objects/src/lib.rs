//! Files, bodies and mails out of sessions.
//!
//! [`Collector`] takes the parts of objects that [`protocols`] passes on, joins ranges, undoes content codings, takes
//! mails and archives apart, and tells name, type and hashes of each object. What comes from the network is hostile: [`ObjectLimits`] bound
//! what an object, a decoder and a mail may take, and each limit that was reached is noted with the object.
//!
//! Invariants: the type of an object is detected from its content; the claimed type is reported separately. An object with
//! missing bytes is never reported as complete. No name of the network is used as a file name; [`Object::file_name`] makes one.
#![forbid(unsafe_code)]

mod archive;
mod building;
mod collector;
mod decoding;
mod mail;
mod object;
mod search;

pub use collector::Collector;
pub use object::{Object, ObjectLimits, ObjectSink};
pub use search::{KINDS, ObjectFilter, ObjectSearch};
