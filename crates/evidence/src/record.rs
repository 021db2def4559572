//! The record that a recorder seals every minute, and the proof that a packet is in it.
//!
//! ```text
//! packets stored one after the other in a segment ─► run ─┐
//! packets of another segment ───────────────────────► run ─┴► Merkle root of the minute ─► a line of a chained log
//! ```
//!
//! Each minute, the recorder writes the root of everything that it sealed in that minute into a log, whose lines are
//! chained ([`crate::chain`]). It seals what has stayed in memory for some time: most packets are evicted soon, and hashing
//! those too would cost more than storing them. An export that is sealed carries the digests of each run that its packets belong to, and
//! the path from the run to the root. A packet whose digest is among them was recorded in that minute or before, even
//! if its neighbours were evicted since.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::{Digest, Hasher};
use crate::merkle::{self, Path};

/// Prefix of a comment that contains a proof.
pub const PREFIX: &str = "retrocap record proof 2: ";
/// The `event` of a log line with a root.
pub const EVENT: &str = "sealed";
/// Maximum number of packets in a run, so that its proof fits into a comment.
pub const RUN_PACKETS_MAX: usize = 1024;

/// A minute of the record, in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedMinute {
    /// The time of sealing.
    pub time: String,
    /// Always [`EVENT`].
    pub event: String,
    /// The number of the minute since the recorder was started.
    pub minute: u64,
    /// The root over its runs.
    pub root: Digest,
    /// Its runs.
    pub runs: u64,
    /// Packets that were sealed for the first time.
    pub packets: u64,
    /// Packets stored since the start that were evicted before they were sealed, at most: a start that was carried forward
    /// before counts too.
    pub unsealed: u64,
    /// Packets in memory that were not sealed yet.
    #[serde(default)]
    pub waiting: u64,
}

/// The proof that the packets of a run were recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunProof {
    /// The minute.
    pub minute: u64,
    /// Its root.
    pub root: Digest,
    /// The path from the run to the root.
    pub path: Path,
    /// The digests of the run's packets, in base64.
    pub digests: String,
}

/// The digest of a run. A proof has the digests of all its packets, so that a tree over them would serve nobody.
pub fn run_root(packets: &[Digest]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(b"retrocap run v2\0");
    packets.iter().for_each(|packet| hasher.update(&packet.0));
    hasher.finish()
}

/// The leaf of a run in the tree of its minute.
pub fn run_leaf(root: Digest) -> Digest {
    merkle::leaf(&root.0)
}

impl RunProof {
    /// The proof of a run.
    pub fn new(minute: u64, root: Digest, path: Path, packets: &[Digest]) -> Self {
        let bytes: Vec<u8> = packets.iter().flat_map(|digest| digest.0).collect();
        Self { minute, root, path, digests: BASE64_STANDARD.encode(bytes) }
    }

    /// The comment that contains the proof.
    pub fn comment(&self) -> String {
        format!("{PREFIX}{}", serde_json::to_string(self).unwrap_or_default())
    }

    /// The digests that it proves; `None` if the proof is wrong.
    fn proven(&self) -> Option<Vec<Digest>> {
        let bytes = BASE64_STANDARD.decode(&self.digests).ok()?;
        let digests: Vec<_> = bytes.chunks(32).map(|chunk| chunk.try_into().ok().map(Digest)).collect::<Option<_>>()?;
        (self.path.root(run_leaf(run_root(&digests))) == Some(self.root)).then_some(digests)
    }
}

/// The packets that the comments of a file prove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProvenPackets {
    /// Digests of packets, each with the minute in which it was sealed.
    pub packets: HashMap<Digest, (u64, Digest)>,
    /// Number of wrong proofs.
    pub wrong: u64,
}

impl ProvenPackets {
    /// Reads the proofs among comments.
    pub fn among(comments: &[String]) -> Self {
        let mut proven = Self::default();
        for text in comments.iter().filter_map(|comment| comment.strip_prefix(PREFIX)) {
            let proof = serde_json::from_str::<RunProof>(text).ok();
            match proof.as_ref().and_then(|proof| Some((proof, proof.proven()?))) {
                Some((proof, digests)) => {
                    for digest in digests {
                        proven.packets.entry(digest).or_insert((proof.minute, proof.root));
                    }
                }
                None => proven.wrong += 1,
            }
        }
        proven
    }
}

/// The roots in a log of sealed minutes, each with its time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots(HashMap<Digest, String>);

impl Roots {
    /// Adds a line of the log. The chain of the log is checked separately.
    pub fn add_line(&mut self, line: &[u8]) {
        let Ok(value) = serde_json::from_slice::<Value>(line) else { return };
        if let Ok(minute) = serde_json::from_value::<SealedMinute>(value)
            && minute.event == EVENT
        {
            self.0.insert(minute.root, minute.time);
        }
    }

    /// The time at which the minute with this root was sealed.
    pub fn time(&self, root: &Digest) -> Option<&str> {
        self.0.get(root).map(String::as_str)
    }

    /// The number of these packets that the log has, and the times of their first and last minute.
    pub fn cover(&self, packets: &[Digest], proven: &ProvenPackets) -> (u64, Option<(String, String)>) {
        let (mut covered, mut span): (u64, Option<(String, String)>) = (0, None);
        let mut seen = HashSet::new();
        for digest in packets {
            let Some((_, root)) = proven.packets.get(digest) else { continue };
            let Some(time) = self.time(root) else { continue };
            covered += 1;
            if seen.insert(*root) {
                let (first, last) = span.get_or_insert_with(|| (time.to_owned(), time.to_owned()));
                if time < first.as_str() {
                    time.clone_into(first);
                }
                if time > last.as_str() {
                    time.clone_into(last);
                }
            }
        }
        (covered, span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_of_a_sealed_minute_is_proven_and_no_other() {
        let digest = |number: u32| Digest::of(&number.to_be_bytes());
        let runs: Vec<Vec<Digest>> =
            (0..7).map(|run| (0..=run).map(|packet| digest(run * 100 + packet)).collect()).collect();
        let leaves: Vec<_> = runs.iter().map(|run| run_leaf(run_root(run))).collect();
        let root = merkle::root(&leaves);
        let minute = SealedMinute {
            time: "2026-11-22T10:01:00Z".to_owned(),
            event: EVENT.to_owned(),
            minute: 3,
            root,
            runs: 7,
            packets: 28,
            unsealed: 0,
            waiting: 0,
        };
        let mut roots = Roots::default();
        roots.add_line(serde_json::to_string(&minute).unwrap().as_bytes());
        for (number, run) in runs.iter().enumerate() {
            let proof = RunProof::new(3, root, Path::of(&leaves, number).unwrap(), run);
            let proven = ProvenPackets::among(&["other".to_owned(), proof.comment()]);
            assert_eq!((proven.packets.len(), proven.wrong), (run.len(), 0));
            assert_eq!(roots.cover(run, &proven).0, run.len() as u64);
            assert_eq!(roots.cover(&[digest(12_345)], &proven), (0, None));
            // A packet is replaced by another, or left out.
            let mut other = run.clone();
            other[0] = digest(12_345);
            let forged = RunProof::new(3, root, Path::of(&leaves, number).unwrap(), &other);
            assert_eq!(ProvenPackets::among(&[forged.comment()]).wrong, 1);
            let cut = RunProof::new(3, root, Path::of(&leaves, number).unwrap(), &run[1..]);
            assert_eq!(ProvenPackets::among(&[cut.comment()]).wrong, 1);
        }
        assert_eq!(Roots::default().cover(&runs[0], &ProvenPackets::default()), (0, None));
    }
}
