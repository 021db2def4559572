//! All known sessions that match, as binary columns: for programs that show or count very many.
//!
//! ```text
//!   answer  = block …  end
//!   block   = "RCB1"  rows: u32  addresses: u32  0: u32      address …      column × 19
//!   address = network: u8 (4, 6, or 1 for a link layer)         4, 16 or 6 bytes
//!   column  = base: u64  width: u8 (0, 1, 2, 4 or 8)  0 × 7     rows × width bytes, padded to 8
//!   end     = "RCBE"  bytes: u32  0: u64     a JSON object, padded to 8
//! ```
//!
//! All numbers are little-endian. A value is the base of its column plus the number of its row; the width 0 means that all
//! rows have the base. [`COLUMNS`] names the columns in their order. Sessions come in no particular order. Each block can be
//! read by itself: its addresses are numbered from 0.

use std::collections::HashMap;
use std::ops::ControlFlow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::listing::UnlistedSessions;
use super::matching::SessionMatcher;
use super::turnover::Turnover;
use super::{History, QueryError, Request};
use base::foreign::Foreign;
use decode::Network;
use engine::session::{Session, SessionState};

/// The columns in their order.
pub const COLUMNS: [&str; 19] = [
    "id",
    "first_ns",
    "duration_ns",
    "originator",
    "responder",
    "originator_port",
    "responder_port",
    "protocol",
    "state",
    "flags",
    "interface",
    "vlan",
    "originator_packets",
    "responder_packets",
    "originator_bytes",
    "responder_bytes",
    "kept_packets",
    "kept_bytes",
    "holes",
];

/// The states of sessions; the column has the position in this list.
pub const STATES: [SessionState; 8] = [
    SessionState::SynSent,
    SessionState::Established,
    SessionState::Closing,
    SessionState::Closed,
    SessionState::Reset,
    SessionState::Midstream,
    SessionState::OneWay,
    SessionState::TwoWay,
];

/// Bits of the column `flags`: the first packet is kept, the first kB is kept, the kept packets are not known.
const FIRST_PACKET: u64 = 1;
const FIRST_KB: u64 = 2;
const KEPT_UNKNOWN: u64 = 4;
/// Set in the column `protocol` for an ethertype.
const ETHERTYPE: u64 = 1 << 16;

/// What ends an answer in columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ColumnsEnd {
    /// Time of the newest packet when the answer began: sessions with later packets come in an answer since then.
    #[schemars(extend("format" = "date-time"))]
    pub as_of: Option<Foreign>,
    /// Sessions of the answer.
    pub sessions: u64,
    /// The columns, in their order.
    pub columns: Vec<Foreign>,
    /// The names of the states, by the numbers of the column.
    pub states: Vec<Foreign>,
    /// The names of the interfaces, by the numbers of the column; empty for those that are no longer known.
    pub interfaces: Vec<Foreign>,
    /// Why the answer is incomplete; empty when it is complete.
    pub note: Foreign,
}

/// Sessions that wait to be written.
#[derive(Debug)]
pub struct ColumnBlock {
    values: [Vec<u64>; COLUMNS.len()],
    addresses: Vec<(u8, [u8; 16])>,
    known: HashMap<(u8, [u8; 16]), u64, foldhash::quality::RandomState>,
}

impl ColumnBlock {
    /// A block with room for so many rows.
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            values: std::array::from_fn(|_| Vec::with_capacity(rows)),
            addresses: Vec::new(),
            known: HashMap::default(),
        }
    }

    /// Rows that wait.
    pub fn rows(&self) -> usize {
        self.values[0].len()
    }

    /// Adds a session. `identity` is its number, `holes` counts the parts that are missing between its packets.
    pub fn push(&mut self, session: &Session, identity: u64, holes: u64) {
        let (key, lost) = (&session.key, session.lost());
        let (originator, responder) = (session.originator(), session.responder());
        let flag = |is: bool, bit: u64| if is { bit } else { 0 };
        let flags = flag(!lost.first_packet(), FIRST_PACKET)
            | flag(!lost.first_kb(), FIRST_KB)
            | flag(session.may_have_packets(), KEPT_UNKNOWN);
        let protocol = match key.network() {
            Network::Link => ETHERTYPE | u64::from(key.ethertype()),
            Network::Ipv4 | Network::Ipv6 => key.protocol().into(),
        };
        let state = STATES.iter().position(|state| *state == session.state()).unwrap_or(0);
        let row: [u64; COLUMNS.len()] = [
            identity,
            session.first.0,
            session.last.0.saturating_sub(session.first.0),
            self.address(key.network(), session.originator_address()),
            self.address(key.network(), session.responder_address()),
            originator.port.into(),
            responder.port.into(),
            protocol,
            state as u64,
            flags,
            key.interface().0.into(),
            key.vlan().map_or(0, |id| u64::from(id) + 1),
            session.packets.originator,
            session.packets.responder,
            session.bytes.originator,
            session.bytes.responder,
            session.kept_packets,
            session.kept_bytes,
            holes,
        ];
        for (values, value) in self.values.iter_mut().zip(row) {
            values.push(value);
        }
    }

    fn address(&mut self, network: Network, address: u128) -> u64 {
        let mut bytes = [0; 16];
        let kind = match network {
            Network::Ipv4 => {
                bytes[..4].copy_from_slice(&address.to_be_bytes()[12..]);
                4
            }
            Network::Ipv6 => {
                bytes = address.to_be_bytes();
                6
            }
            Network::Link => {
                bytes[..6].copy_from_slice(&address.to_be_bytes()[10..]);
                1
            }
        };
        let next = self.addresses.len() as u64;
        *self.known.entry((kind, bytes)).or_insert_with(|| {
            self.addresses.push((kind, bytes));
            next
        })
    }

    /// Writes the rows, and is empty afterwards.
    pub fn write(&mut self, out: &mut Vec<u8>) {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes();
        out.extend(b"RCB1");
        out.extend(count(self.rows()));
        out.extend(count(self.addresses.len()));
        out.extend([0; 4]);
        for (kind, bytes) in self.addresses.drain(..) {
            out.push(kind);
            out.extend(&bytes[..address_bytes(kind)]);
        }
        self.known.clear();
        pad(out);
        for values in &mut self.values {
            write_column(out, values);
            values.clear();
        }
    }
}

fn address_bytes(kind: u8) -> usize {
    match kind {
        4 => 4,
        6 => 16,
        _ => 6,
    }
}

fn write_column(out: &mut Vec<u8>, values: &[u64]) {
    let (base, most) = values.iter().fold((u64::MAX, 0), |(least, most), value| (least.min(*value), most.max(*value)));
    let width: u8 = match most.saturating_sub(base) {
        0 => 0,
        1..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    };
    out.extend(base.to_le_bytes());
    out.extend([width, 0, 0, 0, 0, 0, 0, 0]);
    for value in values {
        out.extend(&(value - base).to_le_bytes()[..usize::from(width)]);
    }
    pad(out);
}

/// Fills up to a multiple of eight bytes, counted from the start of the answer; a buffer begins at such a multiple.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}

impl ColumnsEnd {
    /// Writes the end of the answer; `json` is the text of this object.
    pub fn write(json: &str, out: &mut Vec<u8>) {
        out.extend(b"RCBE");
        out.extend(u32::try_from(json.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend([0; 8]);
        out.extend(json.as_bytes());
        pad(out);
    }
}

impl History {
    /// Calls `each` with every session that the request matches, its identity and its holes, until that breaks. Returns the
    /// end of an answer in columns.
    ///
    /// # Errors
    ///
    /// As [`flows`](Self::flows).
    pub fn each_column(
        &self,
        request: &Request,
        mut each: impl FnMut(&Session, u64, u64) -> ControlFlow<()>,
    ) -> Result<ColumnsEnd, QueryError> {
        let window = request.window()?;
        let mut matcher = SessionMatcher::new(self, request)?;
        let mut turnover = Turnover::new(self);
        let as_of = self.totals().newest.map(|_| turnover.newest().to_rfc3339().into());
        let (mut sessions, mut broken) = (0, false);
        for (number, worker) in (0u16..).zip(&self.workers) {
            let lost_until = worker.published.totals().lost_until;
            turnover.read(self, number, window, |_, session| {
                if broken || session.packets.sum() == 0 || !matcher.matches(number, session) {
                    return;
                }
                sessions += 1;
                broken = each(session, worker.sessions.identity(session), session.holes(lost_until)).is_break();
            });
        }
        let unlisted = UnlistedSessions { undecided: matcher.undecided, hidden: matcher.hidden };
        Ok(ColumnsEnd {
            as_of,
            sessions,
            columns: COLUMNS.iter().map(|&name| name.into()).collect(),
            states: STATES.iter().map(|state| state.as_str().into()).collect(),
            interfaces: self.interfaces.snapshot().iter().map(|interface| interface.name.as_str().into()).collect(),
            note: unlisted.sentence().unwrap_or_default().into(),
        })
    }
}
