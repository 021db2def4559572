//! Session oracle: a list of all sessions, and the current session of each pair of endpoints.

use std::collections::HashMap;

use super::traffic::{ACK, FIN, Pair, RST, SECOND, SYN, Sent, TCP};

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) pair: Pair,
    pub(crate) first_sequence: u64,
    pub(crate) last: u64,
    pub(crate) bytes: u64,
    /// Number of packets from the originator and from the responder.
    pub(crate) packets: (u64, u64),
    /// Whether `pair.a` is the originator.
    a_began: bool,
    closed_by_originator: bool,
    closed_by_responder: bool,
    reset: bool,
    pub(crate) depth: Depth,
    pub(crate) kept_packets: u64,
    pub(crate) kept_bytes: u64,
    pub(crate) first_is_lost: bool,
    pub(crate) class: u8,
    pub(crate) flood: u8,
    pub(crate) pins: u16,
}

/// Properties of a packet relative to its session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed {
    pub(crate) session: usize,
    pub(crate) offset: u64,
    pub(crate) depth: u64,
    pub(crate) closes: bool,
    pub(crate) begins: bool,
    pub(crate) answered: bool,
}

/// Depth of a session's packets. It equals the session's length up to 3584 bytes. Beyond that it is the content of a
/// leaky bucket that empties within 20 s of silence, but at least 3584 bytes. `recent` counts units of 16 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Depth {
    bytes: u64,
    recent: u64,
    last: u64,
}

impl Depth {
    pub(crate) fn of_next(&mut self, sent: &Sent) -> u64 {
        let idle = sent.time.saturating_sub(self.last).min(20 * SECOND);
        self.recent -= self.recent * idle / (20 * SECOND);
        let depth = if self.bytes <= 3584 { self.bytes } else { (self.recent * 16).clamp(3584, self.bytes) };
        self.bytes += sent.len as u64;
        self.recent += (sent.len as u64).div_ceil(16);
        self.last = self.last.max(sent.time);
        depth
    }
}

#[derive(Default)]
pub(crate) struct Sessions {
    pub(crate) all: Vec<Session>,
    now: HashMap<Pair, usize>,
}

impl Session {
    fn is_over(&self) -> bool {
        self.reset || (self.closed_by_originator && self.closed_by_responder)
    }

    fn timeout(&self) -> u64 {
        match self.pair.protocol {
            TCP if self.is_over() => 5 * SECOND,
            TCP => 300 * SECOND,
            _ => 60 * SECOND,
        }
    }

    /// The flood with which the session's packets are kept. A session that got an answer has left the flood of
    /// unanswered sessions.
    pub(crate) fn kept_with(&self) -> u8 {
        if self.flood == 7 { 0 } else { self.flood }
    }

    pub(crate) fn has_port(&self, port: u16) -> bool {
        self.pair.a.1 == port || self.pair.b.1 == port
    }
}

/// Traffic names the originator `a`, so a pair identifies a session.
impl Sessions {
    pub(crate) fn observe(&mut self, sent: &Sent, sequence: u64) -> Observed {
        let tcp = sent.pair.protocol == TCP;
        let opens = tcp && sent.tcp_flags & (SYN | ACK | RST) == SYN;
        let known = self.now.get(&sent.pair).copied().filter(|&at| {
            let session = &self.all[at];
            !(opens && session.is_over()) && sent.time.saturating_sub(session.last) <= session.timeout()
        });
        let at = known.unwrap_or_else(|| {
            let answers = tcp && sent.tcp_flags & (SYN | ACK) == SYN | ACK;
            self.all.push(Session {
                pair: sent.pair,
                first_sequence: sequence,
                last: sent.time,
                bytes: 0,
                packets: (0, 0),
                a_began: sent.out != answers,
                closed_by_originator: false,
                closed_by_responder: false,
                reset: false,
                depth: Depth::default(),
                kept_packets: 0,
                kept_bytes: 0,
                first_is_lost: false,
                class: 0,
                flood: 0,
                pins: 0,
            });
            self.now.insert(sent.pair, self.all.len() - 1);
            self.all.len() - 1
        });
        let session = &mut self.all[at];
        let by_originator = sent.out == session.a_began;
        let (out, back) = session.packets;
        let answered = if tcp { by_originator && out == 1 && back > 0 } else { !by_originator && back == 0 && out > 0 };
        let offset = session.bytes;
        let depth = session.depth.of_next(sent);
        session.bytes += sent.len as u64;
        session.last = session.last.max(sent.time);
        *(if by_originator { &mut session.packets.0 } else { &mut session.packets.1 }) += 1;
        let mut closes = false;
        let mut see = |flag: &mut bool, seen: bool| {
            closes |= seen && !*flag;
            *flag |= seen;
        };
        let fin = sent.tcp_flags & FIN != 0;
        see(&mut session.closed_by_originator, fin && by_originator);
        see(&mut session.closed_by_responder, fin && !by_originator);
        see(&mut session.reset, sent.tcp_flags & RST != 0);
        Observed { session: at, offset, depth, closes, begins: known.is_none(), answered }
    }

    /// Whether a packet at the start of a session must be kept for now. Without the first packet, the others need not be.
    pub(crate) fn needs_start(&self, at: usize, sequence: u64, now: u64) -> bool {
        let session = &self.all[at];
        let lives = now.saturating_sub(session.last) <= session.timeout();
        let conversation = session.packets.1 > 0 || session.packets.0 + session.packets.1 > 2;
        self.is_first_of_more(at, sequence) || (lives && conversation && !session.first_is_lost)
    }

    pub(crate) fn is_first_of_more(&self, at: usize, sequence: u64) -> bool {
        self.all[at].first_sequence == sequence && self.all[at].kept_packets > 0
    }

    /// Handles the loss of a packet. If no packet of a session without its first packet is left, the next packet begins a
    /// new session.
    pub(crate) fn lost(&mut self, at: usize) {
        let session = &self.all[at];
        if session.kept_packets == 0 && session.first_is_lost && self.now.get(&session.pair) == Some(&at) {
            self.now.remove(&session.pair);
        }
    }
}
