//! The ring into which the kernel writes packets.
//!
//! ```text
//!            kernel fills in order ─►
//!   ┌────────┬────────┬────────┬────────┐   a block belongs to the kernel (status 0) or to us (TP_STATUS_USER);
//!   │ block  │ block  │ block  │ block  │   the kernel hands it over when it is full or after `retire_ms`;
//!   └────────┴────────┴────────┴────────┘   dropping its `Block` returns it
//!            we read in order ─►
//! ```
//!
//! Invariants: a block is read only between an acquire load that finds it ours and the release store that returns it,
//! and at most one [`Block`] of a ring exists.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::frame::{BLOCK_STATUS, Frames};
use crate::memory::page_size;
use crate::socket_filter::{CaptureFilter, SockFilter};

/// Frame size, which the kernel requires but does not use with TPACKET_V3.
const FRAME_BYTES: u32 = 2048;

/// Parameters of a [`Ring`].
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Bytes per block: a power of two, at least a page. The kernel truncates a frame that is larger than a block minus
    /// about 116 bytes. Default 256 KiB, which holds the largest packet that Wireshark reads.
    pub block_size: u32,
    /// Number of blocks, at least 2. Default 32, which makes 8 MiB.
    pub block_count: u32,
    /// Milliseconds after which the kernel hands over a block that has packets but is not full. Default 50.
    pub retire_ms: u32,
    /// Fanout group of rings that share the packets, by a hash that is the same for both directions of a session.
    pub fanout: Option<u16>,
    /// Whether to lock the mapping. A refused lock is no error. Default yes.
    pub lock: bool,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self { block_size: 256 << 10, block_count: 32, retire_ms: 50, fanout: None, lock: true }
    }
}

/// Why a ring cannot be opened.
#[derive(Debug)]
pub struct OpenError {
    /// The step that failed, as an infinitive.
    pub step: &'static str,
    /// The error from the kernel.
    pub source: io::Error,
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}: {}", self.step, self.source)
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The kernel's counts for a ring since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Packets put into the ring.
    pub received: u64,
    /// Packets that passed the filter but found no room; not in `received`.
    pub dropped: u64,
    /// How often the kernel found that no block was free.
    pub freezes: u64,
}

/// A TPACKET_V3 receive ring of a raw packet socket for all interfaces of the network namespace in which it was opened.
///
/// It may move between threads, but only one thread at a time may use it.
#[derive(Debug)]
pub struct Ring {
    map: RingMapping,
    socket: OwnedFd,
    block_size: usize,
    block_count: usize,
    /// Index of the block that the kernel hands over next.
    next: usize,
    locked: bool,
    totals: Cell<RingStats>,
}

impl Ring {
    /// Opens the socket and its ring. No packet arrives before [`set_socket_filter`](Self::set_socket_filter).
    ///
    /// Needs `CAP_NET_RAW`; the other methods do not.
    pub fn open(config: &RingConfig) -> Result<Self, OpenError> {
        let (block_size, block_count) = (config.block_size as usize, config.block_count as usize);
        let length = block_size.checked_mul(block_count).filter(|length| isize::try_from(*length).is_ok());
        let frames = (config.block_size / FRAME_BYTES).checked_mul(config.block_count);
        let (Some(length), Some(frames)) = (length, frames) else {
            return Err(invalid("cut a ring of more blocks than memory can have"));
        };
        if !config.block_size.is_power_of_two() || block_size < page_size() || config.block_count < 2 {
            return Err(invalid(
                "cut a ring into less than 2 blocks or blocks that are no power of two of whole pages",
            ));
        }

        // With protocol 0 the socket receives nothing, so no packet precedes the filter or bypasses the ring.
        let socket = packet_socket().map_err(at("open a packet socket"))?;
        let version = libc::tpacket_versions::TPACKET_V3 as libc::c_int;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_VERSION, &version).map_err(at("ask for TPACKET_V3"))?;
        attach(&socket, &CaptureFilter::NOTHING).map_err(at("attach a socket filter"))?;
        let request = libc::tpacket_req3 {
            tp_block_size: config.block_size,
            tp_block_nr: config.block_count,
            tp_frame_size: FRAME_BYTES,
            tp_frame_nr: frames,
            tp_retire_blk_tov: config.retire_ms,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request).map_err(at("get memory for a ring"))?;
        let (map, locked) = RingMapping::new(&socket, length, config.lock).map_err(at("map a ring"))?;
        bind_to_all(&socket).map_err(at("bind a packet socket"))?;
        if let Some(group) = config.fanout {
            let argument = u32::from(group) | (libc::PACKET_FANOUT_HASH << 16);
            set_option(&socket, libc::SOL_PACKET, libc::PACKET_FANOUT, &argument).map_err(at("join a fanout group"))?;
        }
        Ok(Self { map, socket, block_size, block_count, next: 0, locked, totals: Cell::default() })
    }

    /// Bytes of the mapping, all of which are resident.
    pub fn mapped_bytes(&self) -> usize {
        self.map.length
    }

    /// Whether the mapping counts as locked memory. The kernel never swaps a ring in any case.
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// Replaces the filter that decides which packets arrive from now on.
    ///
    /// Needs no privileges. The kernel refuses programs that are malformed or longer than 4096 instructions.
    pub fn set_socket_filter(&self, program: &[SockFilter]) -> io::Result<()> {
        attach(&self.socket, program)
    }

    /// Switches promiscuous mode of an interface on or off. Dropping the ring also switches it off.
    ///
    /// The kernel counts requests: each `true` needs one `false`. Needs no privileges.
    pub fn set_promiscuous(&self, ifindex: u32, on: bool) -> io::Result<()> {
        let request = libc::packet_mreq {
            mr_ifindex: i32::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?,
            // PACKET_MR_PROMISC
            mr_type: 1,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        let option = if on { libc::PACKET_ADD_MEMBERSHIP } else { libc::PACKET_DROP_MEMBERSHIP };
        set_option(&self.socket, libc::SOL_PACKET, option, &request)
    }

    /// Waits until a block is available or the time is up. Returns whether a block is available.
    ///
    /// A signal, or an error that the kernel reports for an interface, ends the wait early and is no error here.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: `poll` is one valid `pollfd` that outlives the call, and the count is one.
        match unsafe { libc::poll(&raw mut poll, 1, timeout_ms) } {
            0 => return Ok(false),
            1.. => {}
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
                error => return Err(error),
            },
        }
        if poll.revents & libc::POLLNVAL != 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        if poll.revents & libc::POLLERR != 0 {
            // Read the pending error (an interface went down) to clear it; otherwise each wait would end at once.
            let [_] = option(&self.socket, libc::SOL_SOCKET, libc::SO_ERROR)?;
        }
        Ok(poll.revents & libc::POLLIN != 0)
    }

    /// Whether the kernel has handed over a block that has not been read.
    #[inline]
    pub fn has_block(&self) -> bool {
        self.status(self.next).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// The next block that the kernel has handed over, if there is one.
    pub fn next_block(&mut self) -> Option<Block<'_>> {
        let status = self.status(self.next).load(Ordering::Acquire);
        (status & libc::TP_STATUS_USER != 0).then(|| Block { status, ring: self })
    }

    /// Counts since the ring was opened. The kernel resets its counts at each reading, so they are added up here.
    pub fn statistics(&self) -> io::Result<RingStats> {
        // struct tpacket_stats_v3
        let [packets, drops, freezes] = option(&self.socket, libc::SOL_PACKET, libc::PACKET_STATISTICS)?;
        let mut totals = self.totals.get();
        // The kernel's packets include its drops.
        totals.received += u64::from(packets.saturating_sub(drops));
        totals.dropped += u64::from(drops);
        totals.freezes += u64::from(freezes);
        self.totals.set(totals);
        Ok(totals)
    }

    fn block_start(&self, block: usize) -> NonNull<u8> {
        assert!(block < self.block_count);
        // SAFETY: the mapping is `block_size * block_count` bytes long and `block < block_count`, so the offset stays
        // inside it and cannot overflow (`open` checks that the length fits an `isize`).
        unsafe { self.map.start.add(block * self.block_size) }
    }

    fn status(&self, block: usize) -> &AtomicU32 {
        // SAFETY: the status word is at byte 8 of a block, which is page-aligned and at least a page long, so the word
        // is inside the mapping and aligned. It is valid as long as the mapping, which `self` owns. Kernel and process
        // both access it as one aligned word; while a block belongs to the kernel, this process accesses it only
        // through atomics.
        unsafe { self.block_start(block).add(BLOCK_STATUS).cast::<AtomicU32>().as_ref() }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A block that this process may read. Dropping it returns it to the kernel.
#[derive(Debug)]
pub struct Block<'a> {
    status: u32,
    ring: &'a mut Ring,
}

impl Block<'_> {
    /// The frames of the block, in order of arrival.
    #[inline]
    pub fn frames(&self) -> Frames<'_> {
        let start = self.ring.block_start(self.ring.next);
        // SAFETY: the block is `block_size` bytes inside the mapping (see `block_start`). While this `Block` lives, the
        // block is ours: an acquire load found it so, and only `drop` returns it, so the kernel, which writes only to
        // its own blocks, does not write to it. The slice cannot outlive `&self`, and therefore not the block. No
        // `&mut` to the mapping is ever made. Leaking the `Block` leaves the block ours, and the ring stays at this
        // block.
        let bytes = unsafe { std::slice::from_raw_parts(start.as_ptr(), self.ring.block_size) };
        Frames::new(bytes)
    }

    /// Whether the kernel had lost packets since the last reading of the statistics when it closed this block.
    pub fn losing(&self) -> bool {
        self.status & libc::TP_STATUS_LOSING != 0
    }

    /// The counts of the block's ring; see [`Ring::statistics`].
    pub fn statistics(&self) -> io::Result<RingStats> {
        self.ring.statistics()
    }

    /// Whether the kernel handed the block over after `retire_ms`, not because it was full.
    pub fn timed_out(&self) -> bool {
        self.status & libc::TP_STATUS_BLK_TMO != 0
    }
}

impl AsFd for Block<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        self.ring.status(self.ring.next).store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.ring.next = (self.ring.next + 1) % self.ring.block_count;
    }
}

/// This process's mapping of the ring.
#[derive(Debug)]
struct RingMapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and this is its only owner. Its contents are reachable
// only through `Ring`, which is not `Sync`.
unsafe impl Send for RingMapping {}

impl RingMapping {
    /// Maps the ring, and returns whether the mapping is locked.
    fn new(socket: &OwnedFd, length: usize, lock: bool) -> io::Result<(Self, bool)> {
        let map = |flags| {
            // SAFETY: a new mapping at an address that the kernel chooses affects no existing memory. `socket` is a
            // packet socket with a ring of `length` bytes; otherwise the kernel refuses.
            let start = unsafe {
                let protection = libc::PROT_READ | libc::PROT_WRITE;
                libc::mmap(std::ptr::null_mut(), length, protection, flags, socket.as_raw_fd(), 0)
            };
            if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(start) }
        };
        let (start, locked) = match map(libc::MAP_SHARED | if lock { libc::MAP_LOCKED } else { 0 }) {
            Ok(start) => (start, lock),
            // EAGAIN or EPERM: the ring exceeds RLIMIT_MEMLOCK.
            Err(_) if lock => (map(libc::MAP_SHARED)?, false),
            Err(error) => return Err(error),
        };
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let map = Self { start, length };
        // SAFETY: the range is exactly the mapping made above; the advice only keeps it out of core dumps.
        if unsafe { libc::madvise(start.as_ptr().cast(), length, libc::MADV_DONTDUMP) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((map, locked))
    }
}

impl Drop for RingMapping {
    fn drop(&mut self) {
        // SAFETY: the range is exactly the mapping made in `new`, and is unmapped once. The ring that hands out
        // references into it is being dropped, so none is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

fn at(step: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError { step, source }
}

fn invalid(step: &'static str) -> OpenError {
    OpenError { step, source: io::ErrorKind::InvalidInput.into() }
}

/// Opens a packet socket that receives nothing yet.
fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: `socket` takes only plain numbers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just created this descriptor, and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets the socket receive every protocol of every interface.
fn bind_to_all(socket: &OwnedFd) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: 17,             // AF_PACKET
        sll_protocol: 3u16.to_be(), // ETH_P_ALL
        sll_ifindex: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the pointer refers to a whole `sockaddr_ll` that outlives the call, and the length is its size.
    match unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length_of::<libc::sockaddr_ll>()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn attach(socket: &OwnedFd, program: &[SockFilter]) -> io::Result<()> {
    let mut program: Vec<libc::sock_filter> = program
        .iter()
        .map(|step| libc::sock_filter { code: step.code, jt: step.jump_true, jf: step.jump_false, k: step.k })
        .collect();
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // The kernel copies the program during the call.
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Sets a socket option. `T` must be the kernel's type for this option, and pointers in it must be valid during the
/// call.
fn set_option<T>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes from `value`, a valid reference. The only `T` with a pointer
    // inside is `sock_fprog` of `attach`, whose vector outlives the call and has the given length.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length_of::<T>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads a socket option of `N` 32-bit words.
fn option<const N: usize>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int) -> io::Result<[u32; N]> {
    let mut value = [0; N];
    let mut length = length_of::<[u32; N]>();
    // SAFETY: the kernel writes at most `length` bytes, the size of `value`; any bytes are valid words. Both references
    // outlive the call.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

const fn length_of<T>() -> libc::socklen_t {
    assert!(size_of::<T>() <= 256);
    #[allow(clippy::cast_possible_truncation, reason = "at most 256, as asserted")]
    {
        size_of::<T>() as libc::socklen_t
    }
}
