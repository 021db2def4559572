//! What is known of a session: endpoints, times, counts.

use base::time::Timestamp;
use engine::session::key::{Endpoint, SessionKey, Side};

use crate::sender::Sender;

/// What happened in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamReport {
    /// Payload bytes passed on.
    pub bytes: u64,
    /// Bytes in gaps of known length.
    pub gap_bytes: u64,
    /// Gaps.
    pub gaps: u64,
    /// Payload bytes that were sent again with the same content, or whose first copy is no longer known.
    pub retransmitted_bytes: u64,
    /// Overlaps with other content than the first.
    pub conflicts: u64,
    /// Payload bytes that came after their gap had been reported, or far outside of the window.
    pub discarded_bytes: u64,
}

/// A session as far as its packets were seen.
#[derive(Clone, Debug)]
pub struct Session {
    /// The number of the session in the input, from 0.
    pub number: u64,
    /// Endpoints, protocol, interface, VLANs and tunnels.
    pub key: SessionKey,
    /// The side of the key that opened the session, as far as the packets show.
    pub originator_is: Side,
    /// Whether the packet that opened the session was seen. Always true for sessions of messages.
    pub opened: bool,
    /// Time of the first packet.
    pub first: Timestamp,
    /// Time of the last packet.
    pub last: Timestamp,
    /// Packets of originator and responder.
    pub packets: [u64; 2],
    /// Bytes of these packets on the wire.
    pub wire_bytes: [u64; 2],
    /// What happened in both directions.
    pub reports: [StreamReport; 2],
}

/// IP protocol number of TCP.
pub(crate) const TCP: u8 = 6;

impl Session {
    /// A session whose first packet comes at `time`.
    pub fn new(number: u64, key: SessionKey, originator_is: Side, opened: bool, time: Timestamp) -> Self {
        Self {
            number,
            key,
            originator_is,
            opened,
            first: time,
            last: time,
            packets: [0; 2],
            wire_bytes: [0; 2],
            reports: [StreamReport::default(); 2],
        }
    }

    /// Whether the session consists of messages instead of two streams.
    pub fn is_messages(&self) -> bool {
        self.key.protocol() != TCP
    }

    /// The endpoint that opened the session.
    pub fn originator(&self) -> Endpoint {
        self.key.endpoint(self.originator_is)
    }

    /// The other endpoint.
    pub fn responder(&self) -> Endpoint {
        self.key.endpoint(self.originator_is.other())
    }

    /// The endpoint of a sender.
    pub fn endpoint(&self, sender: Sender) -> Endpoint {
        match sender {
            Sender::Originator => self.originator(),
            Sender::Responder => self.responder(),
        }
    }

    /// The sender at a side of the key.
    pub(crate) fn sender(&self, side: Side) -> Sender {
        if side == self.originator_is { Sender::Originator } else { Sender::Responder }
    }

    /// The name of the transport protocol: `tcp`, `udp`, or its number.
    pub fn protocol_name(&self) -> String {
        match self.key.protocol() {
            0 => format!("0x{:04x}", self.key.ethertype()),
            1 => "icmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            58 => "icmp6".to_owned(),
            132 => "sctp".to_owned(),
            other => other.to_string(),
        }
    }
}
