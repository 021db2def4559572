//! The words before an address or a number: protocol, direction and kind.

/// A protocol that an expression can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Link,
    Ip,
    Arp,
    Rarp,
    Sctp,
    Tcp,
    Udp,
    Icmp,
    Igmp,
    Igrp,
    Pim,
    Vrrp,
    Carp,
    Atalk,
    Aarp,
    Decnet,
    Lat,
    Sca,
    Moprc,
    Mopdl,
    Ip6,
    Icmp6,
    Ah,
    Esp,
    Iso,
    Esis,
    Isis,
    IsisL1,
    IsisL2,
    IsisIih,
    IsisLsp,
    IsisSnp,
    IsisCsnp,
    IsisPsnp,
    Clnp,
    Stp,
    Ipx,
    Netbeui,
    Radio,
}

/// Which address of a packet is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Src,
    Dst,
    /// `src or dst`, also where nothing is said.
    Either,
    /// `src and dst`.
    Both,
    /// An address of an 802.11 frame, from 1 on.
    Addr(u8),
    /// Receiver.
    Ra,
    /// Transmitter.
    Ta,
}

/// What an address or a number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Host,
    Net,
    Port,
    PortRange,
    Gateway,
    Proto,
    ProtoChain,
}

/// The qualifiers of an address or a number. They also hold for one that follows after `and` or `or`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Qualifier {
    pub(super) protocol: Option<Protocol>,
    /// `None` where nothing is said.
    pub(super) direction: Option<Direction>,
    /// `None` where nothing is said: a host, or a network if the address is short.
    pub(super) kind: Option<Kind>,
}

impl Qualifier {
    pub(super) fn direction(self) -> Direction {
        self.direction.unwrap_or(Direction::Either)
    }

    pub(super) fn kind(self) -> Kind {
        self.kind.unwrap_or(Kind::Host)
    }
}
