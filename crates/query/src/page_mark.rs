//! Page marks: text that a client sends back to continue a listing.

use std::str::FromStr;

use super::flows::{Sort, SortKey};

/// A position in a listing. The next page begins after the session with this sort key and hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageMark {
    pub(super) sort: Sort,
    pub(super) key: SortKey,
    pub(super) hash: u64,
}

/// The text is not a page mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no mark of a page: take the one that ended the page before")]
pub struct PageMarkError;

impl PageMark {
    /// The sort order of the listing that the mark belongs to.
    pub fn sort(&self) -> Sort {
        self.sort
    }
}

impl std::fmt::Display for PageMark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sort = Sort::ALL.iter().position(|sort| *sort == self.sort).unwrap_or(0);
        write!(f, "{sort}-{:x}-{:x}-{:x}", self.key.group, self.key.within, self.hash)
    }
}

impl FromStr for PageMark {
    type Err = PageMarkError;

    fn from_str(text: &str) -> Result<Self, PageMarkError> {
        let mut numbers = text.split('-').map(|number| u64::from_str_radix(number, 16));
        let mut next = || numbers.next().and_then(Result::ok).ok_or(PageMarkError);
        let (sort, group, within, hash) = (next()?, next()?, next()?, next()?);
        let sort = usize::try_from(sort).ok().and_then(|sort| Sort::ALL.get(sort)).ok_or(PageMarkError)?;
        if numbers.next().is_some() {
            return Err(PageMarkError);
        }
        Ok(Self { sort: *sort, key: SortKey { group, within }, hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_and_nonsense_does_not() {
        for mark in [
            PageMark { sort: Sort::Newest, key: SortKey { group: 0, within: 0 }, hash: 0 },
            PageMark { sort: Sort::In, key: SortKey { group: u64::MAX, within: 77 }, hash: 3 },
        ] {
            assert_eq!(mark.to_string().parse(), Ok(mark));
        }
        for wrong in ["", "1-2-3", "1-2-3-0-5", "x-1-2-0", "8-1-2-0", "1-2-10000000000000000-0"] {
            assert_eq!(wrong.parse::<PageMark>(), Err(PageMarkError), "{wrong}");
        }
    }
}
