//! Writes the files of a spool: one open file for each band, durable once a second, removed by age and depth.
//!
//! The writer waits for the medium only. If the file of a band cannot be written, the band refuses packets, and the
//! caller keeps them in memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::band::Band;
pub use crate::board::{
    Counts, Options, PublishedState, SizeLimit, SpoolSnapshot, SpoolState, WriteOutcome, WriteRefusal,
};
pub use crate::catalogue::BandView;
use crate::catalogue::{Catalogue, OpenReport};
use crate::coding::Coding;
use crate::file::FileWriter;
use crate::layout::{CHUNK_BYTES, FileId, Header};
use crate::medium::{Medium, is_no_room};
use crate::recover::{RecoveryOutcome, recover};
use crate::retain;
use crate::sealed_file::SealedFile;
use base::interface::Interface;
use base::packet::Packet;
use base::time::Timestamp;

/// How often written packets are made durable.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Age at which a file is sealed, so that it can be removed in time and copied as a whole.
const FILE_AGE_MAX: Duration = Duration::from_secs(3600);
/// Bounds of the size of a file, which is a 64th of the budget.
const FILE_BYTES: std::ops::RangeInclusive<u64> = (256 << 10)..=(64 << 20);
/// Pause after a failure before another file is created; it doubles up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Number of free files that are left to other programs.
const FREE_FILES_MIN: u64 = 64;
/// Free bytes at which the file system counts as full.
const FREE_BYTES_MIN: u64 = 1 << 20;
/// The most files that are removed for one write.
const REMOVED_AT_ONCE_MAX: usize = 16;

/// The writer of a spool.
#[derive(Debug)]
pub struct Spool<M: Medium> {
    medium: M,
    options: Options,
    board: Arc<PublishedState>,
    open: [Option<Slot<M>>; Band::COUNT],
    epoch: u64,
    next_counter: u64,
    counts: Counts,
    state: SpoolState,
    problem: Option<String>,
    removed_until: Option<Timestamp>,
    last_sync: Timestamp,
    last_view: Timestamp,
    /// No file is created before this time.
    not_before: Timestamp,
    retry: Duration,
    file_bytes: u64,
    turn: WriteOutcome,
}

#[derive(Debug)]
struct Slot<M: Medium> {
    file: FileWriter<M>,
    created: Timestamp,
    captured_unsynced: u64,
    /// Whether the last write failed for lack of room.
    is_stuck: bool,
    seal: bool,
}

impl<M: Medium> Spool<M> {
    /// Opens a spool for writing: reads its files, completes those that a crash left unfinished, and begins an epoch.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read.
    pub fn open(medium: M, options: Options, now: Timestamp) -> io::Result<(Self, OpenReport)> {
        let (catalogue, opening) = Catalogue::open(&medium, true)?;
        let epoch = opening.last.0.saturating_add(1);
        let next_counter = opening.last.1.saturating_add(1);
        let gaps = catalogue.sealed.first().is_some_and(|first| first.counter() > 1)
            || catalogue.sealed.windows(2).any(|pair| pair[1].counter() > pair[0].counter() + 1);
        let mut spool = Self {
            medium,
            options,
            board: Arc::new(PublishedState::of(catalogue)),
            open: Default::default(),
            epoch,
            next_counter,
            counts: Counts::default(),
            state: SpoolState::Ok,
            problem: None,
            removed_until: None,
            last_sync: now,
            last_view: Timestamp::MIN,
            not_before: Timestamp::MIN,
            retry: RETRY.0,
            file_bytes: *FILE_BYTES.start(),
            turn: WriteOutcome::default(),
        };
        if gaps {
            let bands = Band::all().filter_map(|band| spool.oldest(band)).map(|entry| entry.times().0);
            spool.removed_until = bands.max().map(|time| time.saturating_sub(Duration::from_nanos(1)));
        }
        let budget = spool.budget_bytes();
        spool.file_bytes = (budget / 64).clamp(*FILE_BYTES.start(), *FILE_BYTES.end());
        spool.make_room(0, now);
        spool.show(now);
        Ok((spool, opening))
    }

    /// Files, state and counts, for queries and the status.
    pub fn board(&self) -> Arc<PublishedState> {
        Arc::clone(&self.board)
    }

    /// The number of this run.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Counts so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether [`turn`](Self::turn) has results that the caller must read. Ask after each packet.
    pub fn has_news(&self) -> bool {
        !self.turn.synced.is_empty() || !self.turn.rewound.is_empty()
    }

    /// Packets that were accepted and are not durable yet.
    pub fn unsynced_packets(&self) -> u64 {
        self.open.iter().flatten().map(|slot| slot.file.unsynced_packets()).sum()
    }

    /// The state.
    pub fn state(&self) -> SpoolState {
        self.state
    }

    /// The reason why the spool cannot be written, if any.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref().filter(|_| self.state != SpoolState::Ok)
    }

    /// The limit on the size, in bytes.
    fn budget_bytes(&self) -> u64 {
        self.options.limit.budget_bytes(|| self.medium.room().unwrap_or_default())
    }

    fn used_bytes(&self) -> u64 {
        let open: u64 = self.open.iter().flatten().map(|slot| slot.file.len()).sum();
        self.board.files().sealed_bytes() + open + self.board.beside_bytes()
    }

    /// Bytes that must be removed so that `more` can be written.
    fn excess(&self, more: u64) -> u64 {
        let room = self.medium.room().unwrap_or_default();
        let budget = match self.options.limit {
            SizeLimit::Bytes(bytes) => (self.used_bytes() + more).saturating_sub(bytes),
            SizeLimit::Percent(_) => {
                let used = room.size_bytes.saturating_sub(room.free_bytes);
                (used + more).saturating_sub(self.options.limit.budget_bytes(|| room))
            }
        };
        let full = (more + FREE_BYTES_MIN.min(room.size_bytes / 64)).saturating_sub(room.free_bytes);
        let no_files = if room.free_files < FREE_FILES_MIN { 1 } else { 0 };
        budget.max(full).max(no_files)
    }

    fn oldest(&self, band: Band) -> Option<Arc<SealedFile>> {
        let files = self.board.files();
        files
            .sealed
            .iter()
            .filter(|entry| entry.footer.header.band == band.0)
            .min_by_key(|entry| entry.times())
            .cloned()
    }

    /// Removes files until `more` bytes fit. Returns whether they do.
    fn make_room(&mut self, more: u64, now: Timestamp) -> bool {
        for _ in 0..REMOVED_AT_ONCE_MAX {
            if self.excess(more) == 0 {
                return true;
            }
            if !self.remove_one(now, M::remove_soon) {
                return false;
            }
        }
        self.excess(more) == 0
    }

    /// Removes the next candidate. Returns whether there was one.
    fn remove_one(&mut self, now: Timestamp, remove: fn(&M, &str, u64) -> io::Result<()>) -> bool {
        let (candidates, oldest) = self.board.files().candidates();
        let victim = retain::victim(&candidates, self.budget_bytes(), self.options.keep, now);
        let Some(entry) = victim.map(|i| Arc::clone(&oldest[i])) else { return false };
        match remove(&self.medium, &entry.name, entry.len) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.failed(&error, now);
                return false;
            }
        }
        self.board.files().sealed.retain(|other| other.counter() != entry.counter());
        self.counts.removed_files += 1;
        self.counts.removed_packets += entry.footer.packets;
        self.removed_until = self.removed_until.max(entry.footer.times.map(|(_, newest)| newest));
        true
    }

    /// Accepts a packet of this band.
    ///
    /// # Errors
    ///
    /// The reason why the packet was refused. The caller may put it again later.
    pub fn put(
        &mut self,
        band: Band,
        interface: &Interface,
        packet: &Packet<'_>,
        now: Timestamp,
    ) -> Result<(), WriteRefusal> {
        let index = band.index();
        if self.open[index].as_ref().is_some_and(|slot| slot.file.is_behind() || slot.is_stuck || slot.seal) {
            self.drive(band, now);
            if self.has_news() {
                // The caller must read the result before another packet counts.
                return Err(WriteRefusal::Busy);
            }
        }
        if self.open[index].is_none() {
            self.create(band, now)?;
        }
        let Some(slot) = self.open[index].as_mut() else { return Err(WriteRefusal::Failed) };
        if slot.is_stuck {
            return Err(WriteRefusal::Full);
        }
        if slot.file.is_behind() || slot.seal {
            return Err(WriteRefusal::Busy);
        }
        slot.file.put(interface, packet);
        slot.captured_unsynced += packet.data.len() as u64;
        if slot.file.len() >= slot.file.written() + CHUNK_BYTES as u64 {
            self.drive(band, now);
        }
        Ok(())
    }

    fn create(&mut self, band: Band, now: Timestamp) -> Result<(), WriteRefusal> {
        let refused = if self.state == SpoolState::Full { WriteRefusal::Full } else { WriteRefusal::Failed };
        if now < self.not_before {
            return Err(refused);
        }
        // Reserve the full length of the open files.
        let growth: u64 = self.open.iter().flatten().map(|slot| self.file_bytes.saturating_sub(slot.file.len())).sum();
        if !self.make_room(growth + self.file_bytes, now) {
            self.full(now);
            return Err(WriteRefusal::Full);
        }
        let id = FileId { epoch: self.epoch, counter: self.next_counter };
        self.next_counter += 1;
        let level = self.options.level.unwrap_or_default();
        let coding = Coding { compressed: level > 0, encrypted: self.medium.keys().writing().is_some() };
        let header = Header { id, band: band.0, coding, replaces: None, created: now };
        let created = FileWriter::create(&self.medium, header, level, &self.options.comments);
        let file = match created.and_then(|file| self.medium.sync_names().map(|()| file)) {
            Ok(file) => file,
            Err(error) if is_no_room(&error) => {
                self.counts.no_room += 1;
                self.full(now);
                return Err(WriteRefusal::Full);
            }
            Err(error) => {
                self.failed(&error, now);
                return Err(WriteRefusal::Failed);
            }
        };
        self.counts.files += 1;
        self.board.files().open.push(Arc::clone(file.shared()));
        self.open[band.index()] = Some(Slot { file, created: now, captured_unsynced: 0, is_stuck: false, seal: false });
        Ok(())
    }

    fn full(&mut self, now: Timestamp) {
        self.state = SpoolState::Full;
        self.problem = Some("there is no room left, and no older file to remove".to_owned());
        self.not_before = now.saturating_add(RETRY.0);
    }

    fn failed(&mut self, error: &io::Error, now: Timestamp) {
        self.counts.failures += 1;
        self.state = SpoolState::Failed;
        self.problem = Some(error.to_string());
        self.not_before = now.saturating_add(self.retry);
        self.retry = (self.retry * 2).min(RETRY.1);
    }

    /// Writes the pending bytes of a band, and seals its file if it is due. Handles errors itself.
    fn drive(&mut self, band: Band, now: Timestamp) {
        let Some(mut slot) = self.open[band.index()].take() else { return };
        let due = slot.file.len() >= self.file_bytes
            || slot.file.is_full(self.options.keys_max)
            || (now.since(slot.created) >= FILE_AGE_MAX && !slot.file.is_empty());
        slot.seal |= due;
        match self.write(&mut slot, now) {
            Ok(Some(entry)) => {
                self.turn.synced.push(band);
                self.replace(&slot, Some(entry));
            }
            Ok(None) => self.open[band.index()] = Some(slot),
            Err(error) => self.abandon(band, slot, &error, now),
        }
    }

    /// Writes the pending bytes, and seals the file if it is due. Returns the entry of a sealed file.
    fn write(&mut self, slot: &mut Slot<M>, now: Timestamp) -> io::Result<Option<SealedFile>> {
        let before = slot.file.written();
        for attempt in 0.. {
            let written = match slot.seal {
                true => slot.file.seal(&self.medium).map(Some),
                false => slot.file.write(&self.medium).map(|()| None),
            };
            match written {
                Ok(sealed) => {
                    slot.is_stuck = false;
                    self.counts.written_bytes += slot.file.written() - before;
                    let Some((footer, len)) = sealed else { return Ok(None) };
                    self.sync_slot(slot)?;
                    return Ok(Some(SealedFile::new(&slot.file.shared().name(), footer, len)));
                }
                Err(error) if is_no_room(&error) => {
                    self.counts.no_room += 1;
                    if attempt >= REMOVED_AT_ONCE_MAX || !self.remove_one(now, |medium, name, _| medium.remove(name)) {
                        slot.is_stuck = true;
                        self.full(now);
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn sync_slot(&mut self, slot: &mut Slot<M>) -> io::Result<()> {
        let packets = slot.file.unsynced_packets();
        self.counts.syncs += 1;
        slot.file.sync(&self.medium)?;
        self.counts.packets += packets;
        self.counts.bytes += std::mem::take(&mut slot.captured_unsynced);
        self.retry = RETRY.0;
        if self.state == SpoolState::Failed {
            self.state = SpoolState::Ok;
        }
        Ok(())
    }

    /// Moves a file from the open ones to the sealed ones.
    fn replace(&mut self, slot: &Slot<M>, entry: Option<SealedFile>) {
        let mut files = self.board.files();
        let counter = slot.file.header().id.counter;
        files.open.retain(|shared| shared.header.id.counter != counter);
        if let Some(entry) = entry {
            files.sealed.push(Arc::new(entry));
            files.sealed.sort_unstable_by_key(|entry| entry.counter());
        }
    }

    /// Abandons a file, the state of whose end is unknown. Its durable packets stay; the caller can put the others again.
    fn abandon(&mut self, band: Band, mut slot: Slot<M>, error: &io::Error, now: Timestamp) {
        self.failed(error, now);
        self.counts.abandoned_files += 1;
        self.turn.rewound.push(band);
        let name = slot.file.shared().name();
        let cut = slot.file.cut_to_synced(&self.medium);
        let recovered = cut.and_then(|()| recover(&self.medium, &name, slot.file.synced_bytes()));
        match recovered {
            Ok(RecoveryOutcome::Sealed(entry)) => self.replace(&slot, Some(*entry)),
            Ok(RecoveryOutcome::Removed) => self.replace(&slot, None),
            // The next start completes the file. Until then, queries can read its durable packets.
            Err(_) => {
                let mut growing = slot.file.shared().lock();
                growing.written = growing.written.min(slot.file.synced_bytes());
            }
        }
    }

    /// Makes packets durable once a second, ages files, and returns which packets became durable or were lost. Call it
    /// at least ten times a second.
    pub fn turn(&mut self, now: Timestamp) -> WriteOutcome {
        // A clock that was set back must not suspend syncs.
        if now.since(self.last_sync) >= SYNC_INTERVAL || now < self.last_sync {
            self.last_sync = now;
            self.sync(now);
        }
        if now.since(self.last_view) >= SYNC_INTERVAL || now < self.last_view {
            self.show(now);
        }
        std::mem::take(&mut self.turn)
    }

    /// Makes all accepted packets durable.
    pub fn sync(&mut self, now: Timestamp) {
        self.make_room(0, now);
        let mut all_written = true;
        for band in Band::all() {
            self.drive(band, now);
            let Some(mut slot) = self.open[band.index()].take() else { continue };
            if slot.is_stuck || slot.seal {
                all_written = false;
                self.open[band.index()] = Some(slot);
                continue;
            }
            if slot.file.unsynced_packets() == 0 {
                self.open[band.index()] = Some(slot);
                continue;
            }
            match self.flush(&mut slot, now) {
                Ok(true) => {
                    self.turn.synced.push(band);
                    self.open[band.index()] = Some(slot);
                }
                Ok(false) => {
                    all_written = false;
                    self.open[band.index()] = Some(slot);
                }
                Err(error) => self.abandon(band, slot, &error, now),
            }
        }
        if all_written && self.state == SpoolState::Full && self.excess(self.file_bytes) == 0 {
            self.state = SpoolState::Ok;
            self.problem = None;
        }
    }

    fn flush(&mut self, slot: &mut Slot<M>, now: Timestamp) -> io::Result<bool> {
        let before = slot.file.written();
        for attempt in 0.. {
            match slot.file.flush(&self.medium) {
                Ok(()) => break,
                Err(error) if is_no_room(&error) => {
                    self.counts.no_room += 1;
                    if attempt >= REMOVED_AT_ONCE_MAX || !self.remove_one(now, |medium, name, _| medium.remove(name)) {
                        slot.is_stuck = true;
                        self.full(now);
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.counts.written_bytes += slot.file.written() - before;
        self.sync_slot(slot)?;
        Ok(true)
    }

    /// Seals all files. The next start completes a file that cannot be sealed.
    pub fn close(&mut self, now: Timestamp) -> WriteOutcome {
        self.sync(now);
        self.open.iter_mut().flatten().for_each(|slot| slot.seal = true);
        Band::all().for_each(|band| self.drive(band, now));
        self.show(now);
        std::mem::take(&mut self.turn)
    }

    fn show(&mut self, now: Timestamp) {
        self.last_view = now;
        let mut bands = self.board.files().bands();
        for (band, slot) in bands.iter_mut().zip(&self.open) {
            let Some(slot) = slot else { continue };
            band.files += 1;
            band.bytes += slot.file.len();
            let growing = slot.file.shared().lock();
            let oldest = growing.index.times().map(|(oldest, _)| oldest);
            band.oldest = band.oldest.into_iter().chain(oldest).min();
        }
        let view = SpoolSnapshot {
            state: self.state,
            counts: self.counts,
            keep: self.options.keep,
            budget_bytes: self.budget_bytes(),
            used_bytes: bands.iter().map(|band| band.bytes).sum::<u64>() + self.board.beside_bytes(),
            files: bands.iter().map(|band| band.files).sum(),
            bands,
            removed_until: self.removed_until,
            problem: self.problem().map(str::to_owned),
            timings: self.medium.timings(),
        };
        self.board.show(view);
    }
}
