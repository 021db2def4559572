//! Writes classic pcap (draft-ietf-opsawg-pcap), for tools that do not read pcapng.

use super::options::{CAPTURED_BYTES_MAX, ExportError, Options, Precision, exported_bytes};
use crate::constants::*;
use base::packet::{LinkType, Packet};

const RECORD_HEADER_BYTES: usize = 16;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Writes one classic pcap file.
///
/// The format stores seconds in 32 bits. Times after 2106-02-07 are written with the largest possible seconds value.
#[derive(Debug)]
pub struct Writer {
    precision: Precision,
    announced: Option<LinkType>,
    /// The link type in the file header; `None` until the header is written.
    link_type: Option<LinkType>,
    cut: u64,
}

impl Writer {
    /// Creates a writer. It uses the options `precision` and `link_type`.
    pub fn new(options: Options) -> Self {
        Self { precision: options.precision, announced: options.link_type, link_type: None, cut: 0 }
    }

    /// Writes the file header if the link type is known. Otherwise the first packet writes it.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(link_type) = self.announced {
            self.header(out, link_type);
        }
    }

    /// Writes a packet.
    ///
    /// # Errors
    ///
    /// [`ExportError::SeveralLinkTypes`] if the link type is not that of the file. `out` is then unchanged.
    pub fn packet(&mut self, out: &mut Vec<u8>, packet: &Packet<'_>) -> Result<(), ExportError> {
        match self.link_type {
            Some(first) if first == packet.link_type => {}
            Some(first) => return Err(ExportError::SeveralLinkTypes { first, other: packet.link_type }),
            None => self.header(out, packet.link_type),
        }
        let (data, captured, cut) = exported_bytes(packet);
        self.cut += u64::from(cut);
        let (seconds, nanos) = (packet.time.0 / NANOS_PER_SECOND, packet.time.0 % NANOS_PER_SECOND);
        let fraction = match self.precision {
            Precision::Nano => nanos,
            Precision::Micro => nanos / 1000,
        };
        let [seconds, fraction] = [seconds, fraction].map(|part| u32::try_from(part).unwrap_or(u32::MAX));
        out.reserve(RECORD_HEADER_BYTES + data.len());
        for field in [seconds, fraction, captured, packet.original_len] {
            out.extend_from_slice(&field.to_ne_bytes());
        }
        out.extend_from_slice(data);
        Ok(())
    }

    /// Writes the file header if it is not written yet, so that an export without packets is a valid file.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if self.link_type.is_none() {
            self.header(out, LinkType::ETHERNET);
        }
    }

    /// Returns the number of packets truncated to [`CAPTURED_BYTES_MAX`].
    pub fn cut(&self) -> u64 {
        self.cut
    }

    fn header(&mut self, out: &mut Vec<u8>, link_type: LinkType) {
        self.link_type = Some(link_type);
        let magic = match self.precision {
            Precision::Nano => PCAP_NANOS,
            Precision::Micro => PCAP_MICROS,
        };
        out.extend_from_slice(&magic.to_ne_bytes());
        for part in [PCAP_VERSION_MAJOR, PCAP_VERSION_MINOR] {
            out.extend_from_slice(&part.to_ne_bytes());
        }
        // Two reserved fields precede the snap length.
        for field in [0, 0, CAPTURED_BYTES_MAX, u32::from(link_type.0)] {
            out.extend_from_slice(&field.to_ne_bytes());
        }
    }
}
