//! `/v1/health`: whether everything is recorded, and if not, why.
//!
//! The status is 200 either way: who restarts a degraded recorder loses the history that it holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval};

use super::horizon::Horizon;
use super::service::Service;
use super::spool_health;
use api::answers::{Health, HealthCode, HealthReason, HealthStatus};
use base::counters::{DropReason, Totals};
use base::interface::Interfaces;
use base::time::Timestamp;
use engine::session::SessionMarks;
use query::History;
use query::status::SandboxStatus;

/// Samples between two looks for table entries of interfaces that can be used again, as each reads all packet headers.
const TICKS_BETWEEN_FREEING: u32 = 6;
/// Entries of the table of interfaces that are kept free: when no more are left, interfaces share one.
const INTERFACE_SLOTS_RESERVED: usize = 16;
/// Time between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// A certificate that expires within so many seconds is a reason.
const EXPIRY_NOTICE_S: i64 = 14 * 86_400;
/// Samples drops and workers as long as the service lives.
pub(super) async fn sample_periodically(service: Arc<Service>) {
    let mut ticks = interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ticks_since_freed = TICKS_BETWEEN_FREEING;
    loop {
        let now = ticks.tick().await;
        let history = service.history();
        let totals = history.totals();
        service.drop_times.sample(Timestamp::from(SystemTime::now()), lost(&totals));
        service.health_history.kernel.sample(now, totals.kernel_dropped);
        service.health_history.interfaces_full.sample(now, interfaces_full(&totals));
        service.health_history.pins_full.sample(now, refused_by_pins(history));
        if history.past_sums_bytes() > 0 {
            sum_up_past(&service).await;
        }
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

/// Sums up sessions of the past before somebody asks for a timeline, on a thread that may take its time.
async fn sum_up_past(service: &Arc<Service>) {
    let service = Arc::clone(service);
    let _ = tokio::task::spawn_blocking(move || service.history().sum_up_past()).await;
}

/// Lets entries of interfaces that are gone mean others, on a thread that may take its time.
async fn free_interfaces(service: &Arc<Service>) {
    let service = Arc::clone(service);
    let now = Timestamp::from(SystemTime::now());
    let freed = tokio::task::spawn_blocking(move || service.history().free_interfaces(now)).await.unwrap_or(0);
    if freed > 0 {
        tracing::info!(
            "{freed} entries of the interface table are reused, because no packet of their interfaces is kept"
        );
    }
}

/// Packets that arrived and were lost, for whatever reason.
fn lost(totals: &Totals) -> u64 {
    totals.dropped.iter().map(|dropped| dropped.packets).sum::<u64>() + totals.kernel_dropped
}

fn interfaces_full(totals: &Totals) -> u64 {
    totals.dropped[DropReason::InterfacesFull as usize].packets
}

/// Packets that pins would keep, if there were room; fewer once a pin has ended.
fn refused_by_pins(history: &History) -> u64 {
    let places = || history.workers.iter().flat_map(|worker| (0..SessionMarks::PINS).map(move |place| (worker, place)));
    places().map(|(worker, place)| worker.tally.refused_packets(place)).sum()
}

/// Layers of the sandbox that are missing. A layer of which an older kernel has a smaller version is not one of them:
/// nothing can be done about it, and `status` says so.
fn gaps(sandbox: &SandboxStatus) -> Vec<String> {
    // The program itself wrote these sentences.
    let kept = sandbox.kept_privileges.iter().map(|sentence| sentence.untrusted().to_owned());
    if sandbox.mode == "off" {
        return std::iter::once("it is off (--sandbox=off)".to_owned()).chain(kept).collect();
    }
    let gap = |(layer, holds): (&str, bool)| {
        let sentence = match layer {
            "capabilities" => "capabilities are kept (--no-drop-privileges)",
            "no_new_privs" => "programs that it runs could gain privileges (no_new_privs)",
            "core_dumps" => "core dumps are possible",
            "seccomp" => "system calls are not filtered (seccomp)",
            "landlock" => "files are not restricted: this kernel has no Landlock (from 5.13 on, if built in)",
            // Root without capabilities can do what root's files permit; the log says so at the start.
            _ => return None,
        };
        (!holds).then(|| sentence.to_owned())
    };
    sandbox.layers().into_iter().filter_map(gap).chain(sandbox.seccomp.gap()).chain(kept).collect()
}

/// Checks everything; it may block for a moment.
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
        reasons.push(HealthReason { code: HealthCode::NotRecording, detail });
    }
    for worker in service.health_history.turns.stuck() {
        let detail = format!("worker {worker} has not moved for {SAMPLE_INTERVAL:?}: restart retrocap if it stays so");
        reasons.push(HealthReason { code: HealthCode::WorkerStuck, detail });
    }
    let totals = history.totals();
    let drops = service.health_history.kernel.recent(totals.kernel_dropped);
    if drops > 0 {
        let detail = format!(
            "the kernel dropped {drops} packets within the last minute: give retrocap more workers or memory, or record less"
        );
        reasons.push(HealthReason { code: HealthCode::KernelDrops, detail });
    }
    let drops = service.health_history.interfaces_full.recent(interfaces_full(&totals));
    if drops > 0 {
        let detail = format!(
            "{drops} packets of the last minute came from interfaces for which there is no room: there were more than {} since \
             retrocap was started; restart it, or record fewer with -i",
            Interfaces::CAPACITY
        );
        reasons.push(HealthReason { code: HealthCode::InterfacesFull, detail });
    }
    if history.interfaces.refused() > 0 && history.interfaces.slots_left() <= INTERFACE_SLOTS_RESERVED {
        let detail = format!(
            "packets of some interfaces are recorded under the name \"any\", as packets of {} others are kept: record fewer \
             with -i",
            Interfaces::CAPACITY
        );
        reasons.push(HealthReason { code: HealthCode::InterfacesFull, detail });
    }
    let (horizon, wanted) = (Horizon::of(service), service.retention_target.get());
    for detail in horizon.short_of(wanted, horizon.starts(history, wanted).as_ref()) {
        reasons.push(HealthReason { code: HealthCode::HorizonShort, detail });
    }
    let refused = service.health_history.pins_full.recent(refused_by_pins(history));
    if refused > 0 {
        let detail = format!(
            "{refused} packets of the last minute found no room in the memory for pins, and age like others: remove a pin, \
             or narrow its filter"
        );
        reasons.push(HealthReason { code: HealthCode::PinsFull, detail });
    }
    let gaps = service.sandbox().as_ref().map(gaps).unwrap_or_default();
    if !gaps.is_empty() {
        reasons.push(HealthReason {
            code: HealthCode::Sandbox,
            detail: format!("the sandbox has gaps: {}", gaps.join("; ")),
        });
    }
    reasons.extend(service.not_locked().map(|detail| HealthReason { code: HealthCode::NotLocked, detail }));
    if let Some(detail) = service.audit.failing() {
        reasons.push(HealthReason { code: HealthCode::Audit, detail });
    }
    if let Some(detail) = spool_health::problem(history) {
        reasons.push(HealthReason { code: HealthCode::Spool, detail });
    }
    let until = service.tls.as_ref().map(|tls| tls.certificate().not_after);
    if let Some(until) = until.filter(|until| until.as_second() < EXPIRY_NOTICE_S + jiff::Timestamp::now().as_second())
    {
        let detail = format!(
            "the recorder's certificate is valid until {until}: make another with `retrocap certs server`, and reload"
        );
        reasons.push(HealthReason { code: HealthCode::Certificate, detail });
    }
    Health { status: if reasons.is_empty() { HealthStatus::Ready } else { HealthStatus::Degraded }, reasons }
}
