//! Reads a file from start to end by its commits, without its index: to complete it after a crash, and to verify it.
//!
//! A stretch that is torn, lost or changed has no valid commit. The scan reports the stretch and searches for the next
//! commit, which records how many bytes before it are confirmed.

use std::io;
use std::ops::Range;

use crate::blocks::{self, Block};
use crate::coding::{Coding, Decoder, UNIT_BYTES_MAX, next_unit};
use crate::layout::{COMMIT_BYTES, COMMITTED_BYTES_MAX, Commit, FileId};
use crate::medium::Medium;

/// Bytes that a scan reads at once.
const READ_BYTES: usize = 1 << 20;
/// Limits the work of checksums to this multiple of the length of the file, however many commits it seems to contain.
const CHECKED_FACTOR: u64 = 4;

/// Bytes that a commit confirms.
#[derive(Clone, Copy, Debug)]
pub struct CommittedRange<'a> {
    /// Range of the file that holds these bytes and the commit.
    pub offset: u64,
    /// Length in the file, including the commit.
    pub len: u64,
    /// The confirmed bytes, before compression.
    pub plain: &'a [u8],
    /// The commit.
    pub commit: Commit,
}

/// The result of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanReport {
    /// The file, from its first valid commit.
    pub id: Option<FileId>,
    /// End of the last confirmed bytes.
    pub end: u64,
    /// Stretches without a valid commit before that end.
    pub damaged: Vec<Range<u64>>,
    /// Number of the commit that would come next.
    pub next_commit: u32,
    /// Number of missing commits, computed from the numbers of the others.
    pub missing_commits: u64,
}

impl ScanReport {
    fn confirm(&mut self, confirmed: &CommittedRange<'_>) {
        if confirmed.offset > self.end {
            self.damaged.push(self.end..confirmed.offset);
        }
        let number = confirmed.commit.number;
        self.missing_commits += u64::from(number.saturating_sub(self.next_commit));
        self.next_commit = number.saturating_add(1);
        self.end = confirmed.offset + confirmed.len;
    }
}

/// Scans the first `len` bytes of file number `counter`, and calls `each` for all confirmed bytes.
///
/// # Errors
///
/// If the medium cannot read. Damage is no error.
pub fn scan<M: Medium>(
    medium: &M,
    file: &M::File,
    len: u64,
    (counter, coding): (u64, Coding),
    each: &mut impl FnMut(CommittedRange<'_>),
) -> io::Result<ScanReport> {
    let window = Window { medium, file, len, base: 0, bytes: Vec::new() };
    let mut scan = Scan { window, counter, scanned: ScanReport::default(), checked_bytes: 0, each };
    if coding.is_plain() {
        scan.plain()?
    } else {
        scan.units(coding)?
    }
    Ok(scan.scanned)
}

/// A part of the file in memory.
struct Window<'m, M: Medium> {
    medium: &'m M,
    file: &'m M::File,
    len: u64,
    base: u64,
    bytes: Vec<u8>,
}

impl<M: Medium> Window<'_, M> {
    /// Drops the bytes before `offset`.
    fn advance(&mut self, offset: u64) {
        let dropped = usize::try_from(offset.saturating_sub(self.base)).unwrap_or(usize::MAX).min(self.bytes.len());
        // Moving the rest is cheap only if it is small compared with the dropped bytes.
        if dropped >= READ_BYTES / 2 || dropped == self.bytes.len() {
            self.bytes.drain(..dropped);
            self.base += dropped as u64;
        }
    }

    /// The bytes from `offset` on: at least `wanted`, unless the file ends before.
    fn at(&mut self, offset: u64, wanted: usize) -> io::Result<&[u8]> {
        let from = usize::try_from(offset - self.base).unwrap_or(usize::MAX);
        while self.bytes.len() < from.saturating_add(wanted) {
            let end = self.base + self.bytes.len() as u64;
            let more = usize::try_from(self.len.saturating_sub(end)).unwrap_or(usize::MAX).min(READ_BYTES);
            if more == 0 {
                break;
            }
            let start = self.bytes.len();
            self.bytes.resize(start + more, 0);
            let read = match self.medium.read(self.file, end, &mut self.bytes[start..]) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.bytes.truncate(start);
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.bytes.truncate(start + read);
            if read == 0 {
                break;
            }
        }
        Ok(self.bytes.get(from..).unwrap_or_default())
    }
}

struct Scan<'m, M: Medium, F> {
    window: Window<'m, M>,
    counter: u64,
    scanned: ScanReport,
    /// Bytes over which checksums were computed.
    checked_bytes: u64,
    each: &'m mut F,
}

impl<M: Medium, F: FnMut(CommittedRange<'_>)> Scan<'_, M, F> {
    /// Whether the commit belongs to this file, which the first commit identifies.
    fn is_ours(&self, commit: &Commit) -> bool {
        let known = self.scanned.id.is_none_or(|id| id == commit.id);
        known && commit.id.counter == self.counter && commit.len as usize <= COMMITTED_BYTES_MAX
    }

    /// Whether the commit confirms `data`. Computes a limited number of checksums in all.
    fn confirms(&mut self, commit: &Commit, data: &[u8]) -> bool {
        self.checked_bytes += data.len() as u64;
        self.checked_bytes <= CHECKED_FACTOR.saturating_mul(self.window.len).saturating_add(1 << 20)
            && commit.confirms(commit.id, data)
    }

    fn found(&mut self, confirmed: CommittedRange<'_>) {
        self.scanned.id.get_or_insert(confirmed.commit.id);
        self.scanned.confirm(&confirmed);
        (self.each)(confirmed);
    }

    fn plain(&mut self) -> io::Result<()> {
        const NEEDED: usize = COMMITTED_BYTES_MAX + COMMIT_BYTES;
        let mut start = 0;
        loop {
            self.window.advance(start);
            let available = self.window.at(start, NEEDED)?.len();
            let at_end = available < NEEDED;
            // Taken out of `self`, because findings are reported while the window is borrowed.
            let held = std::mem::take(&mut self.window.bytes);
            let base = self.window.base;
            let mut from = usize::try_from(start - base).unwrap_or(held.len());
            while from < held.len() && (at_end || held.len() - from >= NEEDED) {
                from += self.plain_step(base + from as u64, &held[from..]);
            }
            start = base + from as u64;
            self.window.bytes = held;
            if at_end {
                return Ok(());
            }
        }
    }

    /// Reads the bytes up to the next valid commit, or skips unconfirmed bytes. Returns the number of bytes.
    fn plain_step(&mut self, start: u64, bytes: &[u8]) -> usize {
        let found = walk(bytes).filter(|(_, commit)| self.is_ours(commit));
        if let Some((at, commit)) = found
            && self.confirms(&commit, &bytes[..at])
        {
            let len = at + COMMIT_BYTES;
            self.found(CommittedRange { offset: start, len: len as u64, plain: &bytes[..at], commit });
            return len;
        }
        match self.search(start, bytes) {
            Some(end) => usize::try_from(end - start).unwrap_or(bytes.len()),
            // A later commit can confirm at most the second half of these bytes.
            None if bytes.len() > COMMITTED_BYTES_MAX => (bytes.len() - COMMITTED_BYTES_MAX) / 4 * 4,
            None => bytes.len(),
        }
        .max(4)
        .min(bytes.len())
    }

    /// Searches for the next commit that confirms bytes of this window, and returns its end.
    fn search(&mut self, start: u64, bytes: &[u8]) -> Option<u64> {
        for at in (4..bytes.len()).step_by(4) {
            let Some(commit) = Commit::read(&bytes[at..]).filter(|commit| self.is_ours(commit)) else { continue };
            let Some(from) = at.checked_sub(commit.len as usize) else { continue };
            if self.confirms(&commit, &bytes[from..at]) {
                let len = (at - from + COMMIT_BYTES) as u64;
                self.found(CommittedRange { offset: start + from as u64, len, plain: &bytes[from..at], commit });
                return Some(start + (at + COMMIT_BYTES) as u64);
            }
        }
        None
    }

    fn units(&mut self, coding: Coding) -> io::Result<()> {
        const NEEDED: usize = UNIT_BYTES_MAX;
        let mut decoder = Decoder::new(self.window.medium.keys());
        // Content of the units since the last commit, and the start of each unit.
        let mut plain = Vec::new();
        let mut begins: Vec<(usize, u64)> = Vec::new();
        let mut at = 0;
        loop {
            self.window.advance(at);
            let bytes = self.window.at(at, NEEDED)?;
            if bytes.is_empty() {
                return Ok(());
            }
            begins.push((plain.len(), at));
            let Some(len) = decoder.unit(coding, bytes, &mut plain) else {
                plain.clear();
                begins.clear();
                let Some(skipped) = next_unit(coding, bytes) else {
                    if bytes.len() < NEEDED {
                        return Ok(());
                    }
                    at += (bytes.len() / 2) as u64;
                    continue;
                };
                at += skipped as u64;
                continue;
            };
            at += len as u64;
            let end = plain.len().saturating_sub(COMMIT_BYTES);
            if let Some(commit) = Commit::read(&plain[end..]).filter(|commit| self.is_ours(commit)) {
                let from = end.checked_sub(commit.len as usize);
                let begin = begins.iter().find(|(begin, _)| Some(*begin) == from).copied();
                // Each byte is read once here, so that the checksums need no limit.
                if let Some((from, offset)) = begin
                    && commit.confirms(commit.id, &plain[from..end])
                {
                    self.found(CommittedRange { offset, len: at - offset, plain: &plain[from..end], commit });
                }
                plain.clear();
                begins.clear();
            } else if plain.len() > COMMITTED_BYTES_MAX + COMMIT_BYTES {
                plain.clear();
                begins.clear();
            }
        }
    }
}

/// The position of the first commit, reached over whole blocks.
fn walk(bytes: &[u8]) -> Option<(usize, Commit)> {
    let mut at = 0;
    loop {
        let (block, len) = blocks::next(&bytes[at..])?;
        if let Block::Commit(commit) = block {
            return Some((at, commit));
        }
        at += len;
        if at > COMMITTED_BYTES_MAX {
            return None;
        }
    }
}
