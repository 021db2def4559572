//! The totals of a listing: of everything that matches, listed or not.

use crate::client::Trailers;
use crate::terminal::human::{count, counted, size};

/// Totals from the trailers of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListingTotals {
    /// Rows received.
    rows: u64,
    /// All sums, if the answer has sums.
    sums: Option<u64>,
    sessions: u64,
    bytes: u64,
    cut: u64,
    gone: u64,
    unknown: u64,
    /// Whether rows were left out before those received.
    pub(crate) is_later_page: bool,
}

impl ListingTotals {
    /// Reads the trailers of an answer that has ended with this many rows.
    pub(crate) fn read(trailers: &Trailers, rows: u64) -> Self {
        let number = |name: &str| trailers.text(name).and_then(|text| text.untrusted().parse().ok());
        Self {
            rows,
            sums: number("retrocap-sums"),
            sessions: number("retrocap-sessions").unwrap_or(rows),
            bytes: number("retrocap-session-bytes").unwrap_or(0),
            cut: number("retrocap-cut-sessions").unwrap_or(0),
            gone: number("retrocap-gone-sessions").unwrap_or(0),
            unknown: number("retrocap-unknown-sessions").unwrap_or(0),
            is_later_page: false,
        }
    }

    /// Sessions or sums that match, but were not listed.
    pub(crate) fn rows_left_out(self) -> u64 {
        self.sums.unwrap_or(self.sessions).saturating_sub(self.rows)
    }

    /// `15,638 sessions, 3.2 MiB; 12 cut, 3 without packets`.
    pub(crate) fn of_sessions(self) -> String {
        let parts =
            [(self.cut, "cut"), (self.gone, "without packets"), (self.unknown, "whose packets are no longer counted")];
        let parts: Vec<String> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", count(*n))).collect();
        let kept = if parts.is_empty() { ", all of it kept".to_owned() } else { format!("; {}", parts.join(", ")) };
        format!("{}, {}{kept}{}", counted(self.sessions, "session"), size(self.bytes), self.listed())
    }

    /// `136 hosts, 15,638 sessions, 3.2 MiB; each session counts whole`.
    pub(crate) fn of_sums(self, what: &str) -> String {
        let sums = counted(self.sums.unwrap_or(self.rows), what);
        let sessions = counted(self.sessions, "session");
        format!("{sums}, {sessions}, {}; each session counts whole{}", size(self.bytes), self.listed())
    }

    fn listed(self) -> String {
        match self.rows_left_out() {
            0 => String::new(),
            _ => format!(
                "; the {} {} listed",
                if self.is_later_page { "next" } else { "first" },
                if self.rows == 1 { "is".to_owned() } else { format!("{} are", count(self.rows)) }
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_of_everything_that_matches() {
        let all = ListingTotals {
            rows: 3,
            sums: None,
            sessions: 3,
            bytes: 2048,
            cut: 0,
            gone: 0,
            unknown: 0,
            is_later_page: false,
        };
        assert_eq!(all.of_sessions(), "3 sessions, 2 KiB, all of it kept");
        let some = ListingTotals { sessions: 15_638, cut: 2, gone: 1, ..all };
        assert_eq!(some.of_sessions(), "15,638 sessions, 2 KiB; 2 cut, 1 without packets; the first 3 are listed");
        let unknown = ListingTotals { unknown: 4, ..all };
        assert_eq!(unknown.of_sessions(), "3 sessions, 2 KiB; 4 whose packets are no longer counted");
        let sums = ListingTotals { sums: Some(136), rows: 1, ..some };
        assert_eq!(
            sums.of_sums("host"),
            "136 hosts, 15,638 sessions, 2 KiB; each session counts whole; the first is listed"
        );
    }
}
