//! Packets that the decoder could not open, by chunk: the other sections do not have what such packets carry, so no
//! question can deny it.
//!
//! The section has the number of kinds and their texts, then for each chunk with such packets its number, the number of
//! its kinds, and for each of these the number of the kind and of the packets.

use std::collections::BTreeMap;

use super::varint::{self, VarintReader};
use decode::Unopened;

/// Kinds that a chunk counts apart. An attacker can choose ethertypes.
const KINDS_MAX: usize = 16;
/// The text of further kinds.
const OTHERS: &str = "of other kinds";

/// Counts of packets that were not opened, by kind. The text says what they are: `with ESP (encrypted)`.
pub type ClosedPackets = BTreeMap<String, u64>;

/// The counts of an unsealed file.
#[derive(Clone, Debug, Default)]
pub(super) struct ClosedCounts {
    /// By chunk and kind; `None` for further kinds.
    counts: BTreeMap<(u16, Option<Unopened>), u64>,
}

impl ClosedCounts {
    pub(super) fn add(&mut self, chunk: u16, kind: Unopened) {
        if let Some(count) = self.counts.get_mut(&(chunk, Some(kind))) {
            *count += 1;
            return;
        }
        let kinds = self.counts.range((chunk, None)..=(chunk, Some(LAST))).count();
        *self.counts.entry((chunk, Some(kind).filter(|_| kinds < KINDS_MAX))).or_default() += 1;
    }

    /// The counts of the chunks for which `is_wanted` returns true.
    pub(super) fn sum(&self, is_wanted: &dyn Fn(usize) -> bool, sum: &mut ClosedPackets) {
        for ((_, kind), packets) in self.counts.iter().filter(|((chunk, _), _)| is_wanted((*chunk).into())) {
            *sum.entry(text(*kind)).or_default() += packets;
        }
    }

    /// The section; empty if every packet was opened.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let kinds: Vec<Option<Unopened>> =
            self.counts.keys().map(|(_, kind)| *kind).collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        if kinds.is_empty() {
            return out;
        }
        varint::put(&mut out, kinds.len() as u128);
        for kind in &kinds {
            let text = text(*kind);
            varint::put(&mut out, text.len() as u128);
            out.extend_from_slice(text.as_bytes());
        }
        let mut chunks: BTreeMap<u16, Vec<(usize, u64)>> = BTreeMap::new();
        for ((chunk, kind), packets) in &self.counts {
            let number = kinds.binary_search(kind).unwrap_or(0);
            chunks.entry(*chunk).or_default().push((number, *packets));
        }
        for (chunk, kinds) in chunks {
            varint::put(&mut out, chunk.into());
            varint::put(&mut out, kinds.len() as u128);
            for (kind, packets) in kinds {
                varint::put(&mut out, kind as u128);
                varint::put(&mut out, packets.into());
            }
        }
        out
    }
}

/// The greatest kind.
const LAST: Unopened = Unopened { header: decode::Header::Named("\u{10ffff}"), reason: decode::Reason::TooDeep };

fn text(kind: Option<Unopened>) -> String {
    kind.map_or_else(|| OTHERS.to_owned(), |kind| kind.to_string())
}

/// Adds the counts of the chunks for which `is_wanted` returns true. `None` if the section is damaged.
pub fn read_closed(payload: &[u8], is_wanted: &dyn Fn(usize) -> bool, sum: &mut ClosedPackets) -> Option<()> {
    let mut numbers = VarintReader(payload);
    if payload.is_empty() {
        return Some(());
    }
    let mut texts = Vec::new();
    for _ in 0..numbers.next_u64()? {
        let len = usize::try_from(numbers.next_u64()?).ok()?;
        let (text, rest) = numbers.0.split_at_checked(len)?;
        texts.push(std::str::from_utf8(text).ok()?);
        numbers.0 = rest;
    }
    while !numbers.0.is_empty() {
        let chunk = usize::try_from(numbers.next_u64()?).ok()?;
        for _ in 0..numbers.next_u64()? {
            let (kind, packets) = (usize::try_from(numbers.next_u64()?).ok()?, numbers.next_u64()?);
            let text = texts.get(kind)?;
            if is_wanted(chunk) {
                let count = sum.entry((*text).to_owned()).or_default();
                *count = count.saturating_add(packets);
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use decode::{Header, Reason};
    use proptest::prelude::*;

    #[test]
    fn counts_are_read_as_written_and_many_kinds_share_one_count() {
        let mut counts = ClosedCounts::default();
        let esp = Unopened { header: Header::Named("ESP"), reason: Reason::Encrypted };
        for _ in 0..3 {
            counts.add(0, esp);
        }
        for ethertype in 0..100 {
            counts.add(2, Unopened { header: Header::Ethertype(ethertype), reason: Reason::Unsupported });
        }
        let encoded = counts.encode();
        let all = |is_wanted: &dyn Fn(usize) -> bool| {
            let (mut open, mut sealed) = (ClosedPackets::new(), ClosedPackets::new());
            counts.sum(is_wanted, &mut open);
            read_closed(&encoded, is_wanted, &mut sealed).unwrap();
            assert_eq!(open, sealed);
            open
        };
        assert_eq!(all(&|chunk| chunk == 0), ClosedPackets::from([("with ESP (encrypted)".to_owned(), 3)]));
        let many = all(&|chunk| chunk == 2);
        assert_eq!((many.len(), many[OTHERS], many.values().sum::<u64>()), (KINDS_MAX + 1, 84, 100));
        assert!(all(&|_| false).is_empty());
        assert!(ClosedCounts::default().encode().is_empty());
    }

    proptest! {
        #[test]
        fn nonsense_is_read_without_panic(bytes: Vec<u8>) {
            let _ = read_closed(&bytes, &|_| true, &mut ClosedPackets::new());
        }
    }
}
