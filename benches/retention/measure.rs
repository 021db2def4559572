//! Horizon measurement: compares the retained packets with the sent packets.

use retrocap::pipeline::Worker;
use retrocap::time::Timestamp;

use crate::baselines::Kept;
use crate::truth::{Level, Sent, Truth};

/// Number of consecutive sessions in a window.
const WINDOW_SESSIONS: usize = 400;
/// Number of sessions in a window that may be incomplete: 5%.
const LACKING_MAX: usize = WINDOW_SESSIONS / 20;

/// One measurement of what a policy retains, or a summary of several.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    /// For each level, the age in seconds up to which 95% of sessions are complete.
    pub(crate) horizons_s: [f64; Level::ALL.len()],
    /// Age in seconds up to which every packet is retained.
    pub(crate) whole_stretch_s: f64,
    /// Number of retained packets.
    pub(crate) packets: f64,
    /// Number of sessions with a retained packet.
    pub(crate) sessions: f64,
    /// Number of these sessions whose first packet is lost.
    pub(crate) headless: f64,
    /// Number of headless sessions of which only closing packets are retained.
    pub(crate) only_closing: f64,
    /// Number of sessions with a gap: a missing packet before a retained one that is older than the whole stretch.
    /// Closing packets do not count as the retained one.
    pub(crate) gaps: f64,
    /// Memory in use, in bytes.
    pub(crate) used_bytes: f64,
}

impl Measured {
    /// Sessions with a gap, in percent of those with a retained packet.
    pub(crate) fn gaps_percent(&self) -> f64 {
        100.0 * self.gaps / self.sessions.max(1.0)
    }

    /// Mean of several measurements, for each value.
    pub(crate) fn mean(looks: &[Self]) -> Self {
        Self::each(looks, |values| values.iter().sum::<f64>() / values.len().max(1) as f64)
    }

    /// Quantile of several measurements, for each value. A `share` of 0.5 gives the median.
    pub(crate) fn quantile(looks: &[Self], share: f64) -> Self {
        Self::each(looks, |values| {
            let at = share * values.len().saturating_sub(1) as f64;
            values.get(at.round() as usize).copied().unwrap_or_default()
        })
    }

    /// Applies `summary` to the sorted measurements of each value.
    fn each(looks: &[Self], summary: impl Fn(&[f64]) -> f64) -> Self {
        let of = |value: &dyn Fn(&Self) -> f64| {
            let mut values: Vec<f64> = looks.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            summary(&values)
        };
        Self {
            horizons_s: std::array::from_fn(|level| of(&|look| look.horizons_s[level])),
            whole_stretch_s: of(&|look| look.whole_stretch_s),
            packets: of(&|look| look.packets),
            sessions: of(&|look| look.sessions),
            headless: of(&|look| look.headless),
            only_closing: of(&|look| look.only_closing),
            gaps: of(&|look| look.gaps),
            used_bytes: of(&|look| look.used_bytes),
        }
    }
}

/// Retained packets of one session.
#[derive(Clone, Copy, Default)]
struct OfSession {
    packets: u32,
    closing: u32,
    /// Number of retained packets in each level.
    of_level: [u32; Level::ALL.len()],
    /// One more than the index of the last retained packet that is older than the whole stretch and does not close the
    /// session.
    prefix: u32,
    /// Number of retained packets with an index below `prefix`.
    of_prefix: u32,
}

/// Compares `kept` with `truth` at time `now`. Every packet after `lost_until` is retained.
pub(crate) fn measure(
    truth: &Truth,
    kept: &[Kept],
    lost_until: Timestamp,
    used_bytes: u64,
    now: Timestamp,
) -> Measured {
    let mut sessions = vec![OfSession::default(); truth.sessions().len()];
    for packet in kept {
        let place = truth.place(packet.number);
        let sent = &truth.sessions()[place.session as usize];
        let session = &mut sessions[place.session as usize];
        session.packets += 1;
        for (of_level, wanted) in session.of_level.iter_mut().zip(sent.packets) {
            *of_level += u32::from(place.index < wanted);
        }
        if sent.closes_with(place.index) {
            session.closing += 1;
        } else if packet.time <= lost_until {
            session.prefix = session.prefix.max(place.index + 1);
        }
    }
    for packet in kept {
        let place = truth.place(packet.number);
        let session = &mut sessions[place.session as usize];
        session.of_prefix += u32::from(place.index < session.prefix);
    }

    let count = |what: &dyn Fn(&OfSession) -> bool| sessions.iter().filter(|session| what(session)).count() as f64;
    let headless = |session: &OfSession| session.packets > 0 && session.of_level[Level::Start as usize] == 0;
    Measured {
        horizons_s: Level::ALL.map(|level| {
            let level = level as usize;
            horizon_s(truth.sessions(), now, |at| sessions[at].of_level[level] < truth.sessions()[at].packets[level])
        }),
        whole_stretch_s: seconds(lost_until.max(crate::campus::Campus::begin()), now),
        packets: kept.len() as f64,
        sessions: count(&|session| session.packets > 0),
        headless: count(&headless),
        only_closing: count(&|session| headless(session) && session.packets == session.closing),
        gaps: count(&|session| session.of_prefix < session.prefix),
        used_bytes: used_bytes as f64,
    }
}

/// Age in seconds of the oldest session that is reached from `now` backwards while at most 5% of the sessions in each
/// window are incomplete.
pub(crate) fn horizon_s(sessions: &[Sent], now: Timestamp, lacks: impl Fn(usize) -> bool) -> f64 {
    let mut lacking = 0;
    let mut reached = now;
    for at in (0..sessions.len()).rev() {
        lacking += usize::from(lacks(at));
        if at + WINDOW_SESSIONS < sessions.len() {
            lacking -= usize::from(lacks(at + WINDOW_SESSIONS));
        }
        if lacking > LACKING_MAX {
            break;
        }
        reached = sessions[at].start;
    }
    seconds(reached, now)
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.0.saturating_sub(from.0) as f64 / 1e9
}

/// The packets that the pipeline retains.
pub(crate) fn kept_by(worker: &Worker) -> Vec<Kept> {
    let mut kept = Vec::new();
    for view in worker.segments.views() {
        let mut cursor = worker.segments.cursor(view);
        while let Ok(Some(record)) = worker.segments.next(&mut cursor) {
            kept.push(Kept { number: record.header.sequence, time: record.header.time });
        }
    }
    kept
}

/// Bytes of the pages that the pipeline's packets occupy.
pub(crate) fn used_by(worker: &Worker) -> u64 {
    worker.segments.views().map(|view| view.memory_bytes()).sum()
}

/// What every policy retains at one time.
pub(crate) struct Look {
    pub(crate) now: Timestamp,
    /// Order: FIFO, cutoff, Retrocap.
    pub(crate) policies: [Measured; 3],
}
