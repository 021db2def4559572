//! Memory divided into pages of equal size, which are chained into byte streams.
//!
//! One thread writes ([`Tail`]) while any number of threads read ([`Pages::copy_out`]). Words below a stream's
//! published length never change while the stream lives. If a page is reused during a read, the reader gets invalid
//! bytes, detects this by the stream's generation, and discards them. No reader ever holds a page.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use base::memory::{Lock, Memory, prefetch};

/// Bytes of one page.
pub(super) const PAGE_BYTES: usize = 4096;
const WORD_BYTES: usize = 8;
const PAGE_WORDS: usize = PAGE_BYTES / WORD_BYTES;
/// Words in a 64-byte cache line.
const LINE_WORDS: usize = 64 / WORD_BYTES;

/// Memory cost of one page in bytes: its data, its link to the next page, and its entry in the list of free pages.
pub(super) const PAGE_COST_BYTES: usize = PAGE_BYTES + size_of::<AtomicU32>() + size_of::<u32>();

/// Page number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageId(pub(super) u32);

/// All pages of a store.
#[derive(Debug)]
pub(super) struct Pages {
    words: Memory,
    next: Box<[AtomicU32]>,
}

/// Error: the stream no longer exists, and its pages may hold another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentEvicted;

impl Pages {
    /// Takes memory for `count` pages.
    pub(super) fn new(count: u32, lock: Lock) -> std::io::Result<Self> {
        Ok(Self {
            words: Memory::new(count as usize * PAGE_WORDS, lock)?,
            next: (0..count).map(|_| AtomicU32::new(u32::MAX)).collect(),
        })
    }

    /// Number of pages.
    pub(super) fn count(&self) -> usize {
        self.next.len()
    }

    pub(super) fn are_locked(&self) -> bool {
        self.words.is_locked()
    }

    /// Allocates all memory now.
    pub(super) fn populate(&self) -> std::io::Result<()> {
        self.words.populate()
    }

    /// Wipes a page and returns its memory to the system.
    pub(super) fn release(&self, page: PageId) {
        let from = page.0 as usize * PAGE_WORDS;
        self.words.release(from..from + PAGE_WORDS);
    }

    /// The page after `page` in its chain.
    pub(super) fn next(&self, page: PageId) -> Result<PageId, SegmentEvicted> {
        let next = self.next.get(page.0 as usize).ok_or(SegmentEvicted)?.load(Ordering::Relaxed);
        if (next as usize) < self.next.len() { Ok(PageId(next)) } else { Err(SegmentEvicted) }
    }

    pub(super) fn link(&self, page: PageId, next: PageId) {
        self.next[page.0 as usize].store(next.0, Ordering::Relaxed);
    }

    fn page(&self, page: PageId) -> Result<&[AtomicU64], SegmentEvicted> {
        let from = page.0 as usize * PAGE_WORDS;
        self.words.get(from..from + PAGE_WORDS).ok_or(SegmentEvicted)
    }

    /// Fills `out` with the bytes at `at` and advances `at` behind them.
    ///
    /// The bytes are valid only if the stream is still alive after the copy. The caller checks this.
    pub(super) fn copy_out(&self, at: &mut Position, mut out: &mut [u8]) -> Result<(), SegmentEvicted> {
        while !out.is_empty() {
            if at.offset == PAGE_BYTES {
                *at = Position { page: self.next(at.page)?, offset: 0 };
            }
            let n = out.len().min(PAGE_BYTES - at.offset);
            let (now, rest) = out.split_at_mut(n);
            copy_from_words(self.page(at.page)?, at.offset, now);
            at.offset += n;
            out = rest;
        }
        Ok(())
    }

    /// The 16 bytes at `at` as two words. Returns `None` unless the page holds three words from the word of `at` on;
    /// use [`copy_out`](Self::copy_out) then.
    #[inline]
    pub(super) fn peek(&self, at: Position) -> Option<[u64; 2]> {
        let page = self.page(at.page).ok()?;
        let words: &[AtomicU64; 3] = page.get(at.offset / WORD_BYTES..)?.first_chunk()?;
        let [low, middle, high] = words.each_ref().map(|word| word.load(Ordering::Relaxed));
        let shift = (at.offset % WORD_BYTES) * 8;
        // Shift in two steps, because a shift of a `u64` by 64 bits is not allowed.
        Some([low >> shift | middle << 1 << (63 - shift), middle >> shift | high << 1 << (63 - shift)])
    }

    /// Prefetches a whole page.
    pub(super) fn expect(&self, page: PageId) {
        let words = self.page(page).unwrap_or_default();
        words.iter().step_by(LINE_WORDS).for_each(prefetch);
    }

    /// Advances `at` by `n` bytes.
    #[inline]
    pub(super) fn skip(&self, at: &mut Position, mut n: usize) -> Result<(), SegmentEvicted> {
        while at.offset + n > PAGE_BYTES {
            n -= PAGE_BYTES - at.offset;
            *at = Position { page: self.next(at.page)?, offset: 0 };
        }
        at.offset += n;
        Ok(())
    }
}

/// Position of a byte in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Page of the byte.
    pub(super) page: PageId,
    /// Byte offset in the page. [`PAGE_BYTES`] means the start of the next page.
    pub(super) offset: usize,
}

/// Copies `out.len()` bytes from byte `offset` of `page` on. All of them lie in this page.
fn copy_from_words(page: &[AtomicU64], offset: usize, out: &mut [u8]) {
    let shift = (offset % WORD_BYTES) * 8;
    let mut words = page[offset / WORD_BYTES..].iter().map(|word| word.load(Ordering::Relaxed));
    let mut chunks = out.chunks_exact_mut(WORD_BYTES);
    if shift == 0 {
        for (chunk, word) in (&mut chunks).zip(&mut words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        let rest = chunks.into_remainder();
        if let Some(word) = words.next() {
            rest.copy_from_slice(&word.to_le_bytes()[..rest.len()]);
        }
    } else {
        let mut low = words.next().unwrap_or(0);
        for (chunk, high) in (&mut chunks).zip(&mut words) {
            chunk.copy_from_slice(&(low >> shift | high << (64 - shift)).to_le_bytes());
            low = high;
        }
        let rest = chunks.into_remainder();
        let high = words.next().unwrap_or(0);
        rest.copy_from_slice(&(low >> shift | high << (64 - shift)).to_le_bytes()[..rest.len()]);
    }
}

/// The end of a stream, where the writer appends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    page: PageId,
    word: usize,
    /// The incomplete word. Its first `partial_bytes` bytes are the last bytes of the stream.
    partial: u64,
    partial_bytes: usize,
}

/// Stores as many of `chunks` as fit into `words`. The loop stores four words per turn, because the compiler does not
/// unroll loops over atomics.
fn copy_to_words(chunks: &[[u8; WORD_BYTES]], words: &[AtomicU64]) {
    let n = chunks.len().min(words.len());
    let (many_chunks, chunks) = chunks[..n].as_chunks::<4>();
    let (many_words, words) = words[..n].as_chunks::<4>();
    for (words, chunks) in many_words.iter().zip(many_chunks) {
        for (word, chunk) in words.iter().zip(chunks) {
            word.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
        }
    }
    for (word, chunk) in words.iter().zip(chunks) {
        word.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
    }
}

/// The first eight bytes as a word, padded with zeros if there are fewer.
#[inline]
fn first_word(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(word) => u64::from_le_bytes(*word),
        None => short_word(bytes),
    }
}

/// The last `n` bytes as a word, where `n` is less than eight.
#[inline]
fn last_word(bytes: &[u8], n: usize) -> u64 {
    match bytes.last_chunk() {
        Some(word) => u64::from_le_bytes(*word) >> ((WORD_BYTES - n) * 8),
        None => short_word(&bytes[bytes.len() - n..]),
    }
}

/// Fewer than eight bytes as a word, padded with zeros.
#[inline]
fn short_word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

impl Tail {
    pub(super) fn new(page: PageId) -> Self {
        Self { page, word: 0, partial: 0, partial_bytes: 0 }
    }

    /// Bytes left in the current page.
    pub(super) fn room(&self) -> usize {
        PAGE_BYTES - self.word * WORD_BYTES - self.partial_bytes
    }

    pub(super) fn page(&self) -> PageId {
        self.page
    }

    /// Appends `whole`. Continues in the linked next page at the end of a page.
    #[inline]
    pub(super) fn append(&mut self, pages: &Pages, whole: &[u8]) {
        let mut bytes = whole;
        if self.partial_bytes > 0 {
            // The shift discards the bytes that do not fit into the word.
            self.partial |= first_word(bytes) << (self.partial_bytes * 8);
            self.put(pages, self.partial);
            let n = bytes.len().min(WORD_BYTES - self.partial_bytes);
            self.partial_bytes += n;
            bytes = &bytes[n..];
            if self.partial_bytes < WORD_BYTES {
                return;
            }
            self.word += 1;
            self.partial = 0;
            self.partial_bytes = 0;
        }
        loop {
            let from = self.page.0 as usize * PAGE_WORDS;
            let words = &pages.words[from + self.word..from + PAGE_WORDS];
            let (chunks, rest) = bytes.as_chunks::<WORD_BYTES>();
            copy_to_words(chunks, words);
            let n = chunks.len().min(words.len());
            self.word += n;
            if n < chunks.len() {
                bytes = &bytes[n * WORD_BYTES..];
                self.go_on(pages);
                continue;
            }
            if !rest.is_empty() {
                self.partial = last_word(whole, rest.len());
                self.partial_bytes = rest.len();
                self.put(pages, self.partial);
            }
            return;
        }
    }

    /// Appends the low `n` bytes of `value`. `n` is at most eight, and the higher bytes are zero. An incomplete last
    /// word reaches memory only with the next [`append`](Self::append).
    #[inline]
    pub(super) fn push(&mut self, pages: &Pages, value: u64, n: usize) {
        let shift = self.partial_bytes * 8;
        self.partial |= value << shift;
        self.partial_bytes += n;
        if self.partial_bytes >= WORD_BYTES {
            self.put(pages, self.partial);
            self.word += 1;
            // Shift in two steps, because a shift of a `u64` by 64 bits is not allowed.
            self.partial = value >> 1 >> (63 - shift);
            self.partial_bytes -= WORD_BYTES;
        }
    }

    /// Stores the current word.
    #[inline]
    fn put(&mut self, pages: &Pages, word: u64) {
        if self.word == PAGE_WORDS {
            self.go_on(pages);
        }
        if let Some(at) = pages.words.get(self.page.0 as usize * PAGE_WORDS + self.word) {
            at.store(word, Ordering::Relaxed);
        }
    }

    /// Moves to the next page. The writer links all pages of a record before it writes the record.
    fn go_on(&mut self, pages: &Pages) {
        let next = pages.next(self.page);
        debug_assert!(next.is_ok(), "a record outgrew its pages");
        self.page = next.unwrap_or(self.page);
        self.word = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts() -> impl Strategy<Value = Vec<u8>> {
        let of = |lens: std::ops::Range<usize>| prop::collection::vec(any::<u8>(), lens);
        prop_oneof![of(0..30), of(0..3000)]
    }

    proptest! {
        #[test]
        fn a_stream_reads_back_as_written(parts in prop::collection::vec(parts(), 1..40), n_bytes in 1..=8usize) {
            let whole: Vec<u8> = parts.concat();
            let pages = Pages::new(64, Lock::No).unwrap();
            // A chain in a scattered order: 0, 37, 10, 47, …
            let chain: Vec<PageId> = (0..64).map(|i| PageId(i * 37 % 64)).collect();
            for pair in chain.windows(2) {
                pages.link(pair[0], pair[1]);
            }
            let mut tail = Tail::new(chain[0]);
            for part in &parts {
                // Write like a record: some numbers, then the bytes, which may be empty.
                let (numbers, bytes) = part.split_at(part.len().min(24));
                for number in numbers.chunks(n_bytes) {
                    tail.push(&pages, short_word(number), number.len());
                }
                tail.append(&pages, bytes);
            }
            let mut at = Position { page: chain[0], offset: 0 };
            for part in &parts {
                let mut out = vec![0; part.len()];
                pages.copy_out(&mut at, &mut out).unwrap();
                prop_assert_eq!(&out, part);
            }
            let mut at = Position { page: chain[0], offset: 0 };
            let half = whole.len() / 2;
            pages.skip(&mut at, half).unwrap();
            let mut out = vec![0; whole.len() - half];
            pages.copy_out(&mut at, &mut out).unwrap();
            prop_assert_eq!(&out[..], &whole[half..]);
        }
    }
}
