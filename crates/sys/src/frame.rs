//! Parses the frames of a ring block from plain bytes, without `unsafe`.
//!
//! A block is a byte slice, and each header is read through a checked sub-slice. A frame that does not lie inside the
//! block ends the iteration. Layout: `struct tpacket3_hdr`, then (aligned to 16) `struct sockaddr_ll`, then the packet
//! at offset `tp_mac` from the header's start.

use std::mem::{offset_of, size_of};

use libc::{sockaddr_ll, tpacket_block_desc, tpacket_hdr_v1, tpacket_hdr_variant1, tpacket3_hdr};

/// Bytes of a frame header and the link-layer address after it.
const HEADER_LEN: usize = LINK_ADDRESS + size_of::<sockaddr_ll>();
/// Offset of `sockaddr_ll`: `TPACKET_ALIGN(sizeof(struct tpacket3_hdr))`.
const LINK_ADDRESS: usize = size_of::<tpacket3_hdr>().next_multiple_of(16);
/// Offset of the block's own header (`tpacket_hdr_v1`).
const BLOCK_HEADER: usize = offset_of!(tpacket_block_desc, hdr);
/// Offset of the block's status word.
pub(crate) const BLOCK_STATUS: usize = BLOCK_HEADER + offset_of!(tpacket_hdr_v1, block_status);
/// `TP_STATUS_GSO_TCP` of newer kernel headers: the frame is a TCP segment that is not split yet.
const TP_STATUS_GSO_TCP: u32 = 1 << 8;

// Check that the constants match the kernel's layout.
const _: () = assert!(LINK_ADDRESS == 48 && HEADER_LEN == 68 && BLOCK_HEADER == 8 && BLOCK_STATUS == 8);

/// One captured frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Captured bytes from the link-layer header on, without the VLAN tag in [`vlan`](Self::vlan).
    pub data: &'a [u8],
    /// Bytes of the packet before the kernel truncated it to the snapshot length.
    pub original_len: u32,
    /// Offset of the network-layer header in `data`; at most `data.len()`.
    pub network_offset: usize,
    /// Time at which the kernel saw the packet, in nanoseconds since 1970 UTC.
    pub time_ns: u64,
    /// The outermost VLAN tag if the kernel removed it from the bytes: (protocol ID, tag control information).
    pub vlan: Option<(u16, u16)>,
    /// Whether the network card still has to compute the checksum (`TP_STATUS_CSUMNOTREADY`).
    pub checksum_not_ready: bool,
    /// Whether the frame is a TCP segment of several packets' size (TSO or GRO; `TP_STATUS_GSO_TCP`, Linux 5.11 or
    /// newer).
    pub segmentation_offload: bool,
    /// Index of the interface.
    pub ifindex: u32,
    /// `ARPHRD_*` type of the interface.
    pub hatype: u16,
    /// `PACKET_HOST` 0, `_BROADCAST` 1, `_MULTICAST` 2, `_OTHERHOST` 3 or `_OUTGOING` 4.
    pub packet_type: u8,
    /// Ethertype (`ETH_P_*`) that the kernel assigned, in host byte order.
    pub protocol: u16,
    /// Valid bytes of `address`.
    pub address_len: u8,
    /// The sender's link-layer address, zero-padded.
    pub address: [u8; 8],
}

/// The frames of one block, in order of arrival.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    block: &'a [u8],
    position: usize,
    remaining: u32,
}

impl<'a> Frames<'a> {
    /// The frames of a whole block as the kernel writes it, block header first.
    ///
    /// Frames outside `block` are skipped. No content of `block` causes a panic.
    pub fn new(block: &'a [u8]) -> Self {
        let header = |field: usize| u32_at(block, BLOCK_HEADER + field).unwrap_or(0);
        Self {
            block,
            position: header(offset_of!(tpacket_hdr_v1, offset_to_first_pkt)) as usize,
            remaining: header(offset_of!(tpacket_hdr_v1, num_pkts)),
        }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    #[inline]
    fn next(&mut self) -> Option<Frame<'a>> {
        if self.remaining == 0 {
            return None;
        }
        let frame = self.block.get(self.position..).and_then(|bytes| Some((parse(bytes)?, next_offset(bytes)?)));
        let Some((frame, next)) = frame else {
            self.remaining = 0;
            return None;
        };
        self.remaining -= 1;
        // Headers never overlap, so a smaller offset is invalid. The last frame has offset 0, which also ends the
        // iteration.
        if next < HEADER_LEN {
            self.remaining = 0;
        }
        self.position = self.position.saturating_add(next);
        Some(frame)
    }
}

fn next_offset(bytes: &[u8]) -> Option<usize> {
    u32_at(bytes, offset_of!(tpacket3_hdr, tp_next_offset)).map(|next| next as usize)
}

#[inline]
fn parse(bytes: &[u8]) -> Option<Frame<'_>> {
    let header: &[u8; HEADER_LEN] = bytes.first_chunk()?;
    let u16_of = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let u32_of = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);

    let captured = u32_of(offset_of!(tpacket3_hdr, tp_snaplen)) as usize;
    let start = usize::from(u16_of(offset_of!(tpacket3_hdr, tp_mac)));
    let network = usize::from(u16_of(offset_of!(tpacket3_hdr, tp_net)));
    let data = bytes.get(start..start.checked_add(captured)?)?;

    let status = u32_of(offset_of!(tpacket3_hdr, tp_status));
    let vlan = (status & libc::TP_STATUS_VLAN_VALID != 0).then(|| {
        const TAG: usize = offset_of!(tpacket3_hdr, hv1);
        let [.., high, low] = u32_of(TAG + offset_of!(tpacket_hdr_variant1, tp_vlan_tci)).to_be_bytes();
        let protocol = match status & libc::TP_STATUS_VLAN_TPID_VALID {
            0 => 0x8100,
            _ => u16_of(TAG + offset_of!(tpacket_hdr_variant1, tp_vlan_tpid)),
        };
        (protocol, u16::from_be_bytes([high, low]))
    });
    let seconds = u64::from(u32_of(offset_of!(tpacket3_hdr, tp_sec)));
    let nanoseconds = u64::from(u32_of(offset_of!(tpacket3_hdr, tp_nsec)));
    let address = LINK_ADDRESS + offset_of!(sockaddr_ll, sll_addr);

    Some(Frame {
        data,
        original_len: u32_of(offset_of!(tpacket3_hdr, tp_len)),
        network_offset: network.saturating_sub(start).min(data.len()),
        time_ns: seconds * 1_000_000_000 + nanoseconds,
        vlan,
        checksum_not_ready: status & libc::TP_STATUS_CSUMNOTREADY != 0,
        segmentation_offload: status & TP_STATUS_GSO_TCP != 0,
        ifindex: u32_of(LINK_ADDRESS + offset_of!(sockaddr_ll, sll_ifindex)),
        hatype: u16_of(LINK_ADDRESS + offset_of!(sockaddr_ll, sll_hatype)),
        packet_type: header[LINK_ADDRESS + offset_of!(sockaddr_ll, sll_pkttype)],
        protocol: u16::from_be(u16_of(LINK_ADDRESS + offset_of!(sockaddr_ll, sll_protocol))),
        address_len: header[LINK_ADDRESS + offset_of!(sockaddr_ll, sll_halen)].min(8),
        address: std::array::from_fn(|i| header[address + i]),
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block with one frame per payload, in the kernel's layout.
    fn block(payloads: &[&[u8]]) -> Vec<u8> {
        let mut block = vec![0; 48];
        block[12..16].copy_from_slice(&u32::try_from(payloads.len()).unwrap().to_ne_bytes());
        block[16..20].copy_from_slice(&48u32.to_ne_bytes());
        for payload in payloads {
            let start = block.len();
            let captured = u32::try_from(payload.len()).unwrap();
            for word in [0, 7, 8, captured, captured + 1, libc::TP_STATUS_VLAN_VALID] {
                block.extend_from_slice(&u32::to_ne_bytes(word));
            }
            block.extend_from_slice(&82u16.to_ne_bytes());
            block.extend_from_slice(&96u16.to_ne_bytes());
            block.extend_from_slice(&0u32.to_ne_bytes());
            block.extend_from_slice(&5u32.to_ne_bytes());
            block.resize(start + 48, 0);
            block.extend_from_slice(&17u16.to_ne_bytes());
            block.extend_from_slice(&0x0800u16.to_be_bytes());
            block.extend_from_slice(&3u32.to_ne_bytes());
            block.extend_from_slice(&1u16.to_ne_bytes());
            block.extend_from_slice(&[4, 6, 1, 2, 3, 4, 5, 6, 0, 0]);
            block.resize(start + 82, 0);
            block.extend_from_slice(payload);
            block.resize(block.len().next_multiple_of(8), 0);
            let length = u32::try_from(block.len() - start).unwrap();
            block[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        }
        block
    }

    #[test]
    fn frames_are_read_as_the_kernel_writes_them() {
        let block = block(&[&[0xaa; 60], b"x"]);
        let frames: Vec<_> = Frames::new(&block).collect();
        assert_eq!(frames.len(), 2);
        let first = frames[0];
        assert_eq!((first.data, first.original_len, first.network_offset), (&[0xaa; 60][..], 61, 14));
        assert_eq!((first.time_ns, first.vlan), (7_000_000_008, Some((0x8100, 5))));
        assert_eq!((first.ifindex, first.hatype, first.packet_type, first.protocol), (3, 1, 4, 0x0800));
        assert_eq!((first.address_len, first.address), (6, [1, 2, 3, 4, 5, 6, 0, 0]));
        assert_eq!((frames[1].data, frames[1].network_offset), (&b"x"[..], 1));
    }

    #[test]
    fn nonsense_ends_the_iteration_inside_the_block() {
        let good = block(&[&[0xaa; 60], &[0xbb; 60], &[0xcc; 60]]);
        // Set each byte of the headers to each extreme value, one at a time. A few take Miri a second.
        let step = if cfg!(miri) { 31 } else { 1 };
        for at in (0..good.len()).step_by(step) {
            for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                for frame in Frames::new(&bad).take(1 << 20) {
                    assert!(frame.network_offset <= frame.data.len());
                }
            }
        }
        for length in (0..good.len()).step_by(step) {
            assert!(Frames::new(&good[..length]).count() <= 3);
        }
        assert_eq!(Frames::new(&[0xff; 4096]).count(), 0);
    }
}
