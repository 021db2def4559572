//! How far back the recorder reaches, and how far somebody wants it to.

use std::time::Duration;

use super::{Service, now};
use base::time::Timestamp;
use engine::store::Rank;

/// How far back one must be able to look; less makes `/v1/health` say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionTarget {
    /// For the starts of sessions.
    pub starts: Option<Duration>,
    /// For every packet.
    pub whole: Option<Duration>,
}

/// How far back it reaches.
#[derive(Debug)]
pub(super) struct Horizon {
    /// What ages are counted from: now, or the newest packet of a replayed capture.
    end: Option<Timestamp>,
    /// The time of the oldest packet and the bytes of each rank that has some.
    ranks: [Option<(Timestamp, u64)>; Rank::COUNT],
    /// Up to when packets are missing, other than the ends of sessions that went by choice.
    lost_until: Option<Timestamp>,
}

impl Horizon {
    pub(super) fn of(service: &Service) -> Self {
        let history = service.history();
        let totals = history.totals();
        let newest = totals.newest;
        let end =
            if service.recorder().live { Some(newest.map_or_else(now, |newest| newest.max(now()))) } else { newest };
        let mut ranks = [None::<(Timestamp, u64)>; Rank::COUNT];
        for view in history.workers.iter().flat_map(|worker| worker.segments.views()).filter(|view| view.packets > 0) {
            let rank = &mut ranks[view.rank.index()];
            let (oldest, bytes) = rank.unwrap_or((view.oldest, 0));
            *rank = Some((oldest.min(view.oldest), bytes + view.len_bytes));
        }
        Self { end, ranks, lost_until: totals.lost_until }
    }

    /// Each rank that has packets: how far back it reaches, and its bytes.
    pub(super) fn ranks(&self) -> impl Iterator<Item = (Rank, Duration, u64)> {
        let known = Rank::all().zip(self.ranks);
        known.filter_map(|(rank, known)| known.map(|(oldest, bytes)| (rank, self.age(oldest), bytes)))
    }

    /// How far back there is every packet.
    pub(super) fn whole(&self) -> Option<Duration> {
        let oldest = self.ranks.iter().flatten().map(|known| known.0).min();
        self.end.and(self.lost_until.or(oldest)).map(|since| self.age(since))
    }

    fn age(&self, time: Timestamp) -> Duration {
        self.end.map_or(Duration::ZERO, |end| end.since(time))
    }

    /// What falls short of what is wanted, in sentences. As long as nothing had to go there is nothing to say.
    pub(super) fn short_of(&self, wanted: RetentionTarget) -> Vec<String> {
        if self.lost_until.is_none() {
            return Vec::new();
        }
        let starts = self.ranks().next().filter(|(rank, ..)| rank.index() == 0).map(|(_, age, _)| age);
        let of = |what: &str, key: &str, reached: Option<Duration>, wanted: Option<Duration>| {
            let (reached, wanted) = (reached.unwrap_or_default(), wanted?);
            (reached < wanted).then(|| {
                format!(
                    "{what} reaches back {}, and {} are wanted ([health] {key}): give retrocap more memory (-m), or \
                     record less (-i, -f)",
                    base::time::human_age(reached),
                    base::time::human_age(wanted)
                )
            })
        };
        let starts = of("the start of sessions", "starts", starts, wanted.starts);
        starts.into_iter().chain(of("every packet", "whole", self.whole(), wanted.whole)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wanted_and_had_to_go_falls_short() {
        let at = |seconds: u64| Timestamp::from_unix(1_795_341_600 + seconds, 0);
        let mut ranks = [None; Rank::COUNT];
        (ranks[0], ranks[3]) = (Some((at(0), 1)), Some((at(500), 2)));
        let horizon = |lost_until| Horizon { end: Some(at(600)), ranks, lost_until };
        let minutes = |starts: u64, whole: u64| RetentionTarget {
            starts: Some(Duration::from_secs(60 * starts)),
            whole: Some(Duration::from_secs(60 * whole)),
        };
        assert!(horizon(None).short_of(minutes(60, 60)).is_empty(), "it has just begun");
        let cut = horizon(Some(at(550)));
        assert!(cut.short_of(RetentionTarget::default()).is_empty());
        assert!(cut.short_of(RetentionTarget { whole: None, ..minutes(10, 0) }).is_empty());
        let short = cut.short_of(minutes(11, 1));
        assert_eq!(short.len(), 2, "{short:?}");
        assert!(short[0].starts_with("the start of sessions reaches back 10"), "{short:?}");
        assert!(short[1].starts_with("every packet reaches back 50 s, and"), "{short:?}");
    }
}
