//! Link types of interfaces, and the bytes that a packet needs beyond those of a raw socket's frame.
//!
//! The table follows `map_arphrd_to_dlt` of libpcap (`pcap-linux.c`), so that a recording has the link types of
//! `tcpdump -i`. Where libpcap opens an interface in "cooked" mode (PPP, ATM, IrDA, LAPD, unknown types), packets get a
//! LINUX_SLL2 header, which unlike SLL holds the interface index. DSA tags of Ethernet switches stay unchanged.

use sys::Frame;

use base::packet::LinkType;

/// The conversion of a frame to a packet of its link type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// The frame is unchanged.
    Plain,
    /// A VLAN tag is reinserted after the two addresses. The frame is unchanged otherwise.
    Ethernet,
    /// The frame, from its network layer on, follows a LINUX_SLL2 header.
    Cooked,
    /// The frame follows the 16-byte header of LINKTYPE_NETLINK.
    Netlink,
    /// The header's numbers are converted to the byte order of LINKTYPE_CAN_SOCKETCAN.
    Can,
}

/// `ARPHRD_LOOPBACK`
const LOOPBACK: u16 = 772;

/// Returns the link type for an `ARPHRD_*` type (`include/uapi/linux/if_arp.h`).
pub fn link_type(hatype: u16) -> LinkType {
    LinkType(match hatype {
        // ETHER, METRICOM, LOOPBACK
        1 | 23 | LOOPBACK => 1,
        // EETHER, experimental Ethernet
        2 => 2,
        // AX25 as KISS
        3 => 202,
        // PRONET
        4 => 4,
        // CHAOS
        5 => 5,
        // IEEE802, IEEE802_TR
        6 | 800 => 6,
        // ARCNET
        7 => 129,
        // 18: IP over Fibre Channel in old kernels
        18 => 122,
        // CAN
        280 => 227,
        // CISCO
        513 => 104,
        // SLIP, CSLIP, SLIP6, CSLIP6, ADAPT, RAWHDLC, DLCI, TUNNEL, SIT, NONE (tun, WireGuard)
        256 | 257 | 258 | 259 | 264 | 518 | 15 | 768 | 776 | 65534 => 101,
        // FRAD
        770 => 107,
        // LOCALTLK
        773 => 114,
        // FDDI
        774 => 10,
        // FCPP, FCAL, FCPL, FCFABRIC
        784..=787 => 224,
        // IEEE80211, IEEE80211_PRISM, IEEE80211_RADIOTAP
        801 => 105,
        802 => 119,
        803 => 127,
        // IEEE802154, without a frame check sequence
        804 => 230,
        // NETLINK
        824 => 253,
        // VSOCKMON
        826 => 271,
        _ => return LinkType::LINUX_SLL2,
    })
}

/// Returns the conversion for frames of an `ARPHRD_*` type.
pub(super) fn framing(hatype: u16) -> Framing {
    match link_type(hatype).0 {
        1 => Framing::Ethernet,
        227 => Framing::Can,
        253 => Framing::Netlink,
        276 => Framing::Cooked,
        _ => Framing::Plain,
    }
}

/// Buffer for packets whose bytes differ from their frame's. It holds the packets of a burst, one after another, until
/// the burst is handed over.
pub(super) struct Scratch<'a> {
    room: &'a mut [u8],
    len: usize,
}

impl<'a> Scratch<'a> {
    /// Creates a buffer. `room` must hold all frames of a burst and [`HEADER_BYTES_MAX`] bytes for each.
    pub(super) fn new(room: &'a mut [u8]) -> Self {
        Self { room, len: 0 }
    }

    /// Appends bytes to the current packet.
    fn put(&mut self, bytes: &[u8]) {
        self.room[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Ends the current packet and returns it.
    fn take(&mut self) -> &'a mut [u8] {
        let (packet, rest) = std::mem::take(&mut self.room).split_at_mut(self.len);
        (self.room, self.len) = (rest, 0);
        packet
    }
}

/// The maximum number of bytes by which a packet is longer than its frame.
pub(super) const HEADER_BYTES_MAX: usize = 20;

/// Returns the packet's bytes and its original length. `scratch` holds the bytes if they differ from the frame's.
#[inline]
pub(super) fn packet_bytes<'a>(frame: &Frame<'a>, framing: Framing, scratch: &mut Scratch<'a>) -> (&'a [u8], u32) {
    match (framing, frame.vlan) {
        (Framing::Ethernet, Some((protocol, tag))) if frame.data.len() >= 12 => {
            let (addresses, rest) = frame.data.split_at(12);
            scratch.put(addresses);
            scratch.put(&protocol.to_be_bytes());
            scratch.put(&tag.to_be_bytes());
            scratch.put(rest);
            (scratch.take(), frame.original_len.saturating_add(4))
        }
        (Framing::Plain | Framing::Ethernet, _) => (frame.data, frame.original_len),
        (Framing::Cooked, _) => cooked(frame, scratch),
        (Framing::Netlink, _) => netlink(frame, scratch),
        (Framing::Can, _) => can(frame, scratch),
    }
}

/// Builds a LINKTYPE_LINUX_SLL2 packet (<https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html>). All numbers are
/// big-endian.
fn cooked<'a>(frame: &Frame<'_>, scratch: &mut Scratch<'a>) -> (&'a [u8], u32) {
    scratch.put(&frame.protocol.to_be_bytes());
    scratch.put(&[0, 0]);
    scratch.put(&frame.ifindex.to_be_bytes());
    scratch.put(&frame.hatype.to_be_bytes());
    scratch.put(&[frame.packet_type, frame.address_len]);
    scratch.put(&frame.address);
    behind_header(frame, frame.network_offset, scratch)
}

/// Builds a LINKTYPE_NETLINK packet (<https://www.tcpdump.org/linktypes/LINKTYPE_NETLINK.html>): packet type, ARPHRD
/// type, ten unused bytes, netlink protocol.
fn netlink<'a>(frame: &Frame<'_>, scratch: &mut Scratch<'a>) -> (&'a [u8], u32) {
    scratch.put(&[0, frame.packet_type]);
    scratch.put(&frame.hatype.to_be_bytes());
    scratch.put(&[0; 10]);
    scratch.put(&frame.protocol.to_be_bytes());
    behind_header(frame, 0, scratch)
}

/// Appends the frame from offset `skip` on to the header in `scratch`.
fn behind_header<'a>(frame: &Frame<'_>, skip: usize, scratch: &mut Scratch<'a>) -> (&'a [u8], u32) {
    let header = scratch.len;
    scratch.put(&frame.data[skip..]);
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    (scratch.take(), frame.original_len.saturating_sub(length(skip)).saturating_add(length(header)))
}

/// Builds a LINKTYPE_CAN_SOCKETCAN packet (<https://www.tcpdump.org/linktypes/LINKTYPE_CAN_SOCKETCAN.html>). The
/// identifier is big-endian, CAN FD and CAN XL frames are marked, and the other numbers of CAN XL are little-endian.
fn can<'a>(frame: &Frame<'_>, scratch: &mut Scratch<'a>) -> (&'a [u8], u32) {
    const ETH_P_CANFD: u16 = 0x000d;
    const ETH_P_CANXL: u16 = 0x000e;
    scratch.put(frame.data);
    let packet = scratch.take();
    if let Some(header) = packet.first_chunk_mut::<12>() {
        let [a, b, c, d, flags, fd_flags, l0, l1, f0, f1, f2, f3] = *header;
        header[..4].copy_from_slice(&u32::from_ne_bytes([a, b, c, d]).to_be_bytes());
        match frame.protocol {
            ETH_P_CANXL => {
                header[4] = flags | 0x80;
                header[6..8].copy_from_slice(&u16::from_ne_bytes([l0, l1]).to_le_bytes());
                header[8..].copy_from_slice(&u32::from_ne_bytes([f0, f1, f2, f3]).to_le_bytes());
            }
            ETH_P_CANFD => (header[4], header[5]) = (flags & 0x7f, fd_flags | 0x04),
            _ => (header[4], header[5]) = (flags & 0x7f, fd_flags & !0x04),
        }
    }
    (packet, frame.original_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(data: &[u8]) -> Frame<'_> {
        Frame {
            data,
            original_len: 100,
            network_offset: 2.min(data.len()),
            time_ns: 0,
            vlan: None,
            checksum_not_ready: false,
            segmentation_offload: false,
            ifindex: 0x0102,
            hatype: 512,
            packet_type: 4,
            protocol: 0x86dd,
            address_len: 6,
            address: [1, 2, 3, 4, 5, 6, 0, 0],
        }
    }

    #[test]
    fn link_types_are_those_of_libpcap() {
        for (hatype, name) in [
            (1, "EN10MB"),
            (772, "EN10MB"),
            (65534, "RAW"),
            (768, "RAW"),
            (776, "RAW"),
            (280, "CAN_SOCKETCAN"),
            (801, "IEEE802_11"),
            (803, "IEEE802_11_RADIO"),
            (824, "NETLINK"),
            (512, "LINUX_SLL2"),
            (778, "LINUX_SLL2"),
            (32, "LINUX_SLL2"),
            (65535, "LINUX_SLL2"),
        ] {
            assert_eq!(link_type(hatype).to_string(), name, "{hatype}");
        }
    }

    #[test]
    fn a_vlan_tag_is_put_back_behind_the_addresses() {
        let tagged = |data| Frame { vlan: Some((0x88a8, 0x6007)), ..frame(data) };
        let mut room = [0; 256];
        let mut scratch = Scratch::new(&mut room);
        let data = *b"aaaaaabbbbbb\x08\x00payload";
        let (bytes, original_len) = packet_bytes(&tagged(&data), Framing::Ethernet, &mut scratch);
        assert_eq!((bytes, original_len), (&b"aaaaaabbbbbb\x88\xa8\x60\x07\x08\x00payload"[..], 104));
        // A frame cut inside the addresses, or on a link without VLAN tags, is unchanged.
        assert_eq!(packet_bytes(&tagged(b"aaaaaabbbbb"), Framing::Ethernet, &mut scratch).0, b"aaaaaabbbbb");
        assert_eq!(packet_bytes(&tagged(&data), Framing::Plain, &mut scratch), (&data[..], 100));
    }

    #[test]
    fn headers_are_made_for_cooked_packets() {
        let mut room = [0; 256];
        let mut scratch = Scratch::new(&mut room);
        let (bytes, original_len) = packet_bytes(&frame(b"\xff\x03payload"), Framing::Cooked, &mut scratch);
        let header = b"\x86\xdd\0\0\0\0\x01\x02\x02\x00\x04\x06\x01\x02\x03\x04\x05\x06\0\0";
        assert_eq!((&bytes[..20], &bytes[20..], original_len), (&header[..], &b"payload"[..], 118));

        let (bytes, original_len) = packet_bytes(&frame(b"message"), Framing::Netlink, &mut scratch);
        let header = b"\0\x04\x02\0\0\0\0\0\0\0\0\0\0\0\x86\xdd";
        assert_eq!((&bytes[..16], &bytes[16..], original_len), (&header[..], &b"message"[..], 116));
    }

    #[test]
    fn can_frames_get_their_byte_order() {
        let mut room = [0; 256];
        let mut scratch = Scratch::new(&mut room);
        let mut data = [0; 16];
        data[..4].copy_from_slice(&0x8000_0123u32.to_ne_bytes());
        data[4] = 8;
        for (protocol, flags) in [(0x000c, [8, 0]), (0x000d, [8, 4]), (0x000e, [0x88, 0])] {
            let (bytes, _) = packet_bytes(&Frame { protocol, ..frame(&data) }, Framing::Can, &mut scratch);
            assert_eq!((&bytes[..4], &bytes[4..6]), (&[0x80, 0, 1, 0x23][..], &flags[..]), "{protocol:#x}");
        }
        assert_eq!(packet_bytes(&frame(b"short"), Framing::Can, &mut scratch).0, b"short");
    }
}
