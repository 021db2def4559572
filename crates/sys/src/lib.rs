//! Linux AF_PACKET TPACKET_V3 capture rings and locked memory behind safe types.
//!
//! This is the one crate of the project that may say `unsafe`; each block says why it is sound. What lives here:
//!
//! - [`Ring`], [`Block`], [`Frame`]: packets of all interfaces of a network namespace, read from memory shared with
//!   the kernel. Everything the kernel wrote is read through checked offsets, so that even a block full of nonsense
//!   could not make a read outside of it.
//! - [`SockFilter`] and [`CaptureFilter`]: classic BPF run by the kernel before a packet costs anything.
//! - [`clock_is_synchronised`] and [`offloads`]: what to know of a host before one trusts its packets.
//! - [`share_one_heap`]: memory that was freed goes back; [`Wiping`]: and holds nothing any more.
//! - [`map_code`]: what a sandbox has to forbid.
//! - [`HeldSignals`]: signals for one thread alone.
//! - [`inherited_memory_files`]: what a supervisor kept for this process.
//! - [`Memory`]: words that are zeroed, prefaulted, kept out of core dumps and, if allowed, out of swap.
//!
//! Facts about the kernel's side are from `include/uapi/linux/if_packet.h`, `net/packet/af_packet.c` and
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
mod wiping;

pub use frame::{Frame, Frames};
pub use heap::share_one_heap;
pub use host::{Offloads, clock_is_synchronised, map_code, offloads};
pub use inherited::inherited_memory_files;
pub use memory::{Memory, Residence};
pub use prefetch::prefetch;
pub use ring::{Block, OpenError, Ring, RingConfig, RingStats};
pub use signals::HeldSignals;
pub use socket_filter::{CaptureFilter, SockFilter, TooManyInterfaces, WHOLE_PACKET};
pub use wiping::Wiping;
