//! Writes pcapng (draft-ietf-opsawg-pcapng): one section, with an interface description before the first packet of each
//! interface.
//!
//! All interface descriptions state the same snap length and resolution, because libpcap rejects a file in which they
//! differ. libpcap still rejects a file of several link types.

use super::options::{CAPTURED_BYTES_MAX, Options, Precision, exported_bytes};
use crate::annotations::PacketAnnotation;
use crate::constants::*;
use crate::statistics::InterfaceStatistics;
use base::interface::Interface;
use base::packet::{Direction, InterfaceId, LinkType, Packet};
use base::time::Timestamp;

/// The section length that means "unspecified", because the length is unknown when the header is written.
const SECTION_LENGTH_UNKNOWN: u64 = u64::MAX;
/// The first byte of `if_filter`: the filter follows as text.
const FILTER_IS_TEXT: u8 = 0;

/// Estimated size in bytes of an enhanced packet block without packet data, padding and comment.
const PACKET_BLOCK_BYTES: usize = 64;
/// In the table of numbers: the interface is not described yet.
const NO_NUMBER: u32 = u32::MAX;

/// Writes one pcapng section.
#[derive(Debug)]
pub struct Writer {
    options: Options,
    /// The number of each interface in this file, by slot, and the time since which the slot belongs to that interface.
    numbers: Vec<(u32, Timestamp)>,
    described: u32,
    /// The link types of the interfaces that were described.
    link_types: Vec<LinkType>,
    last_time: Timestamp,
    cut: u64,
}

impl Writer {
    /// Creates a writer. It writes nothing before [`begin`](Self::begin).
    pub fn new(options: Options) -> Self {
        Self { options, numbers: Vec::new(), described: 0, link_types: Vec::new(), last_time: Timestamp::MIN, cut: 0 }
    }

    /// Writes the section header ("Section Header Block"). Texts are truncated to 65,535 bytes here and in every
    /// option.
    pub fn begin(&mut self, out: &mut Vec<u8>, comments: &[String]) {
        block(out, SECTION_HEADER, |out| {
            out.extend_from_slice(&BYTE_ORDER_MAGIC.to_ne_bytes());
            for part in [VERSION_MAJOR, VERSION_MINOR] {
                out.extend_from_slice(&part.to_ne_bytes());
            }
            out.extend_from_slice(&SECTION_LENGTH_UNKNOWN.to_ne_bytes());
            put_comments(out, comments);
            put_text(out, SHB_HARDWARE, self.options.hardware.as_deref());
            put_text(out, SHB_OS, self.options.os.as_deref());
            put_text(out, SHB_USERAPPL, Some(concat!("retrocap ", env!("CARGO_PKG_VERSION"))));
            put_option(out, OPTION_END, &[]);
        });
        out.extend_from_slice(&self.options.blocks);
    }

    /// Returns the number of an interface in this file, and first writes its description if that is not written yet
    /// ("Interface Description Block"). [`packet`](Self::packet) calls this itself.
    pub fn interface(&mut self, out: &mut Vec<u8>, interface: &Interface) -> u32 {
        let slot = usize::from(interface.id.0);
        if let Some(&(number, since)) = self.numbers.get(slot)
            && number != NO_NUMBER
            && since == interface.since
        {
            return number;
        }
        if self.numbers.len() <= slot {
            self.numbers.resize(slot + 1, (NO_NUMBER, Timestamp::MIN));
        }
        let number = self.described;
        self.numbers[slot] = (number, interface.since);
        let (name, description) = (interface.name.as_str(), interface.description.as_deref());
        let more = self.options.interfaces.get(&interface.id).cloned().unwrap_or_default();
        self.describe(out, interface.link_type, Some(name), description, interface.os.as_deref(), &more);
        number
    }

    /// Writes the description of an interface without packets, and returns whether the file has it. A file of one link type
    /// does not get another one, because libpcap rejects files of several.
    pub fn interface_without_packets(&mut self, out: &mut Vec<u8>, interface: &Interface) -> bool {
        let fits = self.link_types.len() != 1 || self.link_types.contains(&interface.link_type);
        if fits {
            self.interface(out, interface);
        }
        fits
    }

    /// Writes a packet ("Enhanced Packet Block"). `interface` is the interface with the id `packet.interface`.
    pub fn packet(&mut self, out: &mut Vec<u8>, interface: &Interface, packet: &Packet<'_>) {
        self.packet_block(out, interface, packet, None, None);
    }

    /// Writes a packet with a comment.
    pub fn packet_with_comment(
        &mut self,
        out: &mut Vec<u8>,
        interface: &Interface,
        packet: &Packet<'_>,
        comment: &str,
    ) {
        self.packet_block(out, interface, packet, Some(comment), None);
    }

    /// Writes a packet with its annotation.
    pub fn annotated_packet(
        &mut self,
        out: &mut Vec<u8>,
        interface: &Interface,
        packet: &Packet<'_>,
        annotation: &PacketAnnotation,
    ) {
        self.packet_block(out, interface, packet, None, Some(annotation));
    }

    /// Writes the statistics of the interfaces that were described ("Interface Statistics Block"), with the comments in
    /// the first block. An export without packets gets an interface description, because libpcap rejects a file without
    /// one.
    pub fn end(&mut self, out: &mut Vec<u8>, statistics: &[InterfaceStatistics], comments: &[String]) {
        if self.described == 0 {
            let link_type = self.options.link_type.unwrap_or(LinkType::ETHERNET);
            self.describe(out, link_type, None, None, None, &[]);
        }
        let mut comments = comments;
        for known in statistics {
            if let Some(number) = self.number(known.interface) {
                self.statistics_block(out, number, Some(known), comments);
                comments = &[];
            }
        }
        if !comments.is_empty() {
            self.statistics_block(out, 0, None, comments);
        }
    }

    /// Returns the number of packets truncated to [`CAPTURED_BYTES_MAX`].
    pub fn cut(&self) -> u64 {
        self.cut
    }

    fn number(&self, interface: InterfaceId) -> Option<u32> {
        self.numbers.get(usize::from(interface.0)).map(|(number, _)| *number).filter(|&number| number != NO_NUMBER)
    }

    fn describe(
        &mut self,
        out: &mut Vec<u8>,
        link_type: LinkType,
        name: Option<&str>,
        description: Option<&str>,
        os: Option<&str>,
        more: &[u8],
    ) {
        self.described += 1;
        if !self.link_types.contains(&link_type) {
            self.link_types.push(link_type);
        }
        block(out, INTERFACE_DESCRIPTION, |out| {
            out.extend_from_slice(&link_type.0.to_ne_bytes());
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&CAPTURED_BYTES_MAX.to_ne_bytes());
            put_text(out, IF_NAME, name);
            put_text(out, IF_DESCRIPTION, description);
            if let Some(filter) = &self.options.filter {
                let mut value = vec![FILTER_IS_TEXT];
                value.extend_from_slice(&filter.as_bytes()[..filter.floor_char_boundary(usize::from(u16::MAX) - 1)]);
                put_option(out, IF_FILTER, &value);
            }
            put_text(out, IF_OS, os);
            let digits = match self.options.precision {
                Precision::Nano => 9,
                Precision::Micro => 6,
            };
            put_option(out, IF_TSRESOL, &[digits]);
            out.extend_from_slice(more);
            put_option(out, OPTION_END, &[]);
        });
    }

    fn packet_block(
        &mut self,
        out: &mut Vec<u8>,
        interface: &Interface,
        packet: &Packet<'_>,
        comment: Option<&str>,
        annotation: Option<&PacketAnnotation>,
    ) {
        let number = self.interface(out, interface);
        let (data, captured, cut) = exported_bytes(packet);
        self.cut += u64::from(cut);
        self.last_time = self.last_time.max(packet.time);
        let [high, low] = self.time(packet.time);
        let flags = flags(packet) | annotation.map_or(0, |annotation| annotation.flags);
        let more = annotation.map_or(&[][..], |annotation| &annotation.options);
        out.reserve(PACKET_BLOCK_BYTES + data.len());
        block(out, ENHANCED_PACKET, |out| {
            for field in [number, high, low, captured, packet.original_len] {
                out.extend_from_slice(&field.to_ne_bytes());
            }
            out.extend_from_slice(data);
            pad(out, data.len());
            if flags == 0 && packet.drops_before == 0 && comment.is_none() && more.is_empty() {
                return;
            }
            put_text(out, OPTION_COMMENT, comment);
            if flags != 0 {
                put_option(out, EPB_FLAGS, &flags.to_ne_bytes());
            }
            if packet.drops_before != 0 {
                put_option(out, EPB_DROPCOUNT, &u64::from(packet.drops_before).to_ne_bytes());
            }
            out.extend_from_slice(more);
            put_option(out, OPTION_END, &[]);
        });
    }

    fn statistics_block(
        &self,
        out: &mut Vec<u8>,
        number: u32,
        known: Option<&InterfaceStatistics>,
        comments: &[String],
    ) {
        let written_at = known.and_then(|known| known.end).unwrap_or(self.last_time);
        block(out, INTERFACE_STATISTICS, |out| {
            out.extend_from_slice(&number.to_ne_bytes());
            for half in self.time(written_at) {
                out.extend_from_slice(&half.to_ne_bytes());
            }
            put_comments(out, comments);
            if let Some(known) = known {
                for (code, time) in [(ISB_STARTTIME, known.start), (ISB_ENDTIME, known.end)] {
                    if let Some(time) = time {
                        let [high, low] = self.time(time).map(u32::to_ne_bytes);
                        put_option(out, code, &[high, low].concat());
                    }
                }
                let counts = [
                    (ISB_IFRECV, known.received),
                    (ISB_IFDROP, known.dropped),
                    (ISB_FILTERACCEPT, known.accepted),
                    (ISB_OSDROP, known.os_dropped),
                    (ISB_USRDELIV, known.delivered),
                ];
                for (code, count) in counts {
                    if let Some(count) = count {
                        put_option(out, code, &count.to_ne_bytes());
                    }
                }
            }
            put_option(out, OPTION_END, &[]);
        });
    }

    /// Converts a time to the file's resolution, upper half first.
    fn time(&self, time: Timestamp) -> [u32; 2] {
        let units = match self.options.precision {
            Precision::Nano => time.0,
            Precision::Micro => time.0 / 1000,
        };
        let [a, b, c, d, e, f, g, h] = units.to_be_bytes();
        [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])]
    }
}

/// Returns the value of `epb_flags`; 0 if nothing is known.
fn flags(packet: &Packet<'_>) -> u32 {
    let mut flags = match packet.direction {
        Direction::Unknown => 0,
        Direction::In => 1,
        Direction::Out => 2,
    };
    if packet.flags.checksum_not_ready {
        flags |= FLAG_CHECKSUM_NOT_READY;
    }
    if packet.flags.segmentation_offload {
        flags |= FLAG_SEGMENTATION_OFFLOAD;
    }
    flags
}

/// Writes a block whose body `body` appends. The size of the body must be a multiple of four bytes and far below 4 GiB.
pub(crate) fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = u32::try_from(out.len() - start + 4).unwrap_or(u32::MAX);
    debug_assert!(length.is_multiple_of(4), "a block of {length} bytes");
    out[start + 4..start + 8].copy_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&length.to_ne_bytes());
}

/// Writes an option. The value is truncated to 65,535 bytes.
pub(crate) fn put_option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&code.to_ne_bytes());
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&value[..usize::from(length)]);
    pad(out, usize::from(length));
}

/// Writes a text option, unless the text is empty.
fn put_text(out: &mut Vec<u8>, code: u16, text: Option<&str>) {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        put_option(out, code, &text.as_bytes()[..text.floor_char_boundary(usize::from(u16::MAX))]);
    }
}

fn put_comments(out: &mut Vec<u8>, comments: &[String]) {
    for comment in comments {
        put_text(out, OPTION_COMMENT, Some(comment));
    }
}

/// Pads a value of `length` bytes to a multiple of four.
fn pad(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&[0; 3][..length.wrapping_neg() & 3]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::packet::PacketFlags;

    /// Renders one line per block: type, then options with code and value. Values are shown as text where they are
    /// text.
    fn outline(mut out: &[u8]) -> Vec<String> {
        let u32_at = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let u16_at = |bytes: &[u8], at: usize| usize::from(u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap()));
        let mut lines = Vec::new();
        while !out.is_empty() {
            let (kind, length) = (u32_at(out, 0), u32_at(out, 4) as usize);
            assert!(length.is_multiple_of(4));
            assert_eq!(u32_at(out, length - 4) as usize, length);
            let (block, rest) = out.split_at(length);
            let (name, fixed) = match kind {
                SECTION_HEADER => ("section".to_owned(), 24),
                INTERFACE_DESCRIPTION => {
                    (format!("interface {}", LinkType(u16::try_from(u16_at(block, 8)).unwrap())), 16)
                }
                INTERFACE_STATISTICS => (format!("statistics of {}", u32_at(block, 8)), 20),
                _ => (format!("packet of {}", u32_at(block, 8)), 28 + u32_at(block, 20).next_multiple_of(4) as usize),
            };
            let mut line = name;
            let mut options = &block[fixed..length - 4];
            while !options.is_empty() {
                let (code, length) = (u16_at(options, 0), u16_at(options, 2));
                let value = &options[4..4 + length];
                match std::str::from_utf8(value) {
                    Ok(text) if text.len() > 1 && !text.contains(char::is_control) => {
                        line += &format!(" {code}={text}")
                    }
                    _ if code == 0 => line += " end",
                    _ => line += &format!(" {code}={value:?}"),
                }
                options = &options[4 + length.next_multiple_of(4)..];
            }
            lines.push(line);
            out = rest;
        }
        lines
    }

    fn interface(id: u16, name: &str) -> Interface {
        Interface {
            id: InterfaceId(id),
            name: name.to_owned(),
            index: 0,
            link_type: LinkType::ETHERNET,
            description: None,
            os: None,
            up: true,
            gone: None,
            since: Timestamp::MIN,
        }
    }

    fn packet(interface: u16) -> Packet<'static> {
        Packet {
            time: Timestamp(1_000_000_000),
            interface: InterfaceId(interface),
            link_type: LinkType::ETHERNET,
            direction: Direction::Unknown,
            flags: PacketFlags::default(),
            original_len: 5,
            drops_before: 0,
            data: b"hello",
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_whole_export_in_outline() {
        let options = Options {
            hardware: Some("a box".to_owned()),
            os: Some("Linux 6".to_owned()),
            filter: Some("port 53".to_owned()),
            ..Options::default()
        };
        let mut writer = Writer::new(options);
        let mut out = Vec::new();
        writer.begin(&mut out, &["first".to_owned(), "second".to_owned()]);
        let eth0 =
            Interface { description: Some("uplink".to_owned()), os: Some("BSD".to_owned()), ..interface(7, "eth0") };
        writer.packet(&mut out, &eth0, &packet(7));
        let flags = PacketFlags { checksum_not_ready: true, segmentation_offload: true };
        let sent = Packet { direction: Direction::Out, flags, drops_before: 258, ..packet(2) };
        writer.packet_with_comment(&mut out, &interface(2, ""), &sent, "why");
        let statistics = [
            InterfaceStatistics { received: Some(99), ..InterfaceStatistics::of(InterfaceId(5)) },
            InterfaceStatistics {
                start: Some(Timestamp(1)),
                end: Some(Timestamp(1 << 32)),
                received: Some(3),
                dropped: Some(0),
                os_dropped: Some(2),
                accepted: Some(1),
                delivered: Some(1),
                ..InterfaceStatistics::of(InterfaceId(2))
            },
        ];
        writer.end(&mut out, &statistics, &["cut here".to_owned()]);
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            outline(&out),
            [
                format!("section 1=first 1=second 2=a box 3=Linux 6 4=retrocap {version} end").as_str(),
                "interface EN10MB 2=eth0 3=uplink 11=[0, 112, 111, 114, 116, 32, 53, 51] 12=BSD 9=[9] end",
                "packet of 0",
                "interface EN10MB 11=[0, 112, 111, 114, 116, 32, 53, 51] 9=[9] end",
                "packet of 1 1=why 2=[2, 10, 0, 0] 4=[2, 1, 0, 0, 0, 0, 0, 0] end",
                "statistics of 1 1=cut here 2=[0, 0, 0, 0, 1, 0, 0, 0] 3=[1, 0, 0, 0, 0, 0, 0, 0] \
                 4=[3, 0, 0, 0, 0, 0, 0, 0] 5=[0, 0, 0, 0, 0, 0, 0, 0] 6=[1, 0, 0, 0, 0, 0, 0, 0] \
                 7=[2, 0, 0, 0, 0, 0, 0, 0] 8=[1, 0, 0, 0, 0, 0, 0, 0] end",
            ]
        );
    }

    #[test]
    fn an_export_without_packets_has_an_interface() {
        let table: &[(Options, &[String], &[&str])] = &[
            (Options::default(), &[], &["interface EN10MB 9=[9] end"]),
            (
                Options { precision: Precision::Micro, link_type: Some(LinkType::RAW), ..Options::default() },
                &["nothing matched".to_owned()],
                &["interface RAW 9=[6] end", "statistics of 0 1=nothing matched end"],
            ),
        ];
        for (options, comments, expected) in table {
            let mut writer = Writer::new(options.clone());
            let mut out = Vec::new();
            writer.begin(&mut out, &[]);
            writer.end(&mut out, &[], comments);
            assert_eq!(outline(&out)[1..], **expected);
        }
    }

    #[test]
    fn texts_too_long_for_an_option_end_at_a_character() {
        let long = "ä".repeat(40_000);
        let mut writer = Writer::new(Options { filter: Some(long.clone()), ..Options::default() });
        let mut out = Vec::new();
        writer.begin(&mut out, std::slice::from_ref(&long));
        writer.packet_with_comment(&mut out, &interface(0, &long), &packet(0), &long);
        let lines = outline(&out);
        let kept = "ä".repeat(32_767);
        assert!(lines[0].starts_with(&format!("section 1={kept} 4=")));
        assert!(lines[1].starts_with(&format!("interface EN10MB 2={kept} 11=[0, 195, 164")));
        assert_eq!(lines[2], format!("packet of 0 1={kept} end"));
    }
}
