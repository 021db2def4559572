//! The daemon: makes the pipelines, starts their threads and the service, and ends them all.
//!
//! ```text
//! main ─ lock file ─ budget ─ pipelines ─ sources ─ socket ─ privileges dropped ─┬─ retrocap-w0 … (one a worker)
//!        └── one thread, all rights that were given ──────────────────────────┘ ├─ interfaces (live capture)
//!                                                                               └─ service (two threads)
//! ```
//!
//! What always holds: one socket has one recorder; no thread is started before privileges are dropped; a worker that
//! fails ends the whole recorder, never half of it, save that a replayed file may end or be damaged while what was
//! read goes on being served.
#![forbid(unsafe_code)]

pub mod check;
mod compressor;
mod handover;
mod listeners;
mod memory;
mod notify;
mod panics;
mod priority;
pub mod privileges;
pub mod reload;
mod replay;
pub mod sandbox;
mod socket;
mod start;
mod workers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use tokio::sync::oneshot;

use base::source::SourceError;
use capture::selection::UnknownInterface;
use engine::budget::{BudgetTooSmall, ByteSize};
use engine::judge::Class;
use engine::judge::classes::ClassError;
use engine::store::retention::Policy;
use filter::FilterError;
pub use listeners::{PcapOverIp, Remote};
pub use reload::Reload;
pub use sandbox::SandboxMode;
use serve::audit::{self, AuditError};
use serve::tls::TlsError;
use serve::{Limits, RetentionTarget};
use start::{Prepared, StopCondition};

/// What to record, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the service listens.
    pub socket: PathBuf,
    /// Names of the interfaces to record; empty for all.
    pub interfaces: Vec<String>,
    /// A tcpdump expression: what does not match is not recorded.
    pub filter: Option<String>,
    /// Bytes kept of each packet at most; 0 for whole packets.
    pub snaplen: u32,
    /// The budget in bytes, at least [`Split::BYTES_MIN`](engine::budget::Split::BYTES_MIN).
    pub memory_bytes: u64,
    /// Workers that share the packets of live capture, at least 1; a replay has one.
    pub workers: u32,
    /// Whether interfaces are asked for packets to other hosts too.
    pub promiscuous: bool,
    /// A capture to record in place of interfaces.
    pub replay: Option<Replay>,
    /// Whether privileges are given up once everything is open.
    pub drop_privileges: bool,
    /// The user to become; `None` for `retrocap` if there is one and the process is root's.
    pub user: Option<String>,
    /// Share of one core for compression, in percent; 0 for none.
    pub compression_cpu: f64,
    /// How old sessions are shortened.
    pub retention: Policy,
    /// What happens where the system lacks a part of the sandbox.
    pub sandbox: SandboxMode,
    /// The file that is read when the configuration is reloaded; its directory stays readable.
    pub file: Option<PathBuf>,
    /// How much the service bears.
    pub limits: Limits,
    /// How far back it should reach.
    pub wanted: RetentionTarget,
    /// Sessions that are kept otherwise.
    pub classes: Vec<Class>,
    /// What Community IDs are made with, unless who asks says another seed.
    pub community_id_seed: u16,
    /// Where other machines connect.
    pub remote: Remote,
    /// Where it is written down who reads packets.
    pub audit: audit::Config,
}

/// A capture file as if it happened now.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// The file; `-` is standard input.
    pub path: PathBuf,
    /// How fast.
    pub speed: Speed,
}

/// How fast a capture is replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Speed {
    /// At the pace at which it was recorded.
    #[default]
    Recorded,
    /// So many times that pace; above 0.
    Times(f64),
    /// As fast as it can be read.
    Max,
}

impl FromStr for Speed {
    type Err = String;

    /// Reads `max`, `1`, `2.5` or `10x`.
    fn from_str(text: &str) -> Result<Self, String> {
        let word = text.trim();
        if word.eq_ignore_ascii_case("max") {
            return Ok(Self::Max);
        }
        match word.strip_suffix(['x', 'X']).unwrap_or(word).parse::<f64>() {
            Ok(1.0) => Ok(Self::Recorded),
            Ok(times) if times > 0.0 && times.is_finite() => Ok(Self::Times(times)),
            _ => Err(format!("cannot read the speed {text:?}: try 2 for twice the recorded pace, or max")),
        }
    }
}

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket is somebody's.
    #[error("another retrocap is recording on {}; stop it or choose another --socket", .0.display())]
    AlreadyRunning(PathBuf),
    /// The socket's place is taken by something else.
    #[error("{} is there already and is no socket; remove it or choose another --socket", .0.display())]
    NotASocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot {step} {}: {source}; choose another place with --socket", .path.display())]
    Socket {
        /// What was tried.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// PCAP-over-IP in the clear would be for everybody on the way.
    #[error(
        "PCAP-over-IP on {address} is served over TLS alone, and {source}; in the clear it is served on the loopback \
         address alone, as 127.0.0.1:57012"
    )]
    PcapOverIpWithoutKeys {
        /// Where.
        address: SocketAddr,
        /// What is wrong with the certificates.
        source: TlsError,
    },
    /// The audit log cannot be opened.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Certificates or key are missing or wrong.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// TLS was asked for without certificates.
    #[error(
        "to listen for other machines takes certificates: make them with `retrocap certs server NAME`, or name them \
             with --ca, --cert and --key"
    )]
    NoCertificates,
    /// Plain TCP was asked for where others could listen in.
    #[error("{0} is not of loopback, where anybody could listen in: use --listen with certificates, or --listen-plain \
             127.0.0.1:{port}", port = .0.port())]
    NotLoopback(std::net::SocketAddr),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another address or port")]
    Listen {
        /// Which.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The budget is too small.
    #[error(transparent)]
    Budget(#[from] BudgetTooSmall),
    /// The system has not as much memory.
    #[error("cannot take {budget} of memory: {source}; try a smaller -m")]
    Memory {
        /// The budget.
        budget: ByteSize,
        /// What the system said.
        source: std::io::Error,
    },
    /// The capture filter is wrong.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A class is wrong.
    #[error(transparent)]
    Class(#[from] ClassError),
    /// An interface asked for is not there.
    #[error(transparent)]
    Interface(#[from] UnknownInterface),
    /// Packets cannot be captured, or no longer, or the capture to replay cannot be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Privileges could not be dropped.
    #[error(transparent)]
    Privileges(#[from] privileges::Error),
    /// The sandbox is not whole.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// A part of the daemon that needs the system's help did not get it.
    #[error("cannot {step}: {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A worker has panicked; where it did is in the log.
    #[error("worker {0} has failed, so recording was stopped; please report what the log says above")]
    WorkerPanicked(usize),
    /// A speed that no replay has.
    #[error("cannot replay at {0} times the recorded pace; --speed takes a number above 0, or max")]
    Speed(f64),
}

/// Records and serves until SIGTERM or SIGINT.
///
/// Call it while the process has one thread, or privileges cannot be dropped.
///
/// # Errors
///
/// When it cannot start, or recording has ended by itself; a signal is a good end.
pub fn run(config: Config) -> Result<(), Error> {
    panics::log();
    Prepared::new(config)?.run(StopCondition::Signal, None)
}

/// As [`run`]; on SIGHUP it asks `reload` for the configuration that is to hold from then on.
///
/// # Errors
///
/// As [`run`].
pub fn run_reloading(config: Config, reload: Reload) -> Result<(), Error> {
    panics::log();
    Prepared::new(config)?.run(StopCondition::Signal, Some(reload))
}

/// As [`run`], until `stop` is sent something or dropped; signals keep their meaning.
///
/// # Errors
///
/// As [`run`].
pub fn run_until(config: Config, stop: oneshot::Receiver<()>) -> Result<(), Error> {
    Prepared::new(config)?.run(StopCondition::Requested(stop), None)
}
