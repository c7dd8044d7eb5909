//! Inclusion and consistency proofs (RFC 6962 2.1.1 and 2.1.2; verification as in RFC 9162 2.1.3 and 2.1.4).

use super::tree::{Hash, node_hash, root_of};

/// The proof that leaf `index` stands in the tree over `leaves`; `None` when it does not exist.
pub fn inclusion_path(index: u64, leaves: &[Hash]) -> Option<Vec<Hash>> {
    let index = usize::try_from(index).ok()?;
    if index >= leaves.len() {
        return None;
    }
    let (mut rest, mut index, mut path) = (leaves, index, Vec::new());
    while rest.len() > 1 {
        let (left, right) = rest.split_at(split_of(rest.len()));
        if index < left.len() {
            path.push(root_of(right));
            rest = left;
        } else {
            path.push(root_of(left));
            index -= left.len();
            rest = right;
        }
    }
    path.reverse();
    Some(path)
}

/// The proof that the tree over the first `old_size` leaves is the beginning of the tree over all
/// of them; `None` unless `0 < old_size <= leaves.len()`.
pub fn consistency_path(old_size: u64, leaves: &[Hash]) -> Option<Vec<Hash>> {
    let mut old = usize::try_from(old_size).ok()?;
    if old == 0 || old > leaves.len() {
        return None;
    }
    let (mut rest, mut path, mut is_whole) = (leaves, Vec::new(), true);
    while old < rest.len() {
        let (left, right) = rest.split_at(split_of(rest.len()));
        if old <= left.len() {
            path.push(root_of(right));
            rest = left;
        } else {
            path.push(root_of(left));
            old -= left.len();
            rest = right;
            is_whole = false;
        }
    }
    if !is_whole {
        path.push(root_of(rest));
    }
    path.reverse();
    Some(path)
}

/// True when `path` proves that `leaf` stands at `index` in the tree of that size and root.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// True when `path` proves that the old tree is the beginning of the new one.
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash,
    new_size: u64,
    new_root: &Hash,
    path: &[Hash],
) -> bool {
    if old_size == 0 || old_size > new_size {
        return false;
    }
    if old_size == new_size {
        return path.is_empty() && old_root == new_root;
    }
    let mut hashes = path.iter();
    let first = if old_size.is_power_of_two() {
        Some(old_root)
    } else {
        hashes.next()
    };
    let Some(first) = first else {
        return false;
    };
    let (mut node, mut last) = (old_size - 1, new_size - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in hashes {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

/// The largest power of two below `len`, for `len > 1`.
fn split_of(len: usize) -> usize {
    len.next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::leaf_hash;

    fn leaves(count: u32) -> Vec<Hash> {
        (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    #[test]
    fn every_leaf_of_every_small_tree_is_proven_and_no_other() {
        let all = leaves(40);
        for size in 1..=all.len() {
            let tree = &all[..size];
            let root = root_of(tree);
            for index in 0..size as u64 {
                let path = inclusion_path(index, tree).unwrap();
                let leaf = &tree[index as usize];
                assert!(verify_inclusion(leaf, index, size as u64, &path, &root));
                assert!(!verify_inclusion(
                    &leaf_hash(b"x"),
                    index,
                    size as u64,
                    &path,
                    &root
                ));
                assert!(!verify_inclusion(
                    leaf,
                    index ^ 1,
                    size as u64,
                    &path,
                    &root
                ));
                let mut longer = path.clone();
                longer.push(root);
                assert!(!verify_inclusion(leaf, index, size as u64, &longer, &root));
                for at in 0..path.len() {
                    let mut bad = path.clone();
                    bad[at][0] ^= 1;
                    assert!(!verify_inclusion(leaf, index, size as u64, &bad, &root));
                }
            }
            assert!(inclusion_path(size as u64, tree).is_none());
        }
    }

    #[test]
    fn every_pair_of_sizes_is_consistent_and_a_fork_is_not() {
        let all = leaves(40);
        let mut forked = all.clone();
        forked[0] = leaf_hash(b"fork");
        for new in 1..=all.len() {
            let new_root = root_of(&all[..new]);
            for old in 1..=new {
                let (old_root, fork_root) = (root_of(&all[..old]), root_of(&forked[..old]));
                let path = consistency_path(old as u64, &all[..new]).unwrap();
                let verify = |old_root: &Hash, path: &[Hash]| {
                    verify_consistency(old as u64, old_root, new as u64, &new_root, path)
                };
                assert!(verify(&old_root, &path), "{old} -> {new}");
                assert!(!verify(&fork_root, &path), "threat 35: {old} -> {new}");
                for at in 0..path.len() {
                    let mut bad = path.clone();
                    bad[at][3] ^= 1;
                    assert!(!verify(&old_root, &bad));
                }
            }
            assert!(consistency_path(0, &all[..new]).is_none());
            assert!(consistency_path(new as u64 + 1, &all[..new]).is_none());
        }
    }
}
