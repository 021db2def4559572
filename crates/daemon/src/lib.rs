//! The recorder as a process: settings, privileges, sandbox, threads, reloading and shutdown.
//!
//! ```text
//! main ─ lock file ─ budget ─ pipelines ─ sources ─ sockets ─ privileges dropped ─┬─ retrocap-w0 … (one a worker)
//!        └── one thread, with all its privileges ─────────────────────────────────┘ ├─ interfaces (live capture)
//!                                                                                 └─ service (two threads)
//! ```
//!
//! What always holds: one socket has one recorder. No thread starts before privileges are dropped. A worker that fails
//! ends the whole recorder, never half of it; but when a replayed file ends or is damaged, what was read is still served.
#![forbid(unsafe_code)]

mod attestation;
pub mod check;
mod classes;
mod compressor;
mod confinement;
mod error;
mod handover;
mod listeners;
mod memory;
pub mod memory_limit;
mod notify;
mod panics;
pub mod phases;
mod priority;
pub mod privileges;
pub mod process_names;
mod record_seal;
mod reload;
mod replay;
pub mod sandbox;
#[cfg_attr(not(feature = "session-log"), path = "no_session_log.rs")]
mod session_log;
pub mod settings;
mod socket;
mod spool;
mod spool_gate;
mod workers;

use tokio::sync::oneshot;

pub use error::Error;
use phases::{Opened, StopCondition};
pub use reload::Reload;
pub use sandbox::SandboxMode;
pub use settings::{Settings, Speed};

/// Records and serves until SIGTERM or SIGINT.
///
/// Call it while the process has one thread, or privileges cannot be dropped.
///
/// # Errors
///
/// When it cannot start, or when recording ends by itself. A signal is a regular end.
pub fn run(settings: Settings) -> Result<(), Error> {
    panics::log();
    record(settings, StopCondition::Signal, None)
}

/// As [`run`]. On SIGHUP, `reload` returns the settings that apply from then on.
///
/// # Errors
///
/// As [`run`].
pub fn run_reloading(settings: Settings, reload: Reload) -> Result<(), Error> {
    panics::log();
    record(settings, StopCondition::Signal, Some(reload))
}

/// As [`run`], until `stop` receives something or is dropped. Signals keep their default actions.
///
/// # Errors
///
/// As [`run`].
pub fn run_until(settings: Settings, stop: oneshot::Receiver<()>) -> Result<(), Error> {
    record(settings, StopCondition::Requested(stop), None)
}

fn record(settings: Settings, stop: StopCondition, reload: Option<Reload>) -> Result<(), Error> {
    Opened::open(settings)?.confine()?.restore()?.start(reload)?.run(stop)
}
