//! IEEE 802.11 data frames, and the headers that capture devices prepend.
//!
//! Frames with an encrypted payload, and fragments after the first, give a session of their link-layer addresses.

use super::decoded::{Network, Stop};
use super::ethertype::mac;
use super::layer::{Layer, Layout, Step};
use super::walk::Walk;

const TO_DS: u8 = 0x01;
const FROM_DS: u8 = 0x02;
const PROTECTED: u8 = 0x40;
const ORDER: u8 = 0x80;

/// Type and subtype bits of the first frame control byte (IEEE 802.11, 9.2.4.1).
const TYPE: u8 = 0x0c;
const TYPE_DATA: u8 = 0x08;
const TYPE_CONTROL: u8 = 0x04;
const SUBTYPE_NO_DATA: u8 = 0x40;
const SUBTYPE_QOS: u8 = 0x80;

/// Decodes an 802.11 frame.
pub(super) fn ieee_802_11(walk: &mut Walk<'_>, layout: Layout) -> Step {
    if layout.fcs_bytes > 0 {
        let without = walk.wire_len().saturating_sub(layout.fcs_bytes.into());
        walk.limit(without);
    }
    let [control, flags] = *walk.peek()?;
    data_or_other(walk, control, flags, layout)
}

fn data_or_other(walk: &mut Walk<'_>, control: u8, flags: u8, layout: Layout) -> Step {
    let before = walk.offset;
    let [_, _, _, _, addresses @ ..] = walk.take::<16>()?;
    let [r0, r1, r2, r3, r4, r5, t0, t1, t2, t3, t4, t5] = *addresses;
    let (receiver, transmitter) = (mac([r0, r1, r2, r3, r4, r5]), mac([t0, t1, t2, t3, t4, t5]));
    walk.understood(Network::Link, 0, transmitter, receiver);
    if control & TYPE != TYPE_DATA || control & 3 != 0 {
        if control & TYPE == TYPE_CONTROL {
            // Control frames may have one address, so the second field is not used as an address.
            walk.understood(Network::Link, 0, 0, receiver);
        }
        return Step::Break(Stop::Unknown);
    }
    let [a0, a1, a2, a3, a4, a5, fragment, _] = *walk.take()?;
    let third = mac([a0, a1, a2, a3, a4, a5]);
    let (source, destination) = match (flags & TO_DS != 0, flags & FROM_DS != 0) {
        (false, false) => (transmitter, receiver),
        (true, false) => (transmitter, third),
        (false, true) => (third, receiver),
        (true, true) => {
            let fourth: &[u8; 6] = walk.take()?;
            (mac(*fourth), third)
        }
    };
    walk.understood(Network::Link, 0, source, destination);
    let mut aggregated = false;
    if control & SUBTYPE_QOS != 0 {
        let [qos, _] = *walk.take()?;
        aggregated = qos & 0x80 != 0;
        if flags & ORDER != 0 {
            // HT control.
            walk.skip(4)?;
        }
    }
    if layout.padded {
        walk.skip((walk.offset - before).wrapping_neg() & 3)?;
    }
    walk.mark_payload();
    if control & SUBTYPE_NO_DATA != 0 || flags & PROTECTED != 0 || fragment & 0x0f != 0 {
        return Step::Break(Stop::Unknown);
    }
    if aggregated {
        // The first subframe of an aggregate: addresses and length, then its own LLC header.
        let [.., l0, l1] = *walk.take::<14>()?;
        walk.limit(u16::from_be_bytes([l0, l1]).into());
    }
    Step::Continue(Layer::Llc)
}

/// Decodes an 802.11 data frame whose first two bytes are swapped.
pub(super) fn swapped(walk: &mut Walk<'_>) -> Step {
    let [flags, control] = *walk.peek()?;
    data_or_other(walk, control, flags, Layout::PLAIN)
}

/// Decodes `LINKTYPE_IEEE802_11_RADIOTAP` (radiotap.org): version, length, bitmap of the fields present, the fields.
pub(super) fn radiotap(walk: &mut Walk<'_>) -> Step {
    const TSFT: u32 = 1;
    const FLAGS: u32 = 2;
    const MORE_BITS: u32 = 1 << 31;
    const HAS_FCS: u8 = 0x10;
    const PADDED: u8 = 0x20;

    let [version, _, l0, l1, p0, p1, p2, p3] = *walk.peek()?;
    let (len, present) = (usize::from(u16::from_le_bytes([l0, l1])), u32::from_le_bytes([p0, p1, p2, p3]));
    if version != 0 || len < 8 {
        return Step::Break(Stop::Malformed);
    }
    let mut layout = Layout::PLAIN;
    if present & FLAGS != 0
        && let Some(header) = walk.rest.get(..len)
    {
        let mut at = 8;
        let mut word = present;
        while word & MORE_BITS != 0
            && let Some([a, b, c, d]) = header.get(at..).and_then(<[u8]>::first_chunk)
        {
            word = u32::from_le_bytes([*a, *b, *c, *d]);
            at += 4;
        }
        if present & TSFT != 0 {
            at = at.next_multiple_of(8) + 8;
        }
        if let Some(flags) = header.get(at) {
            layout = Layout { padded: flags & PADDED != 0, fcs_bytes: if flags & HAS_FCS != 0 { 4 } else { 0 } };
        }
    }
    walk.skip(len)?;
    Step::Continue(Layer::Ieee80211(layout))
}

/// Decodes `LINKTYPE_IEEE802_11_PRISM` and `LINKTYPE_IEEE802_11_AVS`: a magic number and the length of the header, in
/// network byte order (AVS) or in that of the capturing host (Prism).
pub(super) fn prism_or_avs(walk: &mut Walk<'_>) -> Step {
    const AVS_VERSIONS: u32 = 0x8021_1000;
    /// An upper bound of the header length. A larger value means the other byte order.
    const LENGTH_MAX: u32 = 0xffff;

    let [v0, v1, v2, v3, l0, l1, l2, l3] = *walk.peek()?;
    let avs = u32::from_be_bytes([v0, v1, v2, v3]) & 0xffff_f000 == AVS_VERSIONS;
    let big = u32::from_be_bytes([l0, l1, l2, l3]);
    let len = if avs || big <= LENGTH_MAX { big } else { big.swap_bytes() };
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len < 8 {
        return Step::Break(Stop::Malformed);
    }
    walk.skip(len)?;
    Step::Continue(Layer::Ieee80211(Layout::PLAIN))
}

#[cfg(test)]
mod tests {
    use super::super::frames::{check, ipv4, join, tcp, with};
    use base::packet::LinkType;

    const SEEN: &str = "6 10.0.0.1:1000 > 10.0.0.2:80";

    fn llc() -> Vec<u8> {
        join(&[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &ipv4(6, &tcp(b"x"))])
    }

    /// Builds a frame: two control bytes, duration, three addresses, sequence control, `more`, `payload`.
    fn frame(control: u8, flags: u8, more: &[u8], payload: &[u8]) -> Vec<u8> {
        let addresses = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]];
        join(&[&[control, flags, 0, 0], addresses.as_flattened(), &[0, 0], more, payload])
    }

    #[test]
    fn data_frames() {
        check(
            LinkType(105),
            &[
                ("between stations", frame(8, 0, &[], &llc()), &format!("{SEEN} 1@72")),
                ("to the access point", frame(8, 1, &[], &llc()), &format!("{SEEN} 1@72")),
                ("QoS", frame(0x88, 2, &[0, 0], &llc()), &format!("{SEEN} 1@74")),
                ("QoS and HT control", frame(0x88, 0x82, &[0; 6], &llc()), &format!("{SEEN} 1@78")),
                ("four addresses", frame(8, 3, &[2, 0, 0, 0, 0, 4], &llc()), &format!("{SEEN} 1@78")),
                (
                    "several in one",
                    frame(0x88, 2, &join(&[&[0x80, 0], &[2; 12], &[0, 49]]), &join(&[&llc(), &[0; 9]])),
                    &format!("{SEEN} 1@88"),
                ),
                ("encrypted", frame(8, 0x41, &[], &llc()), "0000 020000000002 > 020000000003 49@24 Unknown"),
                ("null", frame(0x48, 2, &[], &[]), "0000 020000000003 > 020000000001 0@24 Unknown"),
                ("beacon", frame(0x80, 0, &[], &[0; 12]), "0000 020000000002 > 020000000001 20@16 Unknown"),
                (
                    "later fragment",
                    with(22, 1, frame(8, 0, &[], &llc())),
                    "0000 020000000002 > 020000000001 49@24 Unknown",
                ),
                ("cut", frame(8, 0, &[], &[])[..15].to_vec(), "0000 000000000000 > 000000000000 15@0 Truncated"),
            ],
        );
    }

    #[test]
    fn capture_headers() {
        let qos = frame(0x88, 2, &[0, 0], &llc());
        let padded = frame(0x88, 2, &[0, 0, 0, 0], &llc());
        let radiotap = |fields: &[u8], present: u32, frame: &[u8]| {
            let len = u16::try_from(8 + fields.len()).expect("short");
            join(&[&[0, 0], &len.to_le_bytes(), &present.to_le_bytes(), fields, frame])
        };
        check(
            LinkType(127),
            &[
                ("bare", radiotap(&[], 0, &qos), &format!("{SEEN} 1@82")),
                ("check sequence", radiotap(&[0x10], 2, &join(&[&qos, &[1; 4]])), &format!("{SEEN} 1@83")),
                ("padded, with a time", radiotap(&[0, 0, 0, 0, 0, 0, 0, 0, 0x20], 3, &padded), &format!("{SEEN} 1@93")),
                ("two words of bits", radiotap(&[0, 0, 0, 0, 0x20], 2 | 1 << 31, &padded), &format!("{SEEN} 1@89")),
                ("too short", vec![0, 0, 4, 0, 0, 0, 0, 0], "0000 000000000000 > 000000000000 8@0 Malformed"),
            ],
        );
        let plain = frame(8, 0, &[], &llc());
        let prism = |len: [u8; 4]| join(&[&[0x44, 0, 0, 0], &len, &[0; 136], &plain]);
        check(
            LinkType(119),
            &[
                ("little-endian", prism([144, 0, 0, 0]), &format!("{SEEN} 1@216")),
                ("big-endian", prism([0, 0, 0, 144]), &format!("{SEEN} 1@216")),
                ("AVS", join(&[&[0x80, 0x21, 0x10, 1, 0, 0, 0, 64], &[0; 56], &plain]), &format!("{SEEN} 1@136")),
            ],
        );
        check(
            LinkType(163),
            &[("AVS", join(&[&[0x80, 0x21, 0x10, 2, 0, 0, 0, 80], &[0; 72], &plain]), &format!("{SEEN} 1@152"))],
        );
    }
}
