//! Queries over the recorded [`History`], answered while recording continues.
//!
//! A query never blocks the recorder. It reads segments, copies bytes, and then checks that the segment was not evicted
//! in the meantime. The memory of a query is bounded, however slowly its client reads.
#![forbid(unsafe_code)]

pub mod attribution;
pub mod columns;
mod conditions;
mod copies;

pub mod coverage;
mod disk;
pub mod explain;
mod flow_totals;
pub mod flows;
mod follow;
mod found;
mod history;
mod interfaces;
pub mod known;
mod listed;
pub mod listing;
pub mod logged;
pub mod logged_rows;
mod matching;
mod merge;
pub mod names;
mod notes;
mod order;
mod page_cursor;
mod past_sums;
pub mod record_seal;
mod remainder;
mod request;
mod run;
pub mod search;
pub mod selectors;
pub mod session_names;
mod session_selectors;
pub mod status;
pub mod sums;
mod time_sums;
pub mod timeline;
mod turnover;
mod unlisted;
mod unopened;

pub use base::counted::counted;
pub use follow::Follow;
pub use found::{Found, Summary};
pub use history::{History, Memory, Reloadable};
pub use merge::{Narrowed, Packets, SessionQuestion, StoredPacket};
pub use notes::SearchNotes;
pub use remainder::Remainder;
pub use request::{QueryError, Request, Tier};
pub use unopened::UnopenedPackets;

#[cfg(test)]
mod tests;
