//! From kept packets to what people and tools read.
//!
//! Exporters append to a `Vec<u8>` and do no I/O: who writes, streams or counts the bytes is the caller's affair. They
//! write in the byte order of the host, which Wireshark wants of a pipe. Packets longer than [`CAPTURED_BYTES_MAX`] are
//! cut, because Wireshark reads no longer ones; the original length still tells, and [`Exporter::cut`] counts them.

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

/// The most captured bytes of a packet that an export holds, and the snap length it states.
///
/// 262,144: `WTAP_MAX_PACKET_SIZE_STANDARD` of Wireshark and `MAXIMUM_SNAPLEN` of libpcap.
pub const CAPTURED_BYTES_MAX: u32 = 262_144;

/// A file format of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// pcapng: everything that is known.
    #[default]
    Pcapng,
    /// Classic pcap: times and bytes, one link type.
    Pcap,
}

/// How exactly an export tells the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Nanoseconds.
    #[default]
    Nano,
    /// Microseconds, rounded down, for tools that know no better.
    Micro,
}

/// What an export says beside its packets.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How exactly times are told.
    pub precision: Precision,
    /// Hardware of this host (pcapng `shb_hardware`).
    pub hardware: Option<String>,
    /// Operating system of this host (pcapng `shb_os`).
    pub os: Option<String>,
    /// The tcpdump expression that chose the packets (pcapng `if_filter`).
    pub filter: Option<String>,
    /// The link type, where it is known before the first packet: classic pcap then begins at once instead of with its
    /// first packet, and an empty pcapng has an interface of it instead of an Ethernet one.
    pub link_type: Option<LinkType>,
    /// Whole pcapng blocks in this host's byte order, which follow the section header.
    pub blocks: Vec<u8>,
    /// More options of interfaces, in this host's byte order.
    pub interfaces: HashMap<InterfaceId, Vec<u8>>,
}

/// What is known of an interface at the end of an export (draft-ietf-opsawg-pcapng, "Interface Statistics Block").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceStatistics {
    /// The interface.
    pub interface: InterfaceId,
    /// When recording began (`isb_starttime`).
    pub start: Option<Timestamp>,
    /// When recording ended, or the time of this export (`isb_endtime`).
    pub end: Option<Timestamp>,
    /// Packets received (`isb_ifrecv`).
    pub received: Option<u64>,
    /// Packets that the interface dropped for want of resources (`isb_ifdrop`).
    pub dropped: Option<u64>,
    /// Packets that the operating system dropped (`isb_osdrop`).
    pub os_dropped: Option<u64>,
    /// Packets that the capture filter accepted (`isb_filteraccept`).
    pub accepted: Option<u64>,
    /// Packets delivered to the user (`isb_usrdeliv`).
    pub delivered: Option<u64>,
}

impl InterfaceStatistics {
    /// Statistics of an interface of which nothing is known yet.
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

/// Why a packet does not go into an export.
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

/// A writer of either format.
#[derive(Debug)]
pub enum Exporter {
    /// Writes pcapng.
    Pcapng(pcapng::Writer),
    /// Writes classic pcap.
    Pcap(pcap::Writer),
}

impl Exporter {
    /// An exporter that has written nothing yet.
    pub fn new(format: Format, options: Options) -> Self {
        match format {
            Format::Pcapng => Self::Pcapng(pcapng::Writer::new(options)),
            Format::Pcap => Self::Pcap(pcap::Writer::new(options)),
        }
    }

    /// Writes what comes before the packets. Classic pcap has no room for comments.
    pub fn begin(&mut self, out: &mut Vec<u8>, comments: &[String]) {
        match self {
            Self::Pcapng(writer) => writer.begin(out, comments),
            Self::Pcap(writer) => writer.begin(out),
        }
    }

    /// Writes a packet, `interface` being that of `packet.interface`.
    ///
    /// # Errors
    ///
    /// [`ExportError::SeveralLinkTypes`]; `out` is then as it was, and the export may go on without this packet.
    pub fn packet(&mut self, out: &mut Vec<u8>, interface: &Interface, packet: &Packet<'_>) -> Result<(), ExportError> {
        match self {
            Self::Pcapng(writer) => {
                writer.packet(out, interface, packet);
                Ok(())
            }
            Self::Pcap(writer) => writer.packet(out, packet),
        }
    }

    /// As [`packet`](Self::packet), with a comment, for which classic pcap has no room.
    ///
    /// # Errors
    ///
    /// As [`packet`](Self::packet).
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

    /// As [`packet`](Self::packet), with what its capture said of it, for which classic pcap has no room.
    ///
    /// # Errors
    ///
    /// As [`packet`](Self::packet).
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

    /// Writes what comes after the packets; an export without packets is then a good file too. Classic pcap has no room
    /// for statistics and comments.
    pub fn end(&mut self, out: &mut Vec<u8>, statistics: &[InterfaceStatistics], comments: &[String]) {
        match self {
            Self::Pcapng(writer) => writer.end(out, statistics, comments),
            Self::Pcap(writer) => writer.end(out),
        }
    }

    /// Packets that were cut at [`CAPTURED_BYTES_MAX`].
    pub fn cut(&self) -> u64 {
        match self {
            Self::Pcapng(writer) => writer.cut(),
            Self::Pcap(writer) => writer.cut(),
        }
    }
}

/// The captured bytes that go into an export, with their number and whether that is all of them.
fn exported_bytes<'a>(packet: &Packet<'a>) -> (&'a [u8], u32, bool) {
    match u32::try_from(packet.data.len()) {
        Ok(length) if length <= CAPTURED_BYTES_MAX => (packet.data, length, false),
        _ => (&packet.data[..CAPTURED_BYTES_MAX as usize], CAPTURED_BYTES_MAX, true),
    }
}
