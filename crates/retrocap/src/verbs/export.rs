//! Writes a capture file that the recorder sends to its destination.

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use jiff::tz::TimeZone;

use super::evidence::sealing;
use super::trailers::{self, MISSING, NOTE, ended};
use crate::client::Answer;
use crate::options::Common;
use crate::terminal::human;
use crate::terminal::output::Output;
use crate::terminal::printable::{note, print_json};
use crate::terminal::progress::{Progress, ProgressCounts};
use base::interface::Interfaces;
use base::source::{Batch, Source as _};
use base::time::{self, Timestamp};
use formats::reader::FileSource;
use formats::writer::{Exporter, Format, Options};

/// Writes a file, and parses it on the way to count packets. A damaged answer never becomes a file.
pub(super) fn file(
    answer: Answer,
    output: Output,
    name: &str,
    common: &Common,
    tz: &TimeZone,
    shown: ExportProgress,
) -> anyhow::Result<()> {
    let (trailers, interrupted) = (answer.trailers(), answer.interrupted());
    let output = Arc::new(Mutex::new(Some(output)));
    let reader = CopyingReader { answer, output: Arc::clone(&output) };
    let mut source = FileSource::from_reader(Box::new(reader), Arc::<Interfaces>::default());
    let mut totals = PacketTotals::default();
    loop {
        let batch = source.batch(&mut |packet| totals.add(packet.time, packet.data.len()));
        shown.counts.set(totals.packets, totals.bytes, totals.part(shown.until));
        if let Some(output) = &mut *lock(&output) {
            output.write_up_to(source.whole_bytes())?;
        }
        match batch {
            Ok(Batch::End) => break,
            // The interrupt cut a packet, which is left out.
            Err(_) if interrupted.is_interrupted() => break,
            more => more?,
        };
    }
    let mut output = lock(&output).take().ok_or_else(|| anyhow!("the output is gone"))?;
    if interrupted.is_interrupted() {
        output.truncate(source.whole_bytes());
    }
    let file_bytes = output.finish()?;
    drop(shown.progress);
    sealing::store_record(Path::new(name), &trailers)?;
    if common.json {
        let document = serde_json::json!({
            "packets": totals.packets, "bytes": totals.bytes, "file": name, "file_bytes": file_bytes,
            "first": totals.span.map(|s| s.0), "last": totals.span.map(|s| s.1),
            "note": trailers.text(NOTE), "missing": trailers.text(MISSING),
        });
        print_json(&format!("{document}\n"))?;
    } else if !common.quiet {
        note(&format!("{}{}", trailers::heading(&trailers), totals.summary(name, tz)));
    }
    ended(&trailers, common)
}

/// Copies each chunk at once, without buffering.
pub(super) fn copy_at_once(mut answer: Answer, mut output: Output, common: &Common) -> anyhow::Result<()> {
    while let Some(chunk) = answer.next_chunk()? {
        output.buffer().extend_from_slice(&chunk);
        output.write_all()?;
    }
    output.finish()?;
    ended(&answer.trailers(), common)
}

/// The state of the progress line.
pub(super) struct ExportProgress {
    pub(super) counts: Arc<ProgressCounts>,
    pub(super) until: Option<Timestamp>,
    pub(super) progress: Progress,
}

/// Copies an answer through a buffer.
pub(super) fn copy(mut answer: Answer, mut output: Output, common: &Common) -> anyhow::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match answer.read(&mut buffer)? {
            0 => break,
            bytes => output.buffer().extend_from_slice(&buffer[..bytes]),
        }
        output.write_some()?;
    }
    output.finish()?;
    ended(&answer.trailers(), common)
}

/// Reads an answer, and copies what is read to the buffer of the output.
struct CopyingReader {
    answer: Answer,
    output: Arc<Mutex<Option<Output>>>,
}

impl Read for CopyingReader {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.answer.read(into)?;
        if let Some(output) = &mut *lock(&self.output) {
            output.buffer().extend_from_slice(&into[..bytes]);
        }
        Ok(bytes)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a capture file without packets.
pub(super) fn empty(format: Format, mut output: Output) -> anyhow::Result<()> {
    let mut exporter = Exporter::new(format, Options::default());
    exporter.begin(output.buffer(), &[]);
    exporter.end(output.buffer(), &[], &[]);
    output.finish()?;
    Ok(())
}

/// Totals of the packets received.
#[derive(Debug, Default)]
struct PacketTotals {
    packets: u64,
    bytes: u64,
    span: Option<(Timestamp, Timestamp)>,
}

impl PacketTotals {
    fn add(&mut self, time: Timestamp, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
        let (first, last) = self.span.get_or_insert((time, time));
        *first = time.min(*first);
        *last = time.max(*last);
    }

    /// The part of the time span up to `until` that the packets cover, 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a part of a time")]
    fn part(&self, until: Option<Timestamp>) -> Option<f64> {
        let ((first, last), until) = (self.span?, until?);
        let all = until.0.checked_sub(first.0).filter(|all| *all > 0)?;
        Some((last.0 - first.0) as f64 / all as f64)
    }

    /// The summary: `1,234 packets, 5.6 MiB, 2026-11-22 10:00:01 to 10:05:00 UTC -> odd.pcapng`. The second date is left
    /// out if it is equal.
    fn summary(&self, name: &str, tz: &TimeZone) -> String {
        let mut text = format!("{}, {}", human::counted(self.packets, "packet"), human::size(self.bytes));
        if let Some((first, last)) = self.span {
            let zone = time::zone(last, tz);
            let (first, last) = (time::local(first, tz), time::local(last, tz));
            let last = match (first.split_once(' '), last.split_once(' ')) {
                (Some((day, _)), Some((same, clock))) if day == same => clock.to_owned(),
                _ => last,
            };
            text.push_str(&format!(", {first} to {last} {zone}"));
        }
        format!("{text} -> {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_fits_a_line() {
        let mut totals = PacketTotals::default();
        assert_eq!(totals.summary("x", &TimeZone::UTC), "0 packets, 0 B -> x");
        totals.add(Timestamp::from_unix(1_795_341_605, 5), 1500);
        assert_eq!(totals.summary("x", &TimeZone::UTC), "1 packet, 1.5 KiB, 2026-11-22 10:00:05 to 10:00:05 UTC -> x");
        totals.add(Timestamp::from_unix(1_795_441_605, 5), 100_000);
        assert_eq!(
            totals.summary("odd.pcapng", &TimeZone::UTC),
            "2 packets, 99.1 KiB, 2026-11-22 10:00:05 to 2026-11-23 13:46:45 UTC -> odd.pcapng"
        );
    }
}
