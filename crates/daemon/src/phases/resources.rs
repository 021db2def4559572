//! What is opened first and used by every later phase.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use sys::HeldSignals;

use crate::listeners::RemoteListeners;
use crate::memory::LockError;
use crate::notify::Supervisor;
use crate::process_names::Watcher;
use crate::session_log::LogHandle;
use crate::settings::Settings;
use crate::socket::Socket;
use crate::spool::DirectorySpool;
use crate::workers::PacketSource;
use base::interface::Interfaces;
use capture::selection::InterfaceSelection;
use engine::budget::Split;
use engine::judge::Pins;
use engine::own_streams::OwnStreams;
use engine::pipeline::Pipeline;
use engine::store::compress::{Compression, Compressor};
use formats::annotations::SharedReport;
use serve::attestation::Attestation;
use serve::audit::Audit;

/// What every phase has.
#[derive(Debug)]
pub(super) struct Resources {
    pub(super) settings: Settings,
    pub(super) split: Split,
    pub(super) supervisor: Supervisor,
    pub(super) listener: UnixListener,
    pub(super) socket: Socket,
    pub(super) remote: RemoteListeners,
    pub(super) audit: Audit,
    pub(super) attestation: Arc<Attestation>,
    /// The process that watches sockets.
    pub(super) watcher: Option<Watcher>,
    /// The spool, if one is written.
    pub(super) spool: Option<Arc<DirectorySpool>>,
    /// The log of sessions in the spool.
    pub(super) session_log: Option<Arc<LogHandle>>,
    pub(super) signals: HeldSignals,
    pub(super) interfaces: Arc<Interfaces>,
    /// Of live capture.
    pub(super) selection: Option<Arc<InterfaceSelection>>,
    pub(super) own_streams: Arc<OwnStreams>,
    pub(super) pins: Arc<Pins>,
    pub(super) pipelines: Vec<Pipeline>,
    pub(super) compressors: Vec<(Compressor, Compression)>,
    pub(super) sources: Vec<PacketSource>,
    /// What a replayed capture contains beside packets.
    pub(super) input: Option<SharedReport>,
    /// Why memory beside that of packets may be swapped out.
    pub(super) not_locked: Option<LockError>,
}
