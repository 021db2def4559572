//! Page marks: text that a client sends back to continue a listing.

use std::str::FromStr;

/// A position in a listing. The next page begins after the session with this sort key, sequence number and worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageMark {
    pub(super) key: u64,
    pub(super) first_sequence: u64,
    pub(super) worker: u16,
    pub(super) past: bool,
}

/// The text is not a page mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no mark of a page: take the one that ended the page before, with the same sort order")]
pub struct PageMarkError;

impl std::fmt::Display for PageMark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{:x}-{:x}-{}", self.key, self.first_sequence, self.worker, u8::from(self.past))
    }
}

impl FromStr for PageMark {
    type Err = PageMarkError;

    fn from_str(text: &str) -> Result<Self, PageMarkError> {
        let mut numbers = text.split('-').map(|number| u64::from_str_radix(number, 16));
        let mut next = || numbers.next().and_then(Result::ok).ok_or(PageMarkError);
        let (key, first_sequence, worker, past) = (next()?, next()?, next()?, next()? != 0);
        let worker = u16::try_from(worker).map_err(|_| PageMarkError)?;
        if numbers.next().is_some() { Err(PageMarkError) } else { Ok(Self { key, first_sequence, worker, past }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_and_nonsense_does_not() {
        for mark in [
            PageMark { key: 0, first_sequence: 0, worker: 0, past: false },
            PageMark { key: u64::MAX, first_sequence: 77, worker: 3, past: true },
        ] {
            assert_eq!(mark.to_string().parse(), Ok(mark));
        }
        for wrong in ["", "1-2-3", "1-2-3-0-5", "x-1-2-0", "1-2-10000-0"] {
            assert_eq!(wrong.parse::<PageMark>(), Err(PageMarkError), "{wrong}");
        }
    }
}
