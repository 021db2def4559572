//! Writes packets as capture files.
//!
//! Exporters append to a `Vec<u8>` and do no I/O. The caller writes, streams or counts the bytes. Exporters write in
//! host byte order, which Wireshark requires of a pipe. Packets longer than [`CAPTURED_BYTES_MAX`] are truncated,
//! because Wireshark does not read longer ones. Their original length is preserved, and [`Exporter::cut`] counts them.

pub mod one_link_type;
mod options;
pub mod pcap;
pub mod pcapng;
#[cfg(test)]
mod round_trip;

use super::annotations::PacketAnnotation;
pub use super::statistics::InterfaceStatistics;
use base::interface::Interface;
use base::packet::Packet;
pub use options::{CAPTURED_BYTES_MAX, ExportError, Format, Options, Precision};

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

    /// Writes the description of an interface without packets, and returns whether the file has it.
    pub fn interface_without_packets(&mut self, out: &mut Vec<u8>, interface: &Interface) -> bool {
        match self {
            Self::Pcapng(writer) => writer.interface_without_packets(out, interface),
            Self::Pcap(_) => false,
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
