//! One line a packet, as `tcpdump -n` would begin it.
//!
//! Up to the colon behind the destination a line is what tcpdump 4.99 prints; behind it stands a short form of what
//! tcpdump would go on with (sequence numbers are absolute). Like tcpdump the line shows the outermost addresses; what a
//! tunnel carries follows them, as far as it was decoded. Lines are never broken, and nothing of a payload is printed.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::tz::TimeZone;

use crate::decode::{Decoded, Network};
use crate::packet::LinkType;
use crate::time::Timestamp;

/// Digits behind the seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Microseconds, as tcpdump prints by default.
    #[default]
    Micro,
    /// Nanoseconds, as with `tcpdump --nano`.
    Nano,
}

/// What a line is made of.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// When the packet was captured.
    pub time: Timestamp,
    /// How its first bytes are to be read.
    pub link_type: LinkType,
    /// The captured bytes.
    pub data: &'a [u8],
    /// Bytes it had on the wire.
    pub original_len: u32,
    /// What was understood of it.
    pub decoded: &'a Decoded,
}

/// Writes lines, in one time zone and precision.
#[derive(Clone, Debug)]
pub struct TextWriter {
    tz: TimeZone,
    precision: Precision,
    /// The second the clock below was made for: neighbours share it.
    second: Option<u64>,
    clock: String,
}

impl TextWriter {
    /// Lines with times of day in `tz`.
    pub fn new(tz: TimeZone, precision: Precision) -> Self {
        Self { tz, precision, second: None, clock: String::new() }
    }

    /// Appends the line of one packet, with its line feed.
    pub fn write(&mut self, out: &mut String, line: &Line<'_>) {
        self.write_time(out, line.time);
        let mut printer = Printer { out, line, wire: line.original_len.max(length(line.data)) };
        if printer.link().is_none() {
            printer.put(format_args!("[|{}]", line.link_type));
        }
        while out.ends_with(' ') {
            out.pop();
        }
        out.push('\n');
    }

    fn write_time(&mut self, out: &mut String, time: Timestamp) {
        let second = time.unix_seconds();
        if self.second != Some(second) {
            self.clock.clear();
            if let Ok(instant) = jiff::Timestamp::from_nanosecond(i128::from(time.0)) {
                let local = self.tz.to_datetime(instant);
                let _ = write!(self.clock, "{:02}:{:02}:{:02}", local.hour(), local.minute(), local.second());
            }
            self.second = Some(second);
        }
        let nanos = time.subsec_nanos();
        let _ = match self.precision {
            Precision::Micro => write!(out, "{}.{:06} ", self.clock, nanos / 1000),
            Precision::Nano => write!(out, "{}.{nanos:09} ", self.clock),
        };
    }
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_RARP: u16 = 0x8035;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const SCTP: u8 = 132;

/// The rest of one packet: `None` from any step means that the captured bytes end there.
struct Printer<'a> {
    out: &'a mut String,
    line: &'a Line<'a>,
    /// Bytes the packet had on the wire.
    wire: u32,
}

/// Bytes of a layer: those captured, and how many there were.
#[derive(Clone, Copy)]
struct Layer<'a> {
    data: &'a [u8],
    wire: u32,
}

impl<'a> Layer<'a> {
    fn skip(self, bytes: usize) -> Option<Self> {
        Some(Self { data: self.data.get(bytes..)?, wire: self.wire.saturating_sub(u32::try_from(bytes).ok()?) })
    }

    /// What a header says the length is, where that is less: the rest is padding.
    fn cut(self, wire: u32) -> Self {
        let captured = usize::try_from(wire).unwrap_or(usize::MAX).min(self.data.len());
        Self { data: self.data.get(..captured).unwrap_or_default(), wire }
    }

    fn u8(self, at: usize) -> Option<u8> {
        self.data.get(at).copied()
    }

    fn u16(self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(*self.data.get(at..)?.first_chunk()?))
    }

    fn u32(self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(*self.data.get(at..)?.first_chunk()?))
    }
}

impl Printer<'_> {
    fn put(&mut self, arguments: std::fmt::Arguments<'_>) {
        let _ = self.out.write_fmt(arguments);
    }

    fn link(&mut self) -> Option<()> {
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
                // The name of the capturing host's interface is not known here.
                self.put(format_args!("{:<5} {kind:<3} ", "?"));
                self.network(frame.u16(0)?, frame.skip(20)?, frame)
            }
            LinkType::NULL | LinkType::LOOP => {
                // In the byte order of whoever wrote it: families are small numbers.
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
            other => {
                self.put(format_args!("{other}, length {}: ", frame.wire));
                self.carried();
                Some(())
            }
        }
    }

    /// What follows an ethertype. `frame` is for those that are not known.
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

    fn ipv4(&mut self, packet: Layer<'_>) -> Option<()> {
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
            // Left for the network card, which cuts it into several.
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
        self.transport(protocol, payload?)
    }

    fn ipv6(&mut self, packet: Layer<'_>) -> Option<()> {
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
        // Hop by hop, routing and destination options; they cannot be more than the bytes there are.
        while let (0 | 43 | 60, Some(header)) = (protocol, payload) {
            protocol = header.u8(0)?;
            payload = header.skip(usize::from(header.u8(1)?) * 8 + 8);
        }
        self.transport(protocol, payload?)
    }

    /// `10.0.0.1.1234 > 10.0.0.2.80: `, without ports where the protocol has none or they were not captured.
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
        if self.line.decoded.tunnel != 0 {
            if !self.out.ends_with(' ') {
                self.out.push_str(": ");
            }
            self.carried();
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

    /// The innermost session, where decoding went further than the line did.
    fn carried(&mut self) {
        let decoded = self.line.decoded;
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

/// An IPv6 address as tcpdump writes it: as RFC 5952 does, and with a dotted end behind 96 zero bits.
struct V6(u128);

impl std::fmt::Display for V6 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match u32::try_from(self.0) {
            Ok(low) if low > 0xffff => write!(f, "::{}", Ipv4Addr::from_bits(low)),
            _ => Ipv6Addr::from_bits(self.0).fmt(f),
        }
    }
}

fn length(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}

/// tcpdump's names of ethertypes that sessions without IP have.
fn ethertype_name(ethertype: u16) -> &'static str {
    match ethertype {
        0x8863 => "PPPoE D",
        0x8808 => "MPCP",
        0x8809 => "Slow Protocols",
        0x888e => "EAPOL",
        0x88cc => "LLDP",
        0x88e5 => "802.1AE MACsec",
        0x88f7 => "PTP",
        0x8902 => "CFM",
        0x9000 => "Loopback",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(link_type: LinkType, hex: &str, decoded: &Decoded) -> String {
        let digits: Vec<u8> = hex.bytes().filter(|b| *b != b' ').collect();
        let data: Vec<u8> =
            digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
        let time = Timestamp(1_795_341_600_123_456_789);
        let original_len = u32::try_from(data.len()).unwrap();
        let mut out = String::new();
        TextWriter::new(TimeZone::UTC, Precision::Micro)
            .write(&mut out, &Line { time, link_type, data: &data, original_len, decoded });
        out
    }

    const MACS: &str = "0200 0000 0002 0200 0000 0001";

    #[test]
    fn lines_begin_as_tcpdumps_do() {
        let ip = |rest: &str| format!("{MACS} 0800 {rest}");
        for (link_type, hex, expected) in [
            (
                LinkType::ETHERNET,
                ip("4500 0028 0000 0000 4006 0000 0a000001 0a000002 04d2 0050 00000001 00000000 5002 0200 0000 0000"),
                "IP 10.0.0.1.1234 > 10.0.0.2.80: Flags [S], seq 1, win 512, length 0",
            ),
            (
                LinkType::ETHERNET,
                format!(
                    "{MACS} 8100 0007 0800 4500 002a 0000 0000 4006 0000 0a000001 0a000002 04d2 0050 00000001 00000009 5018 \
                     0200 0000 0000 6162"
                ),
                "IP 10.0.0.1.1234 > 10.0.0.2.80: Flags [P.], seq 1:3, ack 9, win 512, length 2",
            ),
            (
                LinkType::RAW,
                "6000 0000 000c 1140 2001 0db8 0000 0000 0000 0000 0000 0001 ff02 0000 0000 0000 0000 0000 0000 0001 \
                 04d2 0035 000c 0000 61626364"
                    .to_owned(),
                "IP6 2001:db8::1.1234 > ff02::1.53: UDP, length 4",
            ),
            (
                LinkType::ETHERNET,
                format!("{MACS} 0806 0001 0800 0604 0001 020000000001 0a000001 000000000000 0a000002"),
                "ARP, Request who-has 10.0.0.2 tell 10.0.0.1, length 28",
            ),
            (
                LinkType::ETHERNET,
                ip("4500 001c 0000 0000 4001 0000 0a000001 0a000002 0800 0000 0001 0002"),
                "IP 10.0.0.1 > 10.0.0.2: ICMP echo request, id 1, seq 2, length 8",
            ),
            (
                LinkType::ETHERNET,
                ip("4500 001c 0000 0001 4011 0000 0a000001 0a000002 0800 0000 0001 0002"),
                "IP 10.0.0.1 > 10.0.0.2: ip-proto-17",
            ),
            (
                LinkType::ETHERNET,
                ip("4500 0014 0000 0000 4063 0000 0a000001 0a000002"),
                "IP 10.0.0.1 > 10.0.0.2:  ip-proto-99 0",
            ),
            (
                LinkType::ETHERNET,
                ip("4500 0040 0000 0000 4006 0000 0a000001 0a000002"),
                "IP truncated-ip - 44 bytes missing! 10.0.0.1 > 10.0.0.2: [|EN10MB]",
            ),
            (
                LinkType::ETHERNET,
                format!("{MACS} 88cc 0000"),
                "02:00:00:00:00:01 > 02:00:00:00:00:02, ethertype LLDP (0x88cc), length 16:",
            ),
            (LinkType::ETHERNET, "0200".to_owned(), "[|EN10MB]"),
            (LinkType(147), "0200".to_owned(), "LINKTYPE_147, length 2:"),
        ] {
            assert_eq!(line(link_type, &hex, &Decoded::default()), format!("10:00:00.123456 {expected}\n"));
        }
    }

    #[test]
    fn what_a_tunnel_carries_follows() {
        let decoded = Decoded {
            network: Network::Ipv4,
            protocol: UDP,
            source: 0x0a00_0001,
            destination: 0x0a00_0002,
            source_port: 1,
            destination_port: 2,
            tunnel: 7,
            payload_len: 3,
            ..Decoded::default()
        };
        assert_eq!(
            line(LinkType::RAW, "4500 0018 0000 0000 402f 0000 c0a80001 c0a80002 0000 0800", &decoded),
            "10:00:00.123456 IP 192.168.0.1 > 192.168.0.2: GREv0, length 4: IP 10.0.0.1.1 > 10.0.0.2.2: UDP, length 3\n"
        );
    }

    #[test]
    fn times_are_local_and_can_have_nanoseconds() {
        let tz = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let mut writer = TextWriter::new(tz, Precision::Nano);
        let mut out = String::new();
        let decoded = Decoded::default();
        for nanos in [1_795_341_600_000_000_009, 1_795_341_600_999_999_999, 1_795_341_601_000_000_000] {
            let line = Line {
                time: Timestamp(nanos),
                link_type: LinkType::RAW,
                data: &[],
                original_len: 0,
                decoded: &decoded,
            };
            writer.write(&mut out, &line);
        }
        assert_eq!(out, "11:00:00.000000009 [|RAW]\n11:00:00.999999999 [|RAW]\n11:00:01.000000000 [|RAW]\n");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_one_line(
            link_type in proptest::sample::select(vec![0_u16, 1, 12, 101, 108, 113, 147, 228, 276]),
            ethertype in proptest::sample::select(vec![0_u16, 0x800, 0x806, 0x86dd, 0x8100, 0x8847, 0x8864]),
            mut data in proptest::collection::vec(proptest::num::u8::ANY, 0..120),
            original_len: u32,
        ) {
            if let Some(room) = data.get_mut(12..14) {
                room.copy_from_slice(&ethertype.to_be_bytes());
            }
            let decoded = crate::decode::decode(LinkType(link_type), &data);
            let mut out = String::new();
            TextWriter::new(TimeZone::UTC, Precision::Micro).write(
                &mut out,
                &Line { time: Timestamp(1), link_type: LinkType(link_type), data: &data, original_len, decoded: &decoded },
            );
            proptest::prop_assert_eq!(out.find('\n'), Some(out.len() - 1));
        }
    }
}
