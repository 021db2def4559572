//! Filter expressions in tcpdump syntax (pcap-filter(7)), applied to packets and to sessions.
//!
//! An expression means what tcpdump means by it, on every platform. This crate has a compiler of its own for it, in safe
//! Rust; libpcap is its judge in the tests. The compiled program runs in this crate's interpreter ([`vm`]), which takes the
//! original length of the packet beside the captured bytes, because `len`, `greater` and `less` refer to the original
//! length.
//!
//! Invariants: a program is checked when it is loaded, has no loops and cannot panic, so a match takes bounded time
//! for any packet. An expression finds VLAN tags in the packet's bytes, where the capture has reinserted them. The
//! system's resolver resolves names in an expression (`host printer`) once, at compile time. A recorder runs in a
//! sandbox, where only `/etc/hosts` is available for this.
#![forbid(unsafe_code)]

mod compile;
mod compiler;
mod filter_set;
pub mod session;
pub mod vm;

pub use compile::{EXPRESSION_BYTES_MAX, Filter, FilterError, SESSION_TERMS_MAX, TERMS_MAX, limited_terms, once};
pub use filter_set::{FilterSet, USUAL_LINK_TYPES};
pub use session::{Endpoints, SessionProbe};
pub use vm::{Outcome, Program};

#[cfg(test)]
mod judge;
#[cfg(test)]
mod tests;
