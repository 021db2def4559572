//! Where a packet lies in the spool, by its depth and time.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::band::Band;
use crate::catalogue::Catalogue;
use crate::index::{self, Chunk};
use crate::medium::Medium;
use base::time::Timestamp;

/// Files whose chunks are kept in memory.
const FILES_MAX: usize = 8;

/// The chunks of the sealed files that were looked at last.
#[derive(Debug, Default)]
pub struct Places(VecDeque<(Arc<str>, Arc<Vec<Chunk>>)>);

impl Places {
    /// The file and the start of the chunk that has the packets of this depth at this time. If several have, the first.
    pub fn find<M: Medium>(
        &mut self,
        medium: &M,
        catalogue: &Catalogue,
        band: Band,
        time: Timestamp,
    ) -> Option<(Arc<str>, u64)> {
        let has = |chunk: &&Chunk| chunk.times.is_some_and(|(oldest, newest)| oldest <= time && time <= newest);
        for entry in catalogue.sealed.iter().rev().filter(|entry| entry.footer.header.band == band.0) {
            let (oldest, newest) = entry.times();
            if oldest <= time && time <= newest {
                let (name, chunks) = self.chunks(medium, entry)?;
                if let Some(chunk) = chunks.iter().find(has) {
                    return Some((name, chunk.offset));
                }
            }
        }
        catalogue.open.iter().filter(|shared| shared.header.band == band.0).find_map(|shared| {
            let growing = shared.lock();
            let chunk = growing.index.chunks().find(has)?;
            Some((shared.name().into(), chunk.offset))
        })
    }

    fn chunks<M: Medium>(
        &mut self,
        medium: &M,
        entry: &crate::sealed_file::SealedFile,
    ) -> Option<(Arc<str>, Arc<Vec<Chunk>>)> {
        if let Some(found) = self.0.iter().find(|(name, _)| **name == *entry.name) {
            return Some(found.clone());
        }
        let file = medium.open(&entry.name).ok()?;
        let section = entry.section(medium, &file, index::CHUNKS).ok()?;
        let found = (entry.name.as_str().into(), Arc::new(index::read_chunks(&section)?));
        self.0.truncate(FILES_MAX - 1);
        self.0.push_front(found.clone());
        Some(found)
    }
}
