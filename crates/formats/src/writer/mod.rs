//! Writes packets as capture files.
//!
//! Exporters append to a `Vec<u8>` and do no I/O. The caller writes, streams or counts the bytes. Exporters write in
//! host byte order, which Wireshark requires of a pipe. Packets longer than [`CAPTURED_BYTES_MAX`] are truncated,
//! because Wireshark does not read longer ones. Their original length is preserved, and [`Exporter::cut`] counts them.

pub mod one_link_type;
pub mod pcap;
pub mod pcapng;
#[cfg(test)]
mod round_trip;

use std::collections::HashMap;

use super::annotations::PacketAnnotation;
use base::interface::Interface;
use base::packet::{InterfaceId, LinkType, Packet};
use base::time::Timestamp;

/// The maximum number of captured bytes of an exported packet, and the snap length that exports state.
///
/// 262,144: `WTAP_MAX_PACKET_SIZE_STANDARD` of Wireshark and `MAXIMUM_SNAPLEN` of libpcap.
pub const CAPTURED_BYTES_MAX: u32 = 262_144;

/// A capture file format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// pcapng, which stores every field of a packet and its interface.
    #[default]
    Pcapng,
    /// Classic pcap, which stores times and bytes of packets of one link type.
    Pcap,
}

/// The timestamp resolution of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Nanoseconds.
    #[default]
    Nano,
    /// Microseconds, rounded down, for tools that do not support nanoseconds.
    Micro,
}

/// The options of an export.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The timestamp resolution.
    pub precision: Precision,
    /// The hardware of this host (pcapng `shb_hardware`).
    pub hardware: Option<String>,
    /// The operating system of this host (pcapng `shb_os`).
    pub os: Option<String>,
    /// The filter expression that selected the packets (pcapng `if_filter`).
    pub filter: Option<String>,
    /// The link type, if it is known before the first packet. Classic pcap then writes its file header at once instead
    /// of with the first packet. A pcapng export without packets then describes an interface of this link type instead
    /// of Ethernet.
    pub link_type: Option<LinkType>,
    /// Whole pcapng blocks in host byte order, written after the section header.
    pub blocks: Vec<u8>,
    /// Additional options of interface descriptions, in host byte order.
    pub interfaces: HashMap<InterfaceId, Vec<u8>>,
}

/// Statistics of an interface at the end of an export (draft-ietf-opsawg-pcapng, "Interface Statistics Block").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceStatistics {
    /// The interface.
    pub interface: InterfaceId,
    /// The start of the recording (`isb_starttime`).
    pub start: Option<Timestamp>,
    /// The end of the recording, or the time of this export (`isb_endtime`).
    pub end: Option<Timestamp>,
    /// Packets received (`isb_ifrecv`).
    pub received: Option<u64>,
    /// Packets that the interface dropped for lack of resources (`isb_ifdrop`).
    pub dropped: Option<u64>,
    /// Packets that the operating system dropped (`isb_osdrop`).
    pub os_dropped: Option<u64>,
    /// Packets that the capture filter accepted (`isb_filteraccept`).
    pub accepted: Option<u64>,
    /// Packets delivered to the user (`isb_usrdeliv`).
    pub delivered: Option<u64>,
}

impl InterfaceStatistics {
    /// Creates statistics of an interface in which every value is unknown.
    pub fn of(interface: InterfaceId) -> Self {
        Self {
            interface,
            start: None,
            end: None,
            received: None,
            dropped: None,
            os_dropped: None,
            accepted: None,
            delivered: None,
        }
    }
}

/// An error of exporting a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// Classic pcap cannot hold packets of different link types.
    #[error(
        "classic pcap holds one link type, this export has {first} and {other}: use --format pcapng, or choose one \
         interface with --interface"
    )]
    SeveralLinkTypes {
        /// The link type of the file.
        first: LinkType,
        /// The link type of the packet that does not fit.
        other: LinkType,
    },
}

/// A writer for either format.
#[derive(Debug)]
pub enum Exporter {
    /// Writes pcapng.
    Pcapng(pcapng::Writer),
    /// Writes classic pcap.
    Pcap(pcap::Writer),
}

impl Exporter {
    /// Creates an exporter. It writes nothing before [`begin`](Self::begin).
    pub fn new(format: Format, options: Options) -> Self {
        match format {
            Format::Pcapng => Self::Pcapng(pcapng::Writer::new(options)),
            Format::Pcap => Self::Pcap(pcap::Writer::new(options)),
        }
    }

    /// Writes the file header or section header. Classic pcap has no comments.
    pub fn begin(&mut self, out: &mut Vec<u8>, comments: &[String]) {
        match self {
            Self::Pcapng(writer) => writer.begin(out, comments),
            Self::Pcap(writer) => writer.begin(out),
        }
    }

    /// Writes a packet. `interface` is the interface with the id `packet.interface`.
    ///
    /// # Errors
    ///
    /// [`ExportError::SeveralLinkTypes`]. `out` is then unchanged, and the export can continue without this packet.
    pub fn packet(&mut self, out: &mut Vec<u8>, interface: &Interface, packet: &Packet<'_>) -> Result<(), ExportError> {
        match self {
            Self::Pcapng(writer) => {
                writer.packet(out, interface, packet);
                Ok(())
            }
            Self::Pcap(writer) => writer.packet(out, packet),
        }
    }

    /// Writes a packet with a comment, which classic pcap omits.
    ///
    /// # Errors
    ///
    /// Those of [`packet`](Self::packet).
    pub fn packet_with_comment(
        &mut self,
        out: &mut Vec<u8>,
        interface: &Interface,
        packet: &Packet<'_>,
        comment: &str,
    ) -> Result<(), ExportError> {
        match self {
            Self::Pcapng(writer) => {
                writer.packet_with_comment(out, interface, packet, comment);
                Ok(())
            }
            Self::Pcap(writer) => writer.packet(out, packet),
        }
    }

    /// Writes a packet with its annotation, which classic pcap omits.
    ///
    /// # Errors
    ///
    /// Those of [`packet`](Self::packet).
    pub fn annotated_packet(
        &mut self,
        out: &mut Vec<u8>,
        interface: &Interface,
        packet: &Packet<'_>,
        annotation: &PacketAnnotation,
    ) -> Result<(), ExportError> {
        match self {
            Self::Pcapng(writer) => {
                writer.annotated_packet(out, interface, packet, annotation);
                Ok(())
            }
            Self::Pcap(writer) => writer.packet(out, packet),
        }
    }

    /// Ends the export, and makes an export without packets a valid file. Classic pcap has no statistics or comments.
    pub fn end(&mut self, out: &mut Vec<u8>, statistics: &[InterfaceStatistics], comments: &[String]) {
        match self {
            Self::Pcapng(writer) => writer.end(out, statistics, comments),
            Self::Pcap(writer) => writer.end(out),
        }
    }

    /// Returns the number of packets truncated to [`CAPTURED_BYTES_MAX`].
    pub fn cut(&self) -> u64 {
        match self {
            Self::Pcapng(writer) => writer.cut(),
            Self::Pcap(writer) => writer.cut(),
        }
    }
}

/// Returns the captured bytes to export, their number, and whether the packet was truncated.
fn exported_bytes<'a>(packet: &Packet<'a>) -> (&'a [u8], u32, bool) {
    match u32::try_from(packet.data.len()) {
        Ok(length) if length <= CAPTURED_BYTES_MAX => (packet.data, length, false),
        _ => (&packet.data[..CAPTURED_BYTES_MAX as usize], CAPTURED_BYTES_MAX, true),
    }
}
