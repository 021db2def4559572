//! Prints IP, its transport protocols, and the contents of tunnels.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::printer::{Layer, Printer};
use crate::Network;

const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const SCTP: u8 = 132;

impl Printer<'_> {
    pub(super) fn ipv4(&mut self, packet: Layer<'_>) -> Option<()> {
        let first = packet.u8(0)?;
        if first >> 4 != 4 {
            self.put(format_args!("IP{} (invalid)", first >> 4));
            return Some(());
        }
        self.out.push_str("IP ");
        let header_len = usize::from(first & 0xf) * 4;
        let addresses: &[u8; 8] = packet.data.get(12..)?.first_chunk()?;
        if header_len < 20 {
            self.put(format_args!("bad-hlen {header_len}"));
            return Some(());
        }
        let mut claimed = u32::from(packet.u16(2)?);
        if claimed == 0 {
            // The network card segments this packet, so the header states no length.
            claimed = packet.wire;
        }
        if packet.wire < claimed {
            self.put(format_args!("truncated-ip - {} bytes missing! ", claimed - packet.wire));
        }
        if claimed < u32::from(first & 0xf) * 4 {
            self.put(format_args!("bad-len {claimed}"));
            return Some(());
        }
        let [a, b, c, d, e, f, g, h] = *addresses;
        let (source, destination) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
        let (fragment, protocol) = (packet.u16(6)? & 0x1fff, packet.u8(9)?);
        let payload = packet.cut(claimed).skip(header_len);
        if fragment != 0 {
            self.put(format_args!("{source} > {destination}: ip-proto-{protocol}"));
            return Some(());
        }
        self.addresses(&source, &destination, protocol, payload);
        self.printed = Some((source.to_bits().into(), destination.to_bits().into(), protocol));
        self.transport(protocol, payload?)
    }

    pub(super) fn ipv6(&mut self, packet: Layer<'_>) -> Option<()> {
        let addresses = packet.data.get(8..40)?;
        self.out.push_str("IP6 ");
        if packet.u8(0)? >> 4 != 6 {
            self.put(format_args!("version error: {} != 6", packet.u8(0)? >> 4));
            return Some(());
        }
        let claimed = match u32::from(packet.u16(4)?) {
            0 => packet.wire,
            payload => payload + 40,
        };
        if packet.wire < claimed {
            self.put(format_args!("truncated-ip6 - {} bytes missing!", claimed - packet.wire));
        }
        let source = V6(u128::from_be_bytes(*addresses.first_chunk()?));
        let destination = V6(u128::from_be_bytes(*addresses.last_chunk()?));
        let mut protocol = packet.u8(6)?;
        let mut payload = packet.cut(claimed).skip(40);
        self.addresses(&source, &destination, protocol, payload);
        // Hop-by-hop, routing and destination options. Each header consumes bytes, so the loop ends.
        while let (0 | 43 | 60, Some(header)) = (protocol, payload) {
            protocol = header.u8(0)?;
            payload = header.skip(usize::from(header.u8(1)?) * 8 + 8);
        }
        self.printed = Some((source.0, destination.0, protocol));
        self.transport(protocol, payload?)
    }

    /// Prints `10.0.0.1.1234 > 10.0.0.2.80: `, without ports if the protocol has none or they were not captured.
    fn addresses(
        &mut self,
        source: &dyn std::fmt::Display,
        destination: &dyn std::fmt::Display,
        protocol: u8,
        payload: Option<Layer<'_>>,
    ) {
        let ports = match (protocol, payload) {
            (TCP | UDP | SCTP | DCCP, Some(payload)) => payload.u16(0).zip(payload.u16(2)),
            _ => None,
        };
        match ports {
            Some((from, to)) => self.put(format_args!("{source}.{from} > {destination}.{to}: ")),
            None => self.put(format_args!("{source} > {destination}: ")),
        }
    }

    fn transport(&mut self, protocol: u8, payload: Layer<'_>) -> Option<()> {
        let wire = payload.wire;
        match protocol {
            TCP => return self.tcp(payload),
            UDP => {
                let claimed = u32::from(payload.u16(4)?).saturating_sub(8);
                self.put(format_args!("UDP, length {}", claimed.min(wire.saturating_sub(8))));
            }
            1 | 58 => self.icmp(protocol, payload)?,
            SCTP => self.put(format_args!("sctp, length {wire}")),
            4 | 41 => {}
            44 => self.put(format_args!("frag, length {wire}")),
            47 => self.put(format_args!("GREv{}, length {wire}", payload.u8(1)? & 7)),
            59 => self.put(format_args!("no next header")),
            other => self.put(format_args!(" ip-proto-{other} {wire}")),
        }
        Some(())
    }

    fn tcp(&mut self, header: Layer<'_>) -> Option<()> {
        let (sequence, acknowledged, flags) = (header.u32(4)?, header.u32(8)?, header.u8(13)?);
        let payload = header.wire.saturating_sub(u32::from(header.u8(12)? >> 4) * 4);
        self.flags(flags);
        if payload > 0 {
            self.put(format_args!(", seq {sequence}:{}", sequence.wrapping_add(payload)));
        } else if flags & 0x07 != 0 {
            self.put(format_args!(", seq {sequence}"));
        }
        if flags & 0x10 != 0 {
            self.put(format_args!(", ack {acknowledged}"));
        }
        self.put(format_args!(", win {}, length {payload}", header.u16(14)?));
        Some(())
    }

    fn flags(&mut self, flags: u8) {
        self.out.push_str("Flags [");
        for (bit, letter) in ['F', 'S', 'R', 'P', '.', 'U', 'E', 'W'].into_iter().enumerate() {
            if flags >> bit & 1 != 0 {
                self.out.push(letter);
            }
        }
        self.out.push_str(if flags == 0 { "none]" } else { "]" });
    }

    fn icmp(&mut self, protocol: u8, header: Layer<'_>) -> Option<()> {
        let (kind, code) = (header.u8(0)?, header.u8(1)?);
        let name = if protocol == 1 { "ICMP " } else { "ICMP6, " };
        let echo = match (protocol, kind) {
            (1, 8) | (58, 128) => Some("request"),
            (1, 0) | (58, 129) => Some("reply"),
            _ => None,
        };
        match echo {
            Some(echo) => {
                self.put(format_args!("{name}echo {echo}, id {}, seq {}", header.u16(4)?, header.u16(6)?));
            }
            None => self.put(format_args!("{name}type {kind} code {code}")),
        }
        self.put(format_args!(", length {}", header.wire));
        Some(())
    }

    /// Prints the innermost session if the decoder found it further inside the packet than this line goes.
    pub(super) fn carried(&mut self) {
        let decoded = self.line.decoded;
        let is_printed = match self.printed {
            Some(printed) => decoded.tunnel == 0 || printed == (decoded.source, decoded.destination, decoded.protocol),
            None => decoded.network == Network::Link,
        };
        if is_printed {
            return;
        }
        if !self.out.ends_with(' ') {
            self.out.push_str(": ");
        }
        let (name, source, destination) = match decoded.network {
            Network::Link => return,
            Network::Ipv4 => {
                let [source, destination] = [decoded.source, decoded.destination]
                    .map(|address| Ipv4Addr::from_bits(u32::try_from(address).unwrap_or_default()).to_string());
                ("IP", source, destination)
            }
            Network::Ipv6 => ("IP6", V6(decoded.source).to_string(), V6(decoded.destination).to_string()),
        };
        let (from, to, len) = (decoded.source_port, decoded.destination_port, decoded.payload_len);
        match decoded.protocol {
            TCP => {
                self.put(format_args!("{name} {source}.{from} > {destination}.{to}: "));
                self.flags(decoded.tcp_flags);
                self.put(format_args!(", seq {}, length {len}", decoded.tcp_sequence));
            }
            UDP => self.put(format_args!("{name} {source}.{from} > {destination}.{to}: UDP, length {len}")),
            SCTP => self.put(format_args!("{name} {source}.{from} > {destination}.{to}: sctp, length {len}")),
            1 => self.put(format_args!("{name} {source} > {destination}: ICMP type {from}, length {len}")),
            58 => self.put(format_args!("{name} {source} > {destination}: ICMP6, type {from}, length {len}")),
            other => self.put(format_args!("{name} {source} > {destination}:  ip-proto-{other} {len}")),
        }
    }
}

/// An IPv6 address in the format of tcpdump: RFC 5952, with a dotted-decimal end after 96 zero bits.
struct V6(u128);

impl std::fmt::Display for V6 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match u32::try_from(self.0) {
            Ok(low) if low > 0xffff => write!(f, "::{}", Ipv4Addr::from_bits(low)),
            _ => Ipv6Addr::from_bits(self.0).fmt(f),
        }
    }
}
