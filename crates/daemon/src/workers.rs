//! The threads that record.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sys::ThreadClock;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::compressor;
use super::confinement::Confinement;
use super::error::Error;
use super::replay::PacedSource;
use super::sandbox::Role;
use super::spool_gate::{SpoolGate, WaitingSource};
use base::source::SourceError;
use capture::live::LiveSource;
use engine::pipeline::Pipeline;
use engine::store::compress::{Compression, Compressor};
use engine::store::retention::Policy;
use filter::FilterSet;
use formats::annotations::CaptureReport;
use formats::reader::FileSource;

/// Bytes of a worker's stack; the packet path needs a fraction of it.
const STACK_BYTES: usize = 1 << 20;
/// How long the threads of a replay get to end: they may wait for a pipe that never delivers.
const END_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the threads of live capture get to end. On a busy host they may wait for a processor, and what they recorded is
/// lost if they are left behind. It is well below the time that a supervisor gives a service to stop.
const END_TIMEOUT_LIVE: Duration = Duration::from_secs(4);

/// The source of one worker's packets.
#[derive(Debug)]
pub(super) enum PacketSource {
    Live(Box<LiveSource>),
    File(Box<FileSource>),
    Paced(Box<PacedSource<FileSource>>),
    /// Panics, for tests.
    #[cfg(test)]
    Panicking,
}

impl PacketSource {
    /// What a replayed capture contains beside packets.
    fn report(&self) -> Option<CaptureReport> {
        match self {
            Self::File(source) => Some(source.report()),
            Self::Paced(source) => Some(source.inner().report()),
            Self::Live(_) => None,
            #[cfg(test)]
            Self::Panicking => None,
        }
    }
}

#[cfg(test)]
struct PanickingSource;

#[cfg(test)]
impl base::source::Source for PanickingSource {
    fn bursts(&mut self, _: &mut impl FnMut(&[base::packet::Packet<'_>])) -> Result<base::source::Batch, SourceError> {
        panic!("a packet that was not foreseen")
    }
}

/// Passes changes to a worker. It is interrupted between two batches of packets, in the same way as it is stopped.
#[derive(Debug, Default)]
pub(super) struct WorkerControl {
    interrupted: AtomicBool,
    changes: Mutex<Option<(Option<FilterSet>, Policy)>>,
}

impl WorkerControl {
    /// Makes the worker use another filter and another policy after its current batch.
    pub(super) fn change(&self, filter: Option<FilterSet>, policy: Policy) {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner) = Some((filter, policy));
        self.interrupted.store(true, Ordering::Release);
    }

    fn take(&self) -> Option<(Option<FilterSet>, Policy)> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The processor time of the threads that record.
#[derive(Clone, Debug, Default)]
pub(super) struct WorkerClocks(Vec<Arc<OnceLock<ThreadClock>>>);

impl WorkerClocks {
    /// The time so far of those that have not ended.
    pub(super) fn time(&self) -> Duration {
        self.0.iter().filter_map(|clock| clock.get()?.time()).sum()
    }
}

/// The threads that record. Dropping it ends them and discards what they recorded.
#[derive(Debug)]
pub(super) struct Workers {
    stop: Arc<AtomicBool>,
    pub(super) controls: Vec<Arc<WorkerControl>>,
    pub(super) clocks: WorkerClocks,
    threads: Vec<JoinHandle<Option<Pipeline>>>,
    compressing: Vec<JoinHandle<()>>,
    failures: UnboundedReceiver<Error>,
    end_timeout: Duration,
}

impl Workers {
    /// Starts a thread for each pipeline and for each compressor; `recording` counts those that record. A capture file
    /// waits at `gate`.
    pub(super) fn start(
        pipelines: Vec<(Pipeline, PacketSource)>,
        compressors: Vec<(Compressor, Compression)>,
        recording: &Arc<AtomicUsize>,
        gate: Option<SpoolGate>,
        confinement: &Confinement,
    ) -> Result<Self, Error> {
        let gate = gate.map(Arc::new);
        let (failed, failures) = unbounded_channel();
        let live = pipelines.iter().any(|(_, packets)| matches!(packets, PacketSource::Live(_)));
        let mut workers = Self {
            stop: Arc::default(),
            controls: Vec::new(),
            clocks: WorkerClocks::default(),
            threads: Vec::new(),
            compressing: Vec::new(),
            failures,
            end_timeout: if live { END_TIMEOUT_LIVE } else { END_TIMEOUT },
        };
        for (number, (compressor, compression)) in compressors.into_iter().enumerate() {
            let thread = compressor::start(number, compressor, &compression, Arc::clone(&workers.stop), confinement)?;
            workers.compressing.push(thread);
        }
        for (number, (pipeline, packets)) in pipelines.into_iter().enumerate() {
            let (stop, failed, recording) = (Arc::clone(&workers.stop), failed.clone(), Arc::clone(recording));
            let gate = gate.clone();
            let control = Arc::new(WorkerControl::default());
            workers.controls.push(Arc::clone(&control));
            let clock = Arc::new(OnceLock::new());
            workers.clocks.0.push(Arc::clone(&clock));
            let enter = confinement.in_role(Role::Capture);
            recording.fetch_add(1, Ordering::Relaxed);
            let thread = std::thread::Builder::new()
                .name(format!("retrocap-w{number}"))
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    enter();
                    ThreadClock::of_this_thread().map(|own| clock.set(own));
                    let pipeline = work(number, pipeline, packets, gate.as_deref(), &control, &stop, &failed);
                    recording.fetch_sub(1, Ordering::Relaxed);
                    pipeline
                })
                .map_err(|source| Error::System { step: "start a worker", source })?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Requests all of them to end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.controls.iter().for_each(|control| control.interrupted.store(true, Ordering::Release));
    }

    /// Ends all of them and returns their pipelines; `None` if one of them failed.
    pub(super) fn finish(mut self) -> Option<Vec<Pipeline>> {
        self.end()
    }

    fn end(&mut self) -> Option<Vec<Pipeline>> {
        self.stop();
        let deadline = Instant::now() + self.end_timeout;
        let ended: Vec<_> = self.threads.drain(..).map(|thread| join(thread, deadline).flatten()).collect();
        let pipelines = ended.into_iter().collect();
        for thread in self.compressing.drain(..) {
            join(thread, deadline);
        }
        pipelines
    }

    /// The next failure that must end the recorder.
    pub(super) async fn failure(&mut self) -> Error {
        match self.failures.recv().await {
            Some(error) => error,
            // All have ended without a failure.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end();
    }
}

/// The result of a thread, if it ends in time.
fn join<T>(thread: JoinHandle<T>, deadline: Instant) -> Option<T> {
    while !thread.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    if thread.is_finished() {
        // It caught its own panics.
        return thread.join().ok();
    }
    tracing::warn!("{} does not end in time, and is abandoned", thread.thread().name().unwrap_or("a worker"));
    None
}

fn work(
    number: usize,
    mut pipeline: Pipeline,
    mut packets: PacketSource,
    gate: Option<&SpoolGate>,
    control: &WorkerControl,
    stop: &AtomicBool,
    failed: &UnboundedSender<Error>,
) -> Option<Pipeline> {
    let run = catch_unwind(AssertUnwindSafe(|| {
        loop {
            let worker = pipeline.worker();
            match &mut packets {
                PacketSource::Live(source) => pipeline.run(&mut **source, &control.interrupted),
                PacketSource::File(source) => {
                    pipeline.run(&mut WaitingSource::new(&mut **source, gate, worker), &control.interrupted)
                }
                PacketSource::Paced(source) => {
                    pipeline.run(&mut WaitingSource::new(&mut **source, gate, worker), &control.interrupted)
                }
                #[cfg(test)]
                PacketSource::Panicking => pipeline.run(&mut PanickingSource, &control.interrupted),
            }?;
            // Cleared first, so that a change from here on interrupts again.
            if !control.interrupted.swap(false, Ordering::AcqRel) || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if let Some((filter, policy)) = control.take() {
                pipeline.change(filter, &policy);
            }
        }
    }));
    let live = matches!(packets, PacketSource::Live(_));
    // The compressor waits for the pipeline.
    if run.is_ok() {
        pipeline.stop_compressing();
    }
    if let Some(report) = packets.report() {
        report.sentences().iter().for_each(|sentence| tracing::warn!("{sentence}"));
    }
    match run {
        Ok(Ok(())) if stop.load(Ordering::Relaxed) => return live.then_some(pipeline),
        Ok(Ok(())) => {
            tracing::info!(
                "the capture has been replayed to its end; its packets can be queried until retrocap is stopped"
            )
        }
        Ok(Err(error)) if !live => replay_failed(&error),
        Ok(Err(error)) => {
            tracing::error!("worker {number} failed: {error}");
            // The receiver is gone only when everything ends anyway.
            let _ = failed.send(error.into());
        }
        Err(_) => {
            tracing::error!("worker {number} has panicked");
            let _ = failed.send(Error::WorkerPanicked(number));
        }
    }
    None
}

fn replay_failed(error: &SourceError) {
    tracing::error!("{error}; the packets read before can be queried until retrocap is stopped");
}
