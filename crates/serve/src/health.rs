//! `/v1/health`: whether everything is recorded, and if not, why.
//!
//! It answers 200 either way: who restarts a recorder because it is degraded loses the history that it holds.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Service;
use super::horizon::Horizon;
use base::counters::{DropReason, Totals};
use base::interface::Interfaces;
use engine::session::SessionMarks;
use query::History;
use query::status::SandboxStatus;

/// How far back drops count.
const DROPS_WINDOW: Duration = Duration::from_secs(60);
/// How often they are looked at.
/// Samples between two looks for table entries of interfaces that can be used again, as each reads all packet headers.
const TICKS_BETWEEN_FREEING: u32 = 6;
/// Entries of the table of interfaces that are kept free: when no more are left, interfaces share one.
const INTERFACE_SLOTS_RESERVED: usize = 16;
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Seconds before its end from which on a certificate is worth a word.
const EXPIRY_NOTICE_S: i64 = 14 * 86_400;
/// Every reason there is.
pub(super) const CODES: &[&str] = &[
    "not_recording",
    "worker_stuck",
    "kernel_drops",
    "interfaces_full",
    "horizon_short",
    "pins_full",
    "not_locked",
    "sandbox",
    "audit",
    "certificate",
];

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Health {
    /// `ready` or `degraded`.
    pub(super) status: &'static str,
    /// Why it is degraded.
    pub(super) reasons: Vec<Reason>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Reason {
    pub(super) code: &'static str,
    detail: String,
}

/// What is looked at from time to time.
#[derive(Debug, Default)]
pub(super) struct HealthHistory {
    kernel: RecentDrops,
    interfaces_full: RecentDrops,
    pins_full: RecentDrops,
    turns: WorkerProgress,
}

/// Which worker has stood still since the last look.
#[derive(Debug, Default)]
struct WorkerProgress(Mutex<(Vec<u64>, Vec<usize>)>);

impl WorkerProgress {
    fn sample(&self, now: Vec<u64>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let still = seen.0.iter().zip(&now).enumerate().filter(|(_, (before, now))| before == now);
        seen.1 = still.map(|(worker, _)| worker).collect();
        seen.0 = now;
    }

    fn stuck(&self) -> Vec<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

/// The drops of the last minute.
#[derive(Debug, Default)]
struct RecentDrops(Mutex<VecDeque<(Instant, u64)>>);

impl RecentDrops {
    fn sample(&self, now: Instant, total: u64) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push_back((now, total));
        // One that is older than the window stays: the drops since then are those of the window.
        while samples.get(1).is_some_and(|(at, _)| now - *at >= DROPS_WINDOW) {
            samples.pop_front();
        }
    }

    fn recent(&self, total: u64) -> u64 {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.front().map_or(total, |(_, before)| total - before.min(&total))
    }
}

/// Looks at the drops and the workers from time to time, for ever.
pub(super) async fn sample_periodically(service: Arc<Service>) {
    let mut ticks = interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ticks_since_freed = TICKS_BETWEEN_FREEING;
    loop {
        let now = ticks.tick().await;
        let history = service.history();
        let totals = history.totals();
        service.health_history.kernel.sample(now, totals.kernel_dropped);
        service.health_history.interfaces_full.sample(now, interfaces_full(&totals));
        service.health_history.pins_full.sample(now, refused_by_pins(history));
        ticks_since_freed += 1;
        if ticks_since_freed >= TICKS_BETWEEN_FREEING && history.interfaces_run_short() {
            ticks_since_freed = 0;
            free_interfaces(&service).await;
        }
        if service.recorder().live {
            service
                .health_history
                .turns
                .sample(history.workers.iter().map(|worker| worker.published.publications()).collect());
        }
    }
}

/// Lets entries of interfaces that are gone mean others, on a thread that may take its time.
async fn free_interfaces(service: &Arc<Service>) {
    let service = Arc::clone(service);
    let now = base::time::Timestamp::from(std::time::SystemTime::now());
    let freed = tokio::task::spawn_blocking(move || service.history().free_interfaces(now)).await.unwrap_or(0);
    if freed > 0 {
        tracing::info!(
            "{freed} entries of the table of interfaces are used again: nothing of these interfaces is kept"
        );
    }
}

fn interfaces_full(totals: &Totals) -> u64 {
    totals.dropped[DropReason::InterfacesFull as usize].packets
}

/// Packets that a pin would keep, if there were room. Fewer once a pin has gone.
fn refused_by_pins(history: &History) -> u64 {
    let places = || history.workers.iter().flat_map(|worker| (0..SessionMarks::PINS).map(move |place| (worker, place)));
    places().map(|(worker, place)| worker.tally.refused_packets(place)).sum()
}

/// Layers of the sandbox that should be there and are not. One that an older kernel has a smaller version of is none of
/// them: nothing can be done about it, and `status` says so.
fn gaps(sandbox: &SandboxStatus) -> Vec<String> {
    if sandbox.mode == "off" {
        return std::iter::once("it is off (--sandbox=off)".to_owned())
            .chain(sandbox.kept_privileges.clone())
            .collect();
    }
    let gap = |(layer, holds): (&str, bool)| {
        let sentence = match layer {
            "capabilities" => "capabilities are kept (--no-drop-privileges)",
            "no_new_privs" => "programs could give it rights (no_new_privs)",
            "core_dumps" => "core dumps are possible",
            "seccomp" => "system calls are not filtered (seccomp)",
            "landlock" => "files are not restricted: this kernel has no Landlock (from 5.13 on, if built in)",
            // Without capabilities root's user can do what root's files allow; that is told where it starts.
            _ => return None,
        };
        (!holds).then(|| sentence.to_owned())
    };
    let kept = sandbox.kept_privileges.iter().cloned();
    sandbox.layers().into_iter().filter_map(gap).chain(sandbox.seccomp.gap()).chain(kept).collect()
}

/// Looks at everything; it may take a moment.
pub(super) fn check(service: &Service) -> Health {
    let recorder = service.recorder();
    let history = service.history();
    let mut reasons = Vec::new();
    let workers = history.workers.len();
    let recording = recorder.recording.load(Ordering::Relaxed);
    if recording < workers {
        let detail = match recorder.live {
            true => format!("{recording} of {workers} workers record"),
            false => "the capture has been replayed to its end: nothing is recorded any more".to_owned(),
        };
        reasons.push(Reason { code: "not_recording", detail });
    }
    for worker in service.health_history.turns.stuck() {
        let detail = format!("worker {worker} has not moved for {SAMPLE_INTERVAL:?}: restart retrocap if it stays so");
        reasons.push(Reason { code: "worker_stuck", detail });
    }
    let totals = history.totals();
    let drops = service.health_history.kernel.recent(totals.kernel_dropped);
    if drops > 0 {
        let detail = format!(
            "the kernel dropped {drops} packets within the last minute: give retrocap more workers or memory, or record less"
        );
        reasons.push(Reason { code: "kernel_drops", detail });
    }
    let drops = service.health_history.interfaces_full.recent(interfaces_full(&totals));
    if drops > 0 {
        let detail = format!(
            "{drops} packets of the last minute came from interfaces that found no place: there were more than {} since \
             retrocap was started, so restart it, or record fewer with -i",
            Interfaces::CAPACITY
        );
        reasons.push(Reason { code: "interfaces_full", detail });
    }
    if history.interfaces.refused() > 0 && history.interfaces.slots_left() <= INTERFACE_SLOTS_RESERVED {
        let detail = format!(
            "packets of some interfaces are recorded under the name \"any\", as packets of {} others are kept: record fewer \
             with -i",
            Interfaces::CAPACITY
        );
        reasons.push(Reason { code: "interfaces_full", detail });
    }
    let (horizon, wanted) = (Horizon::of(service), service.retention_target.get());
    for detail in horizon.short_of(wanted, horizon.starts(history, wanted).as_ref()) {
        reasons.push(Reason { code: "horizon_short", detail });
    }
    let refused = service.health_history.pins_full.recent(refused_by_pins(history));
    if refused > 0 {
        let detail = format!(
            "{refused} packets of the last minute found no room in the memory for pins, and age like others: remove a pin, \
             or narrow its filter"
        );
        reasons.push(Reason { code: "pins_full", detail });
    }
    let gaps = service.sandbox().as_ref().map(gaps).unwrap_or_default();
    if !gaps.is_empty() {
        reasons.push(Reason { code: "sandbox", detail: format!("the sandbox has gaps: {}", gaps.join("; ")) });
    }
    reasons.extend(service.not_locked().map(|detail| Reason { code: "not_locked", detail }));
    if let Some(detail) = service.audit.failing() {
        reasons.push(Reason { code: "audit", detail });
    }
    let until = service.tls.as_ref().map(|tls| tls.certificate().not_after);
    if let Some(until) = until.filter(|until| until.as_second() < EXPIRY_NOTICE_S + jiff::Timestamp::now().as_second())
    {
        let detail = format!(
            "the recorder's certificate is good until {until}: make another with `retrocap certs server`, and reload"
        );
        reasons.push(Reason { code: "certificate", detail });
    }
    Health { status: if reasons.is_empty() { "ready" } else { "degraded" }, reasons }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_forgotten_after_a_minute() {
        let drops = RecentDrops::default();
        let start = Instant::now();
        assert_eq!(drops.recent(3), 3, "of the first seconds");
        drops.sample(start, 3);
        assert_eq!(drops.recent(3), 0);
        for (seconds, total, recent) in [(5, 5, 2), (30, 5, 2), (64, 5, 2), (66, 5, 0), (70, 9, 4), (200, 9, 0)] {
            drops.sample(start + Duration::from_secs(seconds), total);
            assert_eq!(drops.recent(total), recent, "after {seconds} s");
        }
        assert!(drops.0.lock().unwrap().len() < 4);
    }

    #[test]
    fn every_reason_is_described() {
        let described: serde_json::Value = serde_json::from_str(crate::OPENAPI).unwrap();
        let text = described.to_string();
        let codes = text.split("\"enum\":").find_map(|rest| {
            let codes: Vec<String> = serde_json::from_str(&rest[..=rest.find(']')?]).ok()?;
            codes.contains(&"not_recording".to_owned()).then_some(codes)
        });
        let mut codes = codes.unwrap();
        codes.sort();
        let mut known = CODES.to_vec();
        known.sort_unstable();
        assert_eq!(codes, known);
    }

    #[test]
    fn a_worker_that_stands_still_is_named_until_it_moves() {
        let turns = WorkerProgress::default();
        assert!(turns.stuck().is_empty());
        for (now, stuck) in [([1, 1], vec![]), ([2, 1], vec![1]), ([2, 1], vec![0, 1]), ([3, 4], vec![])] {
            turns.sample(now.to_vec());
            assert_eq!(turns.stuck(), stuck, "{now:?}");
        }
    }
}
