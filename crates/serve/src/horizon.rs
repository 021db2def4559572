//! The horizon: how far back the history reaches, and whether that is far enough.

use std::time::Duration;

use super::clock::now;
use super::retention_target::RetentionTarget;
use super::service::Service;
use base::time::Timestamp;
use engine::store::Rank;
use query::History;
use query::coverage::Coverage;

/// The share of sessions that must have their first packet, for the time that `[health] starts` asks for.
const STARTS_SHARE_MIN: f64 = 0.9;

/// How far back the history reaches.
#[derive(Debug)]
pub(super) struct Horizon {
    /// The end from which ages are counted: now, or the newest packet of a replayed capture.
    end: Option<Timestamp>,
    /// The time of the oldest packet and the bytes of each rank that has packets.
    ranks: [Option<(Timestamp, u64)>; Rank::COUNT],
    /// The time up to which packets are missing, apart from what a class cuts off on purpose.
    lost_until: Option<Timestamp>,
    /// The time from which every packet is kept, and no restart left a gap.
    everything_since: Option<Timestamp>,
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
        Self { end, ranks, lost_until: totals.lost_until, everything_since: history.everything_since() }
    }

    /// The age and the bytes of each rank that has packets.
    pub(super) fn ranks(&self) -> impl Iterator<Item = (Rank, Duration, u64)> {
        let known = Rank::all().zip(self.ranks);
        known.filter_map(|(rank, known)| known.map(|(oldest, bytes)| (rank, self.age(oldest), bytes)))
    }

    /// The age up to which every packet is kept, and no restart left a gap. The status has the same time.
    pub(super) fn whole(&self) -> Option<Duration> {
        self.end.and(self.everything_since).map(|since| self.age(since))
    }

    fn age(&self, time: Timestamp) -> Duration {
        self.end.map_or(Duration::ZERO, |end| end.since(time))
    }

    /// A sentence for each target that is missed. As long as nothing was evicted there is none. `starts` is the coverage of the
    /// time for which starts are wanted.
    pub(super) fn short_of(&self, wanted: RetentionTarget, starts: Option<&Coverage>) -> Vec<String> {
        const REMEDY: &str = "give retrocap more memory (-m), or record less (-i, -f)";
        if self.lost_until.is_none() {
            return Vec::new();
        }
        let starts = starts.filter(|starts| starts.first_packet < STARTS_SHARE_MIN).map(|starts| {
            format!(
                "of the {} sessions that began in the last {}, {:.1} % still have their first packet, and {:.0} % are wanted \
                 ([health] starts): {REMEDY}",
                starts.sessions,
                starts.period.log(),
                (starts.first_packet * 1000.0).floor() / 10.0,
                STARTS_SHARE_MIN * 100.0,
            )
        });
        // A gap that a restart left does not show a lack of memory.
        let reached = self.lost_until.map_or(Duration::ZERO, |lost| self.age(lost));
        let whole = wanted.whole.filter(|wanted| reached < *wanted).map(|wanted| {
            let (reached, wanted) = (base::time::human_age(reached), base::time::human_age(wanted));
            format!("every packet reaches back {reached}, and {wanted} are wanted ([health] whole): {REMEDY}")
        });
        starts.into_iter().chain(whole).collect()
    }

    /// The coverage of the time for which starts are wanted; `None` if none is wanted. Looks at all sessions.
    pub(super) fn starts(&self, history: &History, wanted: RetentionTarget) -> Option<Coverage> {
        self.lost_until.and(wanted.starts).zip(self.end).map(|(period, now)| history.coverage(now, period))
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
        let horizon = |lost_until| Horizon { end: Some(at(600)), ranks, lost_until, everything_since: lost_until };
        let minutes = |starts: u64, whole: u64| RetentionTarget {
            starts: Some(Duration::from_secs(60 * starts)),
            whole: Some(Duration::from_secs(60 * whole)),
        };
        let starts =
            |first_packet| Coverage { period: "10 m".into(), sessions: 1000, first_packet, ..Coverage::default() };
        let (enough, few) = (starts(0.95), starts(0.8999));
        assert!(horizon(None).short_of(minutes(60, 60), Some(&few)).is_empty(), "it has just begun");
        let cut = horizon(Some(at(550)));
        assert!(cut.short_of(RetentionTarget::default(), None).is_empty());
        assert!(cut.short_of(RetentionTarget { whole: None, ..minutes(10, 0) }, Some(&enough)).is_empty());
        let short = cut.short_of(minutes(11, 1), Some(&few));
        assert_eq!(short.len(), 2, "{short:?}");
        assert!(short[0].starts_with("of the 1000 sessions that began in the last 10 m, 89.9 % still"), "{short:?}");
        assert!(short[1].starts_with("every packet reaches back 50 s, and"), "{short:?}");
    }
}
