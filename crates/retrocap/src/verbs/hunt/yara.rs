//! `hunt --yara RULES`: searches with the user's own `yara`, over objects and over windows of streams.
//!
//! The program is the one that the user's rules were written and tested for, with its modules. It reads hostile content, so
//! that it is confined as far as a program can be that starts: it reads its own files and those to be searched, and has no
//! socket. Contents lie in a folder in memory for as long as they are searched.

mod confined;
mod literals;
mod output;
mod scan;
mod windows;

pub(crate) use confined::ScanConfined;
pub(super) use scan::{Scan, Unscanned, YaraRules};
pub(super) use windows::YaraStreams;
