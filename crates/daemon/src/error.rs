//! Why the recorder does not start, or ends.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::memory_limit::BudgetError;
use crate::{privileges, sandbox};
use base::source::SourceError;
use capture::selection::UnknownInterface;
use engine::budget::{BudgetTooSmall, ByteSize};
use engine::judge::classes::ClassError;
use filter::FilterError;
use serve::audit::AuditError;
use serve::tls::TlsError;

/// Why the recorder did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another recorder has the socket.
    #[error("another retrocap is recording on {}; stop it or choose another --socket", .0.display())]
    AlreadyRunning(PathBuf),
    /// The path of the socket is taken by a file of another kind.
    #[error("{} exists and is not a socket, so it was left untouched: choose another --socket, or remove it", .0.display())]
    NotASocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot {step} {}: {source}; choose another path with --socket", .path.display())]
    Socket {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// PCAP-over-IP without encryption is refused outside loopback.
    #[error(
        "PCAP-over-IP on {address} needs TLS, and {source}; without TLS it is served on loopback addresses only, as \
         127.0.0.1:57012"
    )]
    PcapOverIpWithoutKeys {
        /// The address asked for.
        address: SocketAddr,
        /// What is wrong with the certificates.
        source: TlsError,
    },
    /// The key that signs evidence cannot be used.
    #[error(
        "the key {} of evidence-key cannot sign: {reason}; `ssh-keygen -t ed25519 -N \"\" -f {}` makes one",
        path.display(),
        path.display()
    )]
    EvidenceKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key file of the spool cannot be used.
    #[error("{0}")]
    SpoolKey(spool::key_file::KeyFileError),
    /// The directory of the spool cannot be used.
    #[error(transparent)]
    Spool(spool::directory::DirectoryError),
    /// The audit log cannot be opened.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Certificates or key are missing or wrong.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// TLS was asked for without certificates.
    #[error(
        "listening for other machines needs certificates: make them with `retrocap certs server NAME`, or name them with \
         --ca, --cert and --key"
    )]
    NoCertificates,
    /// The page was asked for outside loopback.
    #[error(
        "{0} is not a loopback address, and the page is served to browsers of this host only: use --page 127.0.0.1:57081, or \
         --listen, where browsers of other machines need a client certificate"
    )]
    PageNotLoopback(SocketAddr),
    /// Plain TCP was asked for outside loopback.
    #[error(
        "{0} is not a loopback address, so others on the network could read the traffic: use --listen with \
         certificates, or \
         --listen-plain 127.0.0.1:{port}",
        port = .0.port()
    )]
    NotLoopback(SocketAddr),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another address or port")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The budget does not fit into what the process may use.
    #[error(transparent)]
    MemoryBudget(#[from] BudgetError),
    /// The budget is too small.
    #[error(transparent)]
    Budget(#[from] BudgetTooSmall),
    /// The system does not have so much memory.
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
    /// The classes reserve more than they may of this budget.
    #[error(
        "the budget of {budget} is too small for the classes, which reserve {reserved}: all of them together may reserve \
         {most}, which is half of the memory for packets; reserve less, or set -m {works_mib}M"
    )]
    BudgetTooSmallForClasses {
        /// The budget.
        budget: ByteSize,
        /// What all classes reserve.
        reserved: ByteSize,
        /// What they may reserve.
        most: ByteSize,
        /// The smallest budget that is enough, in MiB.
        works_mib: u64,
    },
    /// An interface that was asked for does not exist.
    #[error(transparent)]
    Interface(#[from] UnknownInterface),
    /// Packets cannot be captured (any more), or the capture to replay cannot be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Privileges could not be dropped.
    #[error(transparent)]
    Privileges(#[from] privileges::Error),
    /// The sandbox is required and incomplete.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// The system refused a step.
    #[error("cannot {step}: {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A worker has panicked; the log has the place.
    #[error("worker {0} has failed, so recording was stopped; please report the panic that is in the log above")]
    WorkerPanicked(usize),
    /// A speed that cannot be replayed.
    #[error("cannot replay at {0} times the recorded pace; --speed takes a number above 0, or max")]
    Speed(f64),
}

/// For `map_err`: a step that the system refused.
pub(crate) fn system(step: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::System { step, source }
}
