//! Finds out whether one of several literals occurs in some bytes, at the speed of memory where that is possible.

use std::collections::HashMap;

use aho_corasick::AhoCorasick;
use aho_corasick::packed;
use memchr::memmem;

use super::folded::Folded;

/// Literals up to which one vector search looks for all of them.
const FEW: usize = 64;
/// Bytes that are looked up together.
const GRAM: usize = 4;
/// The widest step from one lookup to the next.
const STRIDE_MAX: usize = 8;
/// Literals that share a gram. Where more do, its occurrence counts as that of a literal.
const SHARED_MAX: usize = 64;

/// A search for several literals.
#[derive(Debug)]
pub(super) enum Finder {
    One(Box<memmem::Finder<'static>>),
    Folded(Folded),
    Few(Box<packed::Searcher>),
    Grams(Grams),
    Many(AhoCorasick),
}

impl Finder {
    /// A search for these literals, none of which is empty. `None` if there is none, or if they are too large.
    pub(super) fn new(literals: &[Vec<u8>]) -> Option<Self> {
        let shortest = literals.iter().map(Vec::len).min().filter(|&len| len > 0)?;
        if let [literal] = literals {
            return Some(Self::One(Box::new(memmem::Finder::new(literal).into_owned())));
        }
        if let Some(folded) = Folded::new(literals) {
            return Some(Self::Folded(folded));
        }
        let packed = (literals.len() <= FEW).then(|| packed::Searcher::new(literals)).flatten();
        if let Some(packed) = packed {
            return Some(Self::Few(Box::new(packed)));
        }
        if shortest >= GRAM {
            return Some(Self::Grams(Grams::new(literals, shortest)));
        }
        AhoCorasick::new(literals).ok().map(Self::Many)
    }

    /// Whether a literal occurs in `data`, or something that is as good as one.
    pub(super) fn is_in(&self, data: &[u8]) -> bool {
        match self {
            Self::One(finder) => finder.find(data).is_some(),
            Self::Folded(folded) => folded.is_in(data),
            Self::Few(packed) => packed.find(data).is_some(),
            Self::Grams(grams) => grams.is_in(data),
            Self::Many(automaton) => automaton.is_match(data),
        }
    }
}

/// A lookup of four bytes at every `stride`th place. Each literal has `stride` grams in a row in the table, so that one of
/// them lies at a place that is looked at, wherever the literal occurs.
#[derive(Debug)]
pub(super) struct Grams {
    stride: usize,
    /// Shifts a hash down to a place in `bits`.
    shift: u32,
    bits: Vec<u64>,
    /// Where a gram lies: literal and offset.
    places: HashMap<u32, Vec<(u32, u32)>, foldhash::fast::RandomState>,
    literals: Vec<Vec<u8>>,
}

impl Grams {
    fn new(literals: &[Vec<u8>], shortest: usize) -> Self {
        let stride = (shortest - GRAM + 1).min(STRIDE_MAX);
        let mut frequency: HashMap<u32, u32, foldhash::fast::RandomState> = HashMap::default();
        for gram in literals.iter().flat_map(|literal| literal.windows(GRAM)).filter_map(gram) {
            *frequency.entry(gram).or_default() += 1;
        }
        let mut places: HashMap<u32, Vec<(u32, u32)>, _> = HashMap::default();
        for (number, literal) in (0u32..).zip(literals) {
            // Literals often begin alike, so the rarest grams of each are taken.
            let of = |at: usize| literal.get(at..).and_then(gram).and_then(|gram| frequency.get(&gram)).copied();
            let last = literal.len().saturating_sub(GRAM - 1 + stride);
            let cost = |from: usize| (from..from + stride).filter_map(of).map(u64::from).sum::<u64>();
            let from = (0..=last).min_by_key(|&from| cost(from)).unwrap_or(0);
            for at in from..from + stride {
                let Some(gram) = literal.get(at..).and_then(gram) else { continue };
                let there: &mut Vec<(u32, u32)> = places.entry(gram).or_default();
                if there.len() <= SHARED_MAX {
                    there.push((number, u32::try_from(at).unwrap_or(0)));
                }
            }
        }
        // A thirtieth of the bits is set, so that most lookups end there.
        let width = (places.len() * 32).next_power_of_two().ilog2().clamp(12, 21);
        let mut grams =
            Self { stride, shift: 32 - width, bits: vec![0; 1 << (width - 6)], places, literals: literals.to_vec() };
        let all: Vec<u32> = grams.places.keys().copied().collect();
        for gram in all {
            let bit = grams.bit(gram);
            grams.bits[bit / 64] |= 1 << (bit % 64);
        }
        grams
    }

    #[inline]
    fn bit(&self, gram: u32) -> usize {
        (gram.wrapping_mul(0x9e37_79b1) >> self.shift) as usize
    }

    fn is_in(&self, data: &[u8]) -> bool {
        let mut at = 0;
        while let Some(gram) = data.get(at..at + GRAM).and_then(gram) {
            let bit = self.bit(gram);
            if self.bits.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 != 0)
                && self.is_literal(gram, at, data)
            {
                return true;
            }
            at += self.stride;
        }
        false
    }

    #[cold]
    fn is_literal(&self, gram: u32, at: usize, data: &[u8]) -> bool {
        let Some(places) = self.places.get(&gram) else { return false };
        places.len() > SHARED_MAX
            || places.iter().any(|&(number, offset)| {
                let from = at.checked_sub(offset as usize);
                let literal = self.literals.get(number as usize);
                from.and_then(|from| data.get(from..))
                    .zip(literal)
                    .is_some_and(|(data, literal)| data.starts_with(literal))
            })
    }
}

#[inline]
fn gram(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|four| u32::from_le_bytes(*four))
}
