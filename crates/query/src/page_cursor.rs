//! Page marks: text that a client sends back to continue a listing.

use std::str::FromStr;

use super::flows::{Sort, SortKey};
use base::time::Timestamp;

/// A position in a listing. The next page begins after the session with this sort key and hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCursor {
    pub(super) sort: Sort,
    pub(super) key: SortKey,
    pub(super) hash: u64,
    /// Time of the newest packet when the first page was made.
    pub(super) as_of: Timestamp,
    pub(super) phase: Phase,
}

/// Which sessions the pages have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// All, in sort order.
    Sorted,
    /// Those that had packets since the first page, once more, in the order of their starts.
    Changed,
}

/// The text is not a page mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no mark of a page: take the one that ended the page before")]
pub struct PageCursorError;

impl PageCursor {
    /// The sort order of the listing that the mark belongs to.
    pub fn sort(&self) -> Sort {
        self.sort
    }
}

impl std::fmt::Display for PageCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sort = Sort::ALL.iter().position(|sort| *sort == self.sort).unwrap_or(0);
        let phase = u8::from(self.phase == Phase::Changed);
        let Self { key: SortKey { group, within }, hash, as_of, .. } = self;
        write!(f, "{sort}-{group:x}-{within:x}-{hash:x}-{:x}-{phase}", as_of.0)
    }
}

impl FromStr for PageCursor {
    type Err = PageCursorError;

    fn from_str(text: &str) -> Result<Self, PageCursorError> {
        let mut numbers = text.split('-').map(|number| u64::from_str_radix(number, 16));
        let mut next = || numbers.next().and_then(Result::ok).ok_or(PageCursorError);
        let (sort, group, within, hash, as_of, phase) = (next()?, next()?, next()?, next()?, next()?, next()?);
        let sort = usize::try_from(sort).ok().and_then(|sort| Sort::ALL.get(sort)).ok_or(PageCursorError)?;
        let phase = match phase {
            0 => Phase::Sorted,
            1 => Phase::Changed,
            _ => return Err(PageCursorError),
        };
        if numbers.next().is_some() {
            return Err(PageCursorError);
        }
        Ok(Self { sort: *sort, key: SortKey { group, within }, hash, as_of: Timestamp(as_of), phase })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_and_nonsense_does_not() {
        for mark in [
            PageCursor {
                sort: Sort::Newest,
                key: SortKey { group: 0, within: 0 },
                hash: 0,
                as_of: Timestamp(0),
                phase: Phase::Sorted,
            },
            PageCursor {
                sort: Sort::In,
                key: SortKey { group: u64::MAX, within: 77 },
                hash: 3,
                as_of: Timestamp(u64::MAX),
                phase: Phase::Changed,
            },
        ] {
            assert_eq!(mark.to_string().parse(), Ok(mark));
        }
        for wrong in [
            "",
            "1-2-3-4-5",
            "1-2-3-0-5-0-1",
            "x-1-2-0-1-0",
            "8-1-2-0-1-0",
            "1-2-10000000000000000-0-1-0",
            "1-2-3-4-5-2",
        ] {
            assert_eq!(wrong.parse::<PageCursor>(), Err(PageCursorError), "{wrong}");
        }
    }
}
