//! Sessions: who talks to whom, how much so far, in which state; and what is still known of them later.
//!
//! One array holds those that live or have packets left ([`ledger`]): a session has its entry from its first packet on, and
//! keeps it after its end until another needs it. Then it goes to the `archive`, where a session takes about as many
//! bytes as this line has words. The [`table`] is the index that finds the entry of a live one.

mod archive;
mod columns;
pub mod community_id;
mod fragments;
mod handover;
mod index;
pub mod key;
pub mod ledger;
mod marks;
mod scan;
pub mod table;

pub use archive::{ArchivePosition, ArchivedSessions, BlockCache};
pub use key::{Endpoint, SessionKey};
pub use ledger::{Session, SessionArray, State};
pub use marks::SessionMarks;
pub use table::{SessionLookup, SessionTable, SessionUpdate};

/// A place in the array of sessions. Who has it changes; a packet's session is the one that had it when it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionSlot(pub u32);

impl SessionSlot {
    /// What stands in its place for sessions of the past, which have none.
    pub const PAST: Self = Self(u32::MAX);
}
