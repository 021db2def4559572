//! The service: answers about the past over one HTTP/1.1 API, on the Unix socket and over TLS, and as PCAP-over-IP.
//!
//! ```text
//! connection ─► limits ─► route ─► role ─► question ─► a share of memory ─► blocking thread: query ─► export
//!     ▲                                                                                                 │
//!     └────────────────── body ◄── channel of two chunks, 64 KiB each ◄─────────────────────────────────┘
//! ```
//!
//! `answer` makes answers and knows neither HTTP nor connections; `http` and [`pcap_over_ip`] carry them. What always
//! holds: answers see the store through [`query::History`] alone, which never waits for a reader; what a client makes the
//! service hold is bounded, in bytes and in number, and counted; a client that stalls blocks only its own query and is
//! closed; an answer that was cut short is marked as such, or its connection is closed before its end.
#![forbid(unsafe_code)]

mod answer;
mod answer_memory;
pub mod attestation;
pub mod audit;
pub mod certificate;
mod clock;
mod connection_limiter;
mod connections;
mod counters;
mod drop_times;
mod health;
mod health_history;
mod histogram;
mod horizon;
mod http;
mod local_user;
mod metrics;
mod minimum_rate;
pub mod page_port;
pub mod pcap_over_ip;
pub mod peer;
mod polls;
mod quota;
mod record;
mod retention_target;
mod sealing;
mod service;
mod shutdown;
mod spool_health;
mod spool_sealing;
mod spool_seals;
pub mod tls;

pub use connections::{Listener, serve, serve_page, serve_pcap_over_ip};
pub use counters::PANICS;
pub use http::{ROUTES, Route, openapi};
pub use retention_target::RetentionTarget;
pub use service::{Recorder, Service, ServiceLimits, open_files};
