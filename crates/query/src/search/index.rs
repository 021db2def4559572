//! An index of selectors, so that a packet is compared only with the selectors of its own endpoints or Community ID.

use std::collections::HashMap;
use std::net::IpAddr;

use super::target::{SearchTarget, Selector};
use base::time::Timestamp;
use engine::session::SessionKey;
use engine::session::community_id::CommunityId;
use engine::session::key::Side;

/// Selectors by target. Selectors with the same target share one entry, ordered by their windows.
#[derive(Debug, Default)]
pub(super) struct Index {
    patterns: HashMap<Pattern, Windows>,
    /// The combinations of key parts that the patterns name. Only a few combinations occur.
    shapes: Vec<Shape>,
    ids: HashMap<CommunityId, Windows>,
    seed: u16,
}

/// A flow in one direction. A port or protocol of 0 and a missing `b` match anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pattern {
    a: IpAddr,
    a_port: u16,
    b: Option<IpAddr>,
    b_port: u16,
    protocol: u8,
}

/// Which parts a pattern names besides the first address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    a_port: bool,
    b: bool,
    b_port: bool,
    protocol: bool,
}

impl Index {
    pub(super) fn new(selectors: &[Selector], seed: u16) -> Self {
        let mut index = Self { seed, ..Self::default() };
        for (number, selector) in (0u32..).zip(selectors) {
            let pattern = match &selector.target {
                SearchTarget::CommunityId(id) => {
                    index.ids.entry(*id).or_default().add(selector, number);
                    continue;
                }
                SearchTarget::Host(host) => Pattern { a: *host, a_port: 0, b: None, b_port: 0, protocol: 0 },
                SearchTarget::Flow(flow) => Pattern {
                    a: flow.a.0,
                    a_port: flow.a.1,
                    b: Some(flow.b.0),
                    b_port: flow.b.1,
                    protocol: flow.protocol.unwrap_or(0),
                },
            };
            let shape = Shape {
                a_port: pattern.a_port != 0,
                b: pattern.b.is_some(),
                b_port: pattern.b_port != 0,
                protocol: pattern.protocol != 0,
            };
            if !index.shapes.contains(&shape) {
                index.shapes.push(shape);
            }
            index.patterns.entry(pattern).or_default().add(selector, number);
        }
        for windows in index.patterns.values_mut().chain(index.ids.values_mut()) {
            windows.sort();
        }
        index
    }

    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty() && self.ids.is_empty()
    }

    /// Adds the indices of the selectors that match a session or packet that lasted from `first` to `last`. Sorts
    /// `hits` and removes duplicates.
    pub(super) fn matching(&self, key: &SessionKey, first: Timestamp, last: Timestamp, hits: &mut Vec<u32>) {
        for side in [Side::Low, Side::High] {
            let (a, b) = (key.endpoint(side), key.endpoint(side.other()));
            let (Some(a_ip), Some(b_ip)) = (a.ip, b.ip) else { return };
            for shape in &self.shapes {
                let pattern = Pattern {
                    a: a_ip,
                    a_port: if shape.a_port { a.port } else { 0 },
                    b: shape.b.then_some(b_ip),
                    b_port: if shape.b_port { b.port } else { 0 },
                    protocol: if shape.protocol { key.protocol() } else { 0 },
                };
                if let Some(windows) = self.patterns.get(&pattern) {
                    windows.overlapping(first, last, hits);
                }
            }
        }
        if !self.ids.is_empty()
            && let Some(windows) = CommunityId::new(key, self.seed).and_then(|id| self.ids.get(&id))
        {
            windows.overlapping(first, last, hits);
        }
        hits.sort_unstable();
        hits.dedup();
    }
}

/// Windows of the selectors with one target, ordered by start.
#[derive(Debug, Default)]
struct Windows {
    windows: Vec<(Timestamp, Timestamp, u32)>,
    /// For each window, the latest end among it and the windows before it.
    latest: Vec<Timestamp>,
}

impl Windows {
    fn add(&mut self, selector: &Selector, number: u32) {
        self.windows.push((selector.since, selector.until, number));
    }

    fn sort(&mut self) {
        self.windows.sort_unstable();
        let mut latest = Timestamp::MIN;
        self.latest = self
            .windows
            .iter()
            .map(|window| {
                latest = latest.max(window.1);
                latest
            })
            .collect();
    }

    fn overlapping(&self, first: Timestamp, last: Timestamp, hits: &mut Vec<u32>) {
        let begun = self.windows.partition_point(|window| window.0 <= last);
        for (window, latest) in self.windows[..begun].iter().zip(&self.latest).rev() {
            if *latest < first {
                return;
            }
            if window.1 >= first {
                hits.push(window.2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_found_as_a_plain_search_finds_them() {
        let mut windows = Windows::default();
        let mut plain = Vec::new();
        for i in 0..200u64 {
            let since = i * 7919 % 100;
            let until = since + i * 31 % 17;
            plain.push((since, until));
            let (since, until) = (Timestamp(since), Timestamp(until));
            let host = SearchTarget::Host(IpAddr::from([10, 0, 0, 1]));
            windows.add(&Selector { target: host, since, until }, u32::try_from(i).unwrap());
        }
        windows.sort();
        for first in 0..120 {
            for last in [first, first + 3, first + 40] {
                let mut hits = Vec::new();
                windows.overlapping(Timestamp(first), Timestamp(last), &mut hits);
                hits.sort_unstable();
                let expected: Vec<u32> = (0u32..)
                    .zip(&plain)
                    .filter(|(_, (since, until))| *since <= last && *until >= first)
                    .map(|(i, _)| i)
                    .collect();
                assert_eq!(hits, expected, "{first} to {last}");
            }
        }
    }
}
