//! The thread that seals the record, at the lowest priority.
//!
//! SHA-256 of a packet takes about as long as storing it, so that the thread has an allowance: a few percent of the processor
//! time that the workers take, or a two-thousandth of one core where they take next to nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sys::ThreadClock;

use super::confinement::Confinement;
use super::error::{Error, system};
use super::priority;
use super::sandbox::Role;
use super::settings::Percent;
use super::workers::WorkerClocks;
use serve::Service;

/// How often what is due is read.
const PASS_INTERVAL: Duration = Duration::from_secs(1);
/// How long packets have to stay in memory until they are due: at least this, and less than twice as long.
const AGE_INTERVAL: Duration = Duration::from_secs(15);
/// How often the root is written into the log.
const SEAL_INTERVAL: Duration = Duration::from_secs(60);
/// How often the thread checks whether it should stop.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How long what is left may take when the recorder stops.
const FINISH_TIMEOUT: Duration = Duration::from_secs(3);
/// The part of one core that the thread may use however little is recorded.
const LEAST_SHARE: f64 = 0.0005;
/// Unused time is credited for at most so long.
const CREDIT_MAX: Duration = Duration::from_secs(60);

/// The thread.
#[derive(Debug)]
pub(super) struct SealThread {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl SealThread {
    /// Starts it, if the record is sealed. It may use `percent` of the processor time of the workers.
    pub(super) fn start(
        service: &Arc<Service>,
        percent: Percent,
        workers: WorkerClocks,
        confinement: &Confinement,
    ) -> Result<Option<Self>, Error> {
        if !service.seals_record() {
            return Ok(None);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (service, enter, stopped) = (Arc::clone(service), confinement.in_role(Role::Query), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("retrocap-seal".to_owned()).spawn(move || {
            priority::lowest();
            enter();
            service.begin_record();
            seal(&service, percent.0 / 100.0, &workers, &stopped);
            service.end_record(Instant::now() + FINISH_TIMEOUT);
        });
        let thread = thread.map_err(system("start the thread that seals the record"))?;
        Ok(Some(Self { thread, stop }))
    }

    /// Seals what is left, and ends. Call it when the workers and the spool have ended.
    pub(super) fn finish(self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.thread.join();
    }
}

fn seal(service: &Service, share: f64, workers: &WorkerClocks, stop: &AtomicBool) {
    let (mut aged, mut sealed) = (Instant::now(), Instant::now());
    let own = ThreadClock::of_this_thread();
    let time = || own.and_then(ThreadClock::time).unwrap_or_default();
    let mut allowance = Allowance { share, ..Allowance::default() };
    let mut earned = Instant::now();
    let is_stopping = || stop.load(Ordering::Acquire) || service.is_stopping();
    while !stop.load(Ordering::Acquire) {
        let (began, before) = (Instant::now(), time());
        if aged.elapsed() >= AGE_INTERVAL {
            aged = began;
            service.age_record();
        }
        allowance.earn(workers.time(), began - earned);
        earned = began;
        service.pass_over_record(&mut || !is_stopping() && allowance.permits(time().saturating_sub(before)));
        if sealed.elapsed() >= SEAL_INTERVAL {
            sealed = began;
            service.seal_record();
        }
        allowance.spend(time().saturating_sub(before));
        // Files of the spool are hashed at a pace of their own.
        service.seal_spool();
        while began.elapsed() < PASS_INTERVAL && !stop.load(Ordering::Acquire) {
            std::thread::sleep(STOP_CHECK_INTERVAL);
        }
    }
}

/// The processor time that may be used.
#[derive(Debug, Default)]
struct Allowance {
    share: f64,
    /// The time of the workers when it was last counted.
    counted: Duration,
    /// What is left, in seconds; negative after a pass that used more.
    left_s: f64,
}

impl Allowance {
    /// Adds the share of what the workers have used since the last call, which was so long ago.
    fn earn(&mut self, workers: Duration, ago: Duration) {
        let used = workers.saturating_sub(self.counted);
        self.counted = workers;
        let least_s = LEAST_SHARE * ago.as_secs_f64();
        let earned_s = (self.share * used.as_secs_f64()).max(least_s);
        self.left_s = (self.left_s + earned_s).min(earned_s.max(LEAST_SHARE * CREDIT_MAX.as_secs_f64()));
    }

    /// Whether there is something left after `used`.
    fn permits(&self, used: Duration) -> bool {
        used.as_secs_f64() < self.left_s
    }

    fn spend(&mut self, used: Duration) {
        self.left_s -= used.as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn sealing_takes_no_more_than_its_share_of_ingest_or_a_little_of_a_core() {
        let mut allowance = Allowance { share: 0.03, ..Allowance::default() };
        let (mut workers, mut used) = (Duration::ZERO, 0.0);
        for _ in 0..600 {
            workers += Duration::from_millis(400);
            allowance.earn(workers, SECOND);
            // Each look at the clock comes a little late.
            while allowance.permits(Duration::ZERO) {
                allowance.spend(Duration::from_micros(700));
                used += 0.0007;
            }
        }
        assert!((used / workers.as_secs_f64() - 0.03).abs() < 0.0001, "{used}");

        // A host at rest saves up a minute, and no more.
        let mut allowance = Allowance { share: 0.03, ..Allowance::default() };
        (0..3600).for_each(|_| allowance.earn(Duration::ZERO, SECOND));
        assert!(allowance.permits(Duration::from_millis(29)) && !allowance.permits(Duration::from_millis(31)));
    }
}
