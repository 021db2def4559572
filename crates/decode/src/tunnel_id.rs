//! Identifiers of tunnels, which keep the sessions of two tenants with equal addresses apart.

/// The kinds of tunnels, for [`mix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum TunnelKind {
    Ipv4 = 1,
    Ipv6,
    Gre,
    Pptp,
    Erspan,
    Pseudowire,
    Pppoe,
    Vxlan,
    Geneve,
    GtpU,
    MplsInUdp,
    GreInUdp,
    Tzsp,
    Teredo,
    L2tp,
    Capwap,
    Lisp,
    Backbone,
    Trill,
    Nsh,
    FabricPath,
    EtherIp,
    MplsInIp,
    L2tpV3,
    Gue,
    Batman,
    Pim,
    EthernetInIp,
}

/// Returns the identifier of a tunnel inside tunnel `outer` (0: inside none). The identifier is never 0.
pub(super) fn mix(outer: u32, kind: TunnelKind, id: u32) -> u32 {
    // The finalizer of MurmurHash3 is a bijection, so different ids of one kind stay different.
    let mut mix = outer ^ id ^ u32::from(kind as u8).wrapping_mul(0x9e37_79b9);
    mix = (mix ^ mix >> 16).wrapping_mul(0x85eb_ca6b);
    mix = (mix ^ mix >> 13).wrapping_mul(0xc2b2_ae35);
    (mix ^ mix >> 16).max(1)
}
