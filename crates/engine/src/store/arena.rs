//! The arena: owns all pages of a store, and knows which of them are free.
//!
//! Only the writer takes and frees pages. Readers share [`Pages`], and never hold one.

use std::sync::Arc;

use base::memory::Lock;

use super::pages::{PageId, Pages, Position, SegmentEvicted, Tail};
use super::segment::SegmentView;

/// The pages of a store.
#[derive(Debug)]
pub(super) struct Arena {
    pages: Arc<Pages>,
    free: Vec<PageId>,
}

impl Arena {
    /// Takes memory for `count` pages, all of them free.
    pub(super) fn new(count: u32, lock: Lock) -> std::io::Result<Self> {
        Ok(Self { pages: Arc::new(Pages::new(count, lock)?), free: (0..count).rev().map(PageId).collect() })
    }

    /// All pages, used and free.
    #[inline]
    pub(super) fn pages(&self) -> &Arc<Pages> {
        &self.pages
    }

    /// Number of free pages.
    pub(super) fn free_pages(&self) -> usize {
        self.free.len()
    }

    /// Takes a free page, if there is one.
    pub(super) fn take(&mut self) -> Option<PageId> {
        self.free.pop()
    }

    /// Takes up to `count` free pages.
    pub(super) fn take_many(&mut self, count: usize) -> Vec<PageId> {
        self.free.split_off(self.free.len().saturating_sub(count))
    }

    /// Frees pages that belong to no segment.
    pub(super) fn give_back(&mut self, pages: Vec<PageId>) {
        self.free.extend(pages);
    }

    /// Links `count` free pages behind `last`. The caller has checked that they are there.
    pub(super) fn extend(&mut self, mut last: PageId, count: usize) {
        for _ in 0..count {
            let Some(page) = self.free.pop() else { unreachable!("there is room for the record") };
            self.pages.link(last, page);
            last = page;
        }
    }

    /// Writes `bytes` to `chain`, which it links, and returns the first page.
    pub(super) fn fill(&self, chain: &[PageId], bytes: &[u8]) -> PageId {
        for pair in chain.windows(2) {
            self.pages.link(pair[0], pair[1]);
        }
        Tail::new(chain[0]).append(&self.pages, bytes);
        chain[0]
    }

    /// Fills `out` with the first bytes of a segment as they are stored, compressed or not.
    pub(super) fn copy_out(&self, view: &SegmentView, out: &mut [u8]) -> Result<(), SegmentEvicted> {
        self.pages.copy_out(&mut Position { page: view.first_page(), offset: 0 }, out)
    }

    /// Frees the pages of a segment and returns how many there were.
    pub(super) fn free(&mut self, view: &SegmentView) -> u32 {
        let count = view.pages();
        let mut page = view.first_page();
        for i in 0..count {
            self.free.push(page);
            if i + 1 < count {
                match self.pages.next(page) {
                    Ok(next) => page = next,
                    Err(SegmentEvicted) => unreachable!("a segment's pages are linked"),
                }
            }
        }
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Frees the pages of a segment, wipes them, and returns their memory to the system.
    pub(super) fn release(&mut self, view: &SegmentView) {
        let first = self.free.len();
        self.free(view);
        self.free[first..].iter().for_each(|page| self.pages.release(*page));
    }

    /// Wipes all free pages and returns their memory to the system.
    pub(super) fn release_free(&self) {
        self.free.iter().for_each(|page| self.pages.release(*page));
    }
}
