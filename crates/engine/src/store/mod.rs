//! The packet store: memory is cut into pages, pages are chained into segments, and segments are queued by rank.
//!
//! ```text
//!  rank 0 (first 512 B of sessions)   [segment] [segment] [segment] [segment] [open ▌   ]
//!  rank 1 (to 1.5 kB)                           [segment] [segment] [segment] [open ▌   ]
//!  rank 2 (to 3.5 kB)                                     [segment] [segment] [open ▌   ]
//!  …                                  older                                       newer
//! ```
//!
//! A packet is written once, into the open segment of its queue. A full segment is sealed, and its packets never change
//! again. When no pages are left, the oldest segment of one queue is evicted as a whole (`eviction` selects the queue).
//! Only then can packets move. The first packets of a session that is live, or of which others are stored, are carried
//! forward into a queue of their own (`heads`), so that sessions keep their start. Packets of pinned sessions move to
//! the queue of their pin.
//!
//! One thread owns the [`Store`] and writes; readers use [`Segments`]. No thread waits for another: a reader copies
//! bytes and then checks that the segment still exists. Invariants: a page belongs to one segment or is free; the
//! segments of a queue are in order of arrival; `stored = retained + evicted` in packets and bytes.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `append`, `write`, `open` | the way of a packet into the open segment of its queue |
//! | `arena`, `pages` | the pages, and which of them are free |
//! | `list`, `segment` | the segments, the links between them, and the free slots |
//! | `policy`, with `retention`, `rank`, `queues` and `eviction` | in which queue a packet is stored, and what is evicted |
//! | `evict`, `heads` | the eviction of a segment, and the packets that survive it |
//! | `packing`, `compress`, `unpack` | compression of sealed segments |
//! | `segments`, `cursor`, `record` | what readers see |
//!
//! Each file uses only files below it: `append`, `evict`, `write`, `packing`, `state`, and then the others.

mod append;
mod arena;
pub mod compress;
mod cursor;
mod evict;
mod eviction;
mod handover;
mod heads;
mod list;
mod open;
mod packing;
mod pages;
mod policy;
mod queues;
pub mod rank;
mod reach;
pub mod record;
pub mod retention;
mod segment;
mod segments;
mod state;
mod tally;
mod unpack;
mod write;

pub use cursor::{Cursor, RecordAt, WINDOW_BYTES};
pub use pages::SegmentEvicted;
pub use queues::{PacketRole, Placement};
pub use rank::Rank;
pub use segment::{SegmentId, SegmentView};
pub use segments::Segments;
pub use state::Store;
pub use tally::Tally;

#[cfg(test)]
mod tests;
