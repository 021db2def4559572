//! One text line per packet, in the format of `tcpdump -n`.
//!
//! Up to the colon after the destination, a line is what tcpdump 4.99 prints. The part after the colon is a short form
//! of tcpdump's output, with absolute sequence numbers. Like tcpdump, a line shows the outermost addresses. The
//! contents of a tunnel follow, as far as they are decoded. The line ends with the DNS, HTTP or TLS contents of the
//! payload, with control characters escaped. A packet always takes exactly one line.

mod application;
mod link;
mod network;
mod printer;

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use base::time::Timestamp;
pub use printer::Line;
use printer::{Printer, length};

/// The number of digits after the seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Microseconds, the default of tcpdump.
    #[default]
    Micro,
    /// Nanoseconds, as with `tcpdump --nano`.
    Nano,
}

/// What begins a line, as with the options of tcpdump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stamp {
    /// The time of day.
    #[default]
    Clock,
    /// Nothing (`-t`).
    None,
    /// Seconds since 1970 (`-tt`).
    Epoch,
    /// Seconds since the previous line (`-ttt`).
    SincePrevious,
    /// Date, time of day and the offset from UTC (`-tttt`).
    Date,
    /// Seconds since the first line (`-ttttt`).
    SinceFirst,
}

/// Writes lines in one time zone and precision.
#[derive(Clone, Debug)]
pub struct TextWriter {
    tz: TimeZone,
    precision: Precision,
    /// The second that `clock` shows. Consecutive packets mostly share it.
    second: Option<u64>,
    clock: String,
    stamp: Stamp,
    /// The time that [`Stamp::SincePrevious`] and [`Stamp::SinceFirst`] count from.
    origin: Option<Timestamp>,
}

impl TextWriter {
    /// Creates a writer of lines with times of day in `tz`.
    pub fn new(tz: TimeZone, precision: Precision) -> Self {
        Self { tz, precision, second: None, clock: String::new(), stamp: Stamp::default(), origin: None }
    }

    /// Begins lines with `stamp`.
    #[must_use]
    pub fn beginning_with(mut self, stamp: Stamp) -> Self {
        self.stamp = stamp;
        self
    }

    /// Appends the line of one packet, with a line feed.
    pub fn write(&mut self, out: &mut String, line: &Line<'_>) {
        self.write_time(out, line.time);
        let mut printer = Printer { out, line, wire: line.original_len.max(length(line.data)), printed: None };
        match printer.link() {
            Some(()) => printer.carried(),
            None => printer.put(format_args!("[|{}]", line.link_type)),
        }
        while out.ends_with(' ') {
            out.pop();
        }
        application::write(out, line.decoded, line.data);
        out.push('\n');
    }

    fn write_time(&mut self, out: &mut String, time: Timestamp) {
        let origin = *self.origin.get_or_insert(time);
        match self.stamp {
            Stamp::Clock => return self.write_clock(out, time),
            Stamp::None => return,
            Stamp::Date => {
                let _ = write!(out, "{} ", base::time::local(time, &self.tz).split(' ').next().unwrap_or_default());
                self.write_clock(out, time);
                out.pop();
                let zone = base::time::zone(time, &self.tz);
                out.push_str(if zone == "UTC" { "Z " } else { &zone });
                if !out.ends_with(' ') {
                    out.push(' ');
                }
                return;
            }
            Stamp::Epoch => {
                let _ = write!(out, "{}", time.unix_seconds());
                self.write_fraction(out, time.subsec_nanos());
            }
            Stamp::SincePrevious | Stamp::SinceFirst => {
                let (sign, span) = if time < origin { ("-", origin.since(time)) } else { ("", time.since(origin)) };
                let seconds = span.as_secs();
                let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
                let _ = write!(out, "{sign}{hours:02}:{minutes:02}:{:02}", seconds % 60);
                self.write_fraction(out, span.subsec_nanos());
                if self.stamp == Stamp::SincePrevious {
                    self.origin = Some(time);
                }
            }
        }
        out.push(' ');
    }

    fn write_fraction(&self, out: &mut String, nanos: u32) {
        let _ = match self.precision {
            Precision::Micro => write!(out, ".{:06}", nanos / 1000),
            Precision::Nano => write!(out, ".{nanos:09}"),
        };
    }

    fn write_clock(&mut self, out: &mut String, time: Timestamp) {
        let second = time.unix_seconds();
        if self.second != Some(second) {
            self.clock.clear();
            if let Ok(instant) = jiff::Timestamp::from_nanosecond(i128::from(time.0)) {
                let local = self.tz.to_datetime(instant);
                let _ = write!(self.clock, "{:02}:{:02}:{:02}", local.hour(), local.minute(), local.second());
            }
            self.second = Some(second);
        }
        out.push_str(&self.clock);
        self.write_fraction(out, time.subsec_nanos());
        out.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decoded, Network};
    use base::packet::LinkType;

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
            protocol: 17,
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

    /// The innermost session comes once, whatever is in front of it.
    #[test]
    fn the_innermost_session_comes_once() {
        use crate::frames::{ethernet, ipv4, join, label, pppoe, udp, with};

        let v4 = with(12, 192, ipv4(17, &udp(53, b"hello")));
        let frame = ethernet(0x0800, &v4);
        let inner = "IP 192.0.0.1.1000 > 10.0.0.2.53: UDP, length 5";
        let macs = "02:00:00:00:00:01 > 02:00:00:00:00:02, ethertype";
        for (frame, expected) in [
            (ethernet(0x8864, &pppoe(3, 0x21, &v4)), format!("PPPoE  [ses 0x3] {inner}")),
            (ethernet(0x88e7, &join(&[&[0, 0, 0, 5], &frame])), format!("{macs} 802.1ah (0x88e7), length 65: {inner}")),
            (
                ethernet(0x88e5, &join(&[&[0, 0, 0, 0, 0, 1, 8, 0], &v4, &[0; 16]])),
                format!("{macs} 802.1AE MACsec (0x88e5), length 71: {inner}"),
            ),
            (
                ethernet(0x8847, &label(true, &join(&[&[0; 4], &frame]))),
                format!("MPLS (label 16, tc 0, [S], ttl 64) {inner}"),
            ),
            (ethernet(0x0800, &ipv4(4, &v4)), format!("IP 10.0.0.1 > 10.0.0.2: {inner}")),
        ] {
            let decoded = crate::decode(LinkType::ETHERNET, &frame);
            let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            let line = line(LinkType::ETHERNET, &hex, &decoded);
            assert!(line.starts_with(&format!("10:00:00.123456 {expected}")), "{line}, expected {expected}");
            assert_eq!(line.matches("UDP, length").count(), 1, "{line}");
        }
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
            let decoded = crate::decode(LinkType(link_type), &data);
            let mut out = String::new();
            TextWriter::new(TimeZone::UTC, Precision::Micro).write(
                &mut out,
                &Line { time: Timestamp(1), link_type: LinkType(link_type), data: &data, original_len, decoded: &decoded },
            );
            proptest::prop_assert_eq!(out.find('\n'), Some(out.len() - 1));
        }
    }
}
