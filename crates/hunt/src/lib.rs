//! Searches the past: text, bytes, regular expressions, indicators, and named attacks, all in one pass.
//!
//! [`Hunter`] takes the events of [`streams`]. It searches the bytes of each direction, never across a gap, and the
//! messages that [`protocols`] reads. It passes each match to a [`MatchSink`] at once. [`Report`] lists what it could not search.
//!
//! Invariants: regular expressions take linear time. Memory is bounded: for one direction, for all directions, and
//! for rules that count events. What is dropped to stay within these bounds is counted.
#![forbid(unsafe_code)]

pub mod attack;
pub mod builtin;
pub mod check;
mod content_patterns;
mod counting;
pub mod hunter;
pub mod indicators;
mod knocking;
mod matched;
pub mod narrow;
mod normal;
pub mod patterns;
pub mod plan;
mod report;
mod session_search;
#[cfg(test)]
mod tests;
mod window;

pub use content_patterns::{ContentPatterns, attacks_named};
pub use hunter::{Hunter, SearchScope};
pub use matched::{Kind, Match, MatchSink};
pub use report::Report;
