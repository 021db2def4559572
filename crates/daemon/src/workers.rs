//! The threads that record.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::compressor;
use super::error::Error;
use super::replay::PacedSource;
use super::sandbox::{Role, Sandbox};
use base::source::SourceError;
use capture::live::LiveSource;
use engine::pipeline::Pipeline;
use engine::store::compress::{Compression, Compressor};
use engine::store::retention::Policy;
use filter::FilterSet;
use formats::reader::FileSource;

/// Bytes of a worker's stack; the way of a packet is flat and needs a fraction of it.
const STACK_BYTES: usize = 1 << 20;
/// How long the threads of a replay get to end, which may wait for a capture that never goes on.
const END_TIMEOUT: Duration = Duration::from_millis(500);
/// And those that record: they wait for packets no longer than a moment, but on a busy host for a processor, and what they have
/// is lost if they are not waited for. Well below what a supervisor gives a service to stop.
const END_TIMEOUT_LIVE: Duration = Duration::from_secs(4);

/// Where one worker's packets come from.
#[derive(Debug)]
pub(super) enum PacketSource {
    Live(Box<LiveSource>),
    File(Box<FileSource>),
    Paced(Box<PacedSource<FileSource>>),
    /// What no source should do.
    #[cfg(test)]
    Panicking,
}

#[cfg(test)]
struct PanickingSource;

#[cfg(test)]
impl base::source::Source for PanickingSource {
    fn bursts(&mut self, _: &mut impl FnMut(&[base::packet::Packet<'_>])) -> Result<base::source::Batch, SourceError> {
        panic!("a packet that nobody thought of")
    }
}

/// How a worker is told of changes: it is interrupted between two batches of packets, as it is to be stopped.
#[derive(Debug, Default)]
pub(super) struct WorkerControl {
    interrupted: AtomicBool,
    changes: Mutex<Option<(Option<FilterSet>, Policy)>>,
}

impl WorkerControl {
    /// Has the worker record by another filter and shorten by another policy, soon.
    pub(super) fn change(&self, filter: Option<FilterSet>, policy: Policy) {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner) = Some((filter, policy));
        self.interrupted.store(true, Ordering::Release);
    }

    fn take(&self) -> Option<(Option<FilterSet>, Policy)> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The threads that record; dropping it ends them, and forgets what they have recorded.
#[derive(Debug)]
pub(super) struct Workers {
    stop: Arc<AtomicBool>,
    pub(super) controls: Vec<Arc<WorkerControl>>,
    threads: Vec<JoinHandle<Option<Pipeline>>>,
    compressing: Vec<JoinHandle<()>>,
    failures: UnboundedReceiver<Error>,
    end_timeout: Duration,
}

impl Workers {
    /// Starts a thread for each pipeline and for each compressor; `recording` counts those that record.
    pub(super) fn start(
        pipelines: Vec<(Pipeline, PacketSource)>,
        compressors: Vec<(Compressor, Compression)>,
        recording: &Arc<AtomicUsize>,
        sandbox: &Sandbox,
    ) -> Result<Self, Error> {
        let (failed, failures) = unbounded_channel();
        let live = pipelines.iter().any(|(_, packets)| matches!(packets, PacketSource::Live(_)));
        let mut workers = Self {
            stop: Arc::default(),
            controls: Vec::new(),
            threads: Vec::new(),
            compressing: Vec::new(),
            failures,
            end_timeout: if live { END_TIMEOUT_LIVE } else { END_TIMEOUT },
        };
        for (number, (compressor, compression)) in compressors.into_iter().enumerate() {
            let thread =
                compressor::start(number, compressor, &compression, Arc::clone(&workers.stop), sandbox.clone())?;
            workers.compressing.push(thread);
        }
        for (number, (pipeline, packets)) in pipelines.into_iter().enumerate() {
            let (stop, failed, recording) = (Arc::clone(&workers.stop), failed.clone(), Arc::clone(recording));
            let control = Arc::new(WorkerControl::default());
            workers.controls.push(Arc::clone(&control));
            let sandbox = sandbox.clone();
            recording.fetch_add(1, Ordering::Relaxed);
            let thread = std::thread::Builder::new()
                .name(format!("retrocap-w{number}"))
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    sandbox.enter(Role::Capture);
                    let pipeline = work(number, pipeline, packets, &control, &stop, &failed);
                    recording.fetch_sub(1, Ordering::Relaxed);
                    pipeline
                })
                .map_err(|source| Error::System { step: "start a worker", source })?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Has all of them end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.controls.iter().for_each(|control| control.interrupted.store(true, Ordering::Release));
    }

    /// Ends all of them, and gives back what has recorded; `None` if one of them did not end well.
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
            // All have ended well.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a thread has come to, if it ends in time.
fn join<T>(thread: JoinHandle<T>, deadline: Instant) -> Option<T> {
    while !thread.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    if thread.is_finished() {
        // It caught its own panics.
        return thread.join().ok();
    }
    tracing::warn!("{} does not end, and is left behind", thread.thread().name().unwrap_or("a worker"));
    None
}

fn work(
    number: usize,
    mut pipeline: Pipeline,
    mut packets: PacketSource,
    control: &WorkerControl,
    stop: &AtomicBool,
    failed: &UnboundedSender<Error>,
) -> Option<Pipeline> {
    let run = catch_unwind(AssertUnwindSafe(|| {
        loop {
            match &mut packets {
                PacketSource::Live(source) => pipeline.run(&mut **source, &control.interrupted),
                PacketSource::File(source) => pipeline.run(&mut **source, &control.interrupted),
                PacketSource::Paced(source) => pipeline.run(&mut **source, &control.interrupted),
                #[cfg(test)]
                PacketSource::Panicking => pipeline.run(&mut PanickingSource, &control.interrupted),
            }?;
            // Cleared first: what is changed from here on interrupts again.
            if !control.interrupted.swap(false, Ordering::AcqRel) || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if let Some((filter, policy)) = control.take() {
                pipeline.change(filter, &policy);
            }
        }
    }));
    let live = matches!(packets, PacketSource::Live(_));
    // Its compressor waits for it.
    if run.is_ok() {
        pipeline.stop_compressing();
    }
    match run {
        Ok(Ok(())) if stop.load(Ordering::Relaxed) => return live.then_some(pipeline),
        Ok(Ok(())) => {
            tracing::info!("the capture has been replayed to its end; it is served until retrocap is stopped")
        }
        Ok(Err(error)) if !live => replay_failed(&error),
        Ok(Err(error)) => {
            tracing::error!("worker {number} cannot go on: {error}");
            // Nobody listens any more only when everything ends anyway.
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
    tracing::error!("{error}; what was read is served until retrocap is stopped");
}
