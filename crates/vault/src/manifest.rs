//! The manifest of one model version: what it consists of, where each sealed chunk is, how each tensor is protected
//! and which quantum keys wrap which site's envelope. Signed by the publisher; bytes in `docs/formats/vault.md`.
//!
//! The states of a manifest that came from a store: [`SignedManifest`] (it decodes and is consistent) and, after the
//! signature held under a trusted key, [`VerifiedManifest`]. Only the latter opens anything.

use std::collections::BTreeMap;

use crypto::domain::Domain;
use crypto::hash::{Sha256Value, sha256};
use crypto::sign::{SIGNATURE_LEN, SigningKey, VerifyingKey};
use types::id::{KeyId, ModelId, SiteId};
use types::units::UtcNanos;

use crate::error::{Error, FormatError};
use crate::format::{FileFormat, Piece};
use crate::keys::{Attempt, Binding};
use crate::layout::{Layout, Place};
use crate::limits::MANIFEST_MAX;
use crate::plan::Class;

mod codec;

/// A sealed chunk of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedChunk {
    /// Number of the pack object.
    pub pack: u32,
    /// First byte in the pack.
    pub offset: u32,
    /// Bytes, tag included.
    pub len: u32,
    /// SHA-256 of those bytes.
    pub sha256: Sha256Value,
}

/// A piece with its protection and its chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedPiece {
    /// Which bytes of the file it is.
    pub piece: Piece,
    /// How it is protected.
    pub class: Class,
    /// Its chunks, in order.
    pub chunks: Vec<SealedChunk>,
}

/// The quantum keys that wrap one site's envelope. Ids only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeKeys {
    /// The receiving site.
    pub site: SiteId,
    /// The first wraps the model key; the rest wrap the tensors' own keys, in the order of the pieces.
    pub keys: Vec<KeyId>,
}

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The model.
    pub model: ModelId,
    /// Its version, from 1.
    pub version: u64,
    /// Number of the model key within this version, from 0.
    pub epoch: u32,
    /// The publishing site.
    pub publisher: SiteId,
    /// SHA-256 of the publisher's verifying key.
    pub signer: Sha256Value,
    /// When it was published, by the publisher's clock.
    pub published_at: UtcNanos,
    pub(crate) attempt: Attempt,
    /// What kind of file it is.
    pub format: FileFormat,
    /// Length of the file.
    pub file_len: u64,
    /// SHA-256 of the file.
    pub file_sha256: Sha256Value,
    /// Length of each pack object.
    pub packs: Vec<u32>,
    /// The file's pieces, in order.
    pub pieces: Vec<SealedPiece>,
    /// The receiving sites, in the order of their ids.
    pub envelopes: Vec<EnvelopeKeys>,
}

impl Manifest {
    /// Tensors that have a key of their own.
    #[must_use]
    pub fn own_keys(&self) -> usize {
        self.pieces.iter().filter(|sealed| sealed.class == Class::OwnKey).count()
    }

    /// Tensors in the file.
    #[must_use]
    pub fn tensors(&self) -> usize {
        self.pieces.iter().filter(|sealed| sealed.piece.is_tensor()).count()
    }

    /// Sealed chunks.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.pieces.iter().map(|sealed| sealed.chunks.len()).sum()
    }

    /// Bytes of all pack objects.
    #[must_use]
    pub fn sealed_len(&self) -> u64 {
        self.packs.iter().map(|len| u64::from(*len)).sum()
    }

    /// The keys of one site's envelope.
    #[must_use]
    pub fn envelope_keys(&self, site: &SiteId) -> Option<&EnvelopeKeys> {
        self.envelopes.iter().find(|envelope| envelope.site == *site)
    }

    pub(crate) fn binding(&self) -> Binding {
        Binding { model: self.model.clone(), version: self.version, epoch: self.epoch, attempt: self.attempt }
    }

    /// For each piece its place among those with a key of their own.
    pub(crate) fn own_places(&self) -> Vec<Option<usize>> {
        own_places(self.pieces.iter().map(|sealed| sealed.class))
    }

    /// Where each chunk is, with its digest.
    pub(crate) fn layout(&self) -> (Layout, Vec<Sha256Value>) {
        let mut layout = Layout { places: Vec::with_capacity(self.chunks()), packs: self.packs.clone() };
        let mut digests = Vec::with_capacity(self.chunks());
        for (at, sealed) in self.pieces.iter().enumerate() {
            let cut = crate::layout::cut(&sealed.piece);
            for (index, (chunk, (file_offset, len))) in sealed.chunks.iter().zip(cut).enumerate() {
                let index = u32::try_from(index).expect("chunks are limited");
                let place = Place { piece: at, index, file_offset, len, pack: chunk.pack, pack_offset: chunk.offset };
                layout.places.push(place);
                digests.push(chunk.sha256);
            }
        }
        (layout, digests)
    }
}

pub(crate) fn own_places(classes: impl Iterator<Item = Class>) -> Vec<Option<usize>> {
    let mut next = 0;
    let place = |class| {
        (class == Class::OwnKey).then(|| {
            next += 1;
            next - 1
        })
    };
    classes.map(place).collect()
}

/// A manifest with a signature that nobody has checked yet.
#[derive(Clone, Debug)]
pub struct SignedManifest {
    manifest: Manifest,
    bytes: Vec<u8>,
    body_len: usize,
}

impl SignedManifest {
    /// Signs a manifest.
    ///
    /// # Errors
    /// [`Error::Limit`] if it is too large.
    ///
    /// # Panics
    /// If the manifest contradicts itself: that is a bug of the publisher, found before it is written.
    pub(crate) fn sign(manifest: &Manifest, key: &SigningKey) -> Result<VerifiedManifest, Error> {
        let mut bytes = codec::encode(manifest);
        let (found, max) = (bytes.len() + SIGNATURE_LEN, MANIFEST_MAX);
        if found > max {
            return Err(Error::Limit { what: "the size of the manifest", found: found as u64, max: max as u64 });
        }
        let signature = key.sign(Domain::VaultManifest, &bytes);
        bytes.extend_from_slice(&signature);
        let signed = Self::parse(bytes).expect("a publisher makes manifests that decode");
        assert_eq!(signed.manifest, *manifest, "a manifest reads back as it was written");
        Ok(signed.verify(key.verifying_key()).expect("a signature holds under the key that made it"))
    }

    /// Decodes and checks everything but the signature.
    ///
    /// # Errors
    /// [`FormatError`] with the field that is wrong.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, FormatError> {
        let body_len = bytes.len().checked_sub(SIGNATURE_LEN);
        let body_len = body_len.ok_or(FormatError::Field { field: "signature", reason: "is cut short" })?;
        let manifest = codec::decode(bytes.get(..body_len).unwrap_or_default())?;
        Ok(Self { manifest, bytes, body_len })
    }

    /// What it claims. Not to be trusted before [`SignedManifest::verify`].
    #[must_use]
    pub fn claims(&self) -> &Manifest {
        &self.manifest
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`crypto::Error::NotAuthentic`].
    pub fn verify(self, publisher: &VerifyingKey) -> Result<VerifiedManifest, crypto::Error> {
        let (body, signature) = self.bytes.split_at(self.body_len);
        publisher.verify(Domain::VaultManifest, body, signature)?;
        Ok(VerifiedManifest { sha256: sha256(&self.bytes), manifest: self.manifest, bytes: self.bytes })
    }
}

/// A manifest whose signature held under a trusted key.
#[derive(Clone, Debug)]
pub struct VerifiedManifest {
    manifest: Manifest,
    bytes: Vec<u8>,
    sha256: Sha256Value,
}

impl VerifiedManifest {
    /// SHA-256 of the manifest with its signature: the name of this version in logs and envelopes.
    #[must_use]
    pub fn sha256(&self) -> &Sha256Value {
        &self.sha256
    }

    /// The manifest with its signature, as it is stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::ops::Deref for VerifiedManifest {
    type Target = Manifest;
    fn deref(&self) -> &Manifest {
        &self.manifest
    }
}

/// Who may publish, and with which key: a site's name in a manifest counts only with that site's signature.
#[derive(Clone, Debug, Default)]
pub struct Publishers(BTreeMap<SiteId, VerifyingKey>);

impl Publishers {
    /// One publisher alone.
    #[must_use]
    pub fn only(site: SiteId, key: VerifyingKey) -> Self {
        Self(BTreeMap::from([(site, key)]))
    }

    /// The key of a site, if it may publish.
    #[must_use]
    pub fn key(&self, site: &SiteId) -> Option<&VerifyingKey> {
        self.0.get(site)
    }

    /// The sites that may publish.
    pub fn sites(&self) -> impl Iterator<Item = &SiteId> {
        self.0.keys()
    }
}

impl FromIterator<(SiteId, VerifyingKey)> for Publishers {
    fn from_iter<I: IntoIterator<Item = (SiteId, VerifyingKey)>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
