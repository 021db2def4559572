//! Statistics of an interface, as pcapng stores them.

use base::packet::InterfaceId;
use base::time::Timestamp;

/// Statistics of an interface at the end of an export (draft-ietf-opsawg-pcapng, "Interface Statistics Block").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceStatistics {
    /// The interface.
    pub interface: InterfaceId,
    /// The start of the recording (`isb_starttime`).
    pub start: Option<Timestamp>,
    /// The end of the recording, or the time of this export (`isb_endtime`).
    pub end: Option<Timestamp>,
    /// Packets received (`isb_ifrecv`).
    pub received: Option<u64>,
    /// Packets that the interface dropped for lack of resources (`isb_ifdrop`).
    pub dropped: Option<u64>,
    /// Packets that the operating system dropped (`isb_osdrop`).
    pub os_dropped: Option<u64>,
    /// Packets that the capture filter accepted (`isb_filteraccept`).
    pub accepted: Option<u64>,
    /// Packets delivered to the user (`isb_usrdeliv`).
    pub delivered: Option<u64>,
}

impl InterfaceStatistics {
    /// Creates statistics of an interface in which every value is unknown.
    pub fn of(interface: InterfaceId) -> Self {
        Self {
            interface,
            start: None,
            end: None,
            received: None,
            dropped: None,
            os_dropped: None,
            accepted: None,
            delivered: None,
        }
    }
}
