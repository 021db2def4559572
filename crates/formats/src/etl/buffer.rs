//! The buffers of an ETL file (`WMI_BUFFER_HEADER`), and the events in them.
//!
//! Every buffer begins with a header of 72 bytes and is as long in the file as it says, although only a part is used.
//! The first one contains the header of the log (`TRACE_LOGFILE_HEADER`). Events are aligned to 8 bytes. Their headers
//! have several forms; those of manifest-based providers (`EVENT_HEADER`) carry packets.

use std::io::{self, Read};

use super::bytes::{i64_at, u16_at, u32_at, u64_at};
use super::clock::Clock;

pub(super) const HEADER_BYTES: u32 = 72;
const HEADER: usize = 72;
/// The largest buffer: Windows allows 16 MiB.
const BUFFER_BYTES_MAX: u32 = 16 << 20;

/// The buffer's state after compression, and its flag.
const STATE_COMPRESSED: u32 = 5;
const FLAG_COMPRESSED: u16 = 0x40;
pub(super) const FLAG_EVENTS_LOST: u16 = 2;
pub(super) const FLAG_BUFFERS_LOST: u16 = 4;
/// The low bits of the field that names the processor.
const PROCESSOR_MASK: u16 = 0x07ff;

/// Forms of event headers.
const SYSTEM_HEADERS: [u8; 2] = [1, 2];
const COMPACT_HEADERS: [u8; 2] = [3, 4];
const PERFORMANCE_HEADERS: [u8; 2] = [16, 17];
const EVENT_HEADERS: [u8; 2] = [18, 19];

/// The header of the log has these bytes before it: a system header.
const SYSTEM_HEADER_BYTES: usize = 32;
/// The size of an `EVENT_HEADER`.
const EVENT_HEADER_BYTES: usize = 80;
/// The event has items between its header and its data.
const FLAG_EXTENDED: u16 = 1;
/// The header of an item, and the bit that says that another one follows.
const ITEM_HEADER_BYTES: usize = 8;

pub(super) fn is_plausible(size: u32) -> bool {
    size > HEADER_BYTES && size <= BUFFER_BYTES_MAX
}

/// One buffer of the file.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    number: u64,
    is_cut: bool,
}

/// What the header of the log says.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogHeader {
    pub(super) clock: Clock,
    /// Events that were lost, and at least one for each buffer that was.
    pub(super) lost: u64,
}

/// An event of a manifest-based provider.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event<'a> {
    pub(super) provider: &'a [u8],
    pub(super) id: u16,
    pub(super) keyword: u64,
    pub(super) ticks: i64,
    pub(super) data: &'a [u8],
}

impl Buffer {
    /// Reads the next buffer. Returns false at the end of the file.
    pub(super) fn read(&mut self, from: &mut impl Read) -> io::Result<bool> {
        self.bytes.clear();
        self.number += 1;
        let header = from.by_ref().take(HEADER_BYTES.into()).read_to_end(&mut self.bytes)?;
        if header == 0 {
            return Ok(false);
        }
        let size = u32_at(&self.bytes, 0).filter(|size| header == HEADER && is_plausible(*size));
        let Some(size) = size else {
            return Err(damaged(format!(
                "buffer {} of the ETL file has no header; the file is cut or damaged",
                self.number
            )));
        };
        if self.flags() & FLAG_COMPRESSED != 0 || u32_at(&self.bytes, 44) == Some(STATE_COMPRESSED) {
            return Err(damaged(
                "the ETL file has compressed buffers, which retrocap does not read; convert it on Windows with \
                 `pktmon etl2pcap` or etl2pcapng, or trace without compression",
            ));
        }
        let rest = u64::from(size - HEADER_BYTES);
        // A file that is still being written ends within a buffer. Its events up to there are read, and then the end is reported.
        let read = from.by_ref().take(rest).read_to_end(&mut self.bytes)?;
        self.is_cut = (read as u64) < rest;
        Ok(true)
    }

    /// Why no further buffer can follow, if the file ended within this one.
    pub(super) fn cut(&self) -> Option<io::Error> {
        let words = || format!("the ETL file is cut short: it ends within buffer {}", self.number);
        self.is_cut.then(|| io::Error::new(io::ErrorKind::UnexpectedEof, words()))
    }

    pub(super) fn flags(&self) -> u16 {
        u16_at(&self.bytes, 52).unwrap_or(0)
    }

    pub(super) fn processor(&self) -> u16 {
        u16_at(&self.bytes, 40).unwrap_or(0) & PROCESSOR_MASK
    }

    /// The part of the buffer with events.
    fn used(&self) -> &[u8] {
        let size = u32_at(&self.bytes, 0).unwrap_or(0);
        // The end is in the field `Offset`, or in `SavedOffset` where the first one is not set.
        let ends = [48, 4].into_iter().filter_map(|at| u32_at(&self.bytes, at));
        let end = ends.into_iter().find(|end| *end > HEADER_BYTES && *end <= size).unwrap_or(size);
        let end = usize::try_from(end).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes.get(HEADER..end).unwrap_or_default()
    }

    /// Reads the header of the log, which is the first event of the first buffer.
    pub(super) fn log_header(&self) -> io::Result<LogHeader> {
        let used = self.used();
        let is_log = used.get(2).is_some_and(|kind| SYSTEM_HEADERS.contains(kind)) && u16_at(used, 6) == Some(0);
        let log = used.get(SYSTEM_HEADER_BYTES..).filter(|_| is_log).unwrap_or_default();
        let read = || {
            let pointer = if u32_at(log, 44)? == 4 { 4 } else { 8 };
            // Two pointers, then 172 bytes about the time zone, then three aligned times.
            let times = (56 + 2 * pointer + 172_usize).next_multiple_of(8);
            let start = i64_at(log, times + 16)?;
            let kind = u32_at(log, times + 24)?;
            let ticks_per_second = match kind {
                3 => i64::from(u32_at(log, 52)?) * 1_000_000,
                _ => i64_at(log, times + 8)?,
            };
            let clock = match kind {
                2 => Clock::System,
                _ => Clock::Counter { ticks_per_second, at_start: i64_at(used, 16)?, start },
            };
            let lost = u64::from(u32_at(log, 48)?) + u64::from(u32_at(log, times + 28)?);
            Some(LogHeader { clock, lost })
        };
        read().ok_or_else(|| damaged("this is no ETL file, or its first buffer has no header of the log"))
    }

    /// The events of manifest-based providers, in their order; `None` for one that is damaged. Nothing can be found behind an event
    /// whose header is damaged.
    pub(super) fn events(&self) -> impl Iterator<Item = Option<Event<'_>>> {
        let used = self.used();
        let mut at = 0_usize;
        std::iter::from_fn(move || {
            loop {
                let rest = used.get(at..).filter(|rest| !rest.is_empty())?;
                let Some(len) = event_len(rest) else {
                    at = used.len();
                    // What follows the last event is filled with one byte.
                    let is_filling = rest.iter().all(|byte| *byte == 0xff) || rest.iter().all(|byte| *byte == 0);
                    return (!is_filling).then_some(None);
                };
                at += len.next_multiple_of(8);
                if rest.get(2).is_some_and(|kind| EVENT_HEADERS.contains(kind)) {
                    return Some(event(rest.get(..len)?));
                }
            }
        })
    }
}

/// The length of the event that begins here. `None` if none does, as in the rest of a buffer.
fn event_len(rest: &[u8]) -> Option<usize> {
    let kind = *rest.get(2)?;
    // The highest bit of the fourth byte marks an event.
    if rest.get(3)? & 0x80 == 0 {
        return None;
    }
    let has_size_behind_marker =
        [SYSTEM_HEADERS, COMPACT_HEADERS, PERFORMANCE_HEADERS].iter().any(|kinds| kinds.contains(&kind));
    let len = usize::from(u16_at(rest, if has_size_behind_marker { 4 } else { 0 })?);
    // Shorter than any header: nothing more can be found here.
    (len >= 8 && len <= rest.len()).then_some(len)
}

fn event(bytes: &[u8]) -> Option<Event<'_>> {
    let mut data = bytes.get(EVENT_HEADER_BYTES..)?;
    let mut more = u16_at(bytes, 4)? & FLAG_EXTENDED != 0;
    while more {
        let linkage = u16_at(data, 4)?;
        let len = (ITEM_HEADER_BYTES + usize::from(u16_at(data, 6)?)).next_multiple_of(8);
        data = data.get(len..)?;
        more = linkage & 1 != 0;
    }
    Some(Event {
        provider: bytes.get(24..40)?,
        id: u16_at(bytes, 40)?,
        keyword: u64_at(bytes, 48)?,
        ticks: i64_at(bytes, 16)?,
        data,
    })
}

fn damaged(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}
