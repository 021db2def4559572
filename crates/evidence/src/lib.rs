//! Proof that exports, logs and recordings were not changed, which others can check later.
//!
//! ```text
//! packet ──► digest ──► run (the packets of one session) ──► Merkle root ─┐
//! file ─────────────────────────────────────────────► SHA-256 ────────────┤
//! recorder: who, configuration, clock, question, loss ─► statement ───────┴► manifest ──► signature ──► time stamp
//! line of a log ──► link to the line before it ──► head ──► signature
//! ```
//!
//! - [`manifest`]: the list of sealed files. [`seal`] makes one, and [`verify`] reports what it proves.
//! - [`capture`]: the digests of a capture file's packets, and the proof that one session belongs to it.
//! - [`signature`] and [`signers`]: signatures that are compatible with `ssh-keygen -Y`.
//! - [`timestamp`]: requests and responses of time-stamp authorities (RFC 3161).
//! - [`record`]: the proof that the recorder had sealed a packet by a certain time.
//! - [`chain`]: logs whose lines depend on all lines before them.
//! - [`statement`] and [`clock`]: what a recorder states about itself.
//!
//! Invariants: a check that could not be made never counts as passed; each check has the three outcomes of
//! [`verify::Outcome`]. Memory is bounded by the number of sessions in a file, not by any length field in it.
#![forbid(unsafe_code)]

pub mod capture;
pub mod chain;
pub mod clock;
pub mod digest;
pub mod manifest;
pub mod merkle;
pub mod record;
pub mod record_events;
pub mod seal;
pub mod signature;
pub mod signers;
pub mod statement;
pub mod timestamp;
pub mod verify;

#[cfg(test)]
mod tests;
