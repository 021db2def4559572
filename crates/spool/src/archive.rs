//! A spool as the rest of the recorder sees it, whatever its medium.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::board::{PublishedState, SpoolSnapshot};
use crate::follow::Progress;
use crate::medium::Medium;
use crate::read::{Found, Packets, ReadSummary, Selection};
use base::time::Timestamp;

/// The files of a spool, to be asked.
pub trait Archive: fmt::Debug + Send + Sync {
    /// The packets that may match, in time order. `None` while the spool is being opened.
    fn packets(&self, selection: &Selection) -> Option<Box<dyn PacketStream>>;

    /// The state of the spool; `None` while it is being opened.
    fn view(&self) -> Option<SpoolSnapshot>;

    /// What waits in memory, and what was lost; `None` if nobody writes.
    fn progress(&self) -> Option<Progress>;

    /// The directory, as the user named it.
    fn directory(&self) -> &str;

    /// Why the spool cannot be used, if so.
    fn problem(&self) -> Option<String>;
}

/// Packets in time order.
pub trait PacketStream: fmt::Debug + Send {
    /// The time of the next packet.
    fn peek_time(&mut self) -> Option<Timestamp>;

    /// The next packet.
    fn next(&mut self) -> Option<Found<'_>>;

    /// Costs so far, and what could not be read.
    fn summary(&self) -> ReadSummary;
}

impl<M: Medium + Send> PacketStream for Packets<M>
where
    M::File: Send,
{
    fn peek_time(&mut self) -> Option<Timestamp> {
        Self::peek_time(self)
    }

    fn next(&mut self) -> Option<Found<'_>> {
        Self::next(self)
    }

    fn summary(&self) -> ReadSummary {
        Self::summary(self)
    }
}

/// A spool on a medium. The thread that writes it publishes its board here.
#[derive(Debug)]
pub struct SharedSpool<M> {
    medium: M,
    directory: String,
    board: OnceLock<Arc<PublishedState>>,
    progress: Mutex<Option<Progress>>,
    problem: Mutex<Option<String>>,
}

impl<M: Medium + Clone> SharedSpool<M> {
    /// A spool that is not opened yet.
    pub fn new(medium: M, directory: String) -> Self {
        Self { medium, directory, board: OnceLock::new(), progress: Mutex::default(), problem: Mutex::default() }
    }

    /// The medium.
    pub fn medium(&self) -> &M {
        &self.medium
    }

    /// The spool is open: from now on it can be asked.
    pub fn opened(&self, board: Arc<PublishedState>) {
        let _ = self.board.set(board);
    }

    /// Publishes what waits and what was lost.
    pub fn set_progress(&self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    /// Publishes why the spool cannot be used.
    pub fn set_problem(&self, problem: String) {
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
}
