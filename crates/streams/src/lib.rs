//! The packets of a session as two byte streams, in order.
//!
//! [`Streams`] takes packets and passes [`Event`]s to a [`Sink`]: runs of bytes in stream order, each from one packet,
//! gaps with their place, length and cause, and conflicts where a retransmission had other bytes. The payload of a TCP
//! session becomes two streams. Of all other sessions, each packet is one message.
//!
//! Invariants:
//!
//! - Within a direction, offsets only grow, and runs and gaps join without overlap: what is not a run is in a gap.
//! - The first bytes received for an offset are kept. A later packet with other bytes is reported as a conflict.
//! - Memory is bounded: [`StreamLimits`] for each direction, for all sessions, and for their number. A session that is ended
//!   to make room is counted.
//! - The cost of a packet does not depend on its sequence number.
//!
//! ```text
//!   packet ─► decode ─► table of sessions ─► one assembler a direction ─► run, gap, conflict
//!                │              │                  └ interval list of what came too early
//!                └ fragments    └ ends the session idle longest when room is needed
//! ```
#![forbid(unsafe_code)]

mod assembler;
mod chosen;
mod event;
mod fragments;
mod header;
mod sender;
mod session;
mod table;
#[cfg(test)]
mod tests;

pub use chosen::ChosenPackets;
pub use event::{Cause, Conflict, Event, Gap, PacketRef, Run, Sink};
pub use sender::Sender;
pub use session::{Session, StreamReport};
pub use table::{Counts, StreamLimits, Streams};
