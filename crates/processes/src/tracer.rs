//! Names the owner of a socket when it connects, binds or sends: programs in the kernel (eBPF) report it.
//!
//! `bpf/sockets.bpf.c` describes what runs in the kernel. This module loads it, reads its ring buffer, and turns the
//! events into sockets and processes. A process is described by the kernel's side, so one that has ended can be named.
//!
//! It needs a kernel with BTF, a mounted cgroup2 hierarchy, and `CAP_BPF`, `CAP_PERFMON` and `CAP_NET_ADMIN` while it is
//! loaded. After that, reading needs no privilege.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::maps::{Array, MapData, RingBuf};
use aya::programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr, ProgramError, SockOps};
use aya::{Ebpf, EbpfError, EbpfLoader};

use crate::events::{ProcessKey, SocketEvent, TICK_NS, parse_process};
use crate::process::{Process, Source};
use crate::report::SocketName;

/// The programs, compiled from `bpf/sockets.bpf.c`.
static PROGRAMS: &[u8] = aya::include_bytes_aligned!("../bpf/sockets.bpf.o");
/// Maximum number of described processes. The kernel's side describes a process again when it has forgotten it.
const PROCESSES_MAX: usize = 16_384;
/// Maximum number of sockets that wait to be reported. Beyond that, events stay in the ring buffer, which counts those that
/// find no room.
const WAITING_MAX: usize = 65_536;
/// Maximum number of own sockets whose events are waited for.
const OWN_SOCKETS_MAX: usize = 16;
/// Maximum number of events that are read until the first own one.
const EVENTS_AT_START_MAX: usize = 65_536;
/// Maximum number of processes that one call of [`Tracer::read`] reads from `/proc`.
const PROC_READS_MAX: usize = 64;
/// Why sockets cannot be traced in the kernel.
#[derive(Debug)]
pub enum TracerError {
    /// No cgroup2 hierarchy is mounted.
    NoCgroup2,
    /// A file could not be opened.
    Io(PathBuf, std::io::Error),
    /// The kernel refuses the programs.
    Load(EbpfError),
    /// The kernel refuses to attach a program.
    Attach(ProgramError),
    /// The programs run, but report nothing.
    Silent,
}

impl std::fmt::Display for TracerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoCgroup2 => {
                write!(f, "no cgroup2 hierarchy is mounted (mount -t cgroup2 none /sys/fs/cgroup/unified)")
            }
            Self::Io(path, error) => write!(f, "cannot open {}: {error}", path.display()),
            Self::Load(error) => {
                write!(f, "the kernel refuses the programs, which need CAP_BPF and CAP_PERFMON: {}", chain(error))
            }
            Self::Attach(error) => {
                write!(f, "the kernel refuses to attach a program, which needs CAP_NET_ADMIN: {}", chain(error))
            }
            Self::Silent => write!(f, "the programs are loaded, but report no socket"),
        }
    }
}

impl std::error::Error for TracerError {}

/// An error with its causes. The log of the verifier, which can have thousands of lines, is left out.
fn chain(error: &dyn std::error::Error) -> String {
    let first = |error: &dyn std::error::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
    let mut text = first(error);
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {}", first(error));
        source = error.source();
    }
    text
}

/// A change of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedSocket {
    /// The socket.
    pub socket: SocketName,
    /// The time since which its process had it, in nanoseconds since 1970.
    pub since_ns: u64,
    /// The time at which it was closed; `None` if it is open.
    pub closed_ns: Option<u64>,
    /// Whether it is in another network namespace, such as that of a container.
    pub is_elsewhere: bool,
    /// Its process.
    pub process: Arc<Process>,
}

/// A change of a raw or an ICMP socket of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedRaw {
    /// Its identity.
    pub id: u64,
    /// The number of its IP protocol.
    pub protocol: u8,
    /// Whether it is of IPv6.
    pub is_v6: bool,
    /// The time at which it was opened or closed, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Whether it was closed.
    pub is_closed: bool,
    /// Its process.
    pub process: Arc<Process>,
}

/// The running programs, and what they have reported.
pub struct Tracer {
    /// The programs are detached when this is dropped.
    _programs: Ebpf,
    events: RingBuf<MapData>,
    lost: Array<MapData, u64>,
    proc: PathBuf,
    processes: HashMap<ProcessKey, Arc<Process>>,
    order: VecDeque<ProcessKey>,
    /// The cookie of this network namespace.
    namespace: u64,
    /// Sockets whose process was never described.
    unknown: u64,
    raw: Vec<TracedRaw>,
    proc_reads: usize,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer")
            .field("processes", &self.processes.len())
            .field("unknown", &self.unknown)
            .finish_non_exhaustive()
    }
}

impl Tracer {
    /// Loads and attaches the programs. `proc` is where proc(5) is mounted.
    ///
    /// # Errors
    ///
    /// When the kernel does not permit it.
    pub fn new(proc: &Path) -> Result<Self, TracerError> {
        let cgroup = cgroup2(proc)?;
        let root = File::open(&cgroup).map_err(|error| TracerError::Io(cgroup, error))?;
        let mut programs = EbpfLoader::new().load(PROGRAMS).map_err(TracerError::Load)?;
        let maps = |error| TracerError::Load(EbpfError::MapError(error));
        let missing = || TracerError::Load(EbpfError::NoBTF);
        let events = RingBuf::try_from(programs.take_map("events").ok_or_else(missing)?).map_err(maps)?;
        let lost = Array::try_from(programs.take_map("lost").ok_or_else(missing)?).map_err(maps)?;
        attach(&mut programs, &root).map_err(TracerError::Attach)?;
        let mut tracer = Self {
            _programs: programs,
            events,
            lost,
            proc: proc.to_owned(),
            processes: HashMap::new(),
            order: VecDeque::new(),
            namespace: 0,
            unknown: 0,
            raw: Vec::new(),
            proc_reads: 0,
        };
        tracer.find_namespace()?;
        Ok(tracer)
    }

    /// Binds sockets of its own. The event of one shows that the programs report, and the cookie of this network namespace. In
    /// a storm of other events, one may find no room.
    fn find_namespace(&mut self) -> Result<(), TracerError> {
        for _ in 0..OWN_SOCKETS_MAX {
            // Without an address of loopback, any address does. Nothing is received.
            let own =
                UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
            let own = own.or_else(|_| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))).ok();
            let port = own.as_ref().and_then(|own| own.local_addr().ok()).map_or(0, |address| address.port());
            for _ in 0..EVENTS_AT_START_MAX {
                let Some(event) = self.events.next() else { break };
                if let Some((key, process)) = parse_process(&event) {
                    drop(event);
                    self.describe(key, process);
                } else if let Some(event) = SocketEvent::parse(&event)
                    && (event.process.pid, event.socket.local.port()) == (std::process::id(), port)
                {
                    self.namespace = event.namespace;
                    return Ok(());
                }
            }
        }
        Err(TracerError::Silent)
    }

    /// Appends what was reported since the last call.
    pub fn read(&mut self, sockets: &mut Vec<TracedSocket>) {
        let offset_ns = realtime_offset_ns();
        self.proc_reads = 0;
        while sockets.len() + self.raw.len() < WAITING_MAX {
            let Some(event) = self.events.next() else { break };
            if let Some((key, process)) = parse_process(&event) {
                drop(event);
                self.describe(key, process);
                continue;
            }
            let Some(parsed) = SocketEvent::parse(&event) else { continue };
            drop(event);
            let process = match self.process(&parsed.process) {
                Some(process) => process,
                // A raw socket that is left out would make another one the only one.
                None if parsed.raw.is_some() => {
                    self.unknown += u64::from(!parsed.is_closed);
                    let unknown = Process::only_user(parsed.process.uid);
                    Arc::new(Process { source: Source::Ebpf, ..unknown })
                }
                None => {
                    self.unknown += 1;
                    continue;
                }
            };
            if let Some(id) = parsed.raw {
                let is_v6 = parsed.socket.local.is_ipv6();
                let (protocol, is_closed) = (parsed.number, parsed.is_closed);
                let time_ns = parsed.now_ns.saturating_add(offset_ns);
                if parsed.namespace == self.namespace {
                    self.raw.push(TracedRaw { id, protocol, is_v6, time_ns, is_closed, process });
                }
                continue;
            }
            sockets.push(TracedSocket {
                socket: parsed.socket,
                since_ns: parsed.since_ns.saturating_add(offset_ns),
                closed_ns: parsed.is_closed.then(|| parsed.now_ns.saturating_add(offset_ns)),
                is_elsewhere: parsed.namespace != self.namespace,
                process,
            });
        }
    }

    /// Raw and ICMP sockets that [`read`](Self::read) has found since the last call.
    pub fn take_raw(&mut self) -> Vec<TracedRaw> {
        std::mem::take(&mut self.raw)
    }

    /// Number of sockets that were not reported, because the ring buffer was full or their process unknown.
    pub fn lost(&self) -> u64 {
        self.lost.get(&0, 0).unwrap_or(0) + self.unknown
    }

    fn describe(&mut self, key: ProcessKey, mut process: Process) {
        // Where the unified hierarchy names no container, another one may.
        if process.container.is_none()
            && process.unit.is_none()
            && let Some(now) = self.read_process(key.pid)
            && now.start_ticks == process.start_ticks
        {
            (process.container, process.pod, process.unit) = (now.container, now.pod, now.unit);
            process.place_unknown = now.place_unknown;
            process.path = process.path.or(now.path);
        }
        self.remember(key, Arc::new(process));
    }

    /// Reads a process, as long as this call may.
    fn read_process(&mut self, pid: u32) -> Option<Process> {
        self.proc_reads += 1;
        (self.proc_reads <= PROC_READS_MAX).then(|| Process::read(&self.proc, pid)).flatten()
    }

    fn remember(&mut self, key: ProcessKey, process: Arc<Process>) {
        if self.processes.insert(key, process).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > PROCESSES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.processes.remove(&oldest);
        }
    }

    /// The process of an event. One whose description was lost is read from `/proc`, if it is still the same.
    fn process(&mut self, key: &ProcessKey) -> Option<Arc<Process>> {
        if let Some(process) = self.processes.get(key) {
            return Some(Arc::clone(process));
        }
        let process = self.read_process(key.pid)?;
        let is_same = process.start_ticks == Some(key.start_ns / TICK_NS);
        let process = is_same.then(|| Arc::new(Process { source: Source::Ebpf, ..process }))?;
        self.remember(*key, Arc::clone(&process));
        Some(process)
    }
}

fn attach(programs: &mut Ebpf, cgroup: &File) -> Result<(), ProgramError> {
    let mode = CgroupAttachMode::Single;
    for (_, program) in programs.programs_mut() {
        if let Ok(program) = <&mut CgroupSockAddr>::try_from(&mut *program) {
            program.load()?;
            program.attach(cgroup, mode)?;
        } else if let Ok(program) = <&mut CgroupSock>::try_from(&mut *program) {
            program.load()?;
            program.attach(cgroup, mode)?;
        } else if let Ok(program) = <&mut SockOps>::try_from(&mut *program) {
            program.load()?;
            program.attach(cgroup, mode)?;
        }
    }
    Ok(())
}

/// Where the cgroup2 hierarchy is mounted.
fn cgroup2(proc: &Path) -> Result<PathBuf, TracerError> {
    let mounts = proc.join("self/mounts");
    let text = std::fs::read_to_string(&mounts).map_err(|error| TracerError::Io(mounts, error))?;
    let mut fields = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = fields.find(|fields| fields.get(2) == Some(&"cgroup2")).and_then(|fields| fields.get(1).copied());
    mount.map(PathBuf::from).ok_or(TracerError::NoCgroup2)
}

/// What the kernel's monotonic clock is behind the time since 1970.
fn realtime_offset_ns() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let ns = |clock| {
        let time = clock_gettime(clock);
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
    };
    ns(ClockId::Realtime).saturating_sub(ns(ClockId::Monotonic))
}
