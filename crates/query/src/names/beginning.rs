//! The first bytes that the two ends of a session sent, and the names in them.

use super::starts::{Request, payload};
use crate::session_names::Names;
use base::packet::Packet;
use decode::names::Parsed;
use engine::session::Session;

/// First bytes that are kept of each end: enough to recognise a protocol.
const DATA_BYTES_MAX: usize = 256;
/// Packets with payload that are read of a session.
const PACKETS_MAX: u32 = 12;

/// How a session began.
#[derive(Clone, Debug, Default)]
pub struct Beginning {
    /// Names in its first packets.
    pub names: Names,
    /// The first bytes of the originator and of the responder.
    pub data: [Vec<u8>; 2],
    /// Original length of the first packet; `None` if it is not in memory.
    pub first_packet_len: Option<u32>,
}

/// Reads the beginning of one session, packet by packet.
#[derive(Debug)]
pub(crate) struct BeginningReader {
    originator: (u128, u16),
    request: Option<Request>,
    packets: u32,
    beginning: Beginning,
}

impl BeginningReader {
    pub(crate) fn new(session: &Session) -> Self {
        let request = Request::possible(session.key.protocol(), session).then(Request::default);
        let originator = (session.originator_address(), session.originator().port);
        Self { originator, request, packets: 0, beginning: Beginning::default() }
    }

    /// Reads the next packet of the session. Returns whether no further packet is needed.
    pub(crate) fn packet(&mut self, packet: &Packet<'_>) -> bool {
        self.beginning.first_packet_len.get_or_insert(packet.original_len);
        let decoded = decode::decode(packet.link_type, packet.data);
        let payload = payload(packet.data, &decoded);
        if payload.is_empty() {
            return false;
        }
        let side = usize::from((decoded.source, decoded.source_port) != self.originator);
        let data = &mut self.beginning.data[side];
        let room = DATA_BYTES_MAX - data.len().min(DATA_BYTES_MAX);
        data.extend_from_slice(&payload[..payload.len().min(room)]);
        match self.request.as_mut().map(|request| request.packet(&decoded, payload.to_vec())) {
            Some(Parsed::Name(names)) => {
                self.beginning.names = names;
                self.request = None;
            }
            Some(Parsed::Nothing) => self.request = None,
            Some(Parsed::More) | None => {}
        }
        self.packets += 1;
        let has_both = self.beginning.data.iter().all(|data| !data.is_empty());
        (self.request.is_none() && has_both) || self.packets >= PACKETS_MAX
    }

    pub(crate) fn finish(self) -> Beginning {
        self.beginning
    }
}
