//! The packet path after capture: sessions, what is decided of them, the store and its retention. No I/O, no clock: time comes
//! with packets.
#![forbid(unsafe_code)]

pub mod budget;
pub mod handover;
mod id_mapping;
pub mod judge;
pub mod own_streams;
pub mod pipeline;
pub mod session;
pub mod store;
