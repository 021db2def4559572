//! Converts packets of any link type for a stream of one link type, and truncates them for readers with a length limit.
//!
//! The payload of a packet gets a header of the stream's link type. For Ethernet, the header holds the sender's address
//! if it is known, and zeros elsewhere. Raw IP needs no header. Packets that cannot be converted are left out and
//! counted.

use super::{CAPTURED_BYTES_MAX, Exporter, Format, InterfaceStatistics, Options};
use base::interface::Interface;
use base::packet::{LinkType, Packet};

const ETHERNET_BYTES: usize = 14;
/// The smallest ethertype. A smaller value in the field of an Ethernet header is a length.
const ETHERTYPE_MIN: u16 = 0x600;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// `ARPHRD_NETLINK`: the protocol field of such cooked packets is a netlink protocol, not an ethertype.
const ARPHRD_NETLINK: u16 = 824;

/// Converts packets to one link type.
#[derive(Debug)]
pub struct OneLinkType {
    target: LinkType,
    bytes: Vec<u8>,
    left_out: u64,
}

impl OneLinkType {
    /// Creates a converter to a link type.
    pub fn new(target: LinkType) -> Self {
        Self { target, bytes: Vec::new(), left_out: 0 }
    }

    /// Chooses the target link type: Ethernet if `recorded` contains it or is empty, otherwise the first one.
    pub fn choose(recorded: &[LinkType]) -> LinkType {
        let first = recorded.first().copied().unwrap_or(LinkType::ETHERNET);
        if recorded.contains(&LinkType::ETHERNET) { LinkType::ETHERNET } else { first }
    }

    /// Returns the target link type.
    pub fn target(&self) -> LinkType {
        self.target
    }

    /// Returns the number of packets that could not be converted.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Converts a packet. Returns `None`, and counts the packet, if it cannot be converted.
    pub fn fit<'a>(&'a mut self, packet: &Packet<'a>) -> Option<Packet<'a>> {
        if packet.link_type == self.target {
            return Some(*packet);
        }
        let Some(carried) = carried(packet.link_type, packet.data).filter(|carried| self.takes(carried)) else {
            self.left_out += 1;
            return None;
        };
        self.bytes.clear();
        if self.target == LinkType::ETHERNET {
            self.bytes.extend_from_slice(&[0; 6]);
            self.bytes.extend_from_slice(&carried.sender);
            self.bytes.extend_from_slice(&carried.ethertype.to_be_bytes());
        }
        let header_bytes = u32::try_from(packet.data.len() - carried.data.len()).unwrap_or(u32::MAX);
        let new_header_bytes = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(carried.data);
        let original_len = packet.original_len.saturating_sub(header_bytes).saturating_add(new_header_bytes);
        Some(Packet { link_type: self.target, original_len, data: &self.bytes, ..*packet })
    }

    fn takes(&self, carried: &Carried<'_>) -> bool {
        match self.target {
            LinkType::ETHERNET => carried.ethertype >= ETHERTYPE_MIN,
            LinkType::RAW | LinkType::RAW_DLT | LinkType::RAW_DLT_OPENBSD => matches!(carried.ethertype, IPV4 | IPV6),
            LinkType::IPV4 => carried.ethertype == IPV4,
            LinkType::IPV6 => carried.ethertype == IPV6,
            _ => false,
        }
    }
}

/// The maximum captured length in bytes that every reader of classic pcap over TCP accepts. The strictest known readers
/// store the length in 16 bits.
pub const STREAMED_BYTES_MAX: usize = 65_535;

/// An exporter that never fails. Packets of other link types are converted, or left out and counted.
#[derive(Debug)]
pub struct FittingExporter {
    exporter: Exporter,
    one_link_type: Option<OneLinkType>,
    captured_bytes_max: usize,
    cut: u64,
}

impl FittingExporter {
    /// Creates an exporter. Classic pcap gets the link type of the options, or Ethernet if they state none.
    pub fn new(format: Format, options: Options) -> Self {
        let link_type = options.link_type.unwrap_or(LinkType::ETHERNET);
        Self {
            one_link_type: (format == Format::Pcap).then(|| OneLinkType::new(link_type)),
            exporter: Exporter::new(format, Options { link_type: Some(link_type), ..options }),
            captured_bytes_max: CAPTURED_BYTES_MAX as usize,
            cut: 0,
        }
    }

    /// Truncates packets of classic pcap to [`STREAMED_BYTES_MAX`].
    #[must_use]
    pub fn for_strict_readers(mut self) -> Self {
        if self.one_link_type.is_some() {
            self.captured_bytes_max = STREAMED_BYTES_MAX;
        }
        self
    }

    /// Writes the header; see [`Exporter::begin`].
    pub fn begin(&mut self, out: &mut Vec<u8>, comments: &[String]) {
        self.exporter.begin(out, comments);
    }

    /// Writes a packet, with the comment if the format has comments. Returns whether the packet was written.
    pub fn packet(
        &mut self,
        out: &mut Vec<u8>,
        interface: &Interface,
        packet: &Packet<'_>,
        comment: Option<&str>,
    ) -> bool {
        let fitted = match &mut self.one_link_type {
            None => Some(*packet),
            Some(one) => one.fit(packet),
        };
        let Some(packet) = fitted else { return false };
        let length = packet.data.len().min(self.captured_bytes_max);
        self.cut += u64::from(length < packet.data.len());
        let packet = Packet { data: &packet.data[..length], ..packet };
        match comment {
            None => self.exporter.packet(out, interface, &packet).is_ok(),
            Some(comment) => self.exporter.packet_with_comment(out, interface, &packet, comment).is_ok(),
        }
    }

    /// Ends the export; see [`Exporter::end`].
    pub fn end(&mut self, out: &mut Vec<u8>, statistics: &[InterfaceStatistics], comments: &[String]) {
        self.exporter.end(out, statistics, comments);
    }

    /// Returns the link type of the stream if the format has only one.
    pub fn link_type(&self) -> Option<LinkType> {
        self.one_link_type.as_ref().map(OneLinkType::target)
    }

    /// Returns the number of packets that could not be converted.
    pub fn left_out(&self) -> u64 {
        self.one_link_type.as_ref().map_or(0, OneLinkType::left_out)
    }

    /// Returns the number of packets that were truncated.
    pub fn cut(&self) -> u64 {
        self.cut + self.exporter.cut()
    }
}

/// The payload after a link-layer header.
struct Carried<'a> {
    ethertype: u16,
    sender: [u8; 6],
    data: &'a [u8],
}

fn carried(link_type: LinkType, data: &[u8]) -> Option<Carried<'_>> {
    let unsent = [0; 6];
    match link_type {
        LinkType::ETHERNET => {
            let (header, rest) = data.split_first_chunk::<ETHERNET_BYTES>()?;
            let [.., a, b, c, d, e, f, high, low] = *header;
            Some(Carried { ethertype: u16::from_be_bytes([high, low]), sender: [a, b, c, d, e, f], data: rest })
        }
        LinkType::RAW | LinkType::RAW_DLT | LinkType::RAW_DLT_OPENBSD | LinkType::IPV4 | LinkType::IPV6 => {
            Some(Carried { ethertype: of_ip(data)?, sender: unsent, data })
        }
        LinkType::NULL | LinkType::LOOP => {
            // The number of the IPv6 address family differs between systems, so the IP version field decides.
            let (_, data) = data.split_first_chunk::<4>()?;
            Some(Carried { ethertype: of_ip(data)?, sender: unsent, data })
        }
        LinkType::LINUX_SLL => {
            let (header, data) = data.split_first_chunk::<16>()?;
            let [_, _, t0, t1, l0, l1, address @ .., p0, p1] = *header;
            cooked(u16::from_be_bytes([t0, t1]), u16::from_be_bytes([l0, l1]), address, [p0, p1], data)
        }
        LinkType::LINUX_SLL2 => {
            let (header, data) = data.split_first_chunk::<20>()?;
            let [p0, p1, _, _, _, _, _, _, t0, t1, _, length, address @ ..] = *header;
            cooked(u16::from_be_bytes([t0, t1]), u16::from(length), address, [p0, p1], data)
        }
        _ => None,
    }
}

fn cooked(hatype: u16, length: u16, address: [u8; 8], protocol: [u8; 2], data: &[u8]) -> Option<Carried<'_>> {
    let [a, b, c, d, e, f, ..] = address;
    let sender = if length == 6 { [a, b, c, d, e, f] } else { [0; 6] };
    (hatype != ARPHRD_NETLINK).then_some(Carried { ethertype: u16::from_be_bytes(protocol), sender, data })
}

fn of_ip(data: &[u8]) -> Option<u16> {
    match data.first()? >> 4 {
        4 => Some(IPV4),
        6 => Some(IPV6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::packet::{Direction, InterfaceId, PacketFlags};
    use base::time::Timestamp;

    fn fit(target: LinkType, link_type: LinkType, data: &[u8]) -> Option<(u32, Vec<u8>)> {
        let packet = Packet {
            time: Timestamp(1),
            interface: InterfaceId(0),
            link_type,
            direction: Direction::In,
            flags: PacketFlags::default(),
            original_len: u32::try_from(data.len()).unwrap() + 100,
            drops_before: 0,
            data,
        };
        let mut one = OneLinkType::new(target);
        let fitted = one.fit(&packet).map(|packet| {
            assert_eq!(packet.link_type, target);
            (packet.original_len, packet.data.to_vec())
        });
        assert_eq!(one.left_out(), u64::from(fitted.is_none()));
        fitted
    }

    #[test]
    fn what_is_carried_gets_another_header() {
        let ip = [0x45, 0, 0, 20, 9, 9];
        let ethernet = |sender: [u8; 6]| [&[0; 6][..], &sender, &[8, 0], &ip].concat();
        let sll = [&[0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0, 8, 0][..], &ip].concat();
        let sll2 = [&[8, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0][..], &ip].concat();
        for (target, link_type, data, expected) in [
            (LinkType::ETHERNET, LinkType::RAW, ip.to_vec(), Some(ethernet([0; 6]))),
            (LinkType::ETHERNET, LinkType::IPV4, ip.to_vec(), Some(ethernet([0; 6]))),
            (LinkType::ETHERNET, LinkType::NULL, [&[2, 0, 0, 0], &ip[..]].concat(), Some(ethernet([0; 6]))),
            (LinkType::ETHERNET, LinkType::LINUX_SLL, sll.clone(), Some(ethernet([2; 6]))),
            (LinkType::ETHERNET, LinkType::LINUX_SLL2, sll2, Some(ethernet([2; 6]))),
            (LinkType::ETHERNET, LinkType::LINUX_SLL, sll[..15].to_vec(), None),
            (LinkType::ETHERNET, LinkType::ETHERNET, vec![1, 2, 3], Some(vec![1, 2, 3])),
            (LinkType::ETHERNET, LinkType::RAW, vec![0x15, 0], None),
            (LinkType::ETHERNET, LinkType::RAW, vec![], None),
            (LinkType::ETHERNET, LinkType(227), vec![0; 16], None),
            (LinkType::RAW, LinkType::ETHERNET, ethernet([2; 6]), Some(ip.to_vec())),
            (LinkType::RAW, LinkType::ETHERNET, [&[0; 12][..], &[8, 6], &[0; 28]].concat(), None),
            (LinkType::RAW, LinkType::LINUX_SLL, sll, Some(ip.to_vec())),
            (LinkType(227), LinkType::ETHERNET, ethernet([0; 6]), None),
        ] {
            let length = |data: &Vec<u8>| u32::try_from(data.len()).unwrap() + 100;
            let expected = expected.map(|expected| (length(&expected), expected));
            assert_eq!(fit(target, link_type, &data), expected, "{link_type} to {target}");
        }
    }

    #[test]
    fn the_link_type_that_fits_most() {
        for (recorded, chosen) in [
            (&[][..], LinkType::ETHERNET),
            (&[LinkType(0), LinkType::ETHERNET], LinkType::ETHERNET),
            (&[LinkType::RAW], LinkType::RAW),
        ] {
            assert_eq!(OneLinkType::choose(recorded), chosen);
        }
    }
}
