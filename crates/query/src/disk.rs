//! The packets on disk as a part of an answer.
//!
//! A packet can be in memory and on disk at once. Of packets with the same time, those in memory come first, and each of
//! them takes the place of one equal packet on disk.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use super::Request;
use super::conditions::conditions;
use super::history::History;
use super::request::Tier;
use super::search::Search;
use super::session_selectors::SessionSelectors;
use base::interface::{Interface, Interfaces};
use base::packet::InterfaceId;
use base::time::Timestamp;
use engine::session::SessionSlot;
use engine::store::record::RecordHeader;
use filter::FilterSet;
use spool::archive::PacketStream;
use spool::blocks::SpooledInterface;
use spool::index::ClosedPackets;
use spool::read::{ReadSummary, Selection};

/// The part of an answer that comes from disk.
#[derive(Debug)]
pub(super) struct Disk {
    stream: Box<dyn PacketStream>,
    /// Name of the interface that was asked for.
    interface: Option<String>,
    interfaces: HashMap<SpooledInterface, Arc<Interface>>,
    known: Vec<Arc<Interface>>,
    /// Packets from memory that have the latest time, by what they are.
    in_memory: (Timestamp, Vec<u64>),
    hasher: foldhash::fast::FixedState,
    current: Option<Arc<Interface>>,
    /// Packets that were not opened and are in the answer nevertheless; `None` if such packets are not counted.
    found_closed: Option<ClosedPackets>,
}

impl Disk {
    /// The packets on disk that `request` may select; `None` without a spool, and if the request is about memory.
    pub(super) fn new(history: &History, request: &Request, window: (Timestamp, Timestamp)) -> Option<Self> {
        if request.tier == Some(Tier::Memory) {
            return None;
        }
        let selection = Selection {
            since: Some(window.0),
            until: Some(window.1),
            conditions: conditions(history, request),
            any: Vec::new(),
            counts_closed: request.names_content(),
        };
        Self::read(history, request, &selection)
    }

    /// The packets on disk that a search may select; `None` if it asks memory alone.
    pub(super) fn of_search(history: &History, request: &Request, search: &Search) -> Option<Self> {
        Self::read(history, request, &search.disk_selection()?)
    }

    fn read(history: &History, request: &Request, selection: &Selection) -> Option<Self> {
        let stream = history.disk.as_ref()?.packets(selection)?;
        Some(Self {
            stream,
            found_closed: selection.counts_closed.then(ClosedPackets::new),
            interface: request.interface.clone(),
            interfaces: HashMap::new(),
            known: history.interfaces.snapshot(),
            in_memory: (Timestamp::MIN, Vec::new()),
            hasher: foldhash::fast::FixedState::default(),
            current: None,
        })
    }

    /// The time of the next packet.
    pub(super) fn peek_time(&mut self) -> Option<Timestamp> {
        self.stream.peek_time()
    }

    /// What could not be read so far.
    pub(super) fn summary(&self) -> ReadSummary {
        self.stream.summary()
    }

    /// Packets of the window that were not opened and are not in the answer, by kind.
    pub(super) fn closed(&self) -> ClosedPackets {
        let mut closed = self.stream.closed();
        for (kind, packets) in self.found_closed.iter().flatten() {
            if let Some(count) = closed.get_mut(kind) {
                *count = count.saturating_sub(*packets);
            }
        }
        closed.retain(|_, packets| *packets > 0);
        closed
    }

    /// The interface of the packet that came last, if it came from disk.
    pub(super) fn current(&self) -> Option<&Interface> {
        self.current.as_deref()
    }

    /// Notes a packet from memory that is a part of the answer.
    pub(super) fn note_from_memory(&mut self, header: &RecordHeader, interface: &Interface, data: &[u8]) {
        self.current = None;
        let hash = self.hash(header.original_len, &interface.name, data);
        if self.in_memory.0 != header.time {
            self.in_memory = (header.time, Vec::new());
        }
        self.in_memory.1.push(hash);
    }

    /// Takes the next packet, and puts its bytes into `data` if the request selects it.
    pub(super) fn take(
        &mut self,
        selectors: &SessionSelectors,
        filter: &mut Option<FilterSet>,
        search: Option<&mut Search>,
        data: &mut Vec<u8>,
    ) -> Option<RecordHeader> {
        let found = self.stream.next()?;
        let (packet, spooled) = (found.packet, Arc::clone(found.interface));
        let link_type = spooled.link_type;
        let wanted = self.interface.as_ref().is_none_or(|name| *name == spooled.name)
            && search.is_none_or(|search| search.on_disk(packet.time, &spooled.name, link_type, packet.data))
            && selectors.bytes(link_type, packet.data)
            && filter.as_mut().is_none_or(|filter| filter.matches(link_type, packet.data, packet.original_len));
        if !wanted {
            return None;
        }
        if let (Some(found), Some(kind)) = (&mut self.found_closed, decode::unopened(link_type, packet.data)) {
            *found.entry(kind.to_string()).or_default() += 1;
        }
        data.clear();
        data.extend_from_slice(packet.data);
        let header = RecordHeader {
            time: packet.time,
            // Packets on disk have no number and no session in memory.
            sequence: u64::MAX,
            captured_len: u32::try_from(packet.data.len()).unwrap_or(u32::MAX),
            original_len: packet.original_len,
            drops_before: packet.drops_before,
            session: SessionSlot(u32::MAX),
            interface: InterfaceId(0),
            direction: packet.direction,
            flags: packet.flags,
        };
        if self.in_memory.0 == header.time {
            let hash = self.hash(header.original_len, &spooled.name, data);
            if let Some(at) = self.in_memory.1.iter().position(|known| *known == hash) {
                self.in_memory.1.swap_remove(at);
                return None;
            }
        }
        let interface = self.interface_of(&spooled)?;
        let header = RecordHeader { interface: interface.id, ..header };
        self.current = Some(interface);
        Some(header)
    }

    fn hash(&self, original_len: u32, interface: &str, data: &[u8]) -> u64 {
        self.hasher.hash_one((original_len, interface, data))
    }

    /// The interface of the recorder that is the same, or else a further one.
    fn interface_of(&mut self, spooled: &SpooledInterface) -> Option<Arc<Interface>> {
        if let Some(interface) = self.interfaces.get(spooled) {
            return Some(Arc::clone(interface));
        }
        let same = |known: &&Arc<Interface>| known.name == spooled.name && known.link_type == spooled.link_type;
        let interface = match self.known.iter().find(same) {
            Some(known) => Arc::clone(known),
            None => {
                let number = Interfaces::CAPACITY + self.interfaces.len();
                Arc::new(Interface {
                    id: InterfaceId(u16::try_from(number).ok()?),
                    name: spooled.name.clone(),
                    index: 0,
                    link_type: spooled.link_type,
                    description: spooled.description.clone(),
                    os: spooled.os.clone(),
                    up: false,
                    gone: None,
                    since: Timestamp::MIN,
                })
            }
        };
        self.interfaces.insert(spooled.clone(), Arc::clone(&interface));
        Some(interface)
    }
}
