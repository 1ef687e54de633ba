//! The Merkle tree of a log (RFC 6962): its right edge while it grows, all its nodes when a proof is asked.

pub(crate) use tlog_tiles::Hash;
use tlog_tiles::{EMPTY_HASH, HashReader, node_hash, stored_hashes_for_record_hash};

/// The right edge of a tree: enough to grow it and to know its root, in a few hundred bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Frontier {
    size: u64,
    /// Complete subtrees from left to right: level and hash.
    peaks: Vec<(u32, Hash)>,
}

impl Frontier {
    pub(crate) fn push(&mut self, leaf: Hash) {
        let (mut level, mut hash) = (0, leaf);
        while self.peaks.last().is_some_and(|(last, _)| *last == level) {
            let (_, left) = self.peaks.pop().expect("there is a last one");
            hash = node_hash(left, hash);
            level += 1;
        }
        self.peaks.push((level, hash));
        self.size += 1;
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev().map(|(_, hash)| *hash);
        let Some(last) = peaks.next() else { return EMPTY_HASH };
        peaks.fold(last, |right, left| node_hash(left, right))
    }
}

/// All nodes of a tree, in the order of tlog storage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nodes {
    size: u64,
    hashes: Vec<Hash>,
}

impl Nodes {
    pub(crate) fn push(&mut self, leaf: Hash) {
        let new = stored_hashes_for_record_hash(self.size, leaf, self).expect("all earlier nodes are here");
        self.hashes.extend(new);
        self.size += 1;
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

impl HashReader for Nodes {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let node = |index: &u64| usize::try_from(*index).ok().and_then(|index| self.hashes.get(index).copied());
        indexes.iter().map(node).collect::<Option<_>>().ok_or(tlog_tiles::Error::IndexesNotInTree)
    }
}

#[cfg(test)]
mod tests {
    use tlog_tiles::{record_hash, tree_hash};

    use super::*;

    #[test]
    fn known_roots_and_the_library_agree() {
        // Leaves and roots of the Certificate Transparency reference tests (RFC 6962, 2.1).
        let leaves =
            ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let (mut frontier, mut nodes) = (Frontier::default(), Nodes::default());
        assert_eq!(hex::encode(frontier.root().0), roots[0]);
        for (n, leaf) in leaves.iter().enumerate() {
            let leaf = record_hash(&hex::decode(leaf).unwrap());
            frontier.push(leaf);
            nodes.push(leaf);
            assert_eq!(hex::encode(frontier.root().0), roots[n + 1], "{} leaves", n + 1);
        }
        for n in 8..300_u64 {
            let leaf = record_hash(&n.to_be_bytes());
            frontier.push(leaf);
            nodes.push(leaf);
            assert_eq!(frontier.root(), tree_hash(nodes.size(), &nodes).unwrap());
        }
    }
}
