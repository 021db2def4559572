//! `--spool DIR`: queries the files of a spool without a recorder, such as those of a dead machine.
//!
//! The same service answers as in a recorder. Packets come from the files directly. Sessions come from the log of sessions.
//! Those that the log lacks are found by sending the packets of the window through the engine, as `-r` does with capture files.

#[cfg_attr(not(feature = "session-log"), path = "offline_spool/no_session_log.rs")]
mod session_log;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, anyhow};

use crate::machine;
use crate::offline::Offline;
use crate::options::Common;
use crate::terminal::human::counted;
use crate::terminal::printable::note;
use crate::terminal::progress::{Progress, ProgressState};
use base::interface::Interfaces;
use base::packet::{InterfaceId, Packet};
use base::source::{Batch, Source, SourceCounts, SourceError};
use base::time::Timestamp;
use engine::budget::{ByteSize, Split};
use engine::pipeline::{Config, Pipeline};
use query::{History, Memory};
use spool::archive::{Archive, SharedSpool};
use spool::blocks::{SpooledInterface, SpooledPacket};
use spool::board::PublishedState;
use spool::catalogue::Catalogue;
use spool::directory::Directory;
use spool::encryption::Keys;
use spool::key_file;
use spool::read::{Packets, Selection};

/// Seed of the session table. It is constant, so that runs are reproducible.
const SEED: u64 = 0x7265_7472_6f63_6170;
/// Bytes for the buffers of answers, enough to list some million sessions.
const QUERIES_BYTES: u64 = 256 << 20;
/// The most memory for the sessions of a spool.
const MEMORY_BYTES_MAX: u64 = 2 << 30;
/// Packets that are handed over at once.
const BURST_PACKETS: usize = 64;

/// The earliest and the latest time that are asked for.
type Window = (Option<Timestamp>, Option<Timestamp>);

struct Opened {
    directory: Arc<Directory>,
    catalogue: Catalogue,
    newest: Option<Timestamp>,
    problem: Option<String>,
}

/// A spool without a recorder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpoolPlace<'a> {
    /// Its directory.
    pub(crate) path: &'a Path,
    /// Its key file, if its files are encrypted.
    pub(crate) key: Option<&'a Path>,
}

impl SpoolPlace<'_> {
    /// Opens the directory to read it.
    pub(crate) fn open_to_read(self) -> anyhow::Result<Directory> {
        Ok(Directory::open_to_read(self.path)?.with_keys(self.keys()?))
    }

    /// The keys of its files.
    pub(crate) fn keys(self) -> anyhow::Result<Keys> {
        Ok(self.key.map(key_file::read).transpose()?.unwrap_or_default())
    }
}

/// Reads the footers of the files.
fn open(place: SpoolPlace<'_>) -> anyhow::Result<Opened> {
    let path = place.path;
    let directory = Arc::new(place.open_to_read()?);
    let (catalogue, opening) =
        Catalogue::open(&directory, false).with_context(|| format!("cannot read the spool {}", path.display()))?;
    let problem = match opening.failed.first() {
        None => None,
        Some((name, reason)) => Some(format!(
            "INCOMPLETE: {} could not be read: {name}: {reason}",
            counted(opening.failed.len() as u64, "file")
        )),
    };
    let is_empty = catalogue.sealed.is_empty() && catalogue.open.is_empty();
    if let Some(problem) = problem.as_ref().filter(|_| is_empty) {
        return Err(anyhow!("{}: {problem}", path.display()));
    }
    if is_empty && !path.join("sessions").is_dir() {
        return Err(anyhow!("{} contains no files of a spool: name the directory of `run --spool`", path.display()));
    }
    let sealed = catalogue.sealed.iter().map(|entry| entry.times().1);
    let open = catalogue.open.iter().filter_map(|shared| Some(shared.lock().index.times()?.1));
    let newest = sealed.chain(open).max();
    Ok(Opened { directory, catalogue, newest, problem })
}

/// Runs a verb about the packets of a spool.
pub(crate) fn packets(
    common: &Common,
    place: SpoolPlace<'_>,
    verb: impl FnOnce(&Common) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Opened { directory, catalogue, newest, problem } = open(place)?;
    let shelf = SharedSpool::new(directory, place.path.display().to_string());
    shelf.opened(Arc::new(PublishedState::of(catalogue)));
    let pipeline = pipeline(Split::BYTES_MIN)?;
    let history = history(&pipeline, Arc::default(), Some(Arc::new(shelf)));
    ask(common, Offline::serve(history, pipeline, newest, problem)?, verb)
}

/// Runs a verb about the sessions of a spool, of which `window` says the time.
pub(crate) fn sessions(
    common: &Common,
    place: SpoolPlace<'_>,
    window: impl FnOnce(Timestamp) -> anyhow::Result<Window>,
    verb: impl FnOnce(&Common) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Opened { directory, catalogue, newest, problem } = open(place)?;
    let path = place.path;
    let (since, until) = window(newest.unwrap_or_default())?;
    let memory = machine::available_bytes().map_or(1 << 30, |bytes| bytes / 2).min(MEMORY_BYTES_MAX);
    let mut pipeline = pipeline(memory.max(Split::BYTES_MIN))?;
    let interfaces = Arc::<Interfaces>::default();
    let mut history = history(&pipeline, Arc::clone(&interfaces), None);
    let log = session_log::open(&directory, &interfaces)?;
    let mut selection = Selection { since, until, ..Selection::default() };
    if let Some((log, (start, end))) = log {
        // A recorder that ends in order writes the log until then: packets after it are those of a crash.
        selection.since = since.max(Some(Timestamp(end.0.saturating_add(1))));
        if newest.is_some_and(|newest| newest > end) && until.is_none_or(|until| until > end) {
            note(&format!("retrocap: sessions are from the log until {end}, and made of packets after that"));
        }
        let oldest = catalogue.sealed.iter().map(|entry| entry.times().0).min();
        if oldest.is_some_and(|oldest| oldest < start) && since.is_none_or(|since| since < start) {
            note(&format!(
                "retrocap: the log of sessions begins at {start}; sessions before it are not listed, and `get --spool {}` has \
                 their packets",
                path.display()
            ));
        }
        (history.log, history.log_comes_first) = (Some(log), true);
    }
    let mut source = SpoolSource {
        packets: Packets::new(directory, &catalogue, &selection),
        interfaces,
        known: Vec::new(),
        data: Vec::new(),
    };
    let published = Arc::clone(&history.workers[0].published);
    let progress = Progress::start(common, move || {
        let received = published.totals().received;
        ProgressState { packets: received.packets, bytes: received.bytes, part: None }
    });
    pipeline.run(&mut source, &AtomicBool::new(false)).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    drop(progress);
    let unread = source.packets.summary();
    let problem = problem.or_else(|| {
        (unread.damaged + unread.failed + unread.gone > 0).then(|| {
            let parts = unread.damaged + unread.failed + unread.gone;
            format!(
                "INCOMPLETE: {} of the files cannot be read, or were removed meanwhile: `retrocap spool check {}`",
                counted(parts, "part"),
                path.display()
            )
        })
    });
    ask(common, Offline::serve(history, pipeline, newest, problem)?, verb)
}

fn ask(common: &Common, offline: Offline, verb: impl FnOnce(&Common) -> anyhow::Result<()>) -> anyhow::Result<()> {
    offline.tell_problem();
    let asking =
        Common { socket: Some(offline.socket.clone()), remote: None, newest: offline.newest, ..common.clone() };
    offline.finish(verb(&asking))
}

fn pipeline(budget: u64) -> anyhow::Result<Pipeline> {
    let split = Split::new(budget, 1, false)?;
    Pipeline::new(Config { seed: SEED, ..Config::new(split.sessions_bytes, split.store_bytes) })
        .with_context(|| format!("cannot take {} of memory", ByteSize(budget)))
}

fn history(pipeline: &Pipeline, interfaces: Arc<Interfaces>, disk: Option<Arc<dyn Archive>>) -> History {
    History {
        memory: Memory { queries_bytes: QUERIES_BYTES, ..Memory::default() },
        disk,
        ..History::new(vec![pipeline.worker()], interfaces)
    }
}

/// The packets of a spool as a source for the engine.
struct SpoolSource {
    packets: Packets<Arc<Directory>>,
    interfaces: Arc<Interfaces>,
    known: Vec<(Arc<SpooledInterface>, InterfaceId)>,
    data: Vec<u8>,
}

impl SpoolSource {
    fn interface(&mut self, spooled: &Arc<SpooledInterface>) -> Option<InterfaceId> {
        if let Some((_, id)) = self.known.iter().find(|(known, _)| known == spooled) {
            return Some(*id);
        }
        let id = self.interfaces.intern(&spooled.name, 0, spooled.link_type)?;
        self.known.push((Arc::clone(spooled), id));
        Some(id)
    }
}

impl Source for SpoolSource {
    fn bursts(&mut self, each: &mut impl FnMut(&[Packet<'_>])) -> Result<Batch, SourceError> {
        for _ in 0..BURST_PACKETS {
            let Some(found) = self.packets.next() else { return Ok(Batch::End) };
            self.data.clear();
            self.data.extend_from_slice(found.packet.data);
            // Its bytes are in `data` now.
            let (packet, spooled) = (SpooledPacket { data: &[], ..found.packet }, Arc::clone(found.interface));
            let Some(interface) = self.interface(&spooled) else { continue };
            each(&[Packet {
                time: packet.time,
                interface,
                link_type: spooled.link_type,
                direction: packet.direction,
                flags: packet.flags,
                original_len: packet.original_len,
                drops_before: packet.drops_before,
                data: &self.data,
            }]);
        }
        Ok(Batch::More)
    }

    fn counts(&self) -> SourceCounts {
        SourceCounts::default()
    }
}
