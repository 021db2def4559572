//! What both writers share: options, errors, and the cut of packets that readers refuse.

use std::collections::HashMap;

use base::packet::{InterfaceId, LinkType, Packet};

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

/// Returns the captured bytes to export, their number, and whether the packet was truncated.
pub(super) fn exported_bytes<'a>(packet: &Packet<'a>) -> (&'a [u8], u32, bool) {
    match u32::try_from(packet.data.len()) {
        Ok(length) if length <= CAPTURED_BYTES_MAX => (packet.data, length, false),
        _ => (&packet.data[..CAPTURED_BYTES_MAX as usize], CAPTURED_BYTES_MAX, true),
    }
}
