//! The events that the kernel's side reports (`bpf/sockets.bpf.c`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::container::Cgroup;
use crate::process::{Certainty, Process, Source};
use crate::report::SocketName;
use crate::sockets::Protocol;

/// Clock ticks of `/proc/PID/stat` are hundredths of a second (`USER_HZ`).
pub(crate) const TICK_NS: u64 = 10_000_000;

const PART_BYTES: usize = 96;
const PATH_DEPTH: usize = 20;
const CGROUP_DEPTH: usize = 8;
const AF_INET: u8 = 2;
const PROCESS: u32 = 1;
const OPENED: u32 = 2;
const CLOSED: u32 = 3;

/// A program in execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ProcessKey {
    pub(crate) start_ns: u64,
    pub(crate) exec_id: u64,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
}

/// A `struct socket_event`.
pub(crate) struct SocketEvent {
    pub(crate) socket: SocketName,
    /// The identity of a raw or an ICMP socket.
    pub(crate) raw: Option<u64>,
    /// The number of the IP protocol.
    pub(crate) number: u8,
    pub(crate) is_closed: bool,
    pub(crate) since_ns: u64,
    pub(crate) now_ns: u64,
    pub(crate) namespace: u64,
    pub(crate) process: ProcessKey,
}

impl SocketEvent {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Fields(bytes);
        let kind = reader.u32()?;
        if kind != OPENED && kind != CLOSED {
            return None;
        }
        let [family, protocol] = reader.array()?;
        let (local_port, remote_port) = (reader.u16()?, reader.u16()?);
        let [is_raw, ..] = reader.array::<6>()?;
        let cookie = reader.u64()?;
        let (since_ns, now_ns, namespace) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let process = reader.process_key()?;
        let mut end = |port| -> Option<SocketAddr> {
            let bytes: [u8; 16] = reader.array()?;
            let ip = match family {
                AF_INET => IpAddr::from(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
                _ => IpAddr::from(Ipv6Addr::from(bytes)).to_canonical(),
            };
            Some(SocketAddr::new(ip, port))
        };
        let (mut local, mut remote) = (end(local_port)?, end(remote_port)?);
        // A raw socket has its family alone; a mapped address would hide it.
        if is_raw != 0 && family != AF_INET {
            local.set_ip(Ipv6Addr::UNSPECIFIED.into());
        }
        // A mapped address is of IPv4 at both ends, or else the socket receives from anybody.
        if remote_port == 0 {
            let any = if local.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            remote.set_ip(any);
        }
        let raw = (is_raw != 0).then_some(cookie);
        let number = protocol;
        let protocol = match protocol {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            _ if raw.is_some() => Protocol::Udp,
            _ => return None,
        };
        let socket = SocketName { protocol, local, remote };
        Some(Self { socket, raw, number, is_closed: kind == CLOSED, since_ns, now_ns, namespace, process })
    }
}

/// Reads a `struct process_event`.
pub(crate) fn parse_process(bytes: &[u8]) -> Option<(ProcessKey, Process)> {
    let mut reader = Fields(bytes);
    if reader.u32()? != PROCESS {
        return None;
    }
    let ppid = reader.u32()?;
    let key = reader.process_key()?;
    let name: [u8; 16] = reader.array()?;
    let mut parts = |depth: usize| (0..depth).map(|_| reader.array::<PART_BYTES>()).collect::<Option<Vec<_>>>();
    let (path, cgroup, cgroup_v1) = (parts(PATH_DEPTH)?, parts(CGROUP_DEPTH)?, parts(CGROUP_DEPTH)?);
    let [cgroup, v1] = [cgroup, cgroup_v1].map(|parts| joined(&parts));
    // A hierarchy that the kernel does not have is empty, and a path that was cut is not known.
    let place_unknown = cgroup.is_none() || v1.is_none();
    let [cgroup, v1] = [cgroup, v1].map(|path| path.map(|path| Cgroup::of_path(&path)).unwrap_or_default());
    let cgroup = cgroup.or(v1);
    let process = Process {
        pid: Some(key.pid),
        name: Some(text(&name)),
        path: joined(&path).filter(|path| path.len() > 1),
        uid: key.uid,
        ppid: Some(ppid),
        start_ticks: Some(key.start_ns / TICK_NS),
        container: cgroup.container,
        pod: cgroup.pod,
        unit: cgroup.unit,
        other_namespace: false,
        place_unknown,
        source: Source::Ebpf,
        certainty: Certainty::Socket,
    };
    Some((key, process.cut()))
}

/// A path from its parts, the last one first; `None` if it is cut, because half a path would name another program.
fn joined(parts: &[[u8; PART_BYTES]]) -> Option<String> {
    let is_cut =
        |part: &[u8; PART_BYTES]| part[PART_BYTES - 2] != 0 && part[..PART_BYTES - 1].iter().all(|byte| *byte != 0);
    if parts.iter().any(is_cut) || parts.last().is_some_and(|last| last[0] != 0) {
        return None;
    }
    let names = parts.iter().rev().map(|part| text(part)).filter(|name| !name.is_empty());
    Some(format!("/{}", names.collect::<Vec<_>>().join("/")))
}

/// The text before the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Reads the fields of a structure of the kernel's side.
struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    fn process_key(&mut self) -> Option<ProcessKey> {
        Some(ProcessKey { start_ns: self.u64()?, exec_id: self.u64()?, pid: self.u32()?, uid: self.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str) -> [u8; PART_BYTES] {
        let mut part = [0; PART_BYTES];
        let len = name.len().min(PART_BYTES - 1);
        part[..len].copy_from_slice(&name.as_bytes()[..len]);
        part
    }

    #[test]
    fn a_path_is_joined_from_its_end_and_never_cut() {
        let end = part("");
        assert_eq!(joined(&[part("curl"), part("bin"), end, part("usr"), end]).as_deref(), Some("/usr/bin/curl"));
        assert_eq!(joined(&[end, end]).as_deref(), Some("/"));
        assert_eq!(joined(&[part("curl"), part("bin")]), None, "deeper than what was copied");
        assert_eq!(joined(&[part(&"x".repeat(200)), end]), None, "a name longer than what was copied");
        assert_eq!(joined(&[part(&"x".repeat(94)), end]), Some(format!("/{}", "x".repeat(94))));
    }

    #[test]
    fn an_event_that_is_too_short_is_left_out() {
        assert!(SocketEvent::parse(&[2, 0, 0, 0, 2]).is_none());
        assert!(parse_process(&[1, 0, 0, 0]).is_none());
    }
}
