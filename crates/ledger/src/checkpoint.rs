//! A signed log head: a C2SP tlog-checkpoint with two signature lines.
//!
//! ```text
//! shanxi/taiyuan/audit
//! 48000
//! <root, base64>
//!
//! — shanxi/taiyuan/audit <Ed25519 over the text, as every note tool checks it>
//! — shanxi/taiyuan/audit <Ed25519 and ML-DSA-65 over label and text>
//! ```
//!
//! Both lines must hold. A tool that knows only the first skips the second, as C2SP signed-note asks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto::domain::Domain;
use crypto::sign::{SigningKey, VerifyingKey};
use signed_note::{Note, Signature, Verifier, VerifierList};
use tlog_tiles::Checkpoint;

use crate::Origin;
use crate::tree::Hash;

/// A log head whose signatures hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    origin: Origin,
    size: u64,
    root: [u8; 32],
    note: Vec<u8>,
}

/// Why a note is no checkpoint of this site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// It is no note, no checkpoint, or not in its one form.
    #[error("the checkpoint is malformed")]
    Malformed,
    /// A signature is missing, of another key, or does not hold.
    #[error("the checkpoint's signatures do not hold")]
    NotAuthentic,
    /// It is of another log.
    #[error("the checkpoint is of another log")]
    OtherOrigin,
}

impl SignedCheckpoint {
    /// Longest note in bytes.
    pub const NOTE_MAX: usize = 16 * 1024;

    /// Signs a head.
    pub(crate) fn sign(origin: &Origin, size: u64, root: Hash, key: &SigningKey) -> Self {
        let name = || origin.as_str().to_owned();
        let text = Checkpoint::new(origin.as_str(), size, root, "").expect("an origin is not empty").to_bytes();
        let verifying = key.verifying_key();
        let line = |id, signature| Signature::new(name(), id, signature).expect("an origin is a key name");
        let signatures = [
            line(plain_key_id(origin, verifying), key.sign_note(&text)),
            line(hybrid_key_id(origin, verifying), key.sign(Domain::LedgerCheckpoint, &text)),
        ];
        let note = Note::new(&text, &signatures).expect("the text is a note's text").to_bytes();
        Self { origin: origin.clone(), size, root: root.0, note }
    }

    /// Checks a note: its form, its origin and both signatures.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn open(note: &[u8], origin: &Origin, key: &VerifyingKey) -> Result<Self, CheckpointError> {
        if note.len() > Self::NOTE_MAX {
            return Err(CheckpointError::Malformed);
        }
        let parsed = Note::from_bytes(note).map_err(|_| CheckpointError::Malformed)?;
        let head = Checkpoint::from_bytes(parsed.text()).map_err(|_| CheckpointError::Malformed)?;
        if head.origin() != origin.as_str() {
            return Err(CheckpointError::OtherOrigin);
        }
        let line =
            |kind| Box::new(SiteVerifier { origin: origin.clone(), key: key.clone(), kind }) as Box<dyn Verifier>;
        let known = VerifierList::new(vec![line(Kind::Plain), line(Kind::Hybrid)]);
        let (verified, unknown) = parsed.verify(&known).map_err(|_| CheckpointError::NotAuthentic)?;
        if verified.len() != 2 || !unknown.is_empty() {
            return Err(CheckpointError::NotAuthentic);
        }
        let is_whole = Checkpoint::new(origin.as_str(), head.size(), *head.hash(), "")
            .is_ok_and(|head| head.to_bytes() == parsed.text())
            && Note::new(parsed.text(), &verified).is_ok_and(|one_form| one_form.to_bytes() == note)
            && verified.first().is_some_and(|first| first.id() == plain_key_id(origin, key));
        if !is_whole {
            return Err(CheckpointError::Malformed);
        }
        Ok(Self { origin: origin.clone(), size: head.size(), root: head.hash().0, note: note.to_vec() })
    }

    /// Which log.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// How many entries.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Root of their tree.
    #[must_use]
    pub fn root(&self) -> [u8; 32] {
        self.root
    }

    /// The signed note.
    #[must_use]
    pub fn note(&self) -> &[u8] {
        &self.note
    }
}

/// The site's key as other note tools want it (`<name>+<id>+<key>`, for example for Go's `note.NewVerifier`).
#[must_use]
pub fn note_verifier_key(origin: &Origin, key: &VerifyingKey) -> String {
    format!("{origin}+{:08x}+{}", plain_key_id(origin, key), STANDARD.encode(plain_key(key)))
}

#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Hybrid,
}

struct SiteVerifier {
    origin: Origin,
    key: VerifyingKey,
    kind: Kind,
}

impl Verifier for SiteVerifier {
    fn name(&self) -> &str {
        self.origin.as_str()
    }

    fn key_id(&self) -> u32 {
        match self.kind {
            Kind::Plain => plain_key_id(&self.origin, &self.key),
            Kind::Hybrid => hybrid_key_id(&self.origin, &self.key),
        }
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        match self.kind {
            Kind::Plain => self.key.verify_note(text, signature).is_ok(),
            Kind::Hybrid => self.key.verify(Domain::LedgerCheckpoint, text, signature).is_ok(),
        }
    }
}

/// C2SP signed-note: signature type 1 is Ed25519.
fn plain_key(key: &VerifyingKey) -> Vec<u8> {
    [&[0x01], key.ed25519()].concat()
}

fn plain_key_id(origin: &Origin, key: &VerifyingKey) -> u32 {
    signed_note::key_id(origin.as_str(), &plain_key(key))
}

/// C2SP signed-note: signature type 255 and a name, for types that have no number.
fn hybrid_key_id(origin: &Origin, key: &VerifyingKey) -> u32 {
    signed_note::key_id(origin.as_str(), &[&[0xff], Domain::LedgerCheckpoint.label(), key.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use crypto::secret::Key256;
    use signed_note::StandardVerifier;

    use super::*;

    #[test]
    fn both_lines_are_needed_and_a_plain_note_tool_checks_the_first() {
        let key = SigningKey::from_seed(&Key256::copy_of(&[1; 32]));
        let origin: Origin = "net/site/audit".parse().unwrap();
        let signed = SignedCheckpoint::sign(&origin, 5, Hash([3; 32]), &key);
        assert_eq!(SignedCheckpoint::open(signed.note(), &origin, key.verifying_key()), Ok(signed.clone()));
        let text = std::str::from_utf8(signed.note()).unwrap();
        assert!(
            text.starts_with("net/site/audit\n5\nAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n\n— net/site/audit ")
        );

        let vkey = note_verifier_key(&origin, key.verifying_key());
        let stranger = VerifierList::new(vec![Box::new(StandardVerifier::new(&vkey).unwrap())]);
        let (verified, unknown) = Note::from_bytes(signed.note()).unwrap().verify(&stranger).unwrap();
        assert_eq!((verified.len(), unknown.len()), (1, 1));

        let refused = |name: &str, note: String, error: CheckpointError| {
            assert_eq!(SignedCheckpoint::open(note.as_bytes(), &origin, key.verifying_key()), Err(error), "{name}");
        };
        let lines: Vec<&str> = text.lines().collect();
        let (head, plain, hybrid) = (lines[..4].join("\n"), lines[4], lines[5]);
        refused("no hybrid line", format!("{head}\n{plain}\n"), CheckpointError::NotAuthentic);
        refused("no plain line", format!("{head}\n{hybrid}\n"), CheckpointError::NotAuthentic);
        refused("lines swapped", format!("{head}\n{hybrid}\n{plain}\n"), CheckpointError::Malformed);
        refused("a line twice", format!("{head}\n{plain}\n{hybrid}\n{hybrid}\n"), CheckpointError::Malformed);
        refused("size changed", text.replacen("\n5\n", "\n6\n", 1), CheckpointError::NotAuthentic);
        refused("extension", text.replacen("M=\n\n", "M=\nx\n\n", 1), CheckpointError::NotAuthentic);
        refused("leading zero", text.replacen("\n5\n", "\n05\n", 1), CheckpointError::Malformed);
        refused("other origin", text.replacen("net", "ten", 1), CheckpointError::OtherOrigin);
        let other = SigningKey::from_seed(&Key256::copy_of(&[2; 32]));
        let foreign = SignedCheckpoint::open(signed.note(), &origin, other.verifying_key());
        assert_eq!(foreign, Err(CheckpointError::NotAuthentic));
        for at in 0..signed.note().len() {
            let mut bent = signed.note().to_vec();
            bent[at] ^= 1;
            assert!(SignedCheckpoint::open(&bent, &origin, key.verifying_key()).is_err(), "byte {at}");
        }
    }
}
