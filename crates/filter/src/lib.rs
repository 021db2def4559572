//! Filter expressions in tcpdump syntax (pcap-filter(7)), applied to packets and to sessions.
//!
//! This is the only crate that uses libpcap. libpcap compiles an expression, so that the expression means what tcpdump
//! means by it. The compiled program runs in this crate's own interpreter ([`vm`]), which takes the original length of
//! the packet beside the captured bytes, because `len`, `greater` and `less` refer to the original length.
//!
//! Invariants: a program is checked when it is loaded, has no loops and cannot panic, so a match takes bounded time
//! for any packet. An expression finds VLAN tags in the packet's bytes, where the capture has reinserted them. The
//! system's resolver resolves names in an expression (`host printer`) once, at compile time. A recorder runs in a
//! sandbox, where only `/etc/hosts` is available for this.
#![forbid(unsafe_code)]

mod compile;
mod filter_set;
pub mod session;
pub mod vm;

pub use compile::{
    ALONE_BYTES_MIN, EXPRESSION_BYTES_MAX, Filter, FilterError, OPTIMIZED_TERMS_MAX, TERMS_MAX, limited_terms, once,
};
pub use filter_set::{FilterSet, USUAL_LINK_TYPES};
pub use session::{Endpoints, SessionProbe};
pub use vm::{Outcome, Program};

#[cfg(test)]
mod tests;
