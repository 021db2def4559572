//! The web page of the recorder: its files, the headers that they are sent with, and the links that open it.
//!
//! The files are hand-written and part of the program. [`files::file`] finds one, and [`headers`] has what keeps a browser
//! from running anything else. [`Sessions`] holds the secrets: a link is exchanged once for a token, which the page then sends
//! as a header. What always holds: a secret is kept as its digest alone; a link works once; the numbers of links and
//! sessions are bounded; one that nobody uses for a set time ends.
//!
//! Nothing here knows HTTP or the clock: time is passed in.
#![forbid(unsafe_code)]

pub mod files;
pub mod headers;
mod secret;
mod sessions;

pub use files::{File, file};
pub use secret::Secret;
pub use sessions::{IDLE_DEFAULT, Sessions};
