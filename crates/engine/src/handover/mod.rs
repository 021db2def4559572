//! Hands all packets, sessions, interfaces, pins and counts over to the recorder that replaces this one.
//!
//! ```text
//!  report:      time of the stop, start time, gaps, interfaces, gaps of interfaces, classes, pins
//!  per worker:  counts · archived sessions, sessions · segments, oldest first
//!  end marker
//! ```
//!
//! The state is written as one stream, which [`chunk`] splits into files. The writer returns memory to the system as it
//! writes. The reader trusts nothing in the stream: it counts packets anew, bounds all numbers, and stops at the first
//! contradiction. What it has read until then stays valid. If the new recorder has a smaller budget, other classes or
//! another number of workers, it retains what it would have retained while recording: the most important and most
//! recent packets.
//!
//! State that matters for minutes only is not handed over: flood detection, pending fragments and connected followers.

pub mod chunk;

use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::id_mapping::IdMapping;
use crate::judge::Pins;
use crate::pipeline::Pipeline;
use base::codec::{Put, Take, damaged};
use base::interface::{GapReason, Interface, InterfaceGap, Interfaces};
use base::packet::{InterfaceId, LinkType};
use base::time::Timestamp;

/// A period in which nothing was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Start of the gap.
    pub from: Timestamp,
    /// End of the gap.
    pub until: Timestamp,
}

/// Number of gaps that are kept; the oldest are dropped first.
const GAPS_MAX: usize = 64;
/// Upper bound for the number of workers in a stream.
const WORKERS_MAX: u32 = 4096;
/// The end marker after the last worker.
const END: u64 = u64::from_le_bytes(*b"the end.");

/// What a recorder knows of its predecessors, and what it restored from the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestartReport {
    /// Start time of the first predecessor.
    pub since: Option<Timestamp>,
    /// Periods without recording since then, oldest first.
    pub gaps: Vec<Gap>,
    /// Counts of what was restored.
    pub restored: RestoredCounts,
    /// Why nothing, or not everything, was restored.
    pub problem: Option<String>,
}

/// Counts of what was restored from a predecessor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoredCounts {
    /// Restored packets.
    pub packets: u64,
    /// Captured bytes of the restored packets.
    pub bytes: u64,
    /// Packets in the stream that found no room.
    pub lost_packets: u64,
    /// Restored sessions, including those without stored packets.
    pub sessions: u64,
    /// Restored pins that have not expired.
    pub pins: u64,
}

/// Writes the whole state, and returns its memory to the system. The state cannot be queried any more.
///
/// # Errors
///
/// If `out` fails; the state is lost then.
pub fn write(
    out: &mut impl Write,
    before: &RestartReport,
    stopped: Timestamp,
    interfaces: &Interfaces,
    pins: &Pins,
    pipelines: &mut [Pipeline],
) -> io::Result<()> {
    out.put_u64(stopped.0)?;
    out.put_u64(before.since.map_or(0, |since| since.0))?;
    let gaps = &before.gaps[before.gaps.len().saturating_sub(GAPS_MAX)..];
    out.put_u16(u16::try_from(gaps.len()).unwrap_or(0))?;
    for gap in gaps {
        out.put_words(&[gap.from.0, gap.until.0])?;
    }
    let entries = interfaces.snapshot();
    out.put_u16(u16::try_from(entries.len()).unwrap_or(0))?;
    entries.iter().try_for_each(|interface| put_interface(out, interface))?;
    let gaps = interfaces.gaps();
    out.put_u64(interfaces.gaps_dropped())?;
    out.put_u16(u16::try_from(gaps.len()).unwrap_or(0))?;
    gaps.iter().try_for_each(|gap| put_interface_gap(out, gap))?;
    let classes: Vec<_> = pipelines.first().map(|pipeline| pipeline.class_names().collect()).unwrap_or_default();
    out.put_u16(u16::try_from(classes.len()).unwrap_or(0))?;
    classes.iter().try_for_each(|name: &&str| out.put_text(name))?;
    pins.hand_over(out)?;
    out.put_u32(u32::try_from(pipelines.len()).unwrap_or(0))?;
    for pipeline in pipelines {
        pipeline.hand_over(out)?;
    }
    out.put_u64(END)
}

/// Restores what [`write()`] has written, into pipelines that have recorded nothing yet. `now` ends the gap.
///
/// It never fails: it skips what it cannot restore, and the report says so.
pub fn read(
    input: &mut impl Read,
    now: Timestamp,
    interfaces: &Interfaces,
    pins: &Pins,
    pipelines: &mut [Pipeline],
) -> RestartReport {
    let mut before = RestartReport::default();
    let outcome = read_all(input, now, interfaces, pins, pipelines, &mut before);
    for pipeline in pipelines.iter_mut() {
        let retained = pipeline.taken_over();
        before.restored.packets += retained.packets;
        before.restored.bytes += retained.bytes;
        before.restored.sessions += pipeline.known_sessions();
        pipeline.publish();
    }
    before.restored.pins = pins.list().len() as u64;
    if let Err(error) = outcome {
        before.problem = Some(match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
            _ => format!("it contradicts itself: {error}"),
        });
    }
    before
}

fn read_all(
    input: &mut impl Read,
    now: Timestamp,
    interfaces: &Interfaces,
    pins: &Pins,
    pipelines: &mut [Pipeline],
    before: &mut RestartReport,
) -> io::Result<()> {
    let stopped = Timestamp(input.take_u64()?);
    before.since = Some(Timestamp(input.take_u64()?)).filter(|since| since.0 > 0);
    for _ in 0..input.take_u16()? {
        let [from, until] = input.take_words()?;
        before.gaps.push(Gap { from: Timestamp(from), until: Timestamp(until) });
    }
    before.gaps.drain(..before.gaps.len().saturating_sub(GAPS_MAX));
    // The clock may have been set back in the meantime; a gap must not end before it begins.
    before.gaps.push(Gap { from: stopped, until: stopped.max(now) });
    let mut ids = IdMapping::default();
    for _ in 0..input.take_u16()? {
        ids.add_interface(take_interface(input, interfaces)?)?;
    }
    let dropped = input.take_u64()?;
    let gaps: Vec<InterfaceGap> =
        (0..input.take_u16()?).map(|_| take_interface_gap(input)).collect::<io::Result<_>>()?;
    interfaces.restore_gaps(gaps, dropped);
    let names: Vec<String> =
        pipelines.first().map(|first| first.class_names().map(str::to_owned).collect()).unwrap_or_default();
    // Class 0 has no filter and no name.
    for old in 1..=input.take_u16()? {
        let name = input.take_text()?;
        let new = names.iter().position(|other| *other == name).and_then(|at| u8::try_from(at + 1).ok());
        ids.set_class(old, new);
    }
    ids.set_pins(pins.take_over(input, now)?);
    let workers = input.take_u32()?;
    if workers > WORKERS_MAX {
        return Err(damaged("the number of workers"));
    }
    for worker in 0..workers as usize {
        let at = worker % pipelines.len().max(1);
        let Some(pipeline) = pipelines.get_mut(at) else { return Err(damaged("the number of workers")) };
        before.restored.lost_packets += pipeline.take_over(input, &mut ids)?;
    }
    if input.take_u64()? == END { Ok(()) } else { Err(damaged("the end")) }
}

fn put_interface(out: &mut impl Write, interface: &Arc<Interface>) -> io::Result<()> {
    out.put_text(&interface.name)?;
    out.put_u32(interface.index)?;
    out.put_u16(interface.link_type.0)?;
    for text in [&interface.description, &interface.os] {
        out.put_u8(u8::from(text.is_some()))?;
        out.put_text(text.as_deref().unwrap_or_default())?;
    }
    out.put_u8(u8::from(interface.up))?;
    out.put_u64(interface.gone.map_or(0, |gone| gone.0))
}

/// Writes a gap. A time of 0 stands for a gap that lasts; the text is the new name of a renamed interface.
fn put_interface_gap(out: &mut impl Write, gap: &InterfaceGap) -> io::Result<()> {
    out.put_text(&gap.name)?;
    out.put_u32(gap.index)?;
    out.put_words(&[gap.from.0, gap.until.map_or(0, |until| until.0)])?;
    let (reason, new_name) = match &gap.reason {
        GapReason::Down => (0, ""),
        GapReason::Gone => (1, ""),
        GapReason::Renamed(new_name) => (2, new_name.as_str()),
    };
    out.put_u8(reason)?;
    out.put_text(new_name)
}

fn take_interface_gap(input: &mut impl Read) -> io::Result<InterfaceGap> {
    let (name, index, [from, until]) = (input.take_text()?, input.take_u32()?, input.take_words()?);
    let (reason, new_name) = (input.take_u8()?, input.take_text()?);
    let reason = match reason {
        0 => GapReason::Down,
        1 => GapReason::Gone,
        2 => GapReason::Renamed(new_name),
        _ => return Err(damaged("the reason of a gap")),
    };
    let until = Some(Timestamp(until)).filter(|until| until.0 > 0);
    Ok(InterfaceGap { name, index, from: Timestamp(from), until, reason })
}

fn take_interface(input: &mut impl Read, interfaces: &Interfaces) -> io::Result<InterfaceId> {
    let (name, index, link_type) = (input.take_text()?, input.take_u32()?, LinkType(input.take_u16()?));
    let mut text = || -> io::Result<_> {
        let there = input.take_u8()? == 1;
        Ok(Some(input.take_text()?).filter(|_| there))
    };
    let (description, os) = (text()?, text()?);
    let (up, gone) = (input.take_u8()? == 1, input.take_u64()?);
    let interface = interfaces.intern_with(&name, index, link_type, |interface| {
        (interface.description, interface.os) = (description, os);
        // The capture corrects this before it records, and begins a gap where the interface went down meanwhile.
        interface.up = up;
        interface.gone = Some(Timestamp(gone)).filter(|gone| gone.0 > 0);
    });
    interface.ok_or_else(|| damaged("the number of interfaces"))
}
