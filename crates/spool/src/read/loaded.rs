//! A chunk in memory: those of its packets that commits confirm, in time order.

use std::cmp::Reverse;

use crate::blocks::{self, Block};
use crate::index::{Chunk, ChunkSet};
use crate::layout::{COMMIT_BYTES, Commit, FileId};
use base::time::Timestamp;

/// A chunk in memory.
#[derive(Debug)]
pub(super) struct LoadedChunk {
    pub(super) file: usize,
    pub(super) plain: Vec<u8>,
    /// Time and position of its packets, latest first.
    pub(super) packets: Vec<(Timestamp, usize)>,
    pub(super) id: FileId,
}

impl LoadedChunk {
    pub(super) fn order(&self) -> (Timestamp, FileIdOrder, usize) {
        let (time, at) = self.packets.last().copied().unwrap_or((Timestamp::MAX, 0));
        (time, (self.id.counter, self.id.epoch), at)
    }
}

type FileIdOrder = (u64, u64);

impl PartialEq for LoadedChunk {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}
impl Eq for LoadedChunk {}
impl PartialOrd for LoadedChunk {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for LoadedChunk {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// The chunks that are in the set.
pub(super) fn keep(mut chunks: Vec<Chunk>, set: Option<&ChunkSet>) -> Vec<Chunk> {
    if let Some(set) = set {
        let mut number = 0;
        chunks.retain(|_| {
            number += 1;
            set.contains(number - 1)
        });
    }
    chunks
}

/// Time and position of the packets in confirmed bytes, latest first, and the number of damaged stretches.
pub(super) fn packets_of(
    plain: &[u8],
    id: FileId,
    window: (Timestamp, Timestamp),
    interfaces: usize,
) -> (Vec<(Timestamp, usize)>, u64) {
    let (mut packets, mut damaged) = (Vec::new(), 0);
    let mut start = 0;
    while start < plain.len() {
        let (from, at, commit) = match blocks::commits(&plain[start..]).next() {
            Some((data, commit)) if commit.confirms(id, data) => (start, start + data.len(), commit),
            _ => {
                damaged += 1;
                match next_confirmed(plain, start, id) {
                    Some(found) => found,
                    None => break,
                }
            }
        };
        start = at + COMMIT_BYTES;
        if commit.times.is_none_or(|(oldest, newest)| oldest > window.1 || newest < window.0) {
            continue;
        }
        let mut at_block = from;
        while let Some((block, len)) = blocks::next(&plain[at_block..at]) {
            if let Block::Packet(packet) = block
                && window.0 <= packet.time
                && packet.time <= window.1
                && (packet.interface as usize) < interfaces
            {
                packets.push((packet.time, at_block));
            }
            at_block += len;
        }
    }
    packets.sort_by_key(|(time, at)| Reverse((*time, *at)));
    (packets, damaged)
}

/// Start and end of the next bytes after `start` that a commit confirms, and the commit. Tries only a few commits.
fn next_confirmed(plain: &[u8], start: usize, id: FileId) -> Option<(usize, usize, Commit)> {
    const TRIED_MAX: usize = 16;
    (start + 4..plain.len())
        .step_by(4)
        .filter_map(|at| Some((at, Commit::read(&plain[at..])?)))
        .take(TRIED_MAX)
        .find_map(|(at, commit)| {
            let from = at.checked_sub(commit.len as usize).filter(|from| *from >= start)?;
            commit.confirms(id, &plain[from..at]).then_some((from, at, commit))
        })
}
