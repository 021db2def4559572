//! Classic pcap (draft-ietf-opsawg-pcap), for tools that read nothing else.

use super::{CAPTURED_BYTES_MAX, ExportError, Options, Precision, exported_bytes};
use crate::constants::*;
use base::packet::{LinkType, Packet};

const RECORD_HEADER_BYTES: usize = 16;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Writes one classic pcap file.
///
/// Seconds have 32 bits in this format: what lies after 2106-02-07 is written as that.
#[derive(Debug)]
pub struct Writer {
    precision: Precision,
    announced: Option<LinkType>,
    /// Of the file header, once that is written.
    link_type: Option<LinkType>,
    cut: u64,
}

impl Writer {
    /// A writer of which nothing was written yet; of the options it knows `precision` and `link_type`.
    pub fn new(options: Options) -> Self {
        Self { precision: options.precision, announced: options.link_type, link_type: None, cut: 0 }
    }

    /// Writes the file header if the link type is known already; otherwise the first packet brings it.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(link_type) = self.announced {
            self.header(out, link_type);
        }
    }

    /// Writes a packet.
    ///
    /// # Errors
    ///
    /// [`ExportError::SeveralLinkTypes`] if its link type is not that of the file; nothing is written then.
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

    /// Writes the file header if nothing else was written, so that an export without packets opens too.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if self.link_type.is_none() {
            self.header(out, LinkType::ETHERNET);
        }
    }

    /// Packets that were cut at [`CAPTURED_BYTES_MAX`].
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
        // Two reserved fields stand between the version and the snap length.
        for field in [0, 0, CAPTURED_BYTES_MAX, u32::from(link_type.0)] {
            out.extend_from_slice(&field.to_ne_bytes());
        }
    }
}
