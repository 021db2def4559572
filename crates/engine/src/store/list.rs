//! Lists of segments: owns the links between segments, the time at which each was opened, and the free slots.
//!
//! A queue is a [`List`], which names only its ends. A segment is in one list, or its slot is free.

use std::sync::Arc;

use super::segment::{SegmentId, SegmentView, Slot};

/// The table of segments with the links of all lists.
#[derive(Debug)]
pub(super) struct SegmentLists {
    slots: Arc<[Slot]>,
    following: Box<[Option<SegmentId>]>,
    opened_ticks_ns: Box<[u64]>,
    free: Vec<SegmentId>,
}

/// The ends of a list of segments, oldest first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct List {
    first: Option<SegmentId>,
    last: Option<SegmentId>,
}

impl List {
    /// The oldest segment.
    #[inline]
    pub(super) fn first(&self) -> Option<SegmentId> {
        self.first
    }

    /// The newest segment.
    pub(super) fn last(&self) -> Option<SegmentId> {
        self.last
    }
}

impl SegmentLists {
    /// Bytes per segment.
    pub(super) const SLOT_COST_BYTES: usize = size_of::<Slot>() + size_of::<Option<SegmentId>>() + size_of::<u64>();

    /// Room for `count` segments.
    pub(super) fn new(count: u32) -> Self {
        let slots: Arc<[Slot]> = (0..count).map(|_| Slot::default()).collect();
        slots.iter().for_each(Slot::free);
        Self {
            following: vec![None; slots.len()].into(),
            opened_ticks_ns: vec![0; slots.len()].into(),
            free: (0..count).rev().map(SegmentId).collect(),
            slots,
        }
    }

    /// The slots, which readers share.
    pub(super) fn slots(&self) -> &Arc<[Slot]> {
        &self.slots
    }

    /// The slot of a segment.
    #[inline]
    pub(super) fn slot(&self, id: SegmentId) -> &Slot {
        &self.slots[id.0 as usize]
    }

    /// The state of a segment that is in a list.
    pub(super) fn view(&self, id: SegmentId) -> SegmentView {
        let Some(view) = self.slot(id).view(id) else { unreachable!("a list holds only segments") };
        view
    }

    /// When a segment was opened, on the clock of the store.
    #[inline]
    pub(super) fn opened_ticks_ns(&self, id: SegmentId) -> u64 {
        self.opened_ticks_ns[id.0 as usize]
    }

    /// Replaces the time at which a segment was opened.
    pub(super) fn set_opened(&mut self, id: SegmentId, ticks_ns: u64) {
        self.opened_ticks_ns[id.0 as usize] = ticks_ns;
    }

    /// Whether a slot is free.
    pub(super) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Takes a free slot.
    pub(super) fn take(&mut self) -> Option<SegmentId> {
        self.free.pop()
    }

    /// Frees the slot of a segment that is in no list any more.
    pub(super) fn free(&mut self, id: SegmentId) {
        self.slot(id).free();
        self.free.push(id);
    }

    /// The segment after `id` in its list.
    pub(super) fn after(&self, id: SegmentId) -> Option<SegmentId> {
        self.following[id.0 as usize]
    }

    /// The segments of a list.
    pub(super) fn iter(&self, list: &List) -> impl Iterator<Item = SegmentId> {
        std::iter::successors(list.first, |id| self.after(*id))
    }

    /// Appends a segment to a list.
    pub(super) fn push(&mut self, list: &mut List, id: SegmentId, opened_ticks_ns: u64) {
        self.opened_ticks_ns[id.0 as usize] = opened_ticks_ns;
        self.following[id.0 as usize] = None;
        match list.last.replace(id) {
            Some(last) => self.following[last.0 as usize] = Some(id),
            None => list.first = Some(id),
        }
    }

    /// Removes the oldest segment from a list.
    pub(super) fn pop(&mut self, list: &mut List) -> Option<SegmentId> {
        let id = list.first?;
        list.first = self.after(id);
        if list.first.is_none() {
            list.last = None;
        }
        Some(id)
    }

    /// Appends all segments of `from` to `to`.
    pub(super) fn append(&mut self, to: &mut List, from: List) {
        let (Some(first), Some(last)) = (from.first, from.last) else { return };
        match to.last.replace(last) {
            Some(before) => self.following[before.0 as usize] = Some(first),
            None => to.first = Some(first),
        }
    }

    /// Moves the segments after `last` to where their age puts them.
    pub(super) fn sort_after(&mut self, list: &mut List, last: SegmentId) {
        let mut moving = self.after(last);
        if moving.is_none_or(|first| self.opened_ticks_ns(first) >= self.opened_ticks_ns(last)) {
            return;
        }
        self.following[last.0 as usize] = None;
        list.last = Some(last);
        while let Some(id) = moving {
            moving = self.after(id);
            self.insert_by_age(list, id);
        }
    }

    fn insert_by_age(&mut self, list: &mut List, id: SegmentId) {
        let (mut before, mut next) = (None, list.first);
        while let Some(other) = next.filter(|other| self.opened_ticks_ns(*other) <= self.opened_ticks_ns(id)) {
            (before, next) = (Some(other), self.after(other));
        }
        self.following[id.0 as usize] = next;
        match before {
            Some(before) => self.following[before.0 as usize] = Some(id),
            None => list.first = Some(id),
        }
        if next.is_none() {
            list.last = Some(id);
        }
    }
}
