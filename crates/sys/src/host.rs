//! What a recorder's host is like: its clock, and what its network cards do to packets before anybody sees them.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// What of packets is put together or taken apart outside the kernel's sight (ethtool(8), `-k`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// The card merges received packets, and what they were is lost.
    pub large_receive: bool,
    /// The kernel merges received packets of a connection before they are seen.
    pub generic_receive: bool,
    /// Sent packets are cut by the card, after they were seen.
    pub segmentation: bool,
}

// include/uapi/linux/ethtool.h
const ETHTOOL_GTSO: u32 = 0x1e;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETH_FLAG_LRO: u32 = 1 << 15;
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// Whether the kernel takes its clock for synchronised with another (adjtimex(2)).
pub fn clock_is_synchronised() -> io::Result<bool> {
    // SAFETY: all-zero bytes are a `timex`, which is numbers alone; with `modes` 0 nothing is set.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `timex` is valid for writes during the call, and the kernel keeps no pointer to it.
    match unsafe { libc::adjtimex(&raw mut timex) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(timex.status & libc::STA_UNSYNC == 0),
    }
}

/// What is offloaded on the interface `name`; an interface that cannot say has nothing offloaded.
pub fn offloads(name: &str) -> io::Result<Offloads> {
    // SAFETY: plain numbers; the result is checked before it is used.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made, and that nobody else has.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let flags = ask(&socket, name, ETHTOOL_GFLAGS)?;
    Ok(Offloads {
        large_receive: flags & ETH_FLAG_LRO != 0,
        generic_receive: ask(&socket, name, ETHTOOL_GGRO)? != 0,
        segmentation: ask(&socket, name, ETHTOOL_GTSO)? != 0,
    })
}

/// Maps a page of memory that could be run, and lets go of it: what a program that was taken over would try. For tests
/// of what forbids it.
pub fn map_code() -> io::Result<()> {
    const BYTES: usize = 4096;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the kernel chooses the address, so no mapping that is in use is touched.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was mapped above with this length, and nobody else knows of it.
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
    // SAFETY: all-zero bytes are an `ifreq`: characters and a union of numbers and a pointer that may be null.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    if name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let mut value = EthtoolValue { command, data: 0 };
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: `request` is a zero-terminated name and a pointer to `value`; both live through the call, and the kernel
    // writes the `data` of `value` at most, as these commands are asked with `struct ethtool_value`.
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
