//! Packets from events: of the providers Microsoft-Windows-NDIS-PacketCapture and Microsoft-Windows-PktMon.
//!
//! Both report a packet wherever it passes. Of NDIS, the report of the miniport counts (`LowerIfIndex` equals
//! `MiniportIfIndex`), and those of filters above it do not. PktMon numbers packets, so that the first report counts.

use std::collections::{HashMap, HashSet, VecDeque};

use super::buffer::{Event, FLAG_BUFFERS_LOST, FLAG_EVENTS_LOST};
use super::bytes::{u16_at, u32_at, u64_at};
use super::clock::Clock;
use super::output::{Held, Interface, Output, Summary};

/// {2ED6006E-4729-4609-B423-3EE7BCD678EF}
const NDIS: [u8; 16] = [0x6e, 0x00, 0xd6, 0x2e, 0x29, 0x47, 0x09, 0x46, 0xb4, 0x23, 0x3e, 0xe7, 0xbc, 0xd6, 0x78, 0xef];
/// {4D4F80D9-C8BD-4D73-BB5B-19C90402C5AC}
const PKTMON: [u8; 16] =
    [0xd9, 0x80, 0x4f, 0x4d, 0xbd, 0xc8, 0x73, 0x4d, 0xbb, 0x5b, 0x19, 0xc9, 0x04, 0x02, 0xc5, 0xac];

/// A fragment of a packet, and one from a virtual switch, which has another form.
const NDIS_FRAGMENT: u16 = 1001;
const NDIS_SWITCH_FRAGMENT: u16 = 1003;
/// The miniport, the layer that reports, and the length of the fragment.
const NDIS_HEADER_BYTES: usize = 12;

const KEYWORD_MOBILE: u64 = 0x200;
const KEYWORD_802_11: u64 = 0x1_0000;
const KEYWORD_START: u64 = 0x4000_0000;
const KEYWORD_END: u64 = 0x8000_0000;
const KEYWORD_SEND: u64 = 0x1_0000_0000;
const KEYWORD_RECEIVE: u64 = 0x2_0000_0000;

/// A component, a packet, and a packet that is dropped.
const PKTMON_COMPONENT: u16 = 20;
const PKTMON_PACKETS: [u16; 2] = [160, 170];
const PKTMON_HEADER_BYTES: usize = 34;

const ETHERNET: u16 = 1;
const RAW_IP: u16 = 101;
const IEEE802_11: u16 = 105;

/// The most bytes of one packet.
const PACKET_BYTES_MAX: usize = 256 << 10;
/// The most bytes of packets whose end has not been seen, of all processors.
pub(super) const PARTIAL_BYTES_MAX: usize = 16 << 20;
/// The most packets of PktMon that are remembered as seen.
const SEEN_MAX: usize = 1 << 16;
/// The most names of components, and the longest name.
const NAMES_MAX: usize = 1024;
const NAME_CHARS_MAX: usize = 128;

/// The direction of a packet, as pcapng numbers it.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

#[derive(Debug, Default)]
pub(super) struct Packets {
    /// Events that the trace has lost, as the header of the log says.
    pub(super) lost: u64,
    /// Buffers that say that events or buffers before them were lost.
    lossy_buffers: u64,
    /// Packets that are lost with their beginning or their end.
    torn: u64,
    /// Events with packets in a form that is not read.
    unread: u64,
    /// The packet whose fragments come from a processor.
    partial: HashMap<u16, Partial>,
    partial_bytes: usize,
    seen: HashSet<(u64, u16)>,
    seen_order: VecDeque<(u64, u16)>,
    names: HashMap<u16, String>,
}

#[derive(Debug)]
struct Partial {
    interface: u32,
    data: Vec<u8>,
    len: usize,
}

impl Packets {
    /// Counts what a buffer says was lost before it. The header of the log counts better, but only in a file that was
    /// closed.
    pub(super) fn count_losses(&mut self, flags: u16) {
        if flags & (FLAG_EVENTS_LOST | FLAG_BUFFERS_LOST) != 0 {
            self.lossy_buffers += 1;
        }
    }

    /// Counts an event whose header is damaged. It may have had a packet, and so may what followed it in its buffer.
    pub(super) fn count_damaged(&mut self) {
        self.unread += 1;
    }

    pub(super) fn summary(&self) -> Summary {
        let unfinished = self.partial.len() as u64;
        Summary { lost: self.lost.max(self.lossy_buffers), torn: self.torn + unfinished, unread: self.unread }
    }

    /// Takes an event. A packet that is complete goes to `output`.
    pub(super) fn take(&mut self, event: &Event<'_>, processor: u16, clock: Clock, output: &mut Output) {
        let taken = match event.id {
            NDIS_FRAGMENT if event.provider == NDIS => self.take_fragment(event, processor, clock, output),
            NDIS_SWITCH_FRAGMENT if event.provider == NDIS => None,
            PKTMON_COMPONENT if event.provider == PKTMON => {
                self.take_name(event.data);
                Some(())
            }
            id if PKTMON_PACKETS.contains(&id) && event.provider == PKTMON => self.take_frame(event, clock, output),
            _ => Some(()),
        };
        self.unread += u64::from(taken.is_none());
    }

    /// Takes a fragment of NDIS. Returns `None` if it has another form.
    fn take_fragment(&mut self, event: &Event<'_>, processor: u16, clock: Clock, output: &mut Output) -> Option<()> {
        let (miniport, layer) = (u32_at(event.data, 0)?, u32_at(event.data, 4)?);
        let len = usize::try_from(u32_at(event.data, 8)?).ok()?;
        let fragment = event.data.get(NDIS_HEADER_BYTES..)?.get(..len)?;
        if layer != miniport {
            return Some(());
        }
        let (starts, ends) = (event.keyword & KEYWORD_START != 0, event.keyword & KEYWORD_END != 0);
        if starts && self.drop_partial(processor) {
            self.torn += 1;
        }
        let link_type = match event.keyword {
            keyword if keyword & KEYWORD_802_11 != 0 => IEEE802_11,
            keyword if keyword & KEYWORD_MOBILE != 0 => RAW_IP,
            _ => ETHERNET,
        };
        let direction = match event.keyword & (KEYWORD_SEND | KEYWORD_RECEIVE) {
            KEYWORD_SEND => OUTBOUND,
            KEYWORD_RECEIVE => INBOUND,
            _ => 0,
        };
        let interface = Interface { number: miniport, link_type, name: format!("ifindex {miniport}") };
        let time = clock.time(event.ticks);
        if starts && ends {
            output.hold(interface, Held::new(time, direction, fragment, len));
            return Some(());
        }
        if starts {
            self.partial.insert(processor, Partial { interface: miniport, data: Vec::new(), len: 0 });
        }
        let room = PARTIAL_BYTES_MAX.saturating_sub(self.partial_bytes);
        let Some(partial) = self.partial.get_mut(&processor).filter(|partial| partial.interface == miniport) else {
            self.torn += 1;
            return Some(());
        };
        let taken = len.min(PACKET_BYTES_MAX.saturating_sub(partial.data.len())).min(room);
        partial.data.extend_from_slice(fragment.get(..taken)?);
        partial.len = partial.len.saturating_add(len);
        self.partial_bytes += taken;
        if ends {
            let Partial { data, len, .. } = self.partial.remove(&processor)?;
            self.partial_bytes -= data.len();
            output.hold(interface, Held::new(time, direction, &data, len));
        }
        Some(())
    }

    /// Forgets the beginning of a packet. Returns whether there was one.
    fn drop_partial(&mut self, processor: u16) -> bool {
        let partial = self.partial.remove(&processor);
        self.partial_bytes -= partial.as_ref().map_or(0, |partial| partial.data.len());
        partial.is_some()
    }

    /// Takes a packet of PktMon. Returns `None` if it has another form.
    fn take_frame(&mut self, event: &Event<'_>, clock: Clock, output: &mut Output) -> Option<()> {
        let data = event.data;
        let original = usize::from(u16_at(data, 30)?);
        let logged = usize::from(u16_at(data, 32)?);
        let payload = data.get(PKTMON_HEADER_BYTES..)?.get(..logged)?;
        let link_type = match u16_at(data, 14)? {
            1 => ETHERNET,
            2 => IEEE802_11,
            3 => RAW_IP,
            _ => return None,
        };
        if !self.is_first((u64_at(data, 0)?, u16_at(data, 8)?)) {
            return Some(());
        }
        // In, Rx and Ingress are odd; Out, Tx and Egress are even.
        let direction = match u16_at(data, 12)? {
            1 | 3 | 5 => INBOUND,
            2 | 4 | 6 => OUTBOUND,
            _ => 0,
        };
        let component = u16_at(data, 16)?;
        let name = self.names.get(&component).cloned().unwrap_or_else(|| format!("component {component}"));
        let interface = Interface { number: component.into(), link_type, name };
        output.hold(interface, Held::new(clock.time(event.ticks), direction, payload, original.max(logged)));
        Some(())
    }

    /// Whether this is the first report of a packet, among the last [`SEEN_MAX`].
    fn is_first(&mut self, packet: (u64, u16)) -> bool {
        if !self.seen.insert(packet) {
            return false;
        }
        self.seen_order.push_back(packet);
        if self.seen_order.len() > SEEN_MAX
            && let Some(old) = self.seen_order.pop_front()
        {
            self.seen.remove(&old);
        }
        true
    }

    /// Takes the name of a component: its number, its type, a name and a description in UTF-16.
    fn take_name(&mut self, data: &[u8]) {
        let Some(component) = u16_at(data, 0) else { return };
        let units = data.get(4..).unwrap_or_default().chunks_exact(2);
        let units = units.map(|unit| u16::from_le_bytes([unit[0], unit[1]])).take_while(|unit| *unit != 0);
        let name: String = char::decode_utf16(units.take(NAME_CHARS_MAX)).map(|c| c.unwrap_or('?')).collect();
        if !name.is_empty() && (self.names.len() < NAMES_MAX || self.names.contains_key(&component)) {
            self.names.insert(component, name.chars().map(|c| if c.is_control() { '?' } else { c }).collect());
        }
    }
}
