//! Wide-area links (PPP and Cisco framing in HDLC, Frame Relay, ATM) and older shared media.

use super::decoded::{Network, Stop};
use super::ethertype::{by_ethertype, mac};
use super::layer::{Layer, Step};
use super::walk::Walk;

/// The first byte of Cisco HDLC frames: unicast and broadcast.
const CISCO_ADDRESSES: [u8; 2] = [0x0f, 0x8f];
/// The control byte of an unnumbered information frame (ISO/IEC 13239).
const UNNUMBERED_INFORMATION: u8 = 0x03;

/// Decodes `LINKTYPE_PPP_HDLC`: PPP in HDLC framing (RFC 1662), or Cisco HDLC.
pub(super) fn serial(walk: &mut Walk<'_>) -> Step {
    let [address] = *walk.peek()?;
    Step::Continue(if CISCO_ADDRESSES.contains(&address) { Layer::CiscoHdlc } else { Layer::Ppp })
}

/// Decodes `LINKTYPE_C_HDLC`: address, control, ethertype.
pub(super) fn cisco_hdlc(walk: &mut Walk<'_>) -> Step {
    let [_, _, p0, p1] = *walk.take()?;
    let ethertype = u16::from_be_bytes([p0, p1]);
    walk.understood(Network::Link, 0, 0, 0);
    walk.decoded.ethertype = ethertype;
    by_ethertype(ethertype)
}

/// Decodes `LINKTYPE_PPP_PPPD`: PPP in HDLC framing, with the direction in place of the address byte.
pub(super) fn ppp_pppd(walk: &mut Walk<'_>) -> Step {
    if let [0 | 1, UNNUMBERED_INFORMATION, ..] = walk.rest {
        walk.skip(2)?;
    }
    Step::Continue(Layer::Ppp)
}

/// Decodes Frame Relay: a Q.922 address of two to four bytes, then RFC 2427 encapsulation or, on Cisco links, an
/// ethertype.
pub(super) fn frame_relay(walk: &mut Walk<'_>) -> Step {
    const LAST_ADDRESS_BYTE: u8 = 1;
    const ADDRESS_BYTES_MAX: usize = 4;

    let len = walk.rest.iter().take(ADDRESS_BYTES_MAX).position(|byte| byte & LAST_ADDRESS_BYTE != 0);
    let Some(last) = len else {
        return Step::Break(if walk.rest.len() < ADDRESS_BYTES_MAX { Stop::Truncated } else { Stop::Malformed });
    };
    walk.skip(last + 1)?;
    walk.understood(Network::Link, 0, 0, 0);
    let [control] = *walk.peek()?;
    if control != UNNUMBERED_INFORMATION {
        let [p0, p1] = *walk.take()?;
        walk.decoded.ethertype = u16::from_be_bytes([p0, p1]);
        walk.mark_payload();
        return by_ethertype(walk.decoded.ethertype);
    }
    walk.skip(1)?;
    nlpid(walk)
}

/// Decodes a network layer protocol identifier (ISO/IEC TR 9577) after at most one byte of padding.
fn nlpid(walk: &mut Walk<'_>) -> Step {
    let [mut id] = *walk.take()?;
    if id == 0 {
        [id] = *walk.take()?;
    }
    let (ethertype, layer) = match id {
        0xcc => (0x0800, Layer::Ipv4),
        0x8e => (0x86dd, Layer::Ipv6),
        0xcf => (0, Layer::Ppp),
        0x80 => return snap(walk),
        _ => return Step::Break(Stop::Unknown),
    };
    walk.decoded.ethertype = ethertype;
    walk.mark_payload();
    Step::Continue(layer)
}

/// Decodes SNAP (IEEE 802): an organization identifier and a protocol. The organization 00-80-C2 (IEEE 802.1) numbers
/// bridged media (RFC 2427, RFC 2684), of which Ethernet is supported, with and without its frame check sequence.
pub(super) fn snap(walk: &mut Walk<'_>) -> Step {
    let [o0, o1, o2, p0, p1] = *walk.take()?;
    let protocol = u16::from_be_bytes([p0, p1]);
    match [o0, o1, o2] {
        // RFC 1042, and IEEE 802.1H for bridged Ethernet.
        [0, 0, 0] | [0, 0, 0xf8] => {
            walk.decoded.ethertype = protocol;
            walk.mark_payload();
            by_ethertype(protocol)
        }
        [0, 0x80, 0xc2] if matches!(protocol, 0x0001 | 0x0007) => Step::Continue(Layer::Ethernet),
        _ => Step::Break(Stop::Unknown),
    }
}

/// Decodes RFC 2684 over ATM (`LINKTYPE_ATM_RFC1483`) and classical IP (RFC 2225): LLC, or IP without a header.
pub(super) fn atm(walk: &mut Walk<'_>) -> Step {
    walk.understood(Network::Link, 0, 0, 0);
    match *walk.peek()? {
        [0xaa, 0xaa, 0x03, 0x00, 0x80, 0xc2, _, 0x01 | 0x07] => {
            // Two bytes of padding precede a bridged frame.
            walk.skip(10)?;
            Step::Continue(Layer::Ethernet)
        }
        [0xfe, 0xfe, 0x03, ..] => {
            walk.skip(3)?;
            nlpid(walk)
        }
        [first, ..] if matches!(first >> 4, 4 | 6) => Step::Continue(Layer::Ip),
        _ => Step::Continue(Layer::Llc),
    }
}

/// Decodes `LINKTYPE_SUNATM`: flags with the traffic type, path and circuit, then the traffic.
pub(super) fn sun_atm(walk: &mut Walk<'_>) -> Step {
    let [flags, _, _, _] = *walk.take()?;
    match flags & 0x0f {
        1 => {
            // LAN emulation: the identifier of the emulated client precedes the frame.
            walk.skip(2)?;
            Step::Continue(Layer::Ethernet)
        }
        2 => Step::Continue(Layer::Atm),
        _ => Step::Break(Stop::Unknown),
    }
}

/// Decodes `LINKTYPE_FDDI`: frame control, addresses, LLC.
pub(super) fn fddi(walk: &mut Walk<'_>) -> Step {
    let [control, addresses @ ..] = walk.take::<13>()?;
    link_addresses(walk, addresses);
    // Asynchronous and synchronous LLC frames. The other frames manage the ring.
    if control & 0x70 == 0x50 || control & 0x70 == 0x10 {
        return Step::Continue(Layer::Llc);
    }
    Step::Break(Stop::Unknown)
}

/// Decodes `LINKTYPE_IEEE802_5` (Token Ring): access and frame control, addresses, LLC. A source route follows the
/// addresses if the first bit of the sender's address is set.
pub(super) fn token_ring(walk: &mut Walk<'_>) -> Step {
    let [_, control, addresses @ ..] = walk.take::<14>()?;
    let [.., s0, _, _, _, _, _] = *addresses;
    link_addresses(walk, addresses);
    if control & 0xc0 != 0x40 {
        return Step::Break(Stop::Unknown);
    }
    if s0 & 0x80 != 0 {
        let [route] = *walk.peek()?;
        walk.skip(usize::from(route & 0x1f))?;
    }
    Step::Continue(Layer::Llc)
}

/// Records the addresses of a frame: receiver, then sender.
fn link_addresses(walk: &mut Walk<'_>, addresses: &[u8; 12]) {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = *addresses;
    walk.understood(Network::Link, 0, mac([s0, s1, s2, s3, s4, s5]), mac([d0, d1, d2, d3, d4, d5]));
}

/// Decodes `LINKTYPE_IP_OVER_FC` (RFC 2625): two addresses of eight bytes, whose last six bytes are a MAC address, then
/// LLC.
pub(super) fn fibre_channel(walk: &mut Walk<'_>) -> Step {
    let [_, _, d0, d1, d2, d3, d4, d5, _, _, s0, s1, s2, s3, s4, s5] = *walk.take()?;
    walk.understood(Network::Link, 0, mac([s0, s1, s2, s3, s4, s5]), mac([d0, d1, d2, d3, d4, d5]));
    Step::Continue(Layer::Llc)
}

/// Decodes `LINKTYPE_APPLE_IP_OVER_IEEE1394`: two addresses of eight bytes and an ethertype.
pub(super) fn firewire(walk: &mut Walk<'_>) -> Step {
    walk.skip(16)?;
    let [p0, p1] = *walk.take()?;
    walk.understood(Network::Link, 0, 0, 0);
    walk.decoded.ethertype = u16::from_be_bytes([p0, p1]);
    by_ethertype(walk.decoded.ethertype)
}

/// Decodes `LINKTYPE_IPOIB` (RFC 4391): a route header of 40 bytes, an ethertype, two reserved bytes.
pub(super) fn ip_over_infiniband(walk: &mut Walk<'_>) -> Step {
    walk.skip(40)?;
    let [p0, p1, _, _] = *walk.take()?;
    walk.understood(Network::Link, 0, 0, 0);
    walk.decoded.ethertype = u16::from_be_bytes([p0, p1]);
    by_ethertype(walk.decoded.ethertype)
}

/// Decodes `LINKTYPE_DOCSIS`: a MAC header with an optional extension. Of the frame types, data PDUs carry Ethernet.
pub(super) fn docsis(walk: &mut Walk<'_>) -> Step {
    const EXTENDED: u8 = 1;

    let [control, parameter, _, _] = *walk.take()?;
    if control & 0xc0 != 0 {
        return Step::Break(Stop::Unknown);
    }
    if control & EXTENDED != 0 {
        walk.skip(parameter.into())?;
    }
    // The header check sequence.
    walk.skip(2)?;
    Step::Continue(Layer::Ethernet)
}

#[cfg(test)]
mod tests {
    use super::super::frames::{check, cut, ethernet, ipv4, ipv6, join, tcp};
    use base::packet::LinkType;

    const V4: &str = "6 10.0.0.1:1000 > 10.0.0.2:80";

    fn v4() -> Vec<u8> {
        ipv4(6, &tcp(b"x"))
    }

    #[test]
    fn serial_lines() {
        let v6 = ipv6(6, &tcp(b"x"));
        check(
            LinkType(50),
            &[
                ("PPP", join(&[&[0xff, 3, 0, 0x21], &v4()]), &format!("{V4} 1@44")),
                ("Cisco", join(&[&[0x0f, 0, 8, 0], &v4()]), &format!("{V4} 1@44")),
                ("Cisco, IPv6", join(&[&[0x8f, 0, 0x86, 0xdd], &v6]), "6 [fd00::1]:1000 > [fd00::2]:80 1@64"),
                ("SLARP", vec![0x8f, 0, 0x80, 0x35, 0, 0], "8035 000000000000 > 000000000000 2@4 Unknown"),
                ("empty", vec![], "0000 000000000000 > 000000000000 0@0 Truncated"),
            ],
        );
        check(LinkType(104), &[("Cisco", join(&[&[0x0f, 0, 8, 0], &v4()]), &format!("{V4} 1@44"))]);
        check(LinkType(166), &[("pppd", join(&[&[1, 3, 0, 0x21], &v4()]), &format!("{V4} 1@44"))]);
        check(LinkType(204), &[("with direction", join(&[&[1, 0xff, 3, 0, 0x21], &v4()]), &format!("{V4} 1@45"))]);
        check(LinkType(205), &[("with direction", join(&[&[0, 0x0f, 0, 8, 0], &v4()]), &format!("{V4} 1@45"))]);
        check(
            LinkType(51),
            &[("PPPoE", super::super::frames::pppoe(3, 0x21, &v4()), &format!("{V4} 1@48 depth 1 tunnel"))],
        );
    }

    #[test]
    fn frame_relay() {
        let frame = |header: &[u8]| join(&[&[0x18, 0x41], header, &v4()]);
        check(
            LinkType(107),
            &[
                ("NLPID", frame(&[3, 0xcc]), &format!("{V4} 1@44")),
                ("padded", frame(&[3, 0, 0xcc]), &format!("{V4} 1@45")),
                ("SNAP", frame(&[3, 0, 0x80, 0, 0, 0, 8, 0]), &format!("{V4} 1@50")),
                ("Cisco", frame(&[8, 0]), &format!("{V4} 1@44")),
                ("long address", join(&[&[0x18, 0x40, 0, 1, 3, 0xcc], &v4()]), &format!("{V4} 1@46")),
                (
                    "bridged",
                    join(&[&[0x18, 0x41, 3, 0, 0x80, 0, 0x80, 0xc2, 0, 7], &ethernet(0x800, &v4())]),
                    &format!("{V4} 1@64"),
                ),
                ("Q.933", vec![0, 1, 3, 8, 0], "0000 000000000000 > 000000000000 3@2 Unknown"),
                ("no end of the address", vec![0; 8], "0000 000000000000 > 000000000000 8@0 Malformed"),
                ("cut", cut(1, &frame(&[3])), "0000 000000000000 > 000000000000 1@0 Truncated"),
            ],
        );
        check(LinkType(206), &[("with direction", join(&[&[1], &frame(&[3, 0xcc])]), &format!("{V4} 1@45"))]);
    }

    #[test]
    fn atm_and_older_media() {
        let llc: &[u8] = &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0];
        let bridged = join(&[&[0xaa, 0xaa, 3, 0, 0x80, 0xc2, 0, 7, 0, 0], &ethernet(0x800, &v4())]);
        for atm in [100, 106] {
            check(
                LinkType(atm),
                &[
                    ("LLC", join(&[llc, &v4()]), &format!("{V4} 1@48")),
                    ("bridged", bridged.clone(), &format!("{V4} 1@64")),
                    ("IP", v4(), &format!("{V4} 1@40")),
                ],
            );
        }
        check(LinkType(123), &[("LLC", join(&[&[2, 0, 0, 9], llc, &v4()]), &format!("{V4} 1@52"))]);
        check(LinkType(10), &[("FDDI", join(&[&[0x50], &[2; 12], llc, &v4()]), &format!("{V4} 1@61"))]);
        let routed = join(&[&[0x10, 0x40], &[2; 6], &[0x82, 2, 2, 2, 2, 2], &[4, 0, 0, 0], llc, &v4()]);
        check(LinkType(6), &[("Token Ring", routed, &format!("{V4} 1@66"))]);
        check(LinkType(122), &[("Fibre Channel", join(&[&[0; 16], llc, &v4()]), &format!("{V4} 1@64"))]);
        check(LinkType(138), &[("FireWire", join(&[&[0; 16], &[8, 0], &v4()]), &format!("{V4} 1@58"))]);
        check(LinkType(242), &[("InfiniBand", join(&[&[0; 40], &[8, 0, 0, 0], &v4()]), &format!("{V4} 1@84"))]);
        let docsis = join(&[&[1, 2, 0, 0, 9, 9, 0, 0], &ethernet(0x800, &v4())]);
        check(LinkType(143), &[("DOCSIS", docsis, &format!("{V4} 1@62"))]);
    }
}
