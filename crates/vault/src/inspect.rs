//! Looking without keys: what is in the store, and whether every sealed chunk is the one that was published.

use std::sync::Arc;

use crypto::hash::sha256;
use object_store::ObjectStoreExt;
use rayon::prelude::*;
use types::id::ModelId;

use crate::envelope::Envelope;
use crate::error::{Error, Result};
use crate::fetch::check_envelope;
use crate::limits::ENVELOPE_MAX;
use crate::manifest::{Manifest, Publishers, VerifiedManifest};
use crate::observer::{Observer, Progress, Stage};
use crate::publish::blocking;
use crate::store::{Vault, attempt_path, diagnose, envelope_path, pack_path};

/// One version in a listing.
#[derive(Debug)]
pub struct Listed {
    /// The model.
    pub model: ModelId,
    /// Its version.
    pub version: u64,
    /// Its manifest, or why it must not be used.
    pub manifest: Result<Manifest>,
}

/// What [`Vault::verify`] found.
#[derive(Debug)]
pub struct Verified {
    /// The verified manifest.
    pub manifest: VerifiedManifest,
    /// Sealed chunks that are as published.
    pub good_chunks: u64,
    /// Envelopes that are in place.
    pub good_envelopes: u64,
    /// What is wrong, each with its object's name.
    pub faults: Vec<Error>,
}

impl Vault {
    /// All versions of all models. With the publishers' keys, each signature is checked; without, what manifests claim
    /// is shown as it is.
    ///
    /// # Errors
    /// [`Error::Store`] if the store cannot be listed.
    pub async fn list(&self, publishers: Option<&Publishers>) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for (model, version) in self.all_versions().await? {
            let manifest = match publishers {
                Some(key) => self.manifest(&model, Some(version), key).await.map(|verified| (*verified).clone()),
                None => self.signed_manifest(&model, version).await.map(|signed| signed.claims().clone()),
            };
            listed.push(Listed { model, version, manifest });
        }
        Ok(listed)
    }

    /// Reads every object of a version and checks it against the signed manifest. Needs no key but the publishers'
    /// public ones.
    ///
    /// # Errors
    /// If the manifest itself cannot be read or trusted; all other faults are in the result.
    pub async fn verify(
        &self,
        model: &ModelId,
        version: Option<u64>,
        publishers: &Publishers,
        observer: &mut dyn Observer,
    ) -> Result<Verified> {
        let manifest = Arc::new(self.manifest(model, version, publishers).await?);
        let folder = attempt_path(&manifest.model, manifest.version, manifest.attempt);
        let (layout, digests) = manifest.layout();
        let (mut faults, mut good_chunks, mut good_envelopes, mut done) = (Vec::new(), 0, 0, 0);
        let total = manifest.sealed_len();
        let mut rest = (layout.places.as_slice(), digests.as_slice());
        for ((pack, len), range) in (0..).zip(&manifest.packs).zip(layout.by_pack()) {
            let (places, places_rest) = rest.0.split_at(range.len());
            let (digests, digests_rest) = rest.1.split_at(range.len());
            rest = (places_rest, digests_rest);
            let path = pack_path(&folder, pack);
            let needed = u64::from(*len);
            // Never more than the pack's length is read, whatever stands there.
            match self.store.get_range(&path, 0..needed).await {
                Ok(bytes) if bytes.len() as u64 == needed => {
                    let chunks: Vec<_> = places
                        .iter()
                        .zip(digests)
                        .map(|(place, digest)| {
                            let start = place.pack_offset as usize;
                            (bytes.slice(start..start + place.sealed_len() as usize), *digest, place.piece, place.index)
                        })
                        .collect();
                    let bad: Vec<_> = blocking(move || {
                        chunks
                            .into_par_iter()
                            .filter(|(bytes, digest, ..)| sha256(bytes) != *digest)
                            .map(|(_, _, piece, index)| (piece, index))
                            .collect()
                    })
                    .await;
                    good_chunks += (places.len() - bad.len()) as u64;
                    faults.extend(bad.into_iter().map(|(piece, chunk)| Error::CorruptChunk {
                        object: path.to_string(),
                        tensor: manifest.pieces.get(piece).map(|sealed| sealed.piece.name.clone()).unwrap_or_default(),
                        chunk,
                    }));
                }
                Ok(bytes) => {
                    faults.push(Error::Truncated { object: path.to_string(), len: bytes.len() as u64, needed });
                }
                Err(error) => faults.push(diagnose(self.store.as_ref(), &path, needed, error).await),
            }
            done += needed;
            observer.progress(Progress { stage: Stage::Verifying, done, total });
        }
        for site in manifest.envelopes.iter().map(|envelope| &envelope.site) {
            let path = envelope_path(&folder, site);
            let checked = match self.read_small(&path, ENVELOPE_MAX).await {
                Ok(bytes) => Envelope::decode(&bytes)
                    .map_err(Error::malformed(&path))
                    .and_then(|envelope| check_envelope(&envelope, &manifest, site, &path)),
                Err(error) => Err(error),
            };
            match checked {
                Ok(()) => good_envelopes += 1,
                Err(fault) => faults.push(fault),
            }
        }
        let manifest = Arc::into_inner(manifest).expect("no thread holds the manifest any more");
        Ok(Verified { manifest, good_chunks, good_envelopes, faults })
    }
}
