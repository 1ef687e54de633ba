//! The envelope of one site: the model key and the tensors' own keys, each sealed under a quantum key of its own.
//!
//! The quantum keys are known to the two sites alone, so an envelope needs no signature; it is bound to the signed
//! manifest by the manifest's digest. Computationally secure: AES-256-GCM.

use crypto::aead::{AeadKey, TAG_LEN};
use crypto::domain::Domain;
use crypto::hash::Sha256Value;
use crypto::kdf::derive;
use crypto::secret::Key256;
use types::codec::{Reader, Writer};
use types::id::{KeyId, ModelId, SiteId, Uuid};

use crate::error::FormatError;
use crate::keys::KeySet;
use crate::limits::OWN_KEYS_MAX;
use crate::manifest::VerifiedManifest;

const MAGIC: &[u8; 4] = b"QVEN";
const VERSION: u8 = 1;
const SEALED_LEN: usize = 32 + TAG_LEN;

/// One sealed key and the id of the quantum key that opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// The quantum key.
    pub key: KeyId,
    pub(crate) sealed: [u8; SEALED_LEN],
}

/// Sealed keys of one model version for one site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The model.
    pub model: ModelId,
    /// Its version.
    pub version: u64,
    /// Number of the model key.
    pub epoch: u32,
    /// The site that sealed it.
    pub publisher: SiteId,
    /// The site that it is for.
    pub site: SiteId,
    /// SHA-256 of the signed manifest.
    pub manifest_sha256: Sha256Value,
    /// The model key, then the tensors' own keys.
    pub keys: Vec<WrappedKey>,
}

impl Envelope {
    /// Seals all keys of a version for a site. Wrapping keys are taken by value: each seals one key.
    ///
    /// # Panics
    /// If there are not as many wrapping keys as keys.
    pub(crate) fn seal(
        manifest: &VerifiedManifest,
        site: &SiteId,
        keys: &KeySet,
        wrapping: Vec<(KeyId, Key256)>,
    ) -> Self {
        assert_eq!(wrapping.len(), keys.own_count() + 1, "each key has a wrapping key of its own");
        let mut envelope = Self {
            model: manifest.model.clone(),
            version: manifest.version,
            epoch: manifest.epoch,
            publisher: manifest.publisher.clone(),
            site: site.clone(),
            manifest_sha256: *manifest.sha256(),
            keys: wrapping.iter().map(|(key, _)| WrappedKey { key: *key, sealed: [0; SEALED_LEN] }).collect(),
        };
        for (at, ((id, wrapping), key)) in wrapping.into_iter().zip(keys.iter()).enumerate() {
            let sealed = wrap_key(&wrapping).seal_once(&envelope.aad(at, id), &key.to_secret());
            let slot = envelope.keys.get_mut(at).expect("there is a slot for each key");
            slot.sealed = sealed.try_into().expect("a sealed key has a fixed length");
        }
        envelope
    }

    /// Opens all keys.
    ///
    /// # Errors
    /// [`crypto::Error::NotAuthentic`] if one of them was not sealed by the publisher for this place.
    pub(crate) fn open(&self, wrapping: Vec<Key256>) -> Result<KeySet, crypto::Error> {
        if wrapping.len() != self.keys.len() {
            return Err(crypto::Error::Malformed { what: "list of wrapping keys" });
        }
        let mut opened = Vec::with_capacity(wrapping.len());
        for (at, (wrapped, wrapping)) in self.keys.iter().zip(wrapping).enumerate() {
            let secret = wrap_key(&wrapping).open_once(&self.aad(at, wrapped.key), &wrapped.sealed)?;
            opened.push(Key256::from_secret(&secret).ok_or(crypto::Error::Malformed { what: "wrapped key" })?);
        }
        let mut opened = opened.into_iter();
        let model = opened.next().ok_or(crypto::Error::Malformed { what: "envelope" })?;
        Ok(KeySet::new(model, opened.collect()))
    }

    fn aad(&self, at: usize, key: KeyId) -> Vec<u8> {
        let mut w = self.head();
        w.count(at).count(self.keys.len()).put(key.0.as_bytes());
        w.finish()
    }

    fn head(&self) -> Writer {
        let mut w = Writer::new();
        w.put(MAGIC).u8(VERSION).bytes16(self.model.as_str().as_bytes()).u64(self.version).u32(self.epoch);
        w.bytes16(self.publisher.as_str().as_bytes()).bytes16(self.site.as_str().as_bytes()).put(&self.manifest_sha256);
        w
    }

    /// The bytes that are stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = self.head();
        w.count(self.keys.len());
        for wrapped in &self.keys {
            w.put(wrapped.key.0.as_bytes()).put(&wrapped.sealed);
        }
        w.finish()
    }

    /// Decodes.
    ///
    /// # Errors
    /// [`FormatError`] with the field that is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let wrong = |field, reason| FormatError::Field { field, reason };
        let mut r = Reader::new(bytes);
        if r.take("magic", 4)? != MAGIC {
            return Err(FormatError::Magic { what: "model envelope" });
        }
        let version = r.u8("format version")?;
        if version != VERSION {
            return Err(FormatError::Version { found: version, known: VERSION });
        }
        let model = ModelId::new(r.text16("model", 64)?).map_err(|_| wrong("model", "is no model name"))?;
        let version = r.u64("version")?;
        let epoch = r.u32("epoch")?;
        let publisher = SiteId::new(r.text16("publisher", 32)?).map_err(|_| wrong("publisher", "is no site id"))?;
        let site = SiteId::new(r.text16("site", 32)?).map_err(|_| wrong("site", "is no site id"))?;
        let manifest_sha256 = r.array("manifest digest")?;
        let count = r.count("keys", OWN_KEYS_MAX + 1)?;
        if count == 0 {
            return Err(wrong("keys", "must be one at least"));
        }
        let mut keys = Vec::with_capacity(count.min(r.left() / (16 + SEALED_LEN)));
        for _ in 0..count {
            let key = KeyId(Uuid::from_bytes(r.array("key id")?));
            keys.push(WrappedKey { key, sealed: r.array("sealed key")? });
        }
        r.end()?;
        Ok(Self { model, version, epoch, publisher, site, manifest_sha256, keys })
    }
}

fn wrap_key(wrapping: &Key256) -> AeadKey {
    AeadKey::new(&derive(wrapping, Domain::VaultEnvelope, &[]))
}

#[cfg(test)]
mod tests;
