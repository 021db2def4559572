//! Sessions: who talks to whom, how much so far, in which state; and what is still known of them later.
//!
//! ```text
//!   packet ─► table: index by key ─► array: an entry per session that is live or has packets left
//!                                        │ the entry is needed for another session
//!                                        ▼
//!                                    archive: about 12 bytes per session, compressed, in a ring
//! ```

mod archive;
mod array;
mod begins;
mod columns;
pub mod community_id;
mod depth;
mod entry;
mod fragments;
mod handover;
mod index;
pub mod key;
mod marks;
mod scan;
mod services;
mod summary;
pub mod table;

pub use archive::{ArchivePosition, ArchivedSessions, BlockCache};
pub use array::SessionArray;
pub use depth::{DEPTHS_BYTES, Lost};
pub use entry::ENTRY_BYTES;
pub use key::{Endpoint, SessionKey};
pub use marks::SessionMarks;
pub use summary::{PerSide, Session, SessionSlot, State};
pub use table::{SessionLookup, SessionTable, SessionUpdate};
