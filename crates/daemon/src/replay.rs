//! A capture file as a source of packets that arrive now.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::error::Error;
use super::settings::Speed;
use base::interface::Interfaces;
use base::packet::Packet;
use base::source::{Batch, Source, SourceCounts, SourceError};
use base::time::Timestamp;
use formats::reader::FileSource;

/// How long one call of [`Source::batch`] waits, so that the worker notices a stop.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// Opens a capture to be replayed.
pub(super) fn open(path: &Path, speed: Speed, interfaces: Arc<Interfaces>) -> Result<FileSource, Error> {
    if let Speed::Times(speed) = speed
        && !(speed.is_finite() && speed > 0.0)
    {
        return Err(Error::Speed(speed));
    }
    let name = path.display();
    let io = |context: String| move |source| SourceError::Io { context, source };
    if path.as_os_str() == "-" {
        let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(io("cannot open standard input".to_owned()))?;
        return Ok(FileSource::from_reader(Box::new(PipeReader(stdin.into())), interfaces));
    }
    let kind = std::fs::metadata(path).map_err(io(format!("cannot open the capture {name}")))?.file_type();
    if kind.is_dir() {
        let context = format!("cannot replay {name}; name a capture file");
        return Err(SourceError::Io { context, source: io::ErrorKind::IsADirectory.into() }.into());
    }
    if kind.is_fifo() || kind.is_char_device() {
        let file = File::open(path).map_err(io(format!("cannot open the capture {name}")))?;
        return Ok(FileSource::from_reader(Box::new(PipeReader(file)), interfaces));
    }
    Ok(FileSource::open(path, interfaces)?)
}

/// A pipe that is waited for, but not longer than [`WAIT_MAX`].
struct PipeReader(File);

impl Read for PipeReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(WAIT_MAX.subsec_nanos()) };
        let ready = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout))?;
        if ready == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.read(out)
    }
}

/// Hands out another source's packets at the pace of their timestamps.
///
/// The first packet is due at once. A later one is due when the time between its timestamp and the first one, divided by
/// the speed, has passed.
#[derive(Debug)]
pub(super) struct PacedSource<S> {
    source: S,
    speed: f64,
    /// When the first packet was handed out, and its timestamp.
    start: Option<(Instant, Timestamp)>,
    /// The rest of the source's last batch, which is not due yet.
    waiting: VecDeque<Waiting>,
    bytes: Vec<u8>,
    ended: Option<Result<(), SourceError>>,
}

#[derive(Debug)]
struct Waiting {
    packet: Packet<'static>,
    at: usize,
    len: usize,
}

impl<S: Source> PacedSource<S> {
    pub(super) fn new(source: S, speed: f64) -> Self {
        Self { source, speed, start: None, waiting: VecDeque::new(), bytes: Vec::new(), ended: None }
    }

    /// The source whose packets are handed out.
    pub(super) fn inner(&self) -> &S {
        &self.source
    }

    /// Copies the next batch of the source.
    fn refill(&mut self) -> Batch {
        let (waiting, bytes) = (&mut self.waiting, &mut self.bytes);
        bytes.clear();
        let batch = self.source.batch(&mut |packet| {
            let (at, len) = (bytes.len(), packet.data.len());
            bytes.extend_from_slice(packet.data);
            waiting.push_back(Waiting { packet: Packet { data: &[], ..*packet }, at, len });
        });
        match batch {
            Ok(Batch::End) => self.ended = Some(Ok(())),
            Ok(batch) => return batch,
            Err(error) => self.ended = Some(Err(error)),
        }
        Batch::More
    }

    /// Time until a packet is due.
    fn due_in(&mut self, time: Timestamp) -> Duration {
        let now = Instant::now();
        let (start, first) = *self.start.get_or_insert((now, time));
        let after = Duration::try_from_secs_f64(time.since(first).as_secs_f64() / self.speed).unwrap_or(Duration::MAX);
        after.saturating_sub(now - start)
    }
}

impl<S: Source> Source for PacedSource<S> {
    fn bursts(&mut self, each: &mut impl FnMut(&[Packet<'_>])) -> Result<Batch, SourceError> {
        if self.waiting.is_empty() {
            match self.ended.take() {
                Some(end) => {
                    self.ended = Some(Ok(()));
                    return end.map(|()| Batch::End);
                }
                None => match self.refill() {
                    Batch::Idle => return Ok(Batch::Idle),
                    Batch::More | Batch::End => {}
                },
            }
        }
        let Some(next) = self.waiting.front() else { return Ok(Batch::More) };
        let time = next.packet.time;
        let wait = self.due_in(time);
        if !wait.is_zero() {
            std::thread::sleep(wait.min(WAIT_MAX));
            if wait > WAIT_MAX {
                return Ok(Batch::Idle);
            }
        }
        while let Some(next) = self.waiting.front() {
            let time = next.packet.time;
            if !self.due_in(time).is_zero() {
                break;
            }
            if let Some(Waiting { packet, at, len }) = self.waiting.pop_front() {
                each(&[Packet { data: &self.bytes[at..at + len], ..packet }]);
            }
        }
        Ok(Batch::More)
    }

    fn counts(&self) -> SourceCounts {
        self.source.counts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::packet::{Direction, InterfaceId, LinkType, PacketFlags};

    /// Packets with these timestamps in milliseconds, three a batch.
    struct TimedPackets(Vec<u64>);

    impl Source for TimedPackets {
        fn bursts(&mut self, each: &mut impl FnMut(&[Packet<'_>])) -> Result<Batch, SourceError> {
            if self.0.is_empty() {
                return Ok(Batch::End);
            }
            for millis in self.0.drain(..self.0.len().min(3)) {
                each(&[Packet {
                    time: Timestamp(millis * 1_000_000),
                    interface: InterfaceId(0),
                    link_type: LinkType::ETHERNET,
                    direction: Direction::Unknown,
                    flags: PacketFlags::default(),
                    original_len: 8,
                    drops_before: 0,
                    data: &millis.to_be_bytes(),
                }]);
            }
            Ok(Batch::More)
        }
    }

    #[test]
    fn packets_come_at_their_time_and_in_their_order() {
        let stamps = vec![1000, 1000, 1400, 1200, 1500, 2000, 2001];
        let mut source = PacedSource::new(TimedPackets(stamps.clone()), 10.0);
        let (start, mut seen) = (Instant::now(), Vec::new());
        while source
            .batch(&mut |packet| {
                let stamp = packet.time.0 / 1_000_000;
                assert_eq!(packet.data, stamp.to_be_bytes());
                let early = Duration::from_millis((stamp - 1000) / 10).saturating_sub(start.elapsed());
                assert!(early.is_zero(), "{stamp} came {early:?} early");
                seen.push(stamp);
            })
            .unwrap()
            != Batch::End
        {}
        assert_eq!(seen, stamps);
    }

    #[test]
    fn a_long_gap_is_waited_for_in_short_steps() {
        let mut source = PacedSource::new(TimedPackets(vec![0, 3_600_000]), 1.0);
        assert_eq!(source.batch(&mut |_| {}).unwrap(), Batch::More);
        let start = Instant::now();
        assert_eq!(source.batch(&mut |_| panic!("an hour early")).unwrap(), Batch::Idle);
        assert!(start.elapsed() < 2 * WAIT_MAX);
    }
}
