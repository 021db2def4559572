//! Live capture: one kernel ring for all interfaces, as a [`Source`].
//!
//! Invariants: every packet in the ring is handed to the caller once, or counted as `unselected` or `refused`. Packets
//! for which the ring had no room are counted as `kernel_dropped` (see [`SourceCounts`]). A packet causes no allocation
//! unless its interface is new.
//!
//! Of the two copies of a loopback packet, the received one is kept. Its direction is [`Direction::In`], as with
//! libpcap.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sys::{CaptureFilter, Frame, Ring, RingConfig, SockFilter};

use super::link_layer::{Framing, HEADER_BYTES_MAX, Scratch, framing, packet_bytes};
use super::selection::InterfaceSelection;
use base::interface::Interfaces;
use base::log_limit::LogLimit;
use base::packet::{Direction, InterfaceId, LinkType, Packet, PacketFlags};
use base::source::{BURST_PACKETS, Burst};
use base::source::{Batch, Source, SourceCounts, SourceError};
use base::time::Timestamp;

/// The maximum time that [`Source::bursts`] waits for packets: five wake-ups per second on an idle host.
const WAIT: Duration = Duration::from_millis(200);
/// The time in milliseconds after which the kernel hands over a block that is not full, and so the maximum delay of a
/// single packet.
const RETIRE_MS: u32 = 50;
/// After this time, a frame that was stamped before the start of a group of sources has been delivered.
const SETTLED: Duration = Duration::from_secs(1);
/// The maximum number of interfaces that one source caches. A full cache is cleared.
const DISPOSITIONS_MAX: usize = 8192;
/// The value of `View::last` before the first packet. No interface has this index.
const NO_INTERFACE: ((u32, u16), Disposition) = ((u32::MAX, u16::MAX), Disposition::Unselected);
/// `PACKET_OUTGOING`
const OUTGOING: u8 = 4;

/// The configuration of a live capture.
#[derive(Clone, Copy, Debug)]
pub struct LiveConfig {
    /// The maximum number of captured bytes per packet; 0 captures all. A reinserted VLAN tag is added to it. Default
    /// 0.
    pub snaplen: u32,
    /// Whether the recorded interfaces also capture packets to other hosts. Default no.
    pub promiscuous: bool,
    /// The size of a ring block in bytes: a power of two, at least a page. Larger packets are truncated. Default 256
    /// KiB.
    pub block_size: u32,
    /// The number of ring blocks, at least 2. Default 32.
    pub block_count: u32,
    /// The fanout group of sources that share the packets, so that both directions of a session reach the same source.
    pub fanout: Option<u16>,
}

impl Default for LiveConfig {
    fn default() -> Self {
        let ring = RingConfig::default();
        Self {
            snaplen: 0,
            promiscuous: false,
            block_size: ring.block_size,
            block_count: ring.block_count,
            fanout: None,
        }
    }
}

/// Checks that this process may open a packet socket.
///
/// # Errors
///
/// [`SourceError::Io`], with advice if a capability is missing.
pub fn capture_rights() -> Result<(), SourceError> {
    let config = RingConfig { block_size: 64 << 10, block_count: 2, lock: false, ..RingConfig::default() };
    Ring::open(&config).map(|_| ()).map_err(refusal)
}

fn refusal(error: sys::OpenError) -> SourceError {
    let context = match error.source.kind() {
        io::ErrorKind::PermissionDenied => {
            let path = std::env::current_exe().map_or_else(|_| "retrocap".into(), |path| path.display().to_string());
            format!(
                "cannot {}: needs CAP_NET_RAW: run with sudo, or `sudo setcap cap_net_raw,cap_ipc_lock+ep {path}`",
                error.step
            )
        }
        _ => format!("cannot {}", error.step),
    };
    SourceError::Io { context, source: error.source }
}

/// A source of packets from this host's interfaces.
#[derive(Debug)]
pub struct LiveSource {
    ring: Ring,
    view: View,
    /// Buffer for the packets of a burst whose bytes differ from those in the ring.
    scratch: Box<[u8]>,
    /// The number of kernel drops already reported with a packet.
    drops_reported: u64,
}

/// The state of a source, apart from the ring.
#[derive(Debug)]
struct View {
    selection: Arc<InterfaceSelection>,
    interfaces: Arc<Interfaces>,
    snaplen: u32,
    promiscuous: bool,
    /// The generation of the selection that the fields below belong to.
    generation: u64,
    dispositions: HashMap<(u32, u16), Disposition, foldhash::fast::RandomState>,
    last: ((u32, u16), Disposition),
    /// The attached socket filter.
    program: Vec<SockFilter>,
    /// Interfaces on which promiscuous mode was requested.
    joined: BTreeSet<u32>,
    counts: SourceCounts,
    /// Set until no packet from before the start of all sources of the group can arrive any more.
    starting: Option<GroupStart>,
}

/// The start of a group of sources, whose packets from before are left out.
#[derive(Clone, Copy, Debug)]
struct GroupStart {
    start: Timestamp,
    /// The same moment by a clock that is never set.
    since: Instant,
    /// Blocks that may still hold packets from before the start. It bounds what a clock that is set back can hide.
    blocks: u32,
}

impl GroupStart {
    /// Returns the state after the ring hands over a block whose first frame arrived at `first`.
    ///
    /// The first frame from after the start does not end it: a busy processor delivers frames that it stamped before
    /// the start later than another processor its own.
    fn after_block(self, first: Timestamp) -> Option<Self> {
        let blocks = self.blocks.checked_sub(1)?;
        let settled = Duration::from_nanos(first.0.saturating_sub(self.start.0)) >= SETTLED;
        (!settled).then_some(Self { blocks, ..self })
    }
}

/// The treatment of packets of one interface and `ARPHRD_*` type.
#[derive(Clone, Copy, Debug)]
enum Disposition {
    Recorded { id: InterfaceId, link_type: LinkType, framing: Framing },
    Unselected,
    NoSlot,
}

impl LiveSource {
    /// Opens a ring in the calling thread's network namespace and starts to capture the interfaces of `selection`.
    ///
    /// This needs `CAP_NET_RAW`. The capability can be dropped afterwards, because new interfaces and changes of the
    /// selection do not need it.
    ///
    /// # Errors
    ///
    /// [`SourceError::Io`] when the ring cannot be opened or the filter cannot be attached.
    pub fn open(
        config: &LiveConfig,
        selection: Arc<InterfaceSelection>,
        interfaces: Arc<Interfaces>,
    ) -> Result<Self, SourceError> {
        let mut source = Self::prepare(config, selection, interfaces)?;
        source.view.follow_selection(&source.ring)?;
        Ok(source)
    }

    /// Opens `count` sources that share the packets in the fanout group of `config`. They start to capture together.
    ///
    /// A filter can be attached to one ring at a time. Between the first and the last, the kernel gives packets to rings
    /// whose filter still rejects them, and counts them nowhere. Packets from before the last filter are therefore left
    /// out by all sources, so that from the first packet on, none is missing.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_group(
        count: usize,
        config: &LiveConfig,
        selection: &Arc<InterfaceSelection>,
        interfaces: &Arc<Interfaces>,
    ) -> Result<Vec<Self>, SourceError> {
        let open = || Self::prepare(config, Arc::clone(selection), Arc::clone(interfaces));
        let mut sources = (0..count).map(|_| open()).collect::<Result<Vec<_>, _>>()?;
        for source in &mut sources {
            source.view.follow_selection(&source.ring)?;
        }
        let starting =
            GroupStart { start: SystemTime::now().into(), since: Instant::now(), blocks: config.block_count };
        if count > 1 {
            sources.iter_mut().for_each(|source| source.view.starting = Some(starting));
        }
        Ok(sources)
    }

    /// Opens a ring whose filter rejects all packets.
    fn prepare(
        config: &LiveConfig,
        selection: Arc<InterfaceSelection>,
        interfaces: Arc<Interfaces>,
    ) -> Result<Self, SourceError> {
        let ring = Ring::open(&RingConfig {
            block_size: config.block_size,
            block_count: config.block_count,
            retire_ms: RETIRE_MS,
            fanout: config.fanout,
            lock: true,
        })
        .map_err(refusal)?;
        let view = View {
            selection,
            interfaces,
            snaplen: config.snaplen,
            promiscuous: config.promiscuous,
            generation: 0,
            dispositions: HashMap::default(),
            last: NO_INTERFACE,
            program: Vec::new(),
            joined: BTreeSet::new(),
            counts: SourceCounts::default(),
            starting: None,
        };
        // All frames of a burst lie in one block.
        let scratch = vec![0; config.block_size as usize + BURST_PACKETS * HEADER_BYTES_MAX].into();
        Ok(Self { ring, view, scratch, drops_reported: 0 })
    }

    /// Returns the size of the ring in bytes. The ring is resident from the start.
    pub fn ring_bytes(&self) -> usize {
        self.ring.mapped_bytes()
    }

    /// Returns whether the ring is locked in RAM. The kernel does not swap it in either case.
    pub fn ring_is_locked(&self) -> bool {
        self.ring.is_locked()
    }
}

impl Source for LiveSource {
    /// Hands over one block of the ring.
    fn bursts(&mut self, each: &mut impl FnMut(&[Packet<'_>])) -> Result<Batch, SourceError> {
        self.view.follow_selection(&self.ring)?;
        if !self.ring.has_block() {
            // The ring is empty, so all drops so far precede the next packet. Reading the statistics here makes the
            // count exact whenever the source is idle.
            self.view.counts.kernel_dropped =
                self.ring.statistics().map_err(io_error("read the ring's statistics"))?.dropped;
            let waited = self.ring.wait(WAIT).map_err(io_error("wait for packets"))?;
            if !waited && self.view.starting.is_some_and(|starting| starting.since.elapsed() > SETTLED) {
                // The kernel has handed over every block with packets from before the start.
                self.view.starting = None;
            }
        }
        let Some(block) = self.ring.next_block() else { return Ok(Batch::Idle) };
        if let Some(starting) = self.view.starting {
            let first = block.frames().next().map_or(starting.start, |frame| Timestamp(frame.time_ns));
            self.view.starting = starting.after_block(first);
        }
        if block.losing() {
            self.view.counts.kernel_dropped =
                block.statistics().map_err(io_error("read the ring's statistics"))?.dropped;
        }
        let mut frames = block.frames().peekable();
        while frames.peek().is_some() {
            let mut burst = Burst::empty();
            let mut scratch = Scratch::new(&mut self.scratch);
            for frame in frames.by_ref() {
                let drops = self.view.counts.kernel_dropped - self.drops_reported;
                let drops_before = u32::try_from(drops).unwrap_or(u32::MAX);
                if let Some(packet) = self.view.packet(&frame, drops_before, block.as_fd(), &mut scratch) {
                    self.drops_reported += u64::from(drops_before);
                    if burst.is_full_with(packet) {
                        break;
                    }
                }
            }
            burst.hand_over(each);
        }
        Ok(Batch::More)
    }

    /// Returns whether a block is waiting.
    fn is_behind(&self) -> bool {
        self.ring.has_block()
    }

    /// `kernel_dropped` is exact when the last batch was [`Batch::Idle`]. Otherwise it lacks the drops during at most
    /// one turn of the ring.
    fn counts(&self) -> SourceCounts {
        self.view.counts
    }
}

impl View {
    /// Applies a changed selection: socket filter, promiscuous mode, and cached interfaces.
    #[inline]
    fn follow_selection(&mut self, ring: &Ring) -> Result<(), SourceError> {
        let generation = self.selection.generation();
        if generation == self.generation {
            return Ok(());
        }
        // The generation is read before the links, so that a change in between causes another update.
        self.generation = generation;
        self.dispositions.clear();
        self.last = NO_INTERFACE;
        let links = self.selection.links();
        let indexes: Vec<u32> = links.iter().map(|link| link.index).collect();
        let ifindexes = (!self.selection.is_everything()).then_some(&*indexes);
        let program = CaptureFilter { ifindexes, snaplen: self.snaplen }.program();
        // A filter for this many interfaces is too long for the kernel. Capture all interfaces, and let `resolve`
        // select.
        let program = program.or_else(|_| CaptureFilter { ifindexes: None, snaplen: self.snaplen }.program());
        let program = program.unwrap_or_default();
        if program != self.program {
            ring.set_socket_filter(&program).map_err(io_error("attach a socket filter"))?;
            self.program = program;
        }
        if self.promiscuous {
            let wanted = links.iter().filter(|link| !link.loopback).map(|link| link.index).collect();
            self.be_promiscuous(ring, wanted);
        }
        Ok(())
    }

    fn be_promiscuous(&mut self, ring: &Ring, wanted: BTreeSet<u32>) {
        for index in self.joined.difference(&wanted) {
            // The interface may be gone, and the kernel's membership with it.
            let _ = ring.set_promiscuous(*index, false);
        }
        for index in wanted.difference(&self.joined) {
            static LIMIT: LogLimit = LogLimit::new();
            if let Err(error) = ring.set_promiscuous(*index, true)
                && let Some(left_out) = LIMIT.admit()
            {
                tracing::warn!("interface {index} cannot be made promiscuous: {error}{left_out}");
            }
        }
        self.joined = wanted;
    }

    /// Converts a frame to a packet. Returns `None` and counts the frame if it is not recorded.
    #[inline]
    fn packet<'a>(
        &mut self,
        frame: &Frame<'a>,
        drops_before: u32,
        socket: BorrowedFd<'_>,
        scratch: &mut Scratch<'a>,
    ) -> Option<Packet<'a>> {
        if self.starting.is_some_and(|starting| Timestamp(frame.time_ns) < starting.start) {
            self.counts.unselected.add(frame.data.len() as u64);
            return None;
        }
        let key = (frame.ifindex, frame.hatype);
        if self.last.0 != key {
            self.last = (key, self.lookup(key, socket));
        }
        let (id, link_type, framing) = match self.last.1 {
            Disposition::Recorded { id, link_type, framing } => (id, link_type, framing),
            Disposition::Unselected => {
                self.counts.unselected.add(frame.data.len() as u64);
                return None;
            }
            Disposition::NoSlot => {
                self.counts.refused.add(frame.data.len() as u64);
                return None;
            }
        };
        self.counts.truncated += u64::from(self.snaplen == 0 && frame.data.len() < frame.original_len as usize);
        let (data, original_len) = packet_bytes(frame, framing, scratch);
        Some(Packet {
            time: Timestamp(frame.time_ns),
            interface: id,
            link_type,
            direction: if frame.packet_type == OUTGOING { Direction::Out } else { Direction::In },
            flags: PacketFlags {
                checksum_not_ready: frame.checksum_not_ready,
                segmentation_offload: frame.segmentation_offload,
            },
            original_len,
            drops_before,
            data,
        })
    }

    #[cold]
    fn lookup(&mut self, key: (u32, u16), socket: BorrowedFd<'_>) -> Disposition {
        if let Some(known) = self.dispositions.get(&key) {
            return *known;
        }
        if self.dispositions.len() >= DISPOSITIONS_MAX {
            self.dispositions.clear();
        }
        let known = self.resolve(key, socket);
        self.dispositions.insert(key, known);
        known
    }

    fn resolve(&self, (ifindex, hatype): (u32, u16), socket: BorrowedFd<'_>) -> Disposition {
        if !self.selection.contains(ifindex) {
            return Disposition::Unselected;
        }
        // The kernel knows a new name first. The selection still knows the last name of a removed interface.
        let name = rustix::net::netdevice::index_to_name(socket, ifindex).ok();
        let name = name.or_else(|| self.selection.name(ifindex)).unwrap_or_else(|| format!("if{ifindex}"));
        match self.selection.register(&self.interfaces, ifindex, &name, hatype) {
            None => Disposition::NoSlot,
            Some((id, link_type)) => {
                let framing = if link_type == LinkType::LINUX_SLL2 { Framing::Cooked } else { framing(hatype) };
                Disposition::Recorded { id, link_type, framing }
            }
        }
    }
}

fn io_error(context: &'static str) -> impl FnOnce(io::Error) -> SourceError {
    move |source| SourceError::Io { context: format!("cannot {context}"), source }
}
