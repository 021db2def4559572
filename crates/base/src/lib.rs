//! Types that all stages of the packet path share: time, packets and their sources, interfaces, counters, locked
//! memory, and text that is safe to print.
#![forbid(unsafe_code)]

mod burst;
pub mod codec;
pub mod counted;
pub mod counters;
pub mod foreign;
pub mod generation;
pub mod interface;
pub mod log_limit;
pub mod memory;
pub mod packet;
pub mod source;
pub mod time;
