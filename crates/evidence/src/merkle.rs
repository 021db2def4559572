//! Merkle trees as in RFC 6962, section 2.1: the root commits to all leaves and to their order, and a short path proves
//! that one leaf belongs to a root.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Maximum length of a path: a tree of 2^40 leaves.
const PATH_MAX: usize = 40;

/// The digest of a leaf with this content.
pub fn leaf(content: &[u8]) -> Digest {
    Digest::of_parts(&[&[0], content])
}

fn node(left: Digest, right: Digest) -> Digest {
    Digest::of_parts(&[&[1], &left.0, &right.0])
}

/// The root of these leaves; without leaves, the digest of no bytes.
pub fn root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => Digest::of(&[]),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node(root(left), root(right))
        }
    }
}

/// The largest power of two below `leaves`, which is at least 2.
fn split(leaves: usize) -> usize {
    1 << (usize::BITS - 1 - (leaves - 1).leading_zeros())
}

/// Proof that a leaf is part of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// The number of the leaf, from 0.
    pub leaf: u64,
    /// The number of leaves of the tree.
    pub leaves: u64,
    /// The digests of the other halves, from the leaf upwards.
    pub siblings: Vec<Digest>,
}

impl Path {
    /// The path of leaf number `index`; `None` if the tree has fewer leaves.
    pub fn of(leaves: &[Digest], index: usize) -> Option<Self> {
        if index >= leaves.len() {
            return None;
        }
        let (mut siblings, mut part, mut at) = (Vec::new(), leaves, index);
        while part.len() > 1 {
            let (left, right) = part.split_at(split(part.len()));
            if at < left.len() {
                siblings.push(root(right));
                part = left;
            } else {
                siblings.push(root(left));
                at -= left.len();
                part = right;
            }
        }
        siblings.reverse();
        Some(Self { leaf: index as u64, leaves: leaves.len() as u64, siblings })
    }

    /// The root that follows from `leaf` and this path; `None` if the path contradicts its numbers.
    pub fn root(&self, leaf: Digest) -> Option<Digest> {
        if self.leaf >= self.leaves || self.siblings.len() > PATH_MAX {
            return None;
        }
        // RFC 9162, section 2.1.3.2.
        let (mut number, mut last, mut digest) = (self.leaf, self.leaves - 1, leaf);
        for sibling in &self.siblings {
            if last == 0 {
                return None;
            }
            if number & 1 == 1 || number == last {
                digest = node(*sibling, digest);
                while number & 1 == 0 && number != 0 {
                    (number, last) = (number >> 1, last >> 1);
                }
            } else {
                digest = node(digest, *sibling);
            }
            (number, last) = (number >> 1, last >> 1);
        }
        (last == 0).then_some(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: usize) -> Vec<Digest> {
        (0..count).map(|number| leaf(&number.to_be_bytes())).collect()
    }

    #[test]
    fn each_leaf_has_a_path_and_no_other_leaf_fits_it() {
        for count in 1..70 {
            let leaves = leaves(count);
            let root = root(&leaves);
            for (index, &leaf) in leaves.iter().enumerate() {
                let path = Path::of(&leaves, index).unwrap();
                assert_eq!(path.root(leaf), Some(root), "{index} of {count}");
                for (other, &wrong) in leaves.iter().enumerate().filter(|(other, _)| *other != index) {
                    assert_ne!(path.root(wrong), Some(root), "{other} for {index} of {count}");
                    let moved = Path { leaf: other as u64, ..path.clone() };
                    assert_ne!(moved.root(leaf), Some(root), "{index} of {count} as {other}");
                }
            }
            assert_eq!(Path::of(&leaves, count), None);
        }
    }

    #[test]
    fn a_path_of_the_wrong_length_proves_nothing() {
        let leaves = leaves(13);
        let path = Path::of(&leaves, 12).unwrap();
        for length in (0..path.siblings.len()).chain([path.siblings.len() + 1, 64]) {
            let mut cut = path.clone();
            cut.siblings.resize(length, Digest::default());
            assert_ne!(cut.root(leaves[12]), Some(root(&leaves)), "{length}");
        }
    }
}
