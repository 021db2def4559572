//! Prints the start of a line: the link layer, and protocols other than IP.

use std::net::Ipv4Addr;

use super::printer::{Layer, Printer};
use base::packet::LinkType;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_RARP: u16 = 0x8035;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const LINKTYPE_NFLOG: LinkType = LinkType(239);
/// `NFULA_PAYLOAD` of `linux/netfilter/nfnetlink_log.h`.
const NFLOG_PAYLOAD: u16 = 9;

impl Printer<'_> {
    pub(super) fn link(&mut self) -> Option<()> {
        let frame = Layer { data: self.line.data, wire: self.wire };
        match self.line.link_type {
            LinkType::ETHERNET => {
                let (mut at, mut ethertype) = (14, frame.u16(12)?);
                while matches!(ethertype, 0x8100 | 0x9100 | 0x9200 | 0x88a8) {
                    ethertype = frame.u16(at + 2)?;
                    at += 4;
                }
                if ethertype <= 1500 {
                    self.macs(frame)?;
                    self.put(format_args!(", 802.3, length {}: ", frame.wire));
                    return Some(());
                }
                self.network(ethertype, frame.skip(at)?, frame)
            }
            LinkType::LINUX_SLL => self.network(frame.u16(14)?, frame.skip(16)?, frame),
            LinkType::LINUX_SLL2 => {
                let kinds = ["In", "B", "M", "P", "Out"];
                let kind = kinds.get(usize::from(frame.u8(10)?)).unwrap_or(&"?");
                // The name of the interface on the capturing host is not known here.
                self.put(format_args!("{:<5} {kind:<3} ", "?"));
                self.network(frame.u16(0)?, frame.skip(20)?, frame)
            }
            LinkType::NULL | LinkType::LOOP => {
                // The family is in the writer's byte order. Families are small numbers, so the value reveals the order.
                let family = frame.u32(0)?;
                let family = if family & 0xffff_0000 != 0 { family.swap_bytes() } else { family };
                let payload = frame.skip(4)?;
                match family {
                    2 => self.ipv4(payload),
                    24 | 28 | 30 => self.ipv6(payload),
                    _ => {
                        self.put(format_args!("AF {family}, length {}: ", frame.wire));
                        Some(())
                    }
                }
            }
            LinkType::RAW | LinkType::RAW_DLT | LinkType::RAW_DLT_OPENBSD | LinkType::IPV4 | LinkType::IPV6 => {
                match frame.u8(0)? >> 4 {
                    4 => self.ipv4(frame),
                    6 => self.ipv6(frame),
                    version => {
                        self.put(format_args!("unknown ip {version}"));
                        Some(())
                    }
                }
            }
            LINKTYPE_NFLOG => self.nflog(frame),
            other => {
                if let Some(packet) = crate::network_offset(other, frame.data).and_then(|offset| frame.skip(offset)) {
                    return if packet.u8(0)? >> 4 == 4 { self.ipv4(packet) } else { self.ipv6(packet) };
                }
                self.put(format_args!("{other}, length {}: ", frame.wire));
                Some(())
            }
        }
    }

    /// Prints an NFLOG packet: attributes of length, type and value in the byte order of the capturing host. One
    /// attribute holds the packet.
    fn nflog(&mut self, frame: Layer<'_>) -> Option<()> {
        let family = frame.u8(0)?;
        let mut attributes = frame.skip(4)?;
        loop {
            let header: [u8; 4] = *attributes.data.first_chunk()?;
            let (little, big) =
                (u16::from_le_bytes([header[0], header[1]]), u16::from_be_bytes([header[0], header[1]]));
            // Lengths are not zero and mostly small, so the smaller of the two readings is correct.
            let (len, kind) = if little <= big {
                (little, u16::from_le_bytes([header[2], header[3]]))
            } else {
                (big, u16::from_be_bytes([header[2], header[3]]))
            };
            if len < 4 {
                return None;
            }
            if kind == NFLOG_PAYLOAD {
                let payload = attributes.cut(u32::from(len)).skip(4)?;
                return match family {
                    2 => self.ipv4(payload),
                    10 => self.ipv6(payload),
                    other => {
                        self.put(format_args!("NFLOG family {other}, length {}: ", payload.wire));
                        Some(())
                    }
                };
            }
            attributes = attributes.skip(usize::from(len).next_multiple_of(4))?;
        }
    }

    /// Prints the payload of an ethertype. For unknown ethertypes, prints `frame` instead.
    fn network(&mut self, ethertype: u16, payload: Layer<'_>, frame: Layer<'_>) -> Option<()> {
        match ethertype {
            ETHERTYPE_IPV4 => self.ipv4(payload),
            ETHERTYPE_IPV6 => self.ipv6(payload),
            ETHERTYPE_ARP | ETHERTYPE_RARP => self.arp(payload),
            0x8847 | 0x8848 => self.mpls(payload),
            0x8864 => self.pppoe(payload),
            _ => {
                if self.line.link_type == LinkType::ETHERNET {
                    self.macs(frame)?;
                    self.put(format_args!(", "));
                }
                let name = ethertype_name(ethertype);
                self.put(format_args!("ethertype {name} (0x{ethertype:04x}), length {}: ", frame.wire));
                Some(())
            }
        }
    }

    fn macs(&mut self, frame: Layer<'_>) -> Option<()> {
        let addresses: &[u8; 12] = frame.data.first_chunk()?;
        let (destination, source) = addresses.split_at(6);
        self.mac(source);
        self.out.push_str(" > ");
        self.mac(destination);
        Some(())
    }

    fn mac(&mut self, address: &[u8]) {
        for (at, byte) in address.iter().enumerate() {
            let separator = if at == 0 { "" } else { ":" };
            self.put(format_args!("{separator}{byte:02x}"));
        }
    }

    fn arp(&mut self, packet: Layer<'_>) -> Option<()> {
        let (hardware_len, protocol_len) = (usize::from(packet.u8(4)?), usize::from(packet.u8(5)?));
        let operation = packet.u16(6)?;
        self.out.push_str("ARP, ");
        if packet.u16(2)? != ETHERTYPE_IPV4 || protocol_len != 4 || hardware_len == 0 {
            self.put(format_args!("hardware {}, protocol 0x{:04x}", packet.u16(0)?, packet.u16(2)?));
        } else {
            let sender = packet.data.get(8..8 + hardware_len)?;
            let sender_ip = Ipv4Addr::from_bits(packet.u32(8 + hardware_len)?);
            let target = packet.data.get(12 + hardware_len..12 + 2 * hardware_len)?;
            let target_ip = Ipv4Addr::from_bits(packet.u32(12 + 2 * hardware_len)?);
            match operation {
                1 => {
                    self.put(format_args!("Request who-has {target_ip}"));
                    if target.iter().any(|&b| b != 0) {
                        self.out.push_str(" (");
                        self.mac(target);
                        self.out.push(')');
                    }
                    self.put(format_args!(" tell {sender_ip}"));
                }
                2 => {
                    self.put(format_args!("Reply {sender_ip} is-at "));
                    self.mac(sender);
                }
                3 => {
                    self.out.push_str("Reverse Request who-is ");
                    self.mac(target);
                    self.out.push_str(" tell ");
                    self.mac(sender);
                }
                4 => {
                    self.out.push_str("Reverse Reply ");
                    self.mac(target);
                    self.put(format_args!(" at {target_ip}"));
                }
                other => self.put(format_args!("Unknown ({other})")),
            }
        }
        self.put(format_args!(", length {}", packet.wire));
        Some(())
    }

    fn mpls(&mut self, mut payload: Layer<'_>) -> Option<()> {
        self.out.push_str("MPLS");
        loop {
            let entry = payload.u32(0)?;
            let (label, class, last, ttl) = (entry >> 12, entry >> 9 & 7, entry & 0x100 != 0, entry & 0xff);
            let stack = if last { ", [S]" } else { "" };
            self.put(format_args!(" (label {label}, tc {class}{stack}, ttl {ttl})"));
            payload = payload.skip(4)?;
            if last {
                self.out.push(' ');
                return match (label, payload.u8(0)?) {
                    (0 | 3, _) | (_, 0x45..=0x4f) => self.ipv4(payload),
                    (2, _) | (_, 0x60..=0x6f) => self.ipv6(payload),
                    _ => Some(()),
                };
            }
        }
    }

    fn pppoe(&mut self, payload: Layer<'_>) -> Option<()> {
        let (code, session, claimed) = (payload.u8(1)?, payload.u16(2)?, u32::from(payload.u16(4)?));
        let payload = payload.skip(6)?;
        self.out.push_str("PPPoE ");
        if code != 0 {
            self.put(format_args!("PAD-{code:x}"));
        }
        if claimed > payload.wire {
            self.put(format_args!(" [len {claimed} > {}!]", payload.wire));
        }
        if session != 0 {
            self.put(format_args!(" [ses 0x{session:x}]"));
        }
        self.out.push(' ');
        let payload = payload.cut(claimed.min(payload.wire));
        match payload.u16(0)? {
            0x0021 => self.ipv4(payload.skip(2)?),
            0x0057 => self.ipv6(payload.skip(2)?),
            other => {
                self.put(format_args!("PPP protocol 0x{other:04x}, length {}", payload.wire));
                Some(())
            }
        }
    }
}

/// Returns tcpdump's name of an ethertype that carries no IP.
fn ethertype_name(ethertype: u16) -> &'static str {
    match ethertype {
        0x8863 => "PPPoE D",
        0x8808 => "MPCP",
        0x8809 => "Slow Protocols",
        0x888e => "EAPOL",
        0x88cc => "LLDP",
        0x4305 => "batman-adv",
        0x88e5 => "802.1AE MACsec",
        0x88e7 => "802.1ah",
        0x894f => "NSH",
        0x88f7 => "PTP",
        0x8902 => "CFM",
        0x9000 => "Loopback",
        _ => "Unknown",
    }
}
