//! Finds literals in upper and lower case, as expressions with `(?i)` ask for them, at the speed of memory.
//!
//! Two bytes of a literal, at their distance, are compared with every place of the data; the compiler makes vector
//! instructions of that. Few places have both bytes, and there the literals are compared.

use std::collections::BTreeMap;

/// Literals that differ in more than case, at most.
const LITERALS_MAX: usize = 16;
/// Passes over the data at most.
const PAIRS_MAX: usize = 3;
/// The largest distance between both bytes.
const DISTANCE_MAX: usize = 8;
/// Places that are compared at once.
const BLOCK: usize = 32;
/// The bit in which upper and lower case differ. Some other bytes differ in it, too, so that a place with both bytes is only
/// a place to look at.
const CASE: u8 = 0x20;
/// Bytes of text and of protocols, the most frequent first.
const FREQUENT: &[u8] = b"\0 etaoinsrhldcump\xffgfyb1w2,0v/.3=4:5-678\"9\r\nk<>;&_x";

/// A literal in lower case, and the place of the pair's first byte in it.
type PlacedLiteral = (Vec<u8>, usize);

/// A search for literals in upper and lower case.
#[derive(Debug)]
pub(super) struct Folded {
    pairs: Vec<Pair>,
}

/// Two bytes at a distance, and the literals that have them.
#[derive(Debug)]
struct Pair {
    bytes: [u8; 2],
    distance: usize,
    literals: Vec<PlacedLiteral>,
}

/// The literals in lower case, if most of them differ in case alone, and few remain.
pub(super) fn fold(literals: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let mut folded: Vec<Vec<u8>> = literals.iter().map(|literal| literal.to_ascii_lowercase()).collect();
    folded.sort_unstable();
    folded.dedup();
    (folded.len() <= LITERALS_MAX && folded.len() * 2 <= literals.len()).then_some(folded)
}

impl Folded {
    /// A search for these literals, if most of them differ in case alone, and few passes find them.
    pub(super) fn new(literals: &[Vec<u8>]) -> Option<Self> {
        let mut folded = fold(literals)?;
        let mut pairs = Vec::new();
        while !folded.is_empty() {
            let pair = Pair::of_most(&folded).filter(|_| pairs.len() < PAIRS_MAX)?;
            folded.retain(|literal| !pair.literals.iter().any(|(found, _)| found == literal));
            pairs.push(pair);
        }
        Some(Self { pairs })
    }

    /// Whether a literal occurs in `data`, in upper or lower case.
    pub(super) fn is_in(&self, data: &[u8]) -> bool {
        self.pairs.iter().any(|pair| pair.is_in(data))
    }
}

impl Pair {
    /// The pair that most of the literals have; of several, the rarest.
    fn of_most(literals: &[Vec<u8>]) -> Option<Self> {
        let mut candidates: BTreeMap<([u8; 2], usize), Vec<PlacedLiteral>> = BTreeMap::new();
        for literal in literals {
            for (at, &first) in literal.iter().enumerate() {
                for (distance, &second) in literal.iter().skip(at).enumerate().skip(1).take(DISTANCE_MAX) {
                    let of = candidates.entry(([first | CASE, second | CASE], distance)).or_default();
                    if of.last().is_none_or(|(last, _)| last != literal) {
                        of.push((literal.clone(), at));
                    }
                }
            }
        }
        let best = candidates.into_iter().min_by_key(|((bytes, distance), literals)| {
            (std::cmp::Reverse(literals.len()), frequency(bytes[0]) * frequency(bytes[1]), *distance)
        });
        best.map(|((bytes, distance), literals)| Self { bytes, distance, literals })
    }

    fn is_in(&self, data: &[u8]) -> bool {
        let Some(behind) = data.get(self.distance..) else { return false };
        let (firsts, _) = data.as_chunks::<BLOCK>();
        let (seconds, rest) = behind.as_chunks::<BLOCK>();
        for (number, (first, second)) in firsts.iter().zip(seconds).enumerate() {
            let from = number * BLOCK;
            if has_both(first, second, self.bytes) && (from..from + BLOCK).any(|at| self.is_at(data, at)) {
                return true;
            }
        }
        let from = behind.len() - rest.len();
        (from..behind.len()).any(|at| self.is_at(data, at))
    }

    /// Whether a literal of the pair lies where its first byte is at `at`.
    fn is_at(&self, data: &[u8], at: usize) -> bool {
        let is = |at: usize, byte: u8| data.get(at).is_some_and(|there| there | CASE == byte);
        is(at, self.bytes[0])
            && is(at + self.distance, self.bytes[1])
            && self.literals.iter().any(|(literal, place)| {
                let from = at.checked_sub(*place);
                let there = from.and_then(|from| data.get(from..from + literal.len()));
                there.is_some_and(|there| there.eq_ignore_ascii_case(literal))
            })
    }
}

/// Whether one of the places has both bytes. Without a branch for each place, so that it becomes vector instructions.
#[inline]
fn has_both(first: &[u8; BLOCK], second: &[u8; BLOCK], bytes: [u8; 2]) -> bool {
    let mut both = 0;
    for (first, second) in first.iter().zip(second) {
        both |= u8::from(first | CASE == bytes[0]) & u8::from(second | CASE == bytes[1]);
    }
    both != 0
}

/// How frequent a byte is, in a rough order.
fn frequency(byte: u8) -> usize {
    let place = |byte: u8| FREQUENT.iter().position(|&frequent| frequent == byte);
    // Of both bytes that fold to this one, the more frequent.
    let places = [place(byte), place(byte & !CASE)].into_iter().flatten().min();
    FREQUENT.len() + 1 - places.unwrap_or(FREQUENT.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn variants(text: &str) -> Vec<Vec<u8>> {
        vec![text.to_lowercase().into(), text.to_uppercase().into(), text.into()]
    }

    #[test]
    fn literals_that_differ_in_more_than_case_are_not_folded() {
        assert!(Folded::new(&[b"alpha".to_vec(), b"beta".to_vec()]).is_none());
        assert!(Folded::new(&variants("Password")).is_some());
        let many: Vec<Vec<u8>> = (0..20).flat_map(|n| variants(&format!("Word{n}x"))).collect();
        assert!(Folded::new(&many).is_none(), "a search for many literals is faster otherwise");
    }

    proptest! {
        #[test]
        fn a_literal_is_found_at_every_place_and_in_every_case(
            word in "[a-cA-C=_{\\[]{3,9}", before in "[abcABC=\\[ ]{0,80}", after in "[abcABC=\\[ ]{0,80}", mix in any::<u16>(),
        ) {
            let folded = Folded::new(&variants(&word));
            prop_assume!(folded.is_some());
            let folded = folded.unwrap();
            let cased: String = word
                .chars()
                .enumerate()
                .map(|(n, c)| if mix >> n & 1 == 0 { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() })
                .collect();
            let with = format!("{before}{cased}{after}");
            prop_assert!(folded.is_in(with.as_bytes()));
            let text = format!("{before}{after}");
            let there = text.to_ascii_lowercase().contains(&word.to_ascii_lowercase());
            prop_assert_eq!(folded.is_in(text.as_bytes()), there);
        }
    }
}
