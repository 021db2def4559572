//! Proof of what was recorded: who can check an export later, and with what.
//!
//! ```text
//! packet ──► digest ──► run (the packets of one session) ──► Merkle root ─┐
//! file ─────────────────────────────────────────────► SHA-256 ────────────┤
//! recorder: who, configuration, clock, question, loss ─► statement ───────┴► manifest ──► signature ──► time stamp
//! line of a log ──► link to the line before it ──► head ──► signature
//! ```
//!
//! - [`manifest`]: the list of what is sealed. [`seal`] makes one, and [`verify`] says what it proves.
//! - [`capture`]: the digests of a capture file's packets, and the proof that one session belongs to it.
//! - [`signature`] and [`signers`]: signatures as `ssh-keygen -Y` makes and checks them.
//! - [`timestamp`]: requests and responses of time-stamp authorities (RFC 3161).
//! - [`record`]: the proof that a packet was in what the recorder had sealed at a time.
//! - [`chain`]: logs whose lines depend on all lines before them.
//! - [`statement`] and [`clock`]: what a recorder says about itself.
//!
//! Invariants: nothing here decides that something holds because it could not be checked; each check has the three
//! outcomes of [`verify::Outcome`]. Memory is bounded by the number of sessions in a file, never by a length field in it.
#![forbid(unsafe_code)]

pub mod capture;
pub mod chain;
pub mod clock;
pub mod digest;
pub mod manifest;
pub mod merkle;
pub mod record;
pub mod seal;
pub mod signature;
pub mod signers;
pub mod statement;
pub mod timestamp;
pub mod verify;

#[cfg(test)]
mod tests;
