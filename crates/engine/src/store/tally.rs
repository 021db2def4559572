//! Memory used by classes and pins, published for readers.

use std::sync::atomic::{AtomicU64, Ordering};

use super::pages::PAGE_BYTES;
use super::queues::Queues;
use crate::session::SessionMarks;
use base::memory::add;

/// Memory of each class and each pin. Only one thread writes.
#[derive(Debug)]
pub struct Tally {
    class_bytes: Box<[AtomicU64]>,
    pins: [PinTally; SessionMarks::PINS],
}

#[derive(Debug, Default)]
struct PinTally {
    bytes: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    pub(super) fn new(classes: usize) -> Self {
        Self { class_bytes: (0..classes).map(|_| AtomicU64::new(0)).collect(), pins: Default::default() }
    }

    /// Bytes of memory that a class uses. Class 0 covers packets of no class and of classes that are kept like all
    /// others.
    pub fn class_bytes(&self, class: usize) -> u64 {
        self.class_bytes.get(class).map_or(0, |bytes| bytes.load(Ordering::Relaxed))
    }

    /// Bytes of memory that the pin at index `place` uses.
    pub fn pinned_bytes(&self, place: usize) -> u64 {
        self.pins.get(place).map_or(0, |pin| pin.bytes.load(Ordering::Relaxed))
    }

    /// Packets of the pin's sessions that found no room among pinned packets. They age like other packets.
    pub fn refused_packets(&self, place: usize) -> u64 {
        self.pins.get(place).map_or(0, |pin| pin.refused.load(Ordering::Relaxed))
    }

    pub(super) fn refuse(&self, place: usize) {
        if let Some(pin) = self.pins.get(place) {
            add(&pin.refused, 1);
        }
    }

    pub(super) fn forget(&self, place: usize) {
        if let Some(pin) = self.pins.get(place) {
            pin.refused.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn publish(&self, queues: &Queues) {
        let bytes = |pages: u32| u64::from(pages) * PAGE_BYTES as u64;
        if queues.classes() > 1 {
            for (class, counted) in self.class_bytes.iter().enumerate() {
                counted.store(bytes(queues.class_pages(class)), Ordering::Relaxed);
            }
        }
        for (place, pin) in self.pins.iter().enumerate() {
            pin.bytes.store(bytes(queues.pages(queues.pinned(place))), Ordering::Relaxed);
        }
    }
}
