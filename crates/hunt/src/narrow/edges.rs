//! Tells whether a packet can hold a part of a literal that goes on in other packets.
//!
//! If a literal is cut once, one of its halves is whole. If it is cut more than once, a packet lies wholly within it. So it
//! is enough to compare the start of each packet with the second halves of literals, its end with their first halves, and
//! short packets with their middle.

use std::collections::HashMap;

use memchr::memmem;

/// Literals with the same bytes at their cut. Where more have them, any packet with these bytes counts.
const SHARED_MAX: usize = 64;
/// Bytes at a cut that are looked up.
const KEY_BYTES_MAX: usize = 4;

/// The parts of literals at cuts.
#[derive(Debug)]
pub(super) struct Edges {
    /// Bytes of a key.
    key_bytes: usize,
    /// By the last bytes before a cut: literals, and where they are cut.
    ends: Table,
    /// By the first bytes after a cut.
    starts: Table,
    literals: Vec<Vec<u8>>,
    /// All literals, one after another.
    joined: Vec<u8>,
    longest: usize,
}

type Table = HashMap<u32, Vec<(u32, u32)>, foldhash::fast::RandomState>;

impl Edges {
    /// The edges of these literals, none of which is empty.
    pub(super) fn new(literals: &[Vec<u8>]) -> Self {
        let halves = literals.iter().filter(|literal| literal.len() > 1).map(|literal| literal.len().div_ceil(2));
        let key_bytes = halves.min().unwrap_or(1).min(KEY_BYTES_MAX);
        let (mut ends, mut starts) = (Table::default(), Table::default());
        let add = |table: &mut Table, bytes: Option<&[u8]>, number: u32, cut: usize| {
            let (Some(bytes), Ok(cut)) = (bytes, u32::try_from(cut)) else { return };
            let there = table.entry(key(bytes)).or_default();
            if there.len() <= SHARED_MAX {
                there.push((number, cut));
            }
        };
        for (number, literal) in (0u32..).zip(literals) {
            let half = literal.len().div_ceil(2);
            for cut in half..literal.len() {
                add(&mut ends, literal.get(cut - key_bytes..cut), number, cut);
            }
            for cut in 1..=literal.len() - half {
                add(&mut starts, literal.get(cut..cut + key_bytes), number, cut);
            }
        }
        let longest = literals.iter().map(Vec::len).max().unwrap_or(0);
        Self { key_bytes, ends, starts, literals: literals.to_vec(), joined: literals.concat(), longest }
    }

    /// Whether the payload of a packet of a stream may begin, end or lie within a literal.
    pub(super) fn may_cut(&self, payload: &[u8]) -> bool {
        let len = payload.len();
        if len < self.longest && memmem::find(&self.joined, payload).is_some() {
            return true;
        }
        if len < self.key_bytes {
            return false;
        }
        let at_end = self.ends.get(&key(&payload[len - self.key_bytes..])).is_some_and(|places| {
            places.len() > SHARED_MAX || places.iter().any(|&(number, cut)| payload.ends_with(self.part(number, cut).0))
        });
        at_end
            || self.starts.get(&key(&payload[..self.key_bytes])).is_some_and(|places| {
                places.len() > SHARED_MAX
                    || places.iter().any(|&(number, cut)| payload.starts_with(self.part(number, cut).1))
            })
    }

    /// Both parts of a literal at a cut.
    fn part(&self, number: u32, cut: u32) -> (&[u8], &[u8]) {
        let literal = self.literals.get(number as usize).map_or(&[][..], Vec::as_slice);
        literal.split_at_checked(cut as usize).unwrap_or_default()
    }
}

fn key(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |key, &byte| key << 8 | u32::from(byte))
}
