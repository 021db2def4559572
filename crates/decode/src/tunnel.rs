//! Tunnels: MPLS, PPPoE, GRE, IP in IP, VXLAN, Geneve, GTP-U.
//!
//! After a tunnel is entered, the packet belongs to the tunnel's own session until an inner header is decoded. If no
//! inner header can be decoded, the packet stays in that session.

use super::decoded::Stop;
use super::ethertype::{fixed, looks_like_ethernet};
use super::layer::{IpVersion, Layer, Step};
use super::tunnel_id::TunnelKind;
use super::walk::Walk;

/// Returns the layer for a protocol type of GRE or Geneve, which mostly is an ethertype.
fn by_protocol_type(walk: &mut Walk<'_>, protocol_type: u16) -> Step {
    Step::Continue(match protocol_type {
        0x0800 => Layer::Ipv4,
        0x86dd => Layer::Ipv6,
        // Transparent Ethernet bridging.
        0x6558 => Layer::Ethernet,
        0x8847 | 0x8848 => Layer::Mpls,
        0x880b => Layer::Ppp,
        0x894f => Layer::Nsh,
        0x883e => Layer::Wccp,
        _ if fixed(protocol_type).is_some() => {
            walk.decoded.ethertype = protocol_type;
            Layer::FixedTag
        }
        _ => return Step::Break(Stop::Unknown),
    })
}

/// Decodes an MPLS label stack (RFC 3032).
///
/// Labels do not name the payload, so its first nibble decides: an IP version, or 0 for the control word of a
/// pseudowire (RFC 4385), which is assumed to carry Ethernet. A pseudowire without a control word is recognised by the
/// ethertype of its frame. Labels differ by direction and are not part of
/// [`Decoded::tunnel`](super::decoded::Decoded::tunnel).
pub(super) fn mpls(walk: &mut Walk<'_>) -> Step {
    loop {
        let [_, _, bottom, _] = *walk.take()?;
        walk.open_label()?;
        if bottom & 1 == 1 {
            break;
        }
    }
    let [first] = *walk.peek()?;
    let control_word = match first >> 4 {
        4 if !is_frame_rather_than_ip(walk.rest) => return Step::Continue(Layer::Ipv4),
        6 if !is_frame_rather_than_ip(walk.rest) => return Step::Continue(Layer::Ipv6),
        // An address of Ethernet can begin with 0, too.
        0 => walk.rest.get(4..).is_some_and(looks_like_ethernet) || !looks_like_ethernet(walk.rest),
        _ if looks_like_ethernet(walk.rest) => false,
        _ => return Step::Break(Stop::Unknown),
    };
    if control_word {
        walk.skip(4)?;
    }
    walk.open_tunnel(TunnelKind::Pseudowire, 0)?;
    Step::Continue(Layer::Ethernet)
}

/// Returns whether the bytes after a label are an Ethernet frame whose first nibble is an IP version by chance. In IP, the
/// bytes that would be the ethertype are a part of the sender's address, so the length has to be wrong for IP, too.
fn is_frame_rather_than_ip(bytes: &[u8]) -> bool {
    let [version, _, l0, l1, p0, p1, ..] = *bytes else { return false };
    let (header_len, total_len) = match version >> 4 {
        4 => (usize::from(version & 0x0f) * 4, usize::from(u16::from_be_bytes([l0, l1]))),
        _ => (40, 40 + usize::from(u16::from_be_bytes([p0, p1]))),
    };
    (header_len < 20 || total_len < header_len || total_len > bytes.len()) && looks_like_ethernet(bytes)
}

/// Decodes a PIM register message (RFC 7761, 4.9.3): multicast packets that a router sends to the rendezvous point.
pub(super) fn pim(walk: &mut Walk<'_>) -> Step {
    const VERSION_2_REGISTER: u8 = 0x21;
    const HEADER_BYTES: usize = 8;

    let [kind] = *walk.peek()?;
    if kind != VERSION_2_REGISTER {
        return Step::Break(Stop::Complete);
    }
    walk.skip(HEADER_BYTES)?;
    let next = by_version(walk)?;
    walk.open_tunnel(TunnelKind::Pim, 0)?;
    Step::Continue(next)
}

/// Decodes a PPPoE session packet (RFC 2516): version and type 1, code 0, session id, length.
pub(super) fn pppoe(walk: &mut Walk<'_>) -> Step {
    let [version_type, code, i0, i1, l0, l1] = *walk.take()?;
    if version_type != 0x11 {
        return Step::Break(Stop::Malformed);
    }
    if code != 0 {
        return Step::Break(Stop::Unknown);
    }
    walk.limit(usize::from(u16::from_be_bytes([l0, l1])));
    walk.open_tunnel(TunnelKind::Pppoe, u16::from_be_bytes([i0, i1]).into())?;
    Step::Continue(Layer::Ppp)
}

/// Enters IP directly after IP (RFC 2003, RFC 2473, RFC 4213).
pub(super) fn ip_in_ip(walk: &mut Walk<'_>, inner: IpVersion) -> Step {
    let (kind, layer) = match inner {
        IpVersion::V4 => (TunnelKind::Ipv4, Layer::Ipv4),
        IpVersion::V6 => (TunnelKind::Ipv6, Layer::Ipv6),
    };
    walk.open_tunnel(kind, 0)?;
    Step::Continue(layer)
}

/// Decodes GRE: version 0 (RFC 2784, RFC 2890) with any payload, or version 1 (PPTP, RFC 2637) with PPP.
pub(super) fn gre(walk: &mut Walk<'_>) -> Step {
    const CHECKSUM: u8 = 0x80;
    const ROUTING: u8 = 0x40;
    const KEY: u8 = 0x20;
    const SEQUENCE: u8 = 0x10;
    const ACKNOWLEDGMENT: u8 = 0x80;

    let [flags, version, p0, p1] = *walk.take()?;
    let protocol_type = u16::from_be_bytes([p0, p1]);
    match (version & 7, protocol_type) {
        (0, _) if flags & ROUTING == 0 => {
            if flags & CHECKSUM != 0 {
                walk.skip(4)?;
            }
            let key = if flags & KEY != 0 { u32::from_be_bytes(*walk.take()?) } else { 0 };
            if flags & SEQUENCE != 0 {
                walk.skip(4)?;
            }
            match protocol_type {
                0x88be => return erspan_2(walk, flags & SEQUENCE != 0),
                0x22eb => return erspan_3(walk),
                _ => {}
            }
            let next = by_protocol_type(walk, protocol_type)?;
            walk.open_tunnel(TunnelKind::Gre, key)?;
            Step::Continue(next)
        }
        (1, 0x880b) if flags & KEY != 0 => {
            let [l0, l1, _, _] = *walk.take()?;
            if flags & SEQUENCE == 0 {
                // An acknowledgment without payload.
                return Step::Break(Stop::Complete);
            }
            walk.skip(4)?;
            if version & ACKNOWLEDGMENT != 0 {
                walk.skip(4)?;
            }
            walk.limit(usize::from(u16::from_be_bytes([l0, l1])));
            walk.open_tunnel(TunnelKind::Pptp, 0)?;
            Step::Continue(Layer::Ppp)
        }
        _ => Step::Break(Stop::Unknown),
    }
}

/// Decodes ERSPAN type II (draft-foschiano-erspan). Without a sequence number it is type I, which has no header.
fn erspan_2(walk: &mut Walk<'_>, has_header: bool) -> Step {
    let id = if has_header {
        let [version, _, i0, i1, ..] = *walk.take::<8>()?;
        if version >> 4 != 1 {
            return Step::Break(Stop::Unknown);
        }
        u16::from_be_bytes([i0, i1]) & 0x03ff
    } else {
        0
    };
    walk.open_tunnel(TunnelKind::Erspan, id.into())?;
    Step::Continue(Layer::Ethernet)
}

/// Decodes ERSPAN type III with its optional platform subheader. Only Ethernet frames are supported.
fn erspan_3(walk: &mut Walk<'_>) -> Step {
    let [version, _, i0, i1, _, _, _, _, _, _, frame_type, subheader] = *walk.take::<12>()?;
    if version >> 4 != 2 || frame_type >> 3 & 0x0f != 0 {
        return Step::Break(Stop::Unknown);
    }
    if subheader & 1 == 1 {
        walk.skip(8)?;
    }
    walk.open_tunnel(TunnelKind::Erspan, (u16::from_be_bytes([i0, i1]) & 0x03ff).into())?;
    Step::Continue(Layer::Ethernet)
}

/// Decodes VXLAN (RFC 7348) and VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe), which can carry protocols other than Ethernet.
/// The port is only a hint, so the flags must mark the network id as valid.
pub(super) fn vxlan(walk: &mut Walk<'_>) -> Step {
    const ID_VALID: u8 = 0x08;
    const NEXT_PROTOCOL: u8 = 0x04;

    let [flags, _, _, protocol, v0, v1, v2, _] = *walk.take()?;
    if flags & ID_VALID == 0 {
        return Step::Break(Stop::Complete);
    }
    let next = match (flags & NEXT_PROTOCOL, protocol) {
        (0, _) | (_, 0 | 3) => Layer::Ethernet,
        (_, 1) => Layer::Ipv4,
        (_, 2) => Layer::Ipv6,
        (_, 4) => Layer::Nsh,
        (_, 5) => Layer::Mpls,
        _ => return Step::Break(Stop::Unknown),
    };
    walk.open_tunnel(TunnelKind::Vxlan, u32::from_be_bytes([0, v0, v1, v2]))?;
    Step::Continue(next)
}

/// Decodes Geneve (RFC 8926) version 0 with options.
pub(super) fn geneve(walk: &mut Walk<'_>) -> Step {
    let [version_len, _, p0, p1, v0, v1, v2, _] = *walk.take()?;
    if version_len >> 6 != 0 {
        return Step::Break(Stop::Complete);
    }
    walk.skip(usize::from(version_len & 0x3f) * 4)?;
    let next = by_protocol_type(walk, u16::from_be_bytes([p0, p1]))?;
    walk.open_tunnel(TunnelKind::Geneve, u32::from_be_bytes([0, v0, v1, v2]))?;
    Step::Continue(next)
}

/// Decodes GTP-U (3GPP TS 29.281) version 1: a user packet (message type 255) after optional extension headers.
pub(super) fn gtp_u(walk: &mut Walk<'_>) -> Step {
    const EXTENSION: u8 = 4;

    let [flags, message_type, l0, l1, ..] = *walk.take::<8>()?;
    // Version 1 and protocol type GTP, not GTP'.
    if flags >> 4 != 3 || message_type != 255 {
        return Step::Break(Stop::Complete);
    }
    walk.limit(usize::from(u16::from_be_bytes([l0, l1])));
    if flags & 7 != 0 {
        // Sequence number, N-PDU number and next extension type are either all present or all absent.
        let [.., mut next] = *walk.take::<4>()?;
        if flags & EXTENSION == 0 {
            next = 0;
        }
        while next != 0 {
            walk.count_layer()?;
            let [len] = *walk.peek()?;
            let len = usize::from(len) * 4;
            let Some(last) = walk.rest.get(..len).map(<[u8]>::last) else { return Step::Break(walk.short_of(len)) };
            let Some(last) = last else { return Step::Break(Stop::Malformed) };
            next = *last;
            walk.skip(len)?;
        }
    }
    // 5G also carries Ethernet, but the header does not mark it.
    let next = by_version(walk);
    walk.open_tunnel(TunnelKind::GtpU, 0)?;
    next
}

/// Returns the IP layer according to the version field.
pub(super) fn by_version(walk: &Walk<'_>) -> Step {
    let [first] = *walk.peek()?;
    match first >> 4 {
        4 => Step::Continue(Layer::Ipv4),
        6 => Step::Continue(Layer::Ipv6),
        _ => Step::Break(Stop::Unknown),
    }
}

/// Enters Ethernet directly after IPv6 (RFC 8986).
pub(super) fn ethernet_in_ip(walk: &mut Walk<'_>) -> Step {
    walk.open_tunnel(TunnelKind::EthernetInIp, 0)?;
    Step::Continue(Layer::Ethernet)
}

/// Enters MPLS directly after IP (RFC 4023).
pub(super) fn mpls_in_ip(walk: &mut Walk<'_>) -> Step {
    walk.open_tunnel(TunnelKind::MplsInIp, 0)?;
    Step::Continue(Layer::Mpls)
}

#[cfg(test)]
mod tests;
