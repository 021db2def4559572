//! The spool: full packets on disk, in files that standard tools read.
//!
//! ```text
//!  packets ──► band ──► file: pcapng, plain or BGZF ──► sealed: index and footer at its end
//!              (depth)   commits, durable once a second      │
//!                                                            ▼
//!                         question ──► catalogue ──► index ──► chunks ──► packets in time order
//! ```
//!
//! Invariants:
//!
//! - A packet that was reported as durable can be read after a crash, unless its file was removed to make room.
//! - Every byte of a file is covered by a checksum. Queries return no packet that no commit confirms.
//! - A file is written once, from start to end, and never changed after it was sealed.
//! - The footers of the files are the catalogue. The spool removes only files with names of its own.
//! - Memory does not depend on the traffic: open files have bounded buffers and a bounded index.
#![forbid(unsafe_code)]

pub mod archive;
pub mod band;
pub mod bgzf;
pub mod blocks;
pub mod board;
pub mod catalogue;
pub mod check;
pub mod coding;
mod copy;
pub mod decrypt;
#[cfg(target_os = "linux")]
pub mod directory;
pub mod encryption;
pub mod file;
pub mod follow;
pub mod index;
#[cfg(target_os = "linux")]
pub mod key_file;
pub mod layout;
pub mod medium;
pub mod place;
#[cfg(target_os = "linux")]
pub mod probe;
pub mod read;
pub mod recover;
pub mod removal;
pub mod retain;
pub mod scan;
pub mod sealed_file;
pub mod timings;
#[cfg(target_os = "linux")]
mod unlink;
pub mod writer;
