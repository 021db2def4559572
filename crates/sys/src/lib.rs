//! Linux AF_PACKET TPACKET_V3 capture rings and locked memory behind safe types.
//!
//! This is the only crate of the project that may contain `unsafe`; each block states why it is sound. Contents:
//!
//! - [`Ring`], [`Block`], [`Frame`]: packets of all interfaces of a network namespace, read from memory that is shared
//!   with the kernel. All reads use checked offsets, so that even an invalid block cannot cause a read outside of it.
//! - [`SockFilter`] and [`CaptureFilter`]: classic BPF that the kernel runs before it copies a packet.
//! - [`clock_state`] and [`offloads`]: properties of a host that affect how far its packets can be trusted.
//! - [`share_one_heap`]: returns freed memory to the system. [`WipingAllocator`]: overwrites freed memory with zeros.
//! - [`map_code`]: an operation that a sandbox has to forbid.
//! - [`HeldSignals`]: directs signals to one thread.
//! - [`inherited_memory_files`]: files that a supervisor kept for this process.
//! - [`ThreadClock`]: the processor time of another thread.
//! - [`Memory`]: zeroed words, kept out of core dumps and, where permitted, out of swap.
//!
//! Statements about the kernel come from `include/uapi/linux/if_packet.h`, `net/packet/af_packet.c` and
//! `Documentation/networking/packet_mmap.rst` of the Linux sources.
#![deny(unsafe_op_in_unsafe_fn)]

mod frame;
mod heap;
mod host;
mod inherited;
mod memory;
mod prefetch;
mod ring;
mod signals;
mod socket_filter;
mod thread_clock;
mod wiping;

pub use frame::{Frame, Frames};
pub use heap::share_one_heap;
pub use host::{ClockState, Offloads, clock_is_synchronised, clock_state, map_code, offloads};
pub use inherited::inherited_memory_files;
pub use memory::{Memory, Residence};
pub use prefetch::prefetch;
pub use ring::{Block, OpenError, Ring, RingConfig, RingStats};
pub use signals::HeldSignals;
pub use socket_filter::{CaptureFilter, SockFilter, TooManyInterfaces, WHOLE_PACKET};
pub use thread_clock::ThreadClock;
pub use wiping::WipingAllocator;
