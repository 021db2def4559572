//! Searches the past: text, bytes, regular expressions, indicators, and named attacks, all in one pass.
//!
//! [`Hunter`] takes the events of [`streams`]. It searches the bytes of each direction, never across a gap, and asks
//! [`protocols`] what was said. What it finds goes to a [`MatchSink`], at once. [`Report`] tells what could not be searched.
//!
//! Invariants: regular expressions take linear time. Memory is bounded: what waits of a direction, of all directions,
//! and what counting rules remember. What gives way is counted.
#![forbid(unsafe_code)]

pub mod attack;
pub mod builtin;
pub mod check;
mod counting;
pub mod hunter;
pub mod indicators;
mod matched;
mod normal;
pub mod patterns;
pub mod plan;
#[cfg(test)]
mod tests;
mod window;

pub use hunter::{Hunter, Report, SearchScope};
pub use matched::{Kind, Match, MatchSink};
