//! The first phase: everything that needs privileges is opened, by one thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sys::{HeldSignals, share_one_heap};

use super::confined::Confined;
use super::resources::Resources;
use crate::attestation;
use crate::classes;
use crate::confinement::Confinement;
use crate::error::{Error, system};
use crate::handover::InheritedHistory;
use crate::listeners::{self, RemoteListeners};
use crate::memory;
use crate::notify::Supervisor;
use crate::priority;
use crate::privileges::{self, PrivilegePlan};
use crate::process_names::Watcher;
use crate::replay::{self, PacedSource};
use crate::sandbox::PathRules;
use crate::session_log;
use crate::settings::{Settings, Speed};
use crate::socket::{SocketClaim, SocketPermissions};
use crate::spool;
use crate::workers::PacketSource;
use base::interface::Interfaces;
use base::memory::Lock;
use capture::interfaces::links;
use capture::live::{LiveConfig, LiveSource, capture_rights};
use capture::selection::InterfaceSelection;
use engine::budget::{ByteSize, RING_BLOCK_BYTES, Split};
use engine::judge::Pins;
use engine::own_streams::OwnStreams;
use engine::pipeline::{self, Pipeline};
use engine::store::compress::{Compression, Compressor, Pace};
use filter::FilterSet;
use formats::annotations::SharedReport;
use serve::audit::Audit;

/// Everything is open, with all privileges that the process was started with.
#[derive(Debug)]
pub struct Opened {
    pub(super) resources: Resources,
    inherited: InheritedHistory,
    lock: Lock,
    plan: PrivilegePlan,
}

impl Opened {
    /// Opens everything. Call it while the process has one thread.
    ///
    /// # Errors
    ///
    /// When something that the settings ask for cannot be had.
    pub fn open(settings: Settings) -> Result<Self, Error> {
        let live = settings.is_live();
        share_one_heap();
        memory::never_dump();
        // The packets of a replay are in a file anyway.
        let not_locked = if live { memory::lock(settings.no_drop_privileges).err() } else { None };
        let inherited = InheritedHistory::from_environment();
        let supervisor = Supervisor::from_environment();
        let split = classes::split(&settings)?;
        let plan = PrivilegePlan::new(settings.user.as_deref(), settings.no_drop_privileges)?;
        let access = SocketPermissions { group: privileges::readers()?, owner: plan.owner() };
        let claim = SocketClaim::new(&settings.socket, access)?;
        if live {
            // Checked before memory is taken, because this fails most often.
            capture_rights()?;
            priority::raise_for_capture();
        }
        let interfaces = Arc::new(Interfaces::default());
        let own_streams = Arc::new(OwnStreams::default());
        let pins = Arc::new(Pins::new(split.pinned_bytes() * u64::from(split.workers)));
        let lock = match (live, inherited.is_empty()) {
            (false, _) => Lock::No,
            (true, true) => Lock::IfPermitted,
            // The inherited history is still in memory, which becomes free as it is taken over.
            (true, false) => Lock::AsUsed,
        };
        let mut pipelines = make_pipelines(&settings, &split, &pins, lock)?;
        pipelines.iter_mut().for_each(|pipeline| pipeline.leave_out(Arc::clone(&own_streams)));
        let compressors = make_compressors(&settings, &split, &mut pipelines)?;
        let selection = live.then(|| Arc::new(InterfaceSelection::new(&settings.interface)));
        let input = (!live).then(SharedReport::default);
        let sources = match (&selection, &input) {
            (Some(selection), _) => open_live(&settings, &split, selection, &interfaces)?,
            (None, input) => vec![open_replay(&settings, &interfaces, input.clone().unwrap_or_default())?],
        };
        // The audit log, keys and low ports may need privileges.
        let open = |path| spool::open(path, settings.spool_key.as_deref(), plan.owner());
        let spool = settings.spool.as_deref().map(open).transpose()?;
        let session_log = session_log::open(&settings, spool.as_ref(), plan.owner(), &interfaces)?;
        let audit = Audit::open(settings.audit_log(), plan.owner())?;
        let attestation = Arc::new(attestation::open(&settings)?);
        // It keeps privileges that this process drops.
        let watcher = (live && settings.processes).then(Watcher::start).transpose()?;
        let remote = RemoteListeners::new(&settings)?;
        // A client that can connect can make the supervisor send a signal, and a thread in its role could not pass it on.
        let signals = HeldSignals::new().map_err(system("hold signals back"))?;
        let (listener, socket) = claim.bind(access)?;
        serve::open_files();
        let resources = Resources {
            settings,
            split,
            supervisor,
            listener,
            socket,
            remote,
            audit,
            attestation,
            watcher,
            spool,
            session_log,
            signals,
            interfaces,
            selection,
            own_streams,
            pins,
            pipelines,
            compressors,
            sources,
            input,
            not_locked,
        };
        Ok(Self { resources, inherited, lock, plan })
    }

    /// Drops privileges and restricts the process to what recording needs.
    ///
    /// # Errors
    ///
    /// When a step fails that should be possible, or the settings require what the kernel lacks.
    pub fn confine(self) -> Result<Confined, Error> {
        let Self { resources, inherited, lock, plan } = self;
        let paths = path_rules(&resources.settings, &resources.audit);
        let confinement = Confinement::enforce(&plan, resources.settings.sandbox, &paths)?;
        Ok(Confined { resources, inherited, lock, confinement })
    }
}

fn make_pipelines(settings: &Settings, split: &Split, pins: &Arc<Pins>, lock: Lock) -> Result<Vec<Pipeline>, Error> {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let filter = settings.filter.as_deref().map(FilterSet::new).transpose()?;
    let classes = classes::compile(settings, split)?.shared_by(split.workers);
    // Senders of packets must not know it. All workers have the same, so that what they know of servers can be joined.
    let seed = RandomState::new().build_hasher().finish();
    (0..split.workers)
        .map(|_| {
            Pipeline::new(pipeline::Config {
                sessions_bytes: split.sessions_bytes,
                store_bytes: split.store_bytes,
                policy: settings.retention(),
                classes: classes.clone(),
                pins: Arc::clone(pins),
                pinned_bytes: split.pinned_bytes(),
                filter: filter.clone(),
                snaplen: settings.snaplen,
                lock,
                seed,
            })
            .map_err(|source| Error::Memory { budget: ByteSize(split.budget_bytes), source })
        })
        .collect()
}

/// A compressor for each pipeline, if compression has a share of a core.
fn make_compressors(
    settings: &Settings,
    split: &Split,
    pipelines: &mut [Pipeline],
) -> Result<Vec<(Compressor, Compression)>, Error> {
    let pace = if settings.is_live() { Pace::Live } else { Pace::Replay };
    // The share is of one core, whatever the number of workers.
    let percent = settings.compression_cpu.0 / f64::from(split.workers);
    let Some(compression) = split.compression(percent, pace) else { return Ok(Vec::new()) };
    pipelines
        .iter_mut()
        .map(|pipeline| Ok((pipeline.compress(&compression)?, compression)))
        .collect::<std::io::Result<_>>()
        .map_err(|source| Error::Memory { budget: ByteSize(split.budget_bytes), source })
}

fn open_live(
    settings: &Settings,
    split: &Split,
    selection: &Arc<InterfaceSelection>,
    interfaces: &Arc<Interfaces>,
) -> Result<Vec<PacketSource>, Error> {
    selection.refresh(links().map_err(system("list the interfaces"))?);
    selection.check()?;
    // The low half of the process ID as the fanout group: the next process with the same one is 65,536 processes away.
    let [low, high, ..] = std::process::id().to_le_bytes();
    let live = LiveConfig {
        snaplen: settings.snaplen,
        promiscuous: settings.uses_promiscuous(),
        block_size: RING_BLOCK_BYTES,
        block_count: split.ring_blocks,
        fanout: (split.workers > 1).then_some(u16::from_le_bytes([low, high])),
    };
    let sources = LiveSource::open_group(split.workers as usize, &live, selection, interfaces)?;
    Ok(sources.into_iter().map(|source| PacketSource::Live(Box::new(source))).collect())
}

fn open_replay(settings: &Settings, interfaces: &Arc<Interfaces>, report: SharedReport) -> Result<PacketSource, Error> {
    let Some(path) = &settings.replay else { unreachable!("only replays are opened as such") };
    let mut source = replay::open(path, settings.speed, Arc::clone(interfaces))?;
    // Exports of a service have no annotations, and memory for them would be outside the budget.
    source.count_annotations(report);
    Ok(match settings.speed {
        Speed::Max => PacketSource::File(Box::new(source)),
        Speed::Recorded => PacketSource::Paced(Box::new(PacedSource::new(source, 1.0))),
        Speed::Times(speed) => PacketSource::Paced(Box::new(PacedSource::new(source, speed))),
    })
}

/// Files that resolve names in expressions, such as `port domain`.
const NAME_FILES: [&str; 7] = [
    "/etc/nsswitch.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/networks",
    "/etc/hosts",
    "/etc/ethers",
    "/etc/host.conf",
];

/// What is opened while it records.
fn path_rules(settings: &Settings, audit: &Audit) -> PathRules {
    let mut readable: Vec<PathBuf> = NAME_FILES.map(PathBuf::from).into();
    // For the process's own memory figures.
    readable.push("/proc/self".into());
    // The directory and not the file, because editors replace files.
    readable.extend(settings.file.as_deref().map(directory));
    readable.extend(settings.page_dissector.clone());
    if listeners::need_certificates(settings) {
        let files = settings.certificates();
        readable.extend([&files.ca, &files.cert, &files.key].map(|file| directory(file)));
    }
    let (users, log) = audit.needs();
    readable.extend(users.iter().map(PathBuf::from));
    let writable = log.map(Path::to_owned).into_iter().chain(settings.spool.clone()).collect();
    PathRules { readable, writable, removable: vec![directory(&settings.socket)] }
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
