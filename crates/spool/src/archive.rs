//! The interface between a spool and the rest of the recorder; it hides the medium.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::band::Band;
use crate::board::{PublishedState, SpoolSnapshot};
use crate::follow::Progress;
use crate::index::ClosedPackets;
use crate::medium::Medium;
use crate::place::Places;
use crate::read::{FoundPacket, Packets, ReadSummary, Selection};
use base::time::Timestamp;

/// Bytes of a file that are read at once.
const READ_BYTES: usize = 256 << 10;

/// The files of a spool, for queries.
pub trait Archive: fmt::Debug + Send + Sync {
    /// The packets that may match, in time order. `None` while the spool is being opened.
    fn packets(&self, selection: &Selection) -> Option<Box<dyn PacketStream>>;

    /// The state of the spool; `None` while it is being opened.
    fn view(&self) -> Option<SpoolSnapshot>;

    /// Packets that wait in memory, and packets that were lost; `None` if no thread writes the spool.
    fn progress(&self) -> Option<Progress>;

    /// The directory, as written by the user.
    fn directory(&self) -> &str;

    /// The reason why the spool cannot be used, if any.
    fn problem(&self) -> Option<String>;

    /// The file with the packets of this depth at this time, and the start of their chunk in it.
    fn place(&self, band: Band, time: Timestamp) -> Option<(Arc<str>, u64)>;

    /// The state of the log of sessions; `None` if there is none.
    fn log(&self) -> Option<LogView>;

    /// Names and lengths of the complete files; `None` while the spool is being opened.
    fn complete_files(&self) -> Option<Vec<(String, u64)>>;

    /// Calls `each` with the bytes of a file, in order, until it returns false.
    ///
    /// # Errors
    ///
    /// If the file is gone or cannot be read.
    fn read_file(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()>;
}

/// The state of the log of sessions in the directory of a spool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogView {
    /// Files.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Start of the earliest hour.
    pub oldest: Option<Timestamp>,
    /// Rows written since the start.
    pub rows: u64,
    /// Sessions since the start that are in no row: of floods, or overwritten in memory before they were written.
    pub missed: u64,
    /// Rows lost since the start because a file could not be written.
    pub lost_rows: u64,
    /// Files removed for room since the start.
    pub removed_files: u64,
    /// Why the latest file could not be written.
    pub problem: Option<String>,
}

/// Packets in time order.
pub trait PacketStream: fmt::Debug + Send {
    /// The time of the next packet.
    fn peek_time(&mut self) -> Option<Timestamp>;

    /// The next packet.
    fn next(&mut self) -> Option<FoundPacket<'_>>;

    /// Costs so far, and the number of files and chunks that could not be read.
    fn summary(&self) -> ReadSummary;

    /// Packets of the window that were not opened, in the files that were looked at so far.
    fn closed(&self) -> ClosedPackets;
}

impl<M: Medium + Send> PacketStream for Packets<M>
where
    M::File: Send,
{
    fn peek_time(&mut self) -> Option<Timestamp> {
        Self::peek_time(self)
    }

    fn next(&mut self) -> Option<FoundPacket<'_>> {
        Self::next(self)
    }

    fn summary(&self) -> ReadSummary {
        Self::summary(self)
    }

    fn closed(&self) -> ClosedPackets {
        Self::closed(self)
    }
}

/// A spool on a medium. The thread that writes the spool publishes its files and state here.
#[derive(Debug)]
pub struct SharedSpool<M> {
    medium: M,
    directory: String,
    board: OnceLock<Arc<PublishedState>>,
    progress: Mutex<Option<Progress>>,
    problem: Mutex<Option<String>>,
    places: Mutex<Places>,
    log: Mutex<Option<LogView>>,
    /// Stored bytes up to which everything is written; `u64::MAX` while the disk refuses packets.
    reached_bytes: AtomicU64,
}

/// The value of `reached_bytes` while nobody should wait.
const NOT_WAITED_FOR: u64 = u64::MAX;

impl<M: Medium + Clone> SharedSpool<M> {
    /// A spool that is not opened yet.
    pub fn new(medium: M, directory: String) -> Self {
        Self {
            medium,
            directory,
            board: OnceLock::new(),
            progress: Mutex::default(),
            problem: Mutex::default(),
            places: Mutex::default(),
            log: Mutex::default(),
            reached_bytes: AtomicU64::new(0),
        }
    }

    /// Captured bytes of stored packets up to which everything was passed to the disk. `None` while the disk is full or fails,
    /// so that a source that waits for it would wait for ever.
    pub fn reached_bytes(&self) -> Option<u64> {
        Some(self.reached_bytes.load(Ordering::Acquire)).filter(|reached| *reached != NOT_WAITED_FOR)
    }

    /// Publishes [`reached_bytes`](Self::reached_bytes).
    pub fn set_reached_bytes(&self, reached: Option<u64>) {
        self.reached_bytes.store(reached.unwrap_or(NOT_WAITED_FOR), Ordering::Release);
    }

    /// The medium.
    pub fn medium(&self) -> &M {
        &self.medium
    }

    /// Publishes that the spool is open, so that queries can read it.
    pub fn opened(&self, board: Arc<PublishedState>) {
        let _ = self.board.set(board);
    }

    /// Publishes the packets that wait in memory, and the packets that were lost.
    pub fn set_progress(&self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    /// Publishes the state of the log of sessions. Its bytes count towards the size of the spool.
    pub fn set_log(&self, log: LogView) {
        if let Some(board) = self.board.get() {
            board.set_beside_bytes(log.bytes);
        }
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(log);
    }

    /// Publishes why the spool cannot be used.
    pub fn set_problem(&self, problem: String) {
        self.set_reached_bytes(None);
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
    }
}

impl<M: Medium + Clone + Send + Sync + 'static> Archive for SharedSpool<M>
where
    M::File: Send,
{
    fn packets(&self, selection: &Selection) -> Option<Box<dyn PacketStream>> {
        let catalogue = self.board.get()?.catalogue();
        Some(Box::new(Packets::new(self.medium.clone(), &catalogue, selection)))
    }

    fn view(&self) -> Option<SpoolSnapshot> {
        Some(self.board.get()?.view())
    }

    fn progress(&self) -> Option<Progress> {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory(&self) -> &str {
        &self.directory
    }

    fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn place(&self, band: Band, time: Timestamp) -> Option<(Arc<str>, u64)> {
        let catalogue = self.board.get()?.catalogue();
        self.places.lock().unwrap_or_else(PoisonError::into_inner).find(&self.medium, &catalogue, band, time)
    }

    fn log(&self) -> Option<LogView> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn complete_files(&self) -> Option<Vec<(String, u64)>> {
        let catalogue = self.board.get()?.catalogue();
        let sealed = catalogue.sealed.iter().map(|entry| (entry.name.clone(), entry.len));
        // What cannot be opened is there, and its bytes can be read.
        Some(sealed.chain(catalogue.unreadable.iter().cloned()).collect())
    }

    fn read_file(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
        let file = self.medium.open(name)?;
        let (mut offset, mut buffer) = (0, vec![0; READ_BYTES]);
        loop {
            match self.medium.read(&file, offset, &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    offset += read as u64;
                    if !each(buffer.get(..read).unwrap_or_default()) {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
