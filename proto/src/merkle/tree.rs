//! Hashes and the growing tree (RFC 6962 section 2.1).

use sha2::{Digest, Sha256};

/// A SHA-256 value.
pub type Hash = [u8; 32];

/// The hash of a leaf: SHA-256 over `0x00` and the entry.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Sha256::new()
        .chain_update([0])
        .chain_update(entry)
        .finalize()
        .into()
}

/// The hash of an inner node: SHA-256 over `0x01` and both children.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new()
        .chain_update([1])
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

/// The root over leaf hashes, computed from nothing else. The empty tree's root is SHA-256 of
/// nothing.
pub fn root_of(leaves: &[Hash]) -> Hash {
    let mut tree = CompactTree::default();
    for leaf in leaves {
        tree.append(*leaf);
    }
    tree.root()
}

/// A tree that only grows, kept as the roots of its perfect subtrees: `log2(size)` hashes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompactTree {
    size: u64,
    /// Perfect subtrees from the left, so from large to small: one for each 1 bit of `size`.
    subtrees: Vec<Hash>,
}

impl CompactTree {
    /// Adds the hash of the next leaf.
    pub fn append(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // INVARIANT: the trailing 1 bits of `size` are the subtrees that the new leaf completes.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.subtrees.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.subtrees.push(hash);
        self.size += 1;
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of what has been appended so far.
    pub fn root(&self) -> Hash {
        let mut from_right = self.subtrees.iter().rev();
        let Some(last) = from_right.next() else {
            return Sha256::digest([]).into();
        };
        from_right.fold(*last, |right, left| node_hash(left, &right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6962 2.1, word by word: the reference.
    pub(crate) fn naive_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [one] => *one,
            many => {
                let split = many.len().next_power_of_two() / 2;
                node_hash(&naive_root(&many[..split]), &naive_root(&many[split..]))
            }
        }
    }

    #[test]
    fn the_growing_tree_equals_the_definition_at_every_size() {
        let leaves: Vec<Hash> = (0..300_u32).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        let mut tree = CompactTree::default();
        assert_eq!(tree.root(), naive_root(&[]));
        for (index, leaf) in leaves.iter().enumerate() {
            tree.append(*leaf);
            assert_eq!(
                tree.root(),
                naive_root(&leaves[..=index]),
                "size {}",
                index + 1
            );
        }
        assert_eq!(tree.size(), 300);
    }

    #[test]
    fn known_values_of_the_certificate_transparency_test_tree() {
        let leaves = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ];
        let hashes: Vec<Hash> = leaves
            .iter()
            .map(|text| leaf_hash(&hex::decode(text).unwrap()))
            .collect();
        assert_eq!(
            hex::encode(root_of(&hashes)),
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
        );
    }

    #[test]
    fn a_leaf_is_never_a_node() {
        let (left, right) = (leaf_hash(b"a"), leaf_hash(b"b"));
        assert_ne!(leaf_hash(&[left, right].concat()), node_hash(&left, &right));
    }
}
