//! How far back something is still there: what is kept, held against what was sent.

use retrocap::pipeline::Worker;
use retrocap::time::Timestamp;

use crate::baselines::Kept;
use crate::truth::{Level, Sent, Truth};

/// Sessions looked at together.
const WINDOW_SESSIONS: usize = 400;
/// Of these so many may lack something: 5 %.
const LACKING_MAX: usize = WINDOW_SESSIONS / 20;

/// One look at what a policy keeps, or several taken together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    /// For each level, the age in seconds up to which 95 % of sessions have it.
    pub(crate) horizons_s: [f64; Level::ALL.len()],
    /// The age in seconds up to which every packet of every session is there.
    pub(crate) whole_stretch_s: f64,
    /// Packets that are there.
    pub(crate) packets: f64,
    /// Sessions with a packet there.
    pub(crate) sessions: f64,
    /// Those of them whose first packet is gone.
    pub(crate) headless: f64,
    /// Those of the headless of which only packets that close them are there.
    pub(crate) only_closing: f64,
    /// Sessions with a hole before a packet that is there and older than the whole stretch, closing ones aside.
    pub(crate) gaps: f64,
    /// Bytes taken by what is there.
    pub(crate) used_bytes: f64,
}

impl Measured {
    /// Sessions with a gap, in percent of those with a packet there.
    pub(crate) fn gaps_percent(&self) -> f64 {
        100.0 * self.gaps / self.sessions.max(1.0)
    }

    /// The mean of several looks, value by value.
    pub(crate) fn mean(looks: &[Self]) -> Self {
        Self::each(looks, |values| values.iter().sum::<f64>() / values.len().max(1) as f64)
    }

    /// The value that a share of the looks stays below, value by value; 0.5 is the median.
    pub(crate) fn quantile(looks: &[Self], share: f64) -> Self {
        Self::each(looks, |values| {
            let at = share * values.len().saturating_sub(1) as f64;
            values.get(at.round() as usize).copied().unwrap_or_default()
        })
    }

    /// What `summary` makes of the sorted values of all looks.
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

/// What is kept of one session.
#[derive(Clone, Copy, Default)]
struct OfSession {
    packets: u32,
    closing: u32,
    /// Packets there, for each level.
    of_level: [u32; Level::ALL.len()],
    /// One more than the index of the last packet there that is older than the whole stretch and closes nothing.
    prefix: u32,
    /// Packets there below that.
    of_prefix: u32,
}

/// Holds `kept` against `truth` at `now`; every packet after `lost_until` is kept.
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

/// The age of the oldest session of the last window, going back from `now`, of which 95 % lack nothing.
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

/// What the pipeline keeps.
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

/// Bytes of the pages that the pipeline's packets take.
pub(crate) fn used_by(worker: &Worker) -> u64 {
    worker.segments.views().map(|view| view.memory_bytes()).sum()
}
