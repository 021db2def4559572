//! The generation lock under a model checker, which runs a writer and readers in every order that the memory model allows.
//!
//! `RUSTFLAGS='--cfg loom' cargo test -p base --test generation --release`, which `make check` runs.
#![cfg(loom)]

use std::sync::atomic::Ordering;

use base::generation::{GenerationLock, Word};
use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;

/// A generation and two words that always belong together: the second is ten times the first.
struct Shared {
    generation: LoomWord,
    words: [AtomicU64; 2],
}

struct LoomWord(AtomicU64);

impl Word for LoomWord {
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, order);
    }

    fn fence(order: Ordering) {
        loom::sync::atomic::fence(order);
    }
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self { generation: LoomWord(AtomicU64::new(0)), words: [AtomicU64::new(0), AtomicU64::new(0)] })
    }

    fn lock(&self) -> GenerationLock<'_, LoomWord> {
        GenerationLock(&self.generation)
    }

    fn write(&self, value: u64) {
        self.lock().write(|| {
            self.words[0].store(value, Ordering::Relaxed);
            self.words[1].store(value * 10, Ordering::Relaxed);
        });
    }

    fn copy(&self) -> [u64; 2] {
        [self.words[0].load(Ordering::Relaxed), self.words[1].load(Ordering::Relaxed)]
    }
}

/// Reads `reads` times while `writes` writes happen.
fn run(writes: u64, reads: usize) {
    loom::model(move || {
        let shared = Shared::new();
        let reader = {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || {
                let mut last = 0;
                for _ in 0..reads {
                    if let Some([first, second]) = shared.lock().read(|| shared.copy()) {
                        assert_eq!(second, first * 10, "words of two writes");
                        assert!(first >= last, "a reader never goes back");
                        last = first;
                    }
                }
            })
        };
        (1..=writes).for_each(|value| shared.write(value));
        reader.join().unwrap();
        assert_eq!(shared.lock().read(|| shared.copy()), Some([writes, writes * 10]));
    });
}

#[test]
fn a_copy_that_is_kept_belongs_together() {
    run(2, 1);
}

#[test]
fn a_reader_never_goes_back() {
    run(1, 2);
}

/// As readers of segments do: the generation is compared again after bytes were copied that lie elsewhere.
#[test]
fn what_was_copied_before_a_generation_ended_is_kept_and_nothing_after() {
    loom::model(|| {
        let shared = Shared::new();
        shared.write(1);
        let generation = shared.lock().generation();
        let reader = {
            let shared = Arc::clone(&shared);
            loom::thread::spawn(move || {
                let copied = shared.copy();
                if shared.lock().is_still(generation) {
                    assert_eq!(copied, [1, 10]);
                }
            })
        };
        shared.lock().begin_write();
        shared.words[0].store(7, Ordering::Relaxed);
        reader.join().unwrap();
    });
}
