//! What a recorder leaves to the one that is started in its place: all packets and sessions, interfaces, pins and counts.
//!
//! ```text
//!  how it was:  since when, gaps, interfaces, classes, pins
//!  a worker:    counts · sessions of the past, sessions · segments, oldest first      (as many times as there are workers)
//!  the end
//! ```
//!
//! It is written as one stream ([`chunk`] is its wrapping), and memory is given back as it is written. Who reads it believes
//! nothing of it: packets are counted anew, numbers have bounds, and what contradicts itself ends the reading, with what was
//! read until then still whole. What comes of a smaller budget, other classes or another number of workers is what would have
//! come of them in life: the most important and most recent stays.
//!
//! Not taken over, as it is of minutes alone: who floods, fragments that wait for their first one, and who follows.

pub mod chunk;

use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::id_mapping::IdMapping;
use crate::judge::Pins;
use crate::pipeline::Pipeline;
use base::codec::{Put, Take, damaged};
use base::interface::{Interface, Interfaces};
use base::packet::{InterfaceId, LinkType};
use base::time::Timestamp;

/// A time in which nothing was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// From then on.
    pub from: Timestamp,
    /// Until then.
    pub until: Timestamp,
}

/// Gaps that are remembered: the latest ones.
const GAPS_MAX: usize = 64;
/// More workers than any recorder has.
const WORKERS_MAX: u32 = 4096;
/// Behind the last worker.
const END: u64 = u64::from_le_bytes(*b"the end.");

/// What is known of the recorders before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestartReport {
    /// When the first of them began.
    pub since: Option<Timestamp>,
    /// When nothing was recorded since then, oldest first.
    pub gaps: Vec<Gap>,
    /// What was taken over.
    pub restored: RestoredCounts,
    /// Why nothing was, or not all.
    pub problem: Option<String>,
}

/// What was taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoredCounts {
    /// Packets.
    pub packets: u64,
    /// Their captured bytes.
    pub bytes: u64,
    /// Packets that were left, and found no room.
    pub lost_packets: u64,
    /// Sessions, those whose packets are gone included.
    pub sessions: u64,
    /// Pins that still hold.
    pub pins: u64,
}

/// Writes down everything. Memory is given back meanwhile: nothing can be asked any more.
///
/// # Errors
///
/// When it cannot be written; then it is lost.
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
    let interfaces = interfaces.snapshot();
    out.put_u16(u16::try_from(interfaces.len()).unwrap_or(0))?;
    for interface in &interfaces {
        put_interface(out, interface)?;
    }
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

/// Takes over what [`write()`] has written, into pipelines that have recorded nothing yet. `now` ends the gap.
///
/// Never fails: what cannot be taken over is left, and what comes back says so.
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
    // A clock that was set back meanwhile makes no gap that ends before it begins.
    before.gaps.push(Gap { from: stopped, until: stopped.max(now) });
    let mut ids = IdMapping::default();
    for _ in 0..input.take_u16()? {
        ids.add_interface(take_interface(input, interfaces)?)?;
    }
    let names: Vec<String> =
        pipelines.first().map(|first| first.class_names().map(str::to_owned).collect()).unwrap_or_default();
    // Class 0 is that of no filter and has no name.
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
    Ok(())
}

fn take_interface(input: &mut impl Read, interfaces: &Interfaces) -> io::Result<InterfaceId> {
    let (name, index, link_type) = (input.take_text()?, input.take_u32()?, LinkType(input.take_u16()?));
    let mut text = || -> io::Result<_> {
        let there = input.take_u8()? == 1;
        Ok(Some(input.take_text()?).filter(|_| there))
    };
    let (description, os) = (text()?, text()?);
    let interface = interfaces.intern_with(&name, index, link_type, |interface| {
        (interface.description, interface.os) = (description, os);
        // Until somebody says that it is there.
        interface.up = false;
    });
    interface.ok_or_else(|| damaged("the number of interfaces"))
}
