//! From a configuration to a recorder that runs, and its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{oneshot, watch};

use super::replay::Paced;
use super::socket::{Access, Claim, Socket};
use super::workers::{Packets, Workers};
use super::{Config, Error, Speed, privileges, replay};
use crate::budget::{ByteSize, RING_BLOCK_BYTES, Split};
use crate::capture::interfaces::{Monitor, links};
use crate::capture::live::{LiveConfig, LiveSource, capture_rights};
use crate::capture::selection::Selection;
use crate::filter::FilterSet;
use crate::interface::Interfaces;
use crate::judge::{Classes, Pins};
use crate::memory::Lock;
use crate::own_streams::OwnStreams;
use crate::pipeline::{self, Pipeline};
use crate::query::{History, Memory};
use crate::serve::pcap_over_ip::{self, Feed};
use crate::serve::{self, Limits, Recorder, Service};
use crate::time::Timestamp;

/// Threads of the service, beside those of queries.
const SERVICE_THREADS: usize = 2;
/// How long queries get to notice that the service has ended.
const QUERIES_END_TIMEOUT: Duration = Duration::from_millis(100);

/// What ends a recorder.
#[derive(Debug)]
pub(super) enum Until {
    Signal,
    Told(oneshot::Receiver<()>),
}

/// Everything is open, nothing runs, and privileges are dropped.
#[derive(Debug)]
pub(super) struct Prepared {
    listener: std::os::unix::net::UnixListener,
    pcap_over_ip: Option<(std::net::TcpListener, Feed)>,
    own_streams: Arc<OwnStreams>,
    socket: Socket,
    pipelines: Vec<(Pipeline, Packets)>,
    history: History,
    /// Of live capture.
    selection: Option<Arc<Selection>>,
    queries_bytes: u64,
}

impl Prepared {
    pub(super) fn new(config: Config) -> Result<Self, Error> {
        let live = config.replay.is_none();
        let owner = if config.drop_privileges { privileges::target(config.user.as_deref())? } else { None };
        let access = Access { group: privileges::readers()?, owner };
        let claim = Claim::new(&config.socket, access)?;
        let split = Split::new(config.memory_bytes, if live { config.workers } else { 1 }, live)?;
        if live {
            // Before memory is taken: this is what goes wrong most.
            capture_rights()?;
        }
        let interfaces = Arc::new(Interfaces::default());
        let own_streams = Arc::new(OwnStreams::default());
        let pins = Arc::new(Pins::new(split.pinned_bytes() * u64::from(split.workers)));
        let mut made = make_pipelines(&config, &split, &pins)?;
        made.iter_mut().for_each(|pipeline| pipeline.leave_out(Arc::clone(&own_streams)));
        let selection = live.then(|| Arc::new(Selection::new(&config.interfaces)));
        let sources = match &selection {
            Some(selection) => open_live(&config, &split, selection, &interfaces)?,
            None => vec![open_replay(&config, &interfaces)?],
        };
        let (listener, socket) = claim.bind(access)?;
        let pcap_over_ip = config.pcap_over_ip.map(listen_pcap_over_ip).transpose()?;
        let dropped = privileges::drop(config.user.as_deref(), !config.drop_privileges)?;

        let history = History {
            workers: made.iter().map(Pipeline::worker).collect(),
            interfaces,
            memory: Memory {
                budget_bytes: split.budget_bytes,
                rings_bytes: split.rings_bytes(),
                queries_bytes: split.queries_bytes,
            },
            capture_filter: config.filter.clone(),
            capture_interfaces: config.interfaces.clone(),
        };
        announce(&config, &split, &history, &socket, &dropped);
        Ok(Self {
            listener,
            pcap_over_ip,
            own_streams,
            socket,
            pipelines: made.into_iter().zip(sources).collect(),
            history,
            selection,
            queries_bytes: split.queries_bytes,
        })
    }

    /// Runs until it is told to stop or cannot go on.
    pub(super) fn run(self, until: Until) -> Result<(), Error> {
        let Self { listener, pcap_over_ip, own_streams, mut socket, pipelines, history, selection, queries_bytes } =
            self;
        let live = selection.is_some();
        let interfaces = Arc::clone(&history.interfaces);
        let monitor = selection.map(|selection| Monitor::start(selection, interfaces)).transpose();
        let _monitor = monitor.map_err(system("watch the interfaces"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let recording = Arc::new(AtomicUsize::new(0));
        let mut workers = Workers::start(pipelines, Arc::clone(&stop), &recording)?;
        let recorder = Recorder {
            history: Arc::new(history),
            live,
            start: now(),
            started: Instant::now(),
            recording,
            queries_bytes,
        };
        let service = Arc::new(Service::new(recorder, Limits::default()).with_own_streams(own_streams));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(SERVICE_THREADS)
            .thread_name("retrocap-serve")
            .enable_all()
            .build()
            .map_err(system("start the service"))?;
        let ended = runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).map_err(system("start the service"))?;
            let (shutdown, told) = watch::channel(false);
            let feeding = pcap_over_ip.map(|(listener, what)| {
                let listener = tokio::net::TcpListener::from_std(listener).map_err(system("serve PCAP-over-IP"))?;
                Ok::<_, Error>(tokio::spawn(pcap_over_ip::serve(listener, Arc::clone(&service), what, told.clone())))
            });
            let feeding = feeding.transpose()?;
            let mut serving = tokio::spawn(serve::serve(listener, service, told));
            let ended = tokio::select! {
                why = until.wait() => why.map(|why| tracing::info!("stopping: {why}")),
                error = workers.failure() => Err(error),
                _ = &mut serving => {
                    let source = std::io::Error::other("the service has ended by itself");
                    return Err(Error::System { step: "go on serving", source });
                }
            };
            socket.unlink();
            stop.store(true, Ordering::Relaxed);
            let _ = shutdown.send(true);
            let _ = serving.await;
            if let Some(feeding) = feeding {
                let _ = feeding.await;
            }
            ended
        });
        drop(workers);
        runtime.shutdown_timeout(QUERIES_END_TIMEOUT);
        ended
    }
}

impl Until {
    async fn wait(self) -> Result<&'static str, Error> {
        use tokio::signal::unix::{SignalKind, signal};
        match self {
            Self::Told(stop) => {
                let _ = stop.await;
                Ok("as told")
            }
            Self::Signal => {
                let mut terminate = signal(SignalKind::terminate()).map_err(system("listen for signals"))?;
                let mut interrupt = signal(SignalKind::interrupt()).map_err(system("listen for signals"))?;
                Ok(tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" })
            }
        }
    }
}

fn make_pipelines(config: &Config, split: &Split, pins: &Arc<Pins>) -> Result<Vec<Pipeline>, Error> {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let filter = config.filter.as_deref().map(FilterSet::new).transpose()?;
    let classes = Classes::new(&config.classes, split.store_bytes * u64::from(split.workers))?.shared_by(split.workers);
    let live = config.replay.is_none();
    (0..split.workers)
        .map(|_| {
            Pipeline::new(pipeline::Config {
                sessions_bytes: split.sessions_bytes,
                store_bytes: split.store_bytes,
                policy: config.retention.clone(),
                classes: classes.clone(),
                pins: Arc::clone(pins),
                pinned_bytes: split.pinned_bytes(),
                filter: filter.clone(),
                snaplen: config.snaplen,
                lock: if live { Lock::IfPermitted } else { Lock::No },
                // Who sends packets must not know it.
                seed: RandomState::new().build_hasher().finish(),
            })
            .map_err(|source| Error::Memory { budget: ByteSize(split.budget_bytes), source })
        })
        .collect()
}

fn open_live(
    config: &Config,
    split: &Split,
    selection: &Arc<Selection>,
    interfaces: &Arc<Interfaces>,
) -> Result<Vec<Packets>, Error> {
    selection.refresh(links().map_err(system("list the interfaces"))?);
    selection.check()?;
    // The low half of the process's number: no other group of this host has it, short of 65,536 processes on.
    let [low, high, ..] = std::process::id().to_le_bytes();
    let live = LiveConfig {
        snaplen: config.snaplen,
        promiscuous: config.promiscuous,
        block_size: RING_BLOCK_BYTES,
        block_count: split.ring_blocks,
        fanout: (split.workers > 1).then_some(u16::from_le_bytes([low, high])),
    };
    let open = || LiveSource::open(&live, Arc::clone(selection), Arc::clone(interfaces));
    (0..split.workers).map(|_| Ok(Packets::Live(Box::new(open()?)))).collect()
}

fn listen_pcap_over_ip((address, what): (SocketAddr, Feed)) -> Result<(std::net::TcpListener, Feed), Error> {
    if !address.ip().to_canonical().is_loopback() {
        return Err(Error::PcapOverIpInTheClear(address));
    }
    let failed = |source| Error::PcapOverIp { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!("PCAP-over-IP on {address}: every user of this host can read all packets there");
    Ok((listener, what))
}

fn open_replay(config: &Config, interfaces: &Arc<Interfaces>) -> Result<Packets, Error> {
    let Some(replay) = &config.replay else { unreachable!("only replays are opened as such") };
    let source = replay::open(replay, Arc::clone(interfaces))?;
    Ok(match replay.speed {
        Speed::Max => Packets::File(Box::new(source)),
        Speed::Recorded => Packets::Paced(Box::new(Paced::new(source, 1.0))),
        Speed::Times(speed) => Packets::Paced(Box::new(Paced::new(source, speed))),
    })
}

/// The one line that says what runs.
fn announce(config: &Config, split: &Split, history: &History, socket: &Socket, dropped: &privileges::Dropped) {
    let what = match (&config.replay, config.interfaces.as_slice()) {
        (Some(replay), _) if replay.path.as_os_str() == "-" => "standard input".to_owned(),
        (Some(replay), _) => replay.path.display().to_string(),
        (None, []) => "all interfaces".to_owned(),
        (None, names) => names.join(", "),
    };
    let filter = config.filter.as_deref().map(|filter| format!(" ({filter})")).unwrap_or_default();
    let workers = u64::from(split.workers);
    let locked = history.workers.iter().all(|worker| worker.segments.are_locked());
    tracing::info!(
        "recording {what}{filter} into {} (packets {}, sessions {}, kernel rings {}, queries {}; {}) with {workers} {}; \
         socket {} for {}; {dropped}",
        ByteSize(split.budget_bytes),
        ByteSize(workers * split.store_bytes),
        ByteSize(workers * split.sessions_bytes),
        ByteSize(split.rings_bytes()),
        ByteSize(split.queries_bytes),
        if locked { "locked in RAM" } else { "not locked, may be swapped out" },
        if workers == 1 { "worker" } else { "workers" },
        config.socket.display(),
        if socket.for_group { "its owner and the group retrocap" } else { "its owner alone" },
    );
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

fn system(step: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::System { step, source }
}
