//! Retrocap records every interface of a host into a small fixed share of RAM and gives the past back.
//!
//! The modules follow the way of a packet: [`capture`] → [`decode`] → [`session`] → [`judge`] → [`store`] → [`query`] →
//! [`export`]; [`pipeline`] is the loop that drives it. [`serve`], [`cli`] and [`daemon`] are thin shells around it.
//! Dependencies point along the way only. Only [`capture`], [`daemon`], [`serve`] and [`filter`] know the operating
//! system.
#![forbid(unsafe_code)]

pub mod budget;
pub mod codec;
pub mod counters;
pub mod interface;
pub mod log_limit;
pub mod memory;
pub mod packet;
pub mod time;

pub mod capture;
pub mod decode;
pub mod export;
pub mod filter;
pub mod handover;
pub mod judge;
pub mod own_streams;
pub mod pipeline;
pub mod query;
pub mod session;
pub mod store;

pub mod alert;

pub mod cli;
#[cfg(target_os = "linux")]
pub mod daemon;
#[cfg(target_os = "linux")]
pub mod serve;
