//! The processes that owned sessions: a bounded table of sockets, which queries look up by endpoints and time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

pub use crate::lifetime::SessionLifetime;
use crate::process::{Certainty, Process, Source};
use crate::raw::{RawOwner, RawSightings};
use crate::report::{Report, SocketName};
use crate::sockets::Protocol;
use crate::translations::{OtherSide, Translations};

/// Maximum number of stored addresses of this host.
const ADDRESSES_MAX: usize = 4096;
/// Size of a socket without its process, in bytes: with its part of tables that are as empty as they get.
const SOCKET_BYTES: usize = 768;
/// The part of it that stays until a socket that was forgotten before its turn comes to the end of the queue.
const ORDER_BYTES: usize = 176;
/// Maximum number of sockets of one name, so that no lookup reads more.
const SIGHTS_MAX: usize = 256;

/// The most recently seen sockets, and their processes.
#[derive(Debug)]
pub struct SocketTable {
    bytes_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Sockets by name; reuses of a name are in order of time.
    sockets: HashMap<SocketName, VecDeque<SocketSighting>>,
    /// Sockets in the order of first sight, and some that were forgotten before their turn.
    order: VecDeque<(SocketName, u64)>,
    /// Number of sockets.
    count: usize,
    /// Until when it is known which processes share the sockets that scans found and that receive from anybody.
    examined_ns: u64,
    addresses: HashSet<IpAddr>,
    method: Option<(Source, Option<String>)>,
    bytes: usize,
    raw: RawSightings,
    translations: Translations,
    nat_unseen: Option<String>,
    counts: Counts,
}

/// Raw sockets and translations take this part of the bytes each, at most.
const PART_DIVISOR: usize = 8;

/// A socket, and the time during which it was seen.
#[derive(Clone, Debug)]
struct SocketSighting {
    first_ns: u64,
    /// `u64::MAX` while it is open.
    last_ns: u64,
    /// [`Inner::examined_ns`] at its end.
    examined_ns: u64,
    process: Arc<Process>,
}

impl SocketSighting {
    fn end(&mut self, time_ns: u64, examined_ns: u64) {
        if self.last_ns == u64::MAX {
            self.examined_ns = examined_ns;
        }
        self.last_ns = self.last_ns.min(time_ns.max(self.first_ns));
    }
}

/// Counts of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sockets in the table.
    pub sockets: u64,
    /// Sockets removed to make room for newer ones.
    pub forgotten: u64,
    /// Sockets that the watcher could not examine.
    pub lost: u64,
}

impl SocketTable {
    /// A table that takes at most this many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, inner: Mutex::default() }
    }

    /// Applies a report.
    pub fn take(&self, report: Report) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match report {
            Report::Open { time_ns, socket, process } => inner.open(time_ns, socket, *process, self.bytes_max),
            Report::Closed { time_ns, socket } => inner.close(time_ns, &socket),
            Report::RawOpened { time_ns, id, protocol, is_v6, process } => {
                let most = self.bytes_max / PART_DIVISOR;
                inner.counts.forgotten += inner.raw.open(time_ns, id, (protocol, is_v6), *process, most);
                inner.make_room(0, self.bytes_max);
            }
            Report::RawClosed { time_ns, id } => inner.raw.close(time_ns, id),
            Report::Translated { time_ns, translation } => {
                let most = self.bytes_max / PART_DIVISOR;
                inner.counts.forgotten += inner.translations.take(time_ns, translation, most);
                inner.make_room(0, self.bytes_max);
            }
            Report::Examined(time_ns) => inner.examined_ns = inner.examined_ns.max(time_ns),
            Report::NatUnseen(why) => inner.nat_unseen = why,
            Report::Addresses(addresses) => inner.addresses = addresses.into_iter().take(ADDRESSES_MAX).collect(),
            Report::Method(source, why) => inner.method = Some((source, why)),
            Report::Lost(lost) => inner.counts.lost = lost,
            Report::SocketsMissed(time_ns) => {
                // No scan sees sockets of other namespaces.
                inner.end(time_ns, |process| process.other_namespace);
                inner.raw.lost(time_ns);
            }
            Report::TranslationsMissed(time_ns) => inner.translations.end(time_ns),
        }
    }

    /// Marks all sockets as closed, because the watcher has ended.
    pub fn end(&self, time_ns: u64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.end(time_ns, |_| true);
        inner.raw.end(time_ns);
        inner.translations.end(time_ns);
    }

    /// The processes of a session at its two ends, as far as they are on this host: the originator's, then the
    /// responder's. A loopback session has both.
    pub fn of_session(
        &self,
        protocol: Protocol,
        originator: SocketAddr,
        responder: SocketAddr,
        lived: SessionLifetime,
    ) -> [Option<Process>; 2] {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let find = |local, remote| inner.find(SocketName { protocol, local, remote }, lived);
        [find(originator, responder), find(responder, originator)]
    }

    /// Who could have sent the packets of a session without ports.
    pub fn of_raw_session(&self, protocol: u8, is_v6: bool, lived: SessionLifetime) -> RawOwner {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).raw.find(protocol, is_v6, lived)
    }

    /// A session as it is on the other side of a NAT; `None` if nothing translates it.
    pub fn other_side(&self, protocol: u8, ends: [SocketAddr; 2], lived: SessionLifetime) -> Option<OtherSide> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).translations.find(protocol, ends, lived)
    }

    /// Why NAT is not seen; `None` if it is.
    pub fn nat_unseen(&self) -> Option<String> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).nat_unseen.clone()
    }

    /// Whether an address is known to belong to this host.
    pub fn is_local(&self, address: IpAddr) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        address.is_loopback() || inner.addresses.contains(&address)
    }

    /// The best method in use, and why it is not a better one; `None` before the watcher has begun.
    pub fn method(&self) -> Option<(Source, Option<String>)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).method.clone()
    }

    /// Counts so far.
    pub fn counts(&self) -> Counts {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Counts { sockets: inner.count as u64, ..inner.counts }
    }

    /// Bytes in use, at most those of [`Self::new`].
    pub fn bytes(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).bytes_of_all()
    }
}

impl Inner {
    fn bytes_of_all(&self) -> usize {
        self.bytes + self.raw.bytes() + self.translations.bytes()
    }

    fn open(&mut self, time_ns: u64, socket: SocketName, process: Process, bytes_max: usize) {
        let cost = SOCKET_BYTES + process.bytes();
        self.close(time_ns, &socket);
        if !self.make_room(cost, bytes_max) {
            self.counts.forgotten += 1;
            return;
        }
        self.bytes += cost;
        self.count += 1;
        self.order.push_back((socket, time_ns));
        let sight = SocketSighting { first_ns: time_ns, last_ns: u64::MAX, examined_ns: 0, process: Arc::new(process) };
        let sights = self.sockets.entry(socket).or_default();
        sights.push_back(sight);
        if sights.len() > SIGHTS_MAX
            && let Some(oldest) = sights.pop_front()
        {
            self.bytes -= SOCKET_BYTES - ORDER_BYTES + oldest.process.bytes();
            self.count -= 1;
            self.counts.forgotten += 1;
        }
    }

    /// Forgets the oldest sockets until `cost` more bytes have room; false if they never do.
    fn make_room(&mut self, cost: usize, bytes_max: usize) -> bool {
        while self.bytes_of_all() + cost > bytes_max {
            if !self.forget_oldest() {
                return false;
            }
        }
        true
    }

    /// Marks the sockets of some processes as closed.
    fn end(&mut self, time_ns: u64, of: impl Fn(&Process) -> bool) {
        let examined_ns = self.examined_ns;
        for sight in self.sockets.values_mut().flatten().filter(|sight| of(&sight.process)) {
            sight.end(time_ns, examined_ns);
        }
    }

    fn close(&mut self, time_ns: u64, socket: &SocketName) {
        if let Some(sight) = self.sockets.get_mut(socket).and_then(VecDeque::back_mut) {
            sight.end(time_ns, self.examined_ns);
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((socket, first_ns)) = self.order.pop_front() else { return false };
        // Sockets of one name are forgotten in the order in which they came, so that it is the first one, or gone already.
        match self.sockets.get_mut(&socket) {
            Some(sights) if sights.front().is_some_and(|sight| sight.first_ns == first_ns) => {
                let sight = sights.pop_front();
                self.bytes -= SOCKET_BYTES + sight.map_or(0, |sight| sight.process.bytes());
                self.count -= 1;
                self.counts.forgotten += 1;
                if sights.is_empty() {
                    self.sockets.remove(&socket);
                }
            }
            _ => self.bytes -= ORDER_BYTES,
        }
        true
    }

    /// The process that had the session's local end during the session.
    fn find(&self, name: SocketName, lived: SessionLifetime) -> Option<Process> {
        if let Some(process) = self.only_one(&name, lived)? {
            return Some(process.clone());
        }
        if !(name.local.ip().is_loopback() || self.addresses.contains(&name.local.ip())) {
            return None;
        }
        // Look for a socket that receives from any peer, at this address or at all: a UDP server or a TCP listener.
        let unspecified = |of: IpAddr| -> [IpAddr; 2] {
            let (v4, v6) = (IpAddr::from([0; 4]), IpAddr::from([0; 16]));
            if of.is_ipv4() { [v4, v6] } else { [v6, v6] }
        };
        let port = name.local.port();
        let mut found: Option<&Process> = None;
        for local in [name.local.ip()].into_iter().chain(unspecified(name.local.ip())) {
            for remote in unspecified(name.local.ip()) {
                let wide = SocketName {
                    local: SocketAddr::new(local, port),
                    remote: SocketAddr::new(remote, 0),
                    protocol: name.protocol,
                };
                match self.only_one(&wide, lived)? {
                    Some(process) if found.is_none_or(|other| other == process) => found = Some(process),
                    // Two sockets could have received the packets.
                    Some(_) => return None,
                    None => {}
                }
            }
        }
        found.map(|process| match process.certainty {
            Certainty::UserOnly | Certainty::Program => process.clone(),
            _ => Process { certainty: Certainty::Port, ..process.clone() },
        })
    }

    /// The process of the only socket of this name that was seen within the time; `None` if there were several.
    #[expect(clippy::option_option, reason = "no socket was seen, or the socket is ambiguous")]
    fn only_one(&self, name: &SocketName, lived: SessionLifetime) -> Option<Option<&Process>> {
        let Some(sights) = self.sockets.get(name) else { return Some(None) };
        // A socket that receives from anybody may have been shared since it was last examined.
        let is_examined = |sight: &&SocketSighting| {
            let until_ns = if sight.last_ns == u64::MAX { self.examined_ns } else { sight.examined_ns };
            name.remote.port() != 0
                || sight.process.source == Source::Ebpf
                || lived.first_ns <= until_ns.max(sight.first_ns)
        };
        let mut fitting = sights
            .iter()
            .filter(|sight| sight.first_ns <= lived.seen_until_ns() && sight.last_ns >= lived.first_ns)
            // A socket that was first seen after the session's last packet may be a later one with the same name.
            .filter(|sight| sight.first_ns <= lived.last_ns || sights.len() == 1);
        match (fitting.next(), fitting.next()) {
            (None, _) => Some(None),
            (Some(one), None) if !is_examined(&one) => None,
            (Some(one), None) => Some(Some(&one.process)),
            (Some(one), Some(other)) if one.process == other.process => Some(Some(&one.process)),
            _ => None,
        }
    }
}
