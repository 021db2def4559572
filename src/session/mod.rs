//! Sessions: who talks to whom, how much so far, in which state; and what is still known of them later.
//!
//! One array holds all of them ([`ledger`]): a session has its entry from its first packet on, and keeps it after its
//! end until the array comes round to it again. The [`table`] is the index that finds the entry of a live one.

pub mod community_id;
mod fragments;
mod index;
pub mod key;
pub mod ledger;
mod notes;
pub mod table;

pub use key::{Endpoint, SessionKey};
pub use ledger::{Ledger, Session, State};
pub use notes::Notes;
pub use table::{Observed, Table};

/// A place in the array of sessions. Who has it changes; a packet's session is the one that had it when it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionSlot(pub u32);
