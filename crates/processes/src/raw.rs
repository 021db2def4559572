//! Raw and ICMP sockets, which have no ports: `/proc/net/raw`, `/proc/net/icmp` and those of IPv6 (proc(5)).
//!
//! A session of such a protocol is named only if a single program had a socket of the protocol while it lasted, because any
//! of them could have sent its packets. While the table lacks a socket that was forgotten or whose opening was lost, it names
//! nobody.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use crate::lifetime::SessionLifetime;
use crate::owners::{self, one_program};
use crate::process::{Certainty, Process};
use crate::report::Report;
use crate::tracer::TracedRaw;

/// Sockets of this protocol send packets of any protocol.
const IPPROTO_RAW: u8 = 255;
/// Maximum number of stored sightings.
const SIGHTINGS_MAX: usize = 4096;
/// Maximum number of sightings that one lookup examines.
const EXAMINED_MAX: usize = 1024;
/// Maximum number of sockets that a scan remembers.
const KNOWN_MAX: usize = 4096;
/// Size of a sighting without its process, in bytes.
const SIGHTING_BYTES: usize = 128;
/// Size of a socket that was forgotten while it was open, in bytes.
const FORGOTTEN_BYTES: usize = 32;
/// These take this part of the bytes, at most.
const FORGOTTEN_DIVISOR: usize = 4;

/// A raw or an ICMP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawSocket {
    /// The number of its IP protocol.
    pub protocol: u8,
    /// Whether it is of IPv6.
    pub is_v6: bool,
    /// The user that created it.
    pub uid: u32,
    /// Its inode.
    pub inode: u32,
}

/// The raw and ICMP sockets of this network namespace.
pub fn sockets(proc: &Path) -> Vec<RawSocket> {
    let files = [("raw", false, None), ("raw6", true, None), ("icmp", false, Some(1)), ("icmp6", true, Some(58))];
    let read = |(name, is_v6, protocol): (&str, bool, Option<u8>)| {
        let text = std::fs::read_to_string(proc.join("self/net").join(name)).unwrap_or_default();
        parse(&text, is_v6, protocol)
    };
    files.into_iter().flat_map(read).collect()
}

/// Reads a table of sockets. The local port of a raw socket is its protocol; that of an ICMP socket is an identifier.
fn parse(text: &str, is_v6: bool, protocol: Option<u8>) -> Vec<RawSocket> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, port) = fields.get(1)?.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some(RawSocket {
            protocol: protocol.or_else(|| u8::try_from(port).ok())?,
            is_v6,
            uid: fields.get(7)?.parse().ok()?,
            inode: fields.get(9)?.parse().ok()?,
        })
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// What a scan knows of raw sockets.
#[derive(Debug, Default)]
pub(crate) struct RawWatch {
    known: HashSet<u32>,
}

impl RawWatch {
    /// Scans once, and reports the changes. `last_ns` is the time of the scan before.
    pub(crate) fn look(&mut self, proc: &Path, (last_ns, now_ns): (u64, u64), reports: &mut Vec<Report>) {
        let sockets = sockets(proc);
        self.report_gone(&sockets, last_ns, reports);
        let new: Vec<&RawSocket> =
            sockets.iter().filter(|socket| !self.known.contains(&socket.inode)).take(KNOWN_MAX).collect();
        if !new.is_empty() {
            let holders = owners::find(proc, &new.iter().map(|socket| socket.inode).collect());
            reports.extend(new.into_iter().map(|socket| {
                let held = holders.get(&socket.inode).map_or(&[][..], Vec::as_slice);
                let process = owner(held.iter().filter_map(|pid| Process::read(proc, *pid)).collect(), socket.uid);
                let RawSocket { protocol, is_v6, inode, .. } = *socket;
                Report::RawOpened { time_ns: now_ns, id: inode.into(), protocol, is_v6, process: Box::new(process) }
            }));
        }
        self.known = sockets.iter().map(|socket| socket.inode).take(KNOWN_MAX).collect();
    }

    /// Reports which of the known sockets are closed. The tracer sees the others.
    pub(crate) fn look_at_known(&mut self, proc: &Path, last_ns: u64, reports: &mut Vec<Report>) {
        if !self.known.is_empty() {
            let sockets = sockets(proc);
            self.report_gone(&sockets, last_ns, reports);
            let there: HashSet<u32> = sockets.iter().map(|socket| socket.inode).collect();
            self.known.retain(|inode| there.contains(inode));
        }
    }

    fn report_gone(&self, sockets: &[RawSocket], time_ns: u64, reports: &mut Vec<Report>) {
        let there: HashSet<u32> = sockets.iter().map(|socket| socket.inode).collect();
        reports.extend(self.known.difference(&there).map(|inode| Report::RawClosed { time_ns, id: (*inode).into() }));
    }

    /// Makes the next [`look`](Self::look) report all sockets.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }
}

/// The owner of a raw socket: any of its holders can send through it.
fn owner(holders: Vec<Process>, uid: u32) -> Process {
    one_program(holders, true).unwrap_or_else(|| Process::only_user(uid))
}

/// The report of what the tracer saw. Its identities do not meet those of scans, which are inodes of 32 bits.
pub(crate) fn report(traced: TracedRaw) -> Report {
    let TracedRaw { id, protocol, is_v6, time_ns, is_closed, process } = traced;
    let id = id | 1 << 63;
    match is_closed {
        true => Report::RawClosed { time_ns, id },
        false => Report::RawOpened { time_ns, id, protocol, is_v6, process: Box::new((*process).clone()) },
    }
}

/// A raw or an ICMP socket, and the time during which it was seen.
#[derive(Clone, Debug)]
struct Sighting {
    id: u64,
    protocol: u8,
    is_v6: bool,
    first_ns: u64,
    last_ns: u64,
    process: Arc<Process>,
}

/// Who could have sent the packets of a session without ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawOwner {
    /// Only this process had a socket of the protocol, or only processes of this program.
    Known(Box<Process>),
    /// Several programs had one.
    Several,
    /// A socket may have been open that is not known.
    Incomplete,
    /// No socket of the protocol was seen.
    Nobody,
}

/// The raw and ICMP sockets that were seen, in the order in which they were opened.
#[derive(Debug, Default)]
pub(crate) struct RawSightings {
    seen: VecDeque<Sighting>,
    /// Sockets that were forgotten while they were open, by identity. While there is one, nobody is named.
    forgotten: HashSet<u64>,
    /// Sockets of up to this time may be missing.
    incomplete_until_ns: u64,
    bytes: usize,
}

impl RawSightings {
    /// Notes a socket. Returns how many older ones were forgotten, so that all take at most `bytes_max` bytes.
    pub(crate) fn open(
        &mut self,
        time_ns: u64,
        id: u64,
        (protocol, is_v6): (u8, bool),
        process: Process,
        bytes_max: usize,
    ) -> u64 {
        self.bytes += SIGHTING_BYTES + process.bytes();
        let sighting =
            Sighting { id, protocol, is_v6, first_ns: time_ns, last_ns: u64::MAX, process: Arc::new(process) };
        // Events of several processors can come in another order.
        let earlier = self.seen.iter().rev().take_while(|later| later.first_ns > time_ns).count();
        self.seen.insert(self.seen.len() - earlier, sighting);
        let mut forgotten = 0;
        while (self.bytes() > bytes_max || self.seen.len() > SIGHTINGS_MAX) && self.forget_one(bytes_max) {
            forgotten += 1;
        }
        forgotten
    }

    /// Forgets the oldest socket that is closed, or else the oldest.
    fn forget_one(&mut self, bytes_max: usize) -> bool {
        let closed = self.seen.iter().position(|sighting| sighting.last_ns != u64::MAX);
        let Some(Sighting { id, last_ns, process, .. }) = self.seen.remove(closed.unwrap_or(0)) else { return false };
        self.bytes -= SIGHTING_BYTES + process.bytes();
        if last_ns != u64::MAX {
            self.incomplete_until_ns = self.incomplete_until_ns.max(last_ns);
        } else if (self.forgotten.len() + 1) * FORGOTTEN_BYTES * FORGOTTEN_DIVISOR <= bytes_max {
            self.forgotten.insert(id);
        } else {
            // Until the watcher lists all sockets again.
            self.incomplete_until_ns = u64::MAX;
        }
        true
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.forgotten.len() * FORGOTTEN_BYTES
    }

    pub(crate) fn close(&mut self, time_ns: u64, id: u64) {
        if self.forgotten.remove(&id) {
            self.incomplete_until_ns = self.incomplete_until_ns.max(time_ns);
        } else if let Some(sighting) = self.seen.iter_mut().rev().find(|sighting| sighting.id == id) {
            sighting.last_ns = sighting.last_ns.min(time_ns.max(sighting.first_ns));
        }
    }

    /// Marks all sockets as closed.
    pub(crate) fn end(&mut self, time_ns: u64) {
        for sighting in &mut self.seen {
            sighting.last_ns = sighting.last_ns.min(time_ns.max(sighting.first_ns));
        }
    }

    /// Marks all sockets as closed, of which some may be missing. Those that are open are noted again.
    pub(crate) fn lost(&mut self, time_ns: u64) {
        self.end(time_ns);
        self.forgotten.clear();
        self.incomplete_until_ns = time_ns;
    }

    pub(crate) fn find(&self, protocol: u8, is_v6: bool, lived: SessionLifetime) -> RawOwner {
        let before_its_end = self.seen.partition_point(|sighting| sighting.first_ns <= lived.last_ns);
        if lived.first_ns <= self.incomplete_until_ns || !self.forgotten.is_empty() {
            return RawOwner::Incomplete;
        }
        // A socket that was opened long ago may still be open, so that all must be examined.
        if before_its_end > EXAMINED_MAX {
            return RawOwner::Several;
        }
        let mut found: Option<Process> = None;
        let fitting = self.seen.iter().take(before_its_end).filter(|sighting| {
            sighting.last_ns >= lived.first_ns
                && sighting.is_v6 == is_v6
                && (sighting.protocol == protocol || sighting.protocol == IPPROTO_RAW)
        });
        for Sighting { process, .. } in fitting {
            let is_same = |other: &Process| {
                process.pid.is_some() && (other.pid, other.start_ticks) == (process.pid, process.start_ticks)
            };
            found = Some(match found {
                None => process.as_ref().clone(),
                Some(other) if is_same(&other) => other,
                Some(other) if other.path.is_some() && other.path == process.path => other.of_program(process),
                Some(_) => return RawOwner::Several,
            });
        }
        found.map_or(RawOwner::Nobody, |process| {
            let certainty = if process.certainty == Certainty::Socket { Certainty::Port } else { process.certainty };
            RawOwner::Known(Box::new(Process { certainty, ..process }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_kernel_are_read() {
        let raw = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                   \u{20}  1: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 71513 2 0000000000000000 0\n\
                   \u{20}  x: broken\n";
        assert_eq!(parse(raw, false, None), [RawSocket { protocol: 1, is_v6: false, uid: 0, inode: 71513 }]);
        let icmp = raw.replace(":0001", ":1F2E");
        assert_eq!(parse(&icmp, false, Some(1))[0].protocol, 1, "an identifier, not a protocol");
        assert!(parse(&icmp, false, None).is_empty(), "no protocol has such a number");
    }

    fn process(pid: u32, path: &str) -> Process {
        Process { pid: Some(pid), path: Some(path.to_owned()), certainty: Certainty::Socket, ..Process::only_user(0) }
    }

    #[test]
    fn only_the_single_program_with_a_socket_of_the_protocol_is_named() {
        let mut seen = RawSightings::default();
        let at = |first_ns, last_ns| SessionLifetime { first_ns, last_ns, closed: false };
        assert_eq!(seen.find(1, false, at(10, 20)), RawOwner::Nobody);
        seen.open(5, 1, (1, false), process(7, "/bin/ping"), 1 << 20);
        let pid = |owner| match owner {
            RawOwner::Known(process) => process.pid,
            other => panic!("{other:?}"),
        };
        assert_eq!(pid(seen.find(1, false, at(10, 20))), Some(7));
        assert_eq!(seen.find(58, true, at(10, 20)), RawOwner::Nobody, "of another protocol");
        assert_eq!(seen.find(1, false, at(1, 4)), RawOwner::Nobody, "before it was opened");
        seen.close(15, 1);
        assert_eq!(seen.find(1, false, at(16, 20)), RawOwner::Nobody, "after it was closed");
        seen.open(17, 2, (1, false), process(8, "/bin/ping"), 1 << 20);
        assert_eq!(pid(seen.find(1, false, at(16, 20))), Some(8));
        assert_eq!(pid(seen.find(1, false, at(10, 20))), None, "one of two processes of a program");
        seen.open(18, 3, (IPPROTO_RAW, false), process(9, "/bin/nmap"), 1 << 20);
        assert_eq!(seen.find(1, false, at(10, 20)), RawOwner::Several);
    }

    #[test]
    fn a_socket_that_was_forgotten_or_lost_leaves_nobody_named_while_it_may_be_open() {
        let mut seen = RawSightings::default();
        let at = |first_ns, last_ns| SessionLifetime { first_ns, last_ns, closed: false };
        let is_named =
            |seen: &RawSightings, first, last| matches!(seen.find(1, false, at(first, last)), RawOwner::Known(_));
        let open = |seen: &mut RawSightings, time_ns, id, bytes_max| {
            let few = seen.open(time_ns, id, (1, false), process(9, "/bin/nmap"), bytes_max);
            assert!(seen.bytes() <= bytes_max);
            few
        };
        let one = SIGHTING_BYTES + process(9, "/bin/nmap").bytes();
        seen.open(10, 1, (1, false), process(7, "/bin/ping"), 1 << 20);
        // There is no room for both, and the older one is still open.
        assert_eq!(open(&mut seen, 20, 2, one + one / 2), 1);
        assert_eq!(seen.find(1, false, at(30, 40)), RawOwner::Incomplete, "ping may have sent it");
        seen.close(50, 1);
        assert!(is_named(&seen, 51, 60) && !is_named(&seen, 45, 60));
        // A closed socket goes first, and is missing until its end.
        open(&mut seen, 70, 3, 1 << 20);
        seen.close(80, 3);
        assert_eq!(open(&mut seen, 90, 4, 2 * one), 1);
        assert!(is_named(&seen, 81, 95) && !is_named(&seen, 75, 85));
        // Events were lost: all sockets are listed again.
        seen.lost(100);
        assert_eq!(seen.find(1, false, at(98, 110)), RawOwner::Incomplete);
        assert_eq!(seen.find(1, false, at(101, 110)), RawOwner::Nobody, "none of the old ones stays open for ever");
        open(&mut seen, 105, 5, 1 << 20);
        assert!(is_named(&seen, 106, 110));
    }

    #[test]
    fn events_that_come_out_of_order_are_found() {
        let mut seen = RawSightings::default();
        for (time_ns, id) in [(50, 1), (40, 2), (60, 3), (10, 4)] {
            seen.open(time_ns, id, (1, false), process(7, "/bin/ping"), 1 << 20);
            seen.close(time_ns + 5, id);
        }
        let at = |first_ns, last_ns| SessionLifetime { first_ns, last_ns, closed: false };
        for time_ns in [10, 40, 50, 60] {
            assert!(matches!(seen.find(1, false, at(time_ns, time_ns + 1)), RawOwner::Known(_)), "{time_ns}");
        }
    }

    #[test]
    fn a_socket_that_several_programs_hold_is_of_none_of_them() {
        let (ping, other) = (process(7, "/bin/ping"), process(8, "/bin/other"));
        assert_eq!(owner(vec![ping.clone()], 5).pid, Some(7));
        assert_eq!(owner(vec![ping.clone(), other], 5), Process::only_user(5));
        let of_two = owner(vec![ping.clone(), process(9, "/bin/ping")], 5);
        assert_eq!((of_two.pid, of_two.certainty), (None, Certainty::Program));
        assert_eq!(owner(Vec::new(), 5), Process::only_user(5));
    }
}
