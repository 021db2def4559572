//! The compressing threads: at the lowest priority, and within their share of a core.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::confinement::Confinement;
use super::error::Error;
use super::priority;
use super::sandbox::Role;
use engine::store::compress::{Compression, Compressor, Pace};

/// Bytes of a compressor's stack; zstd needs a few kilobytes.
const STACK_BYTES: usize = 512 << 10;
/// Unused time of the share is credited for at most so long.
const CREDIT_MAX: Duration = Duration::from_secs(1);
/// How often a waiting thread checks whether it should stop.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Starts the thread that compresses for worker `number`. It ends with the worker.
pub(super) fn start(
    number: usize,
    compressor: Compressor,
    compression: &Compression,
    stop: Arc<AtomicBool>,
    confinement: &Confinement,
) -> Result<JoinHandle<()>, Error> {
    let Compression { pace, share, .. } = *compression;
    let enter = confinement.in_role(Role::Capture);
    std::thread::Builder::new()
        .name(format!("retrocap-z{number}"))
        .stack_size(STACK_BYTES)
        .spawn(move || {
            if pace == Pace::Live {
                priority::lowest();
            }
            enter();
            match pace {
                Pace::Live => run_within_share(share, compressor, &stop),
                // In a replay, the worker waits for the compressor.
                Pace::Replay => compressor.run(),
            }
        })
        .map_err(|source| Error::System { step: "start a thread that compresses", source })
}

/// Compresses, and sleeps whenever the thread has used more than its share of the time.
fn run_within_share(share: f64, mut compressor: Compressor, stop: &AtomicBool) {
    let activity = compressor.activity();
    let began = thread_time();
    // Time used before this moment does not count.
    let (mut since, mut paid) = (Instant::now(), began);
    while !stop.load(Ordering::Relaxed) && compressor.step() {
        let used = thread_time();
        activity.set_cpu_ns(u64::try_from((used - began).as_nanos()).unwrap_or(u64::MAX));
        let owed = Duration::try_from_secs_f64((used - paid).as_secs_f64() / share).unwrap_or(Duration::MAX);
        if since.elapsed() > owed + CREDIT_MAX {
            (since, paid) = (Instant::now(), used);
        }
        while since.elapsed() < owed && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(owed.saturating_sub(since.elapsed()).min(STOP_CHECK_INTERVAL));
        }
    }
}

/// The processor time that this thread has used.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
