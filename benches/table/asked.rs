//! Queries against a live recorder that takes packets at the generator's full rate, with both on one core.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cable::{Cable, cable};
use crate::process::Recorder;
use crate::scale::Scale;
use crate::table::{Row, percentile, section, skipped};

/// The budget that leaves about 1 GiB for packets.
const MEMORY: &str = "1600MiB";
/// Packets per burst while memory is filled.
const PART: u32 = 500_000;
/// Queries per second.
const A_SECOND: f64 = 500.0;
const CLIENTS: u32 = 8;

pub(crate) fn asked(scale: Scale) {
    section(
        "asked",
        "500 questions a second for one host and a sixtieth of the time that is whole in 1 GiB, at the generator's full rate",
    );
    let Some(cable) = cable("asked") else { return };
    for (len, packets) in [(64, scale.times(1_500_000)), (1500, scale.times(1_000_000))] {
        let recorder = match cable.recorder(&["-m", MEMORY, "--compression-cpu", "0"]) {
            Ok(recorder) => recorder,
            Err(error) => return skipped("asked", error),
        };
        let limit = Instant::now() + Duration::from_secs(120);
        while recorder.count("/packets/evicted") == 0.0 && Instant::now() < limit {
            if cable.generate(len, PART).is_none() {
                return skipped("asked", "the generator failed");
            }
        }
        let Some((alone, _)) = while_sending(&cable, &recorder, len, packets, false) else { continue };
        let Some((seen, mut answers)) = while_sending(&cable, &recorder, len, packets, true) else { continue };
        let rate = f64::from(packets) / seen.seconds / 1e6;
        let note = format!("nobody asks: {}", alone.lost);
        let figure = format!("lost {} of {packets}", seen.lost);
        Row { peer: note, ..Row::new(format_args!("{len} B at {rate:.2} M/s"), figure) }.aim("lost 0").print();
        let a_second = f64::from(u32::try_from(answers.total.len()).unwrap_or(u32::MAX)) / seen.seconds;
        let note = format!("{} failed, {:.0} B", answers.failed, answers.bytes);
        Row { peer: note, ..Row::new("  answers", format_args!("{a_second:.0}/s")) }.aim("500/s").print();
        for (part, times) in [("first byte", &mut answers.first), ("all", &mut answers.total)] {
            let figure = format!("p50 {:.1} p99 {:.1} ms", percentile(times, 50), percentile(times, 99));
            Row::new(format_args!("  {part}"), figure).print();
        }
    }
}

/// Results of one run for the packets.
struct Sent {
    seconds: f64,
    lost: f64,
}

/// Results of one run for the queries.
#[derive(Default)]
struct Answers {
    first: Vec<f64>,
    total: Vec<f64>,
    /// Bytes of one answer.
    bytes: f64,
    failed: u32,
}

fn while_sending(
    cable: &Cable,
    recorder: &Recorder,
    len: usize,
    packets: u32,
    asking: bool,
) -> Option<(Sent, Answers)> {
    let before = recorder.count("/packets/kernel_dropped");
    let answers = Mutex::new(Answers::default());
    let stop = AtomicBool::new(!asking);
    let question = Mutex::new(question(recorder));
    let (next, start) = (AtomicU32::new(0), Instant::now());
    let sent = std::thread::scope(|scope| {
        // Move the queried window forward with the packets, so that it stays inside the whole part.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
                let asked = self::question(recorder);
                *question.lock().unwrap_or_else(PoisonError::into_inner) = asked;
            }
        });
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let due = f64::from(next.fetch_add(1, Ordering::Relaxed)) / A_SECOND;
                    std::thread::sleep(Duration::from_secs_f64((due - start.elapsed().as_secs_f64()).max(0.0)));
                    let path = question.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let answer = recorder.ask(&path);
                    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                    match answer {
                        Ok(answer) if answer.ok => {
                            answers.first.push(answer.first_s * 1e3);
                            answers.total.push(answer.total_s * 1e3);
                            answers.bytes = answer.bytes;
                        }
                        _ => answers.failed += 1,
                    }
                }
            });
        }
        let sent = cable.generate(len, packets);
        stop.store(true, Ordering::Relaxed);
        sent
    })?;
    std::thread::sleep(Duration::from_millis(200));
    let lost = recorder.count("/packets/kernel_dropped") - before;
    let answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    Some((Sent { seconds: sent.as_secs_f64(), lost }, answers))
}

/// A query for one server, in the middle of the whole part of the history.
fn question(recorder: &Recorder) -> String {
    let status = recorder.status().unwrap_or_default();
    let time = |pointer: &str| {
        let text = status.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_default();
        text.parse::<jiff::Timestamp>().map_or(0, |time| time.as_nanosecond())
    };
    // Before `whole_since` only the starts of sessions are left.
    let (oldest, newest) = (time("/retained/whole_since"), time("/retained/newest"));
    let span = newest - oldest;
    let since = oldest + span / 2;
    let text = |ns: i128| jiff::Timestamp::from_nanosecond(ns).map_or(String::new(), |time| time.to_string());
    format!("/v1/packets?expr=host+192.0.2.7&since={}&until={}", text(since), text(since + span / 60))
}
