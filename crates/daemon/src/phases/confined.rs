//! The second phase: privileges are dropped and the sandbox holds.

use super::resources::Resources;
use super::restored::Restored;
use crate::confinement::Confinement;
use crate::error::Error;
use crate::handover::InheritedHistory;
use crate::session_log::LogHandle;
use std::sync::Arc;

use base::memory::Lock;
use base::time::Timestamp;
use engine::budget::ByteSize;
use engine::handover::RestartReport;
use engine::pipeline::Pipeline;
use engine::session::BlockCache;
use query::{History, Memory};
use spool::archive::Archive;

/// A confined process. No thread but the first one runs, and no foreign byte was read.
#[derive(Debug)]
pub struct Confined {
    pub(super) resources: Resources,
    pub(super) inherited: InheritedHistory,
    pub(super) lock: Lock,
    pub(super) confinement: Confinement,
}

impl Confined {
    /// Takes over the history that the last recorder left, if there is one.
    ///
    /// # Errors
    ///
    /// When the memory for packets cannot be had. A history that cannot be read is reported, and is no error.
    pub fn restore(self) -> Result<Restored, Error> {
        let Self { mut resources, inherited, lock, confinement } = self;
        let Resources { settings, split, supervisor, interfaces, pins, pipelines, spool, session_log, .. } =
            &mut resources;
        let restart = if settings.is_live() {
            let now = Timestamp::from(std::time::SystemTime::now());
            let restart = inherited.take_over(&confinement, supervisor, now, interfaces, pins, pipelines);
            let populated = pipelines.iter().filter(|_| lock == Lock::AsUsed).try_for_each(Pipeline::populate);
            populated.map_err(|source| Error::Memory { budget: ByteSize(split.budget_bytes), source })?;
            restart
        } else {
            inherited.discard(supervisor);
            RestartReport::default()
        };
        let history = History {
            log_comes_first: false,
            restart,
            workers: pipelines.iter().map(Pipeline::worker).collect(),
            interfaces: interfaces.clone(),
            memory: Memory {
                budget_bytes: split.budget_bytes,
                rings_bytes: split.rings_bytes(),
                queries_bytes: split.queries_bytes,
                compression_bytes: u64::from(split.workers) * split.compression_bytes,
                spool_bytes: settings.spool_memory_bytes(split.budget_bytes),
            },
            capture_filter: settings.filter.clone().into(),
            capture_interfaces: settings.interface.clone().into(),
            community_id_seed: settings.community_id_seed.into(),
            disk: spool.clone().map(|shelf| shelf as Arc<dyn Archive>),
            past_sums: Default::default(),
            // No more: in a small recorder, each answer at a time takes a twelfth.
            past_blocks: BlockCache::new(split.answers_bytes() / 16),
            log: session_log.as_deref().map(LogHandle::for_queries),
        };
        let restored = Restored { resources, confinement, history };
        restored.announce();
        Ok(restored)
    }
}
