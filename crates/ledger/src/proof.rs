//! Proofs that stand by themselves: an entry is in a log, a log continues another.
//!
//! An inclusion proof is a C2SP tlog-proof. Its `extra` line carries what our verifier needs beside a
//! fingerprint: the site's key and the envelope.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto::sign::{VERIFYING_KEY_LEN, VerifyingKey};
use tlog_tiles::{check_record, check_tree, prove_record, prove_tree};
use types::codec::{Reader, Writer};

use crate::checkpoint::SignedCheckpoint;
use crate::envelope::leaf_hash;
use crate::tree::{Hash, Nodes};
use crate::verify::{Reason, Trust, VerifyError};
use crate::{Entry, Origin};

/// An entry, its place in the tree, and the signed head over it.
#[derive(Clone, Debug, PartialEq)]
pub struct InclusionProof {
    index: u64,
    envelope: Vec<u8>,
    path: Vec<Hash>,
    key: Vec<u8>,
    note: Vec<u8>,
}

impl InclusionProof {
    /// Longest proof in bytes.
    pub const TEXT_MAX: usize = 256 * 1024;

    pub(crate) fn make(
        nodes: &Nodes,
        index: u64,
        envelope: Vec<u8>,
        head: &SignedCheckpoint,
        key: &VerifyingKey,
    ) -> Self {
        let path = prove_record(head.size(), index, nodes).expect("all nodes under the head are here");
        Self { index, envelope, path, key: key.as_bytes().to_vec(), note: head.note().to_vec() }
    }

    /// The entry's envelope; believed only after [`InclusionProof::verify`].
    #[must_use]
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// The proof as text, in one form.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut extra = Writer::new();
        extra.bytes16(&self.key).bytes32(&self.envelope);
        let mut text = format!("{HEADER}\nextra {}\nindex {}\n", STANDARD.encode(extra.finish()), self.index);
        for hash in &self.path {
            text.push_str(&STANDARD.encode(hash.0));
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&String::from_utf8_lossy(&self.note));
        text
    }

    /// Reads a proof; nothing of it is believed yet.
    ///
    /// # Errors
    /// [`VerifyError`] if it is no proof or not in its one form.
    pub fn parse(text: &str) -> Result<Self, VerifyError> {
        let malformed = |what| VerifyError::of_file(Reason::Malformed(what));
        if text.len() > Self::TEXT_MAX {
            return Err(malformed("the proof is too long"));
        }
        let (head, note) = text.split_once("\n\n").ok_or(malformed("the proof has no checkpoint"))?;
        let mut lines = head.lines();
        if lines.next() != Some(HEADER) {
            return Err(malformed("it is no proof of version 1"));
        }
        let extra = lines.next().and_then(|line| line.strip_prefix("extra "));
        let extra =
            extra.and_then(|extra| STANDARD.decode(extra).ok()).ok_or(malformed("the extra line is malformed"))?;
        let mut r = Reader::new(&extra);
        let key = r.bytes16("key", VERIFYING_KEY_LEN).map(<[u8]>::to_vec);
        let envelope = r.bytes32("envelope", Entry::ENVELOPE_MAX).map(<[u8]>::to_vec);
        let (Ok(key), Ok(envelope)) = (key, envelope) else { return Err(malformed("the extra line is malformed")) };
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(|index| index.parse().ok());
        let index = index.ok_or(malformed("the index line is malformed"))?;
        let path: Option<Vec<Hash>> = lines.map(|line| Hash::parse_hash(line).ok()).collect();
        let path = path.filter(|path| path.len() <= PATH_MAX).ok_or(malformed("the path is malformed"))?;
        let proof = Self { index, envelope, path, key, note: note.as_bytes().to_vec() };
        if proof.to_text() != text {
            return Err(malformed("the proof is not in its one form"));
        }
        Ok(proof)
    }

    /// Checks everything: key against `trust`, signatures, path, and the entry itself.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify(&self, trust: &Trust) -> Result<(Entry, SignedCheckpoint), VerifyError> {
        let origin = std::str::from_utf8(&self.note).ok().and_then(|note| note.lines().next());
        let origin: Option<Origin> = origin.and_then(|origin| origin.parse().ok());
        let origin = origin.ok_or(VerifyError::of_file(Reason::Malformed("the checkpoint has no origin")))?;
        let failed = |reason| VerifyError::of_entry(&origin, self.index, reason);
        let key = trust.key(&origin, &self.key).map_err(failed)?;
        let head =
            SignedCheckpoint::open(&self.note, &origin, &key).map_err(|error| failed(Reason::Checkpoint(error)))?;
        check_record(&self.path, head.size(), Hash(head.root()), self.index, leaf_hash(&self.envelope))
            .map_err(|_| failed(Reason::RootDiffers))?;
        let entry = Entry::decode(&self.envelope).map_err(|error| failed(Reason::Entry(error.reason())))?;
        if entry.seq != self.index || entry.site != *origin.site() {
            return Err(failed(Reason::Entry("it has another entry's number or site")));
        }
        Ok((entry, head))
    }
}

/// Why one log continues another.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsistencyProof {
    /// The hashes of RFC 6962, 2.1.2.
    path: Vec<Hash>,
}

impl ConsistencyProof {
    pub(crate) fn make(nodes: &Nodes, old_size: u64) -> Self {
        Self { path: prove_tree(nodes.size(), old_size, nodes).expect("all nodes are here") }
    }

    /// From the proof's hashes, as they came from elsewhere.
    #[must_use]
    pub fn from_hashes(hashes: &[[u8; 32]]) -> Self {
        Self { path: hashes.iter().copied().map(Hash).collect() }
    }

    /// The proof's hashes.
    #[must_use]
    pub fn hashes(&self) -> Vec<[u8; 32]> {
        self.path.iter().map(|hash| hash.0).collect()
    }

    /// Whether the log under `new` begins with the log under `old`.
    #[must_use]
    pub fn holds(&self, old: &SignedCheckpoint, new: &SignedCheckpoint) -> bool {
        old.origin() == new.origin()
            && self.path.len() <= PATH_MAX
            && check_tree(&self.path, new.size(), Hash(new.root()), old.size(), Hash(old.root())).is_ok()
    }
}

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// C2SP tlog-proof: an inclusion proof has at most 63 hashes; a consistency proof one more.
const PATH_MAX: usize = 64;
