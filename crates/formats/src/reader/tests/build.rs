//! Builds captures in code, in any byte order, and reads them back.

use std::io::{Error, ErrorKind, Read};
use std::sync::Arc;

use crate::reader::FileSource;
use crate::reader::byte_order::ByteOrder;
use base::interface::Interfaces;
use base::packet::{Direction, LinkType, Packet, PacketFlags};
use base::source::{Batch, Source, SourceError};

/// An owned packet with the fields of its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExportedPacket {
    pub(super) time: u64,
    pub(super) interface: String,
    pub(super) link_type: LinkType,
    pub(super) direction: Direction,
    pub(super) flags: PacketFlags,
    pub(super) original_len: u32,
    pub(super) drops_before: u32,
    pub(super) data: Vec<u8>,
}

/// The result of reading a capture.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) packets: Vec<ExportedPacket>,
    /// Offset and message of the damage.
    pub(super) damage: Option<(u64, String)>,
    pub(super) refused: u64,
    /// Size of the buffer at the end, in bytes.
    pub(super) capacity: usize,
}

/// A reader that returns at most `size` bytes per read, and `TimedOut` before each read when `reluctant`.
pub(super) struct Pieces {
    pub(super) bytes: Vec<u8>,
    pub(super) at: usize,
    pub(super) size: usize,
    pub(super) reluctant: bool,
    pub(super) refuse_next: bool,
}

impl Pieces {
    pub(super) fn new(bytes: &[u8], size: usize) -> Self {
        Self { bytes: bytes.to_vec(), at: 0, size, reluctant: false, refuse_next: false }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.refuse_next = self.reluctant && !self.refuse_next;
        if self.refuse_next {
            return Err(Error::from(ErrorKind::TimedOut));
        }
        let length = self.size.min(buffer.len()).min(self.bytes.len() - self.at);
        buffer[..length].copy_from_slice(&self.bytes[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

pub(super) fn read(bytes: &[u8]) -> Outcome {
    read_from(Box::new(Pieces::new(bytes, usize::MAX)), &Arc::default())
}

/// Reads to the end or to the damage. Panics when this takes more batches than any correct reader needs.
pub(super) fn read_from(reader: Box<dyn Read + Send>, interfaces: &Arc<Interfaces>) -> Outcome {
    let mut source = FileSource::from_reader(reader, interfaces.clone());
    let mut packets = Vec::new();
    let mut damage = None;
    for batches in 0.. {
        assert!(batches < 1_000_000, "does not come to an end");
        let batch = source.batch(&mut |packet| packets.push(ExportedPacket::of(packet, interfaces)));
        match batch {
            Ok(Batch::More | Batch::Idle) => {}
            Ok(Batch::End) => break,
            Err(SourceError::Damaged { offset, message }) => {
                damage = Some((offset, message));
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(source.batch(&mut |_| panic!("a packet after the end")).unwrap(), Batch::End);
    Outcome { packets, damage, refused: source.refused(), capacity: source.input.capacity() }
}

impl ExportedPacket {
    pub(super) fn of(packet: &Packet<'_>, interfaces: &Interfaces) -> Self {
        let interface = interfaces.interface(packet.interface).expect("packets have known interfaces");
        assert_eq!(interface.link_type, packet.link_type);
        Self {
            time: packet.time.0,
            interface: interface.name.clone(),
            link_type: packet.link_type,
            direction: packet.direction,
            flags: packet.flags,
            original_len: packet.original_len,
            drops_before: packet.drops_before,
            data: packet.data.to_vec(),
        }
    }
}

/// A builder of captures, with the offset of each record or block.
#[derive(Clone, Default)]
pub(super) struct Capture {
    pub(super) order: ByteOrder,
    pub(super) bytes: Vec<u8>,
    pub(super) starts: Vec<usize>,
}

impl Capture {
    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&match self.order {
            ByteOrder::Little => value.to_le_bytes(),
            ByteOrder::Big => value.to_be_bytes(),
        })
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&match self.order {
            ByteOrder::Little => value.to_le_bytes(),
            ByteOrder::Big => value.to_be_bytes(),
        })
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(super) fn words(&mut self, values: &[u32]) -> &mut Self {
        for &value in values {
            self.u32(value);
        }
        self
    }

    /// Starts a classic pcap file with its header.
    pub(super) fn pcap(order: ByteOrder, magic: u32, link_type: u32) -> Self {
        let mut capture = Self { order, ..Self::default() };
        capture.u32(magic).u16(2).u16(4).words(&[0, 0, 0, link_type]);
        capture
    }

    /// Appends a classic pcap record; `extra` stands between header and data.
    pub(super) fn record(&mut self, time: [u32; 2], original_len: u32, extra: &[u8], data: &[u8]) -> &mut Self {
        self.starts.push(self.bytes.len());
        let captured = u32::try_from(data.len()).unwrap();
        self.words(&time).words(&[captured, original_len]).raw(extra).raw(data)
    }

    /// Starts a pcapng capture; call [`section`](Self::section) next.
    pub(super) fn pcapng() -> Self {
        Self::default()
    }

    pub(super) fn section(&mut self, order: ByteOrder, length: [u32; 2]) -> &mut Self {
        self.order = order;
        let options = self.option(4, b"a test");
        self.block(0x0a0d_0d0a, |body| body.u32(0x1a2b_3c4d).u16(1).u16(0).words(&length).raw(&options))
    }

    pub(super) fn interface(&mut self, link_type: u16, snap_len: u32, options: &[Vec<u8>]) -> &mut Self {
        self.block(1, |body| body.u16(link_type).u16(0).u32(snap_len).raw(&options.concat()))
    }

    pub(super) fn enhanced(
        &mut self,
        interface: u32,
        time: u64,
        original_len: u32,
        data: &[u8],
        options: &[Vec<u8>],
    ) -> &mut Self {
        let captured = u32::try_from(data.len()).unwrap();
        self.block(6, |body| {
            body.words(&[interface]).time(time).words(&[captured, original_len]).padded(data).raw(&options.concat())
        })
    }

    /// Appends a time, upper half first.
    pub(super) fn time(&mut self, time: u64) -> &mut Self {
        self.words(&[u32::try_from(time >> 32).unwrap(), u32::try_from(time & 0xffff_ffff).unwrap()])
    }

    pub(super) fn padded(&mut self, bytes: &[u8]) -> &mut Self {
        self.raw(bytes).raw(&[0xee; 3][..bytes.len().wrapping_neg() & 3])
    }

    pub(super) fn option(&self, code: u16, value: &[u8]) -> Vec<u8> {
        let mut option = Self { order: self.order, ..Self::default() };
        option.u16(code).u16(u16::try_from(value.len()).unwrap()).padded(value);
        option.bytes
    }

    /// Appends a block whose body is written by `body`.
    pub(super) fn block(&mut self, kind: u32, body: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        let mut inner = Self { order: self.order, ..Self::default() };
        body(&mut inner);
        let length = u32::try_from(inner.bytes.len() + 12).unwrap();
        self.starts.push(self.bytes.len());
        self.words(&[kind, length]).raw(&inner.bytes).u32(length)
    }
}
