//! Queries the host: clock synchronization, and the offloads of network cards.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Offloads that merge or split packets, so that captured packets differ from those on the wire (ethtool(8), `-k`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Large receive offload (LRO): the card merges received packets, and their original boundaries are lost.
    pub large_receive: bool,
    /// Generic receive offload (GRO): the kernel merges received packets of a connection before they are captured.
    pub generic_receive: bool,
    /// TCP segmentation offload (TSO): the card splits sent packets after they were captured.
    pub segmentation: bool,
}

// include/uapi/linux/ethtool.h
const ETHTOOL_GTSO: u32 = 0x1e;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETH_FLAG_LRO: u32 = 1 << 15;
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// The state of the kernel's wall clock (adjtimex(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockState {
    /// Whether the kernel considers its clock synchronized.
    pub synchronised: bool,
    /// The last known offset to the reference clock in nanoseconds.
    pub offset_ns: i64,
    /// The estimated error in microseconds, as the synchronizing program states it.
    pub estimated_error_us: i64,
    /// The maximum error in microseconds. It grows while nothing synchronizes the clock.
    pub maximum_error_us: i64,
    /// Seconds between TAI and UTC; 0 if no program has set it.
    pub tai_offset_s: i32,
}

/// Reads the state of the wall clock.
pub fn clock_state() -> io::Result<ClockState> {
    // SAFETY: all-zero bytes are a valid `timex`, which contains numbers only; `modes` 0 sets nothing.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `timex` is valid for writes during the call, and the kernel keeps no pointer to it.
    if unsafe { libc::adjtimex(&raw mut timex) } == -1 {
        return Err(io::Error::last_os_error());
    }
    let is_nanoseconds = timex.status & libc::STA_NANO != 0;
    Ok(ClockState {
        synchronised: timex.status & libc::STA_UNSYNC == 0,
        offset_ns: if is_nanoseconds { timex.offset } else { timex.offset.saturating_mul(1000) },
        estimated_error_us: timex.esterror,
        maximum_error_us: timex.maxerror,
        tai_offset_s: timex.tai,
    })
}

/// Whether the kernel considers its clock synchronized.
pub fn clock_is_synchronised() -> io::Result<bool> {
    clock_state().map(|clock| clock.synchronised)
}

/// The offloads that are active on interface `name`. An interface that does not support the query counts as having
/// none.
pub fn offloads(name: &str) -> io::Result<Offloads> {
    // SAFETY: the arguments are plain numbers; the result is checked before it is used.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just created and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let flags = ask(&socket, name, ETHTOOL_GFLAGS)?;
    Ok(Offloads {
        large_receive: flags & ETH_FLAG_LRO != 0,
        generic_receive: ask(&socket, name, ETHTOOL_GGRO)? != 0,
        segmentation: ask(&socket, name, ETHTOOL_GTSO)? != 0,
    })
}

/// Maps and unmaps an executable page, as an exploited program would try. For tests of the sandbox that forbids it.
pub fn map_code() -> io::Result<()> {
    const BYTES: usize = 4096;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the kernel chooses the address, so no existing mapping is affected.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page was mapped above with this length, and nothing else refers to it.
    match unsafe { libc::munmap(page, BYTES) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct ethtool_value`
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

fn ask(socket: &OwnedFd, name: &str, command: u32) -> io::Result<u32> {
    // SAFETY: all-zero bytes are a valid `ifreq`: characters, and a union of numbers and a pointer that may be null.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero, as the kernel expects a terminated string.
    if name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let mut value = EthtoolValue { command, data: 0 };
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: `request` holds a zero-terminated name and a pointer to `value`. Both live through the call. The kernel
    // writes only the `data` of `value`, as these commands take a `struct ethtool_value`.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) } {
        -1 => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(0),
            error => Err(error),
        },
        _ => Ok(value.data),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no such system calls")]
    fn the_loopback_interface_receives_nothing_merged_by_a_card() {
        assert!(!offloads("lo").unwrap().large_receive);
        assert_eq!(offloads("no-such-if0").unwrap_err().raw_os_error(), Some(libc::ENODEV));
        for name in ["sixteen-letters-", "lo\0", &"x".repeat(200)] {
            assert_eq!(offloads(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no such system calls")]
    fn the_clock_says_whether_it_is_synchronised() {
        clock_is_synchronised().unwrap();
    }
}
