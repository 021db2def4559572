//! Selects the file to remove when the spool needs room, by the rule by which the store ages segments.
//!
//! The oldest file of each band is a candidate. The spool removes the one with the greatest age × weight. Deeper bands
//! have greater weights, so that old sessions are shortened from their end, and starts stay many times as long as bulk.
//! With `--spool-keep`, a file younger than that duration is removed only if no older file is a candidate. Starts and
//! the middle of sessions have a share of the room that bulk cannot take from them.

use std::time::Duration;

use crate::band::Band;
use base::time::Timestamp;

/// Factor between the weights of neighbouring bands. So starts stay 1.6⁵ ≈ 10 times as long as bulk,
/// and longer where bulk alone exceeds the room.
const WEIGHT_STEP: f64 = 1.6;
/// While other bands have files, starts (the first two bands) keep this share of the room, and so does the middle.
const SHARE_DIVISOR: u64 = 8;

/// The oldest file of a band, and the size of the band.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The band.
    pub band: Band,
    /// Time of the latest packet in the file.
    pub newest: Timestamp,
    /// Bytes of all files of the band.
    pub band_bytes: u64,
}

/// The index of the candidate to remove; `None` without candidates.
pub fn victim(candidates: &[Candidate], budget_bytes: u64, keep: Option<Duration>, now: Timestamp) -> Option<usize> {
    let age = |candidate: &Candidate| now.since(candidate.newest);
    let group_bytes = |group: usize| -> u64 {
        candidates.iter().filter(|other| self::group(other.band) == group).map(|other| other.band_bytes).sum()
    };
    let protected = |candidate: &Candidate| {
        let group = group(candidate.band);
        group < BULK && group_bytes(group) <= budget_bytes / SHARE_DIVISOR
    };
    let overdue = |candidate: &Candidate| keep.is_none_or(|keep| age(candidate) > keep);
    let tests: [&dyn Fn(&Candidate) -> bool; 4] = [
        &|candidate| overdue(candidate) && !protected(candidate),
        &|candidate| !protected(candidate),
        &|candidate| overdue(candidate),
        &|_| true,
    ];
    tests.iter().find_map(|test| {
        let eligible = candidates.iter().enumerate().filter(|(_, candidate)| test(candidate));
        eligible
            .max_by(|(_, one), (_, other)| score(one, age(one)).total_cmp(&score(other, age(other))))
            .map(|(i, _)| i)
    })
}

const BULK: usize = 2;

/// Starts, middle, bulk.
fn group(band: Band) -> usize {
    match band.index() {
        0 | 1 => 0,
        2..=4 => 1,
        _ => BULK,
    }
}

fn score(candidate: &Candidate, age: Duration) -> f64 {
    let step = u8::try_from(candidate.band.index()).unwrap_or(u8::MAX);
    // A file of this second gets an age above zero, so that depth decides.
    (age.as_secs_f64() + 1.0) * WEIGHT_STEP.powi(step.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;

    /// The band whose file is removed, of candidates given as band, age in seconds, and bytes.
    fn goes(files: &[(u8, u64, u64)], keep: Option<u64>) -> Option<u8> {
        let now = Timestamp::from_unix(1_000 * DAY, 0);
        let candidates: Vec<Candidate> = files
            .iter()
            .map(|(band, age, bytes)| Candidate {
                band: Band(*band),
                newest: now.saturating_sub(Duration::from_secs(*age)),
                band_bytes: *bytes,
            })
            .collect();
        victim(&candidates, 1000, keep.map(Duration::from_secs), now).map(|i| candidates[i].band.0)
    }

    #[test]
    fn old_and_deep_goes_first() {
        assert_eq!(goes(&[], None), None);
        assert_eq!(goes(&[(0, DAY, 400), (5, DAY, 500)], None), Some(5), "at equal age, the deeper one");
        assert_eq!(goes(&[(0, 30 * DAY, 400), (5, DAY, 500)], None), Some(0), "starts do not stay for ever");
        assert_eq!(goes(&[(0, 9 * DAY, 400), (5, DAY, 500)], None), Some(5), "but many times as long");
    }

    #[test]
    fn starts_keep_their_share() {
        assert_eq!(goes(&[(0, 300 * DAY, 60), (1, 300 * DAY, 60), (5, HOUR, 800)], None), Some(5));
        assert_eq!(goes(&[(0, 300 * DAY, 60)], None), Some(0), "there is nothing else");
    }

    #[test]
    fn what_was_asked_for_stays_while_something_older_can_go() {
        let keep = Some(7 * DAY);
        assert_eq!(goes(&[(0, 20 * DAY, 500), (5, 6 * DAY, 500)], keep), Some(0), "bulk is younger than a week");
        assert_eq!(goes(&[(0, 20 * DAY, 500), (5, 8 * DAY, 500)], keep), Some(5));
        assert_eq!(goes(&[(0, 6 * DAY, 500), (5, 5 * DAY, 500)], keep), Some(5), "all is younger: the deepest");
    }
}
