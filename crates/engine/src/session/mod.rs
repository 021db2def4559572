//! Sessions: endpoints, counts and TCP state of each conversation, and a compressed archive of earlier ones.
//!
//! ```text
//!   packet ─► table: index by key ─► array: one entry per session that is live or has stored packets
//!                                        │ another session needs the entry
//!                                        ▼
//!                                    archive: about 12 bytes per session, compressed, in a ring
//! ```

mod archive;
mod array;
mod columns;
pub mod community_id;
mod departures;
mod depth;
mod detached;
mod entry;
mod fragments;
mod handover;
pub(crate) mod hash;
mod index;
pub mod key;
mod logged;
mod marks;
mod reuse;
mod scan;
mod servers;
mod services;
mod span;
mod span_scan;
mod start_counts;
mod summary;
pub mod table;
mod tcp;

pub use archive::{ArchivePosition, ArchivedSessions, BlockCache};
pub use array::SessionArray;
pub use depth::{DEPTHS_BYTES, LostParts};
pub use entry::ENTRY_BYTES;
pub use key::{Endpoint, Ends, SessionKey};
pub use logged::LoggedSummary;
pub use marks::SessionMarks;
pub use services::is_service;
pub use span::SessionSpan;
pub use span_scan::{BLOCK_SESSIONS, PastSpans};
pub use summary::{PerSide, Session, SessionSlot, SessionState};
pub use table::{SessionLookup, SessionTable, SessionUpdate};
