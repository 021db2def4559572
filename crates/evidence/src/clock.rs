//! The wall clock, from which packets get their times: its state and its steps.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use base::time::Timestamp;

/// Smaller differences between the wall clock and the monotonic clock count as adjustment, not as a step.
const STEP_MIN: Duration = Duration::from_millis(20);
/// Maximum number of stored changes; later ones are only counted.
const CHANGES_MAX: usize = 64;
/// Maximum number of stored steps; later ones are only counted.
const STEPS_MAX: usize = 32;

/// The state of the wall clock at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// The time, by this clock.
    pub time: String,
    /// Whether the kernel considers it synchronized; `None` if the kernel does not report that.
    pub synchronised: Option<bool>,
    /// The last known offset to the reference, in nanoseconds.
    pub offset_ns: Option<i64>,
    /// The estimated error in microseconds.
    pub estimated_error_us: Option<i64>,
    /// The maximum error in microseconds.
    pub maximum_error_us: Option<i64>,
}

impl ClockReading {
    /// The current state.
    pub fn now() -> Self {
        let state = sys::clock_state().ok();
        Self {
            time: Timestamp::from(SystemTime::now()).to_rfc3339(),
            synchronised: state.map(|state| state.synchronised),
            offset_ns: state.map(|state| state.offset_ns),
            estimated_error_us: state.map(|state| state.estimated_error_us),
            maximum_error_us: state.map(|state| state.maximum_error_us),
        }
    }
}

/// A step of the wall clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The first time read after the step.
    pub time: String,
    /// The size of the step in nanoseconds; negative if the clock was set back.
    pub by_ns: i64,
}

/// The clock of a recording: its source, states and steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatement {
    /// The source of packet times.
    pub source: String,
    /// The state at the export.
    pub at_export: Option<ClockReading>,
    /// The state when recording began, and each later change of the synchronization.
    pub while_recording: Vec<ClockReading>,
    /// Changes that are not listed.
    pub more_changes: u64,
    /// Steps seen while recording.
    pub steps: Vec<Step>,
    /// Steps that are not listed.
    pub more_steps: u64,
}

/// Watches the wall clock.
#[derive(Debug)]
pub struct ClockWatch {
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    statement: ClockStatement,
    latest: ClockReading,
    last: (SystemTime, Instant),
}

impl ClockWatch {
    /// Starts watching.
    pub fn start(source: &str) -> Self {
        let latest = ClockReading::now();
        let statement = ClockStatement {
            source: source.to_owned(),
            while_recording: vec![latest.clone()],
            ..ClockStatement::default()
        };
        Self { seen: Mutex::new(Seen { statement, latest, last: (SystemTime::now(), Instant::now()) }) }
    }

    /// Reads the clock. Call it about once a second; steps between two calls count as one.
    pub fn observe(&self) {
        self.note(SystemTime::now(), Instant::now(), ClockReading::now);
    }

    fn note(&self, wall: SystemTime, monotonic: Instant, read: impl FnOnce() -> ClockReading) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = nanoseconds(monotonic.saturating_duration_since(seen.last.1));
        let moved = match wall.duration_since(seen.last.0) {
            Ok(forward) => nanoseconds(forward),
            Err(back) => -nanoseconds(back.duration()),
        };
        seen.last = (wall, monotonic);
        let by_ns = moved.saturating_sub(elapsed);
        let statement = &mut seen.statement;
        if by_ns.unsigned_abs() >= nanoseconds(STEP_MIN).unsigned_abs() {
            let step = Step { time: Timestamp::from(wall).to_rfc3339(), by_ns };
            add(&mut statement.steps, STEPS_MAX, &mut statement.more_steps, step);
        }
        let reading = read();
        if statement.while_recording.last().is_none_or(|last| last.synchronised != reading.synchronised) {
            add(&mut statement.while_recording, CHANGES_MAX, &mut statement.more_changes, reading.clone());
        }
        seen.latest = reading;
    }

    /// The changes and steps so far, with the state of the last reading: threads that answer queries may not ask the
    /// kernel.
    pub fn statement(&self) -> ClockStatement {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        ClockStatement { at_export: Some(seen.latest.clone()), ..seen.statement.clone() }
    }
}

fn add<T>(list: &mut Vec<T>, max: usize, more: &mut u64, item: T) {
    if list.len() < max {
        list.push(item);
    } else {
        *more += 1;
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(synchronised: bool) -> ClockReading {
        ClockReading { synchronised: Some(synchronised), ..ClockReading::now() }
    }

    #[test]
    fn steps_and_lost_synchronisation_are_remembered() {
        let watch = ClockWatch::start("test");
        let (mut wall, mut monotonic) = {
            let mut seen = watch.seen.lock().unwrap();
            seen.statement.while_recording = vec![reading(true)];
            seen.last
        };
        let mut pass = |wall_ms: i64, synchronised| {
            monotonic += Duration::from_secs(1);
            let moved = Duration::from_millis(wall_ms.unsigned_abs());
            wall = if wall_ms < 0 { wall - moved } else { wall + moved };
            watch.note(wall, monotonic, || reading(synchronised));
        };
        for (wall_ms, synchronised) in [(1000, true), (1010, true), (4000, true), (1000, false), (-9000, false)] {
            pass(wall_ms, synchronised);
        }
        (0..100).for_each(|_| pass(1500, true));
        let statement = watch.statement();
        let steps: Vec<_> = statement.steps.iter().map(|step| step.by_ns / 1_000_000).collect();
        assert_eq!((steps[0], steps[1], steps[2]), (3000, -10_000, 500));
        assert_eq!((steps.len() as u64 + statement.more_steps, statement.steps.len()), (102, STEPS_MAX));
        let changes: Vec<_> = statement.while_recording.iter().map(|reading| reading.synchronised).collect();
        assert_eq!(changes, [Some(true), Some(false), Some(true)]);
    }
}
