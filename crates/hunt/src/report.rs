//! What a search looked at, and what it could not search.

use std::collections::BTreeMap;

use base::counted::counted;
use engine::budget::ByteSize;
use streams::Cause;

use crate::narrow::Searched;

/// What was searched, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Sessions.
    pub sessions: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Sessions of protocols that encrypt.
    pub encrypted_sessions: u64,
    /// Their payload bytes.
    pub encrypted_bytes: u64,
    /// Missing parts, by cause: how many, and bytes where the length is known.
    pub gaps: BTreeMap<Cause, (u64, u64)>,
    /// Sessions with missing parts.
    pub cut_sessions: u64,
    /// Sessions that have lost packets, as the recorder knows.
    pub lost_sessions: u64,
    /// Retransmissions that differ from the original bytes. The original bytes were searched.
    pub conflicts: u64,
    /// Matches beyond the limit for one rule in one session.
    pub more_matches: u64,
    /// Directions searched in pieces to save memory.
    pub in_pieces: u64,
    /// Parsers that gave up.
    pub unread_messages: u64,
    /// Packets that were evicted before the search came to them; the caller counts them.
    pub overtaken: u64,
}

impl Report {
    /// The report if the recorder looked at these sessions, and only some of them were searched closely.
    #[must_use]
    pub fn with_looked_at(self, searched: &Searched, lost_sessions: u64) -> Self {
        let gaps = [(Cause::NoSyn, (searched.without_start, 0)), (Cause::Snaplen, searched.truncated)];
        Self {
            sessions: searched.sessions,
            bytes: searched.bytes,
            encrypted_sessions: searched.encrypted_sessions,
            encrypted_bytes: searched.encrypted_bytes,
            gaps: gaps.into_iter().filter(|(_, (times, _))| *times > 0).collect(),
            lost_sessions,
            ..self
        }
    }

    /// What was searched, and what could not be.
    pub fn sentence(&self, counts: streams::Counts) -> String {
        let mut not = Vec::new();
        for (cause, (times, bytes)) in &self.gaps {
            let (one, several, what) = match cause {
                Cause::NoSyn => ("direction", "directions", "whose start was not captured"),
                Cause::Snaplen => ("truncated packet", "truncated packets", ""),
                Cause::Dropped => ("gap", "gaps", "where packets were dropped"),
                Cause::Cut => ("gap", "gaps", "at the end of sessions that were cut"),
                Cause::Evicted => ("gap", "gaps", "within sessions, of evicted packets"),
                Cause::Overtaken => ("gap", "gaps", "of streams that gave way to others"),
                Cause::Missing => ("gap", "gaps", "whose packets are not in the file"),
            };
            let space = if what.is_empty() { "" } else { " " };
            let size = if *bytes > 0 { format!(" ({})", ByteSize(*bytes)) } else { String::new() };
            not.push(format!("{}{space}{what}{size}", counted(*times, one, several)));
        }
        if self.encrypted_sessions > 0 {
            let (sessions, bytes) = (self.encrypted_sessions, ByteSize(self.encrypted_bytes));
            not.push(format!("{} of encrypted protocols ({bytes})", counted(sessions, "session", "sessions")));
        }
        for (number, one, several, what) in [
            (self.lost_sessions, "session", "sessions", "with lost packets"),
            (self.overtaken, "packet", "packets", "evicted during the search"),
            (counts.undecoded, "packet", "packets", "with unknown headers"),
            (counts.incomplete_datagrams, "datagram", "datagrams", "with missing fragments"),
            (counts.ended_early, "session", "sessions", "split to save memory"),
            (self.in_pieces, "direction", "directions", "searched in pieces to save memory"),
            (self.unread_messages, "session", "sessions", "whose messages could not be read to the end"),
            (
                self.conflicts,
                "conflicting retransmission",
                "conflicting retransmissions",
                "of which the first bytes were searched",
            ),
            (self.more_matches, "further match", "further matches", "of one rule in one session, not listed"),
        ] {
            if number > 0 {
                not.push(format!("{} {what}", counted(number, one, several)));
            }
        }
        let searched =
            format!("searched {} of {}", ByteSize(self.bytes), counted(self.sessions, "session", "sessions"));
        if not.is_empty() { searched } else { format!("{searched}; not searched completely: {}", not.join(", ")) }
    }
}
