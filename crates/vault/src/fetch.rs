//! Fetching: manifest, keys, then chunks opened in parallel into a file beside the target, which takes the target's
//! place when its SHA-256 is the published one.
//!
//! An interrupted fetch goes on where it stopped, without a journal: what stands in the partial file is sealed again
//! (sealing is deterministic) and compared with the signed digest of the sealed chunk.

use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use crypto::hash::{Sha256Stream, Sha256Value};
use futures_util::future::join3;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use rayon::prelude::*;
use types::event::Event;
use types::id::{ModelId, SiteId};

use crate::chunk::ChunkContext;
use crate::envelope::Envelope;
use crate::error::{Error, Result};
use crate::keyring::{KeyringError, ModelKeys};
use crate::keys::{Binding, HeldKeys, KeySet};
use crate::layout::{Layout, Place};
use crate::limits::ENVELOPE_MAX;
use crate::manifest::{Publishers, VerifiedManifest};
use crate::observer::{Observer, Progress, Stage, record};
use crate::publish::blocking;
use crate::store::{Vault, attempt_path, diagnose, envelope_path, pack_path};
use crate::supply::{KeyError, WrappingKeys};

/// Which model, for whom, from whom.
#[derive(Clone, Copy, Debug)]
pub struct FetchRequest<'a> {
    /// The model's name.
    pub model: &'a ModelId,
    /// The version; without it, the newest.
    pub version: Option<u64>,
    /// This site.
    pub site: &'a SiteId,
    /// Who may publish.
    pub publishers: &'a Publishers,
}

/// What was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The model.
    pub model: ModelId,
    /// Its version.
    pub version: u64,
    /// SHA-256 of the signed manifest.
    pub manifest_sha256: Sha256Value,
    /// SHA-256 of the file.
    pub file_sha256: Sha256Value,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of those that an earlier, interrupted fetch had brought.
    pub resumed_bytes: u64,
}

/// A version whose manifest was verified and whose keys are unwrapped.
#[derive(Debug)]
pub struct OpenModel {
    store: Arc<dyn ObjectStore>,
    job: Arc<Job>,
}

#[derive(Debug)]
struct Job {
    manifest: VerifiedManifest,
    keys: KeySet,
    binding: Binding,
    folder: Path,
    layout: Layout,
    digests: Vec<Sha256Value>,
    own: Vec<Option<usize>>,
}

/// Sealed chunks of one pack that are still to be opened, and how much of the pack is there already.
struct Prepared {
    missing: Vec<usize>,
    sealed: BytesMut,
    had: u64,
}

impl Vault {
    /// Verifies a version's manifest and unwraps its keys: from the site's keyring, or else from the envelope with
    /// wrapping keys that are fetched, once, and what they unwrap is kept in the keyring.
    ///
    /// # Errors
    /// [`Error`] with what is missing, changed, rolled back or not for this site.
    pub async fn open<K: WrappingKeys>(
        &self,
        request: FetchRequest<'_>,
        keys: &K,
        ring: &impl ModelKeys,
    ) -> Result<OpenModel> {
        let manifest = self.manifest(request.model, request.version, request.publishers).await?;
        let failed = |action| {
            let (model, version) = (manifest.model.clone(), manifest.version);
            move |source: KeyringError| Error::Keyring { action, model, version, source }
        };
        if request.version.is_none() {
            let seen = ring.newest(request.model).map_err(failed("read"))?;
            if let Some(seen) = seen.filter(|seen| *seen > manifest.version) {
                return Err(Error::RolledBack { model: manifest.model.clone(), offered: manifest.version, seen });
            }
        }
        let held = match ring.get(request.model, manifest.version).map_err(failed("read"))? {
            Some(held) if held.manifest_sha256 != *manifest.sha256() => {
                return Err(Error::Replaced { model: manifest.model.clone(), version: manifest.version });
            }
            Some(held) => held,
            None => {
                let held = self.unwrap_envelope(&manifest, request.site, keys).await?;
                ring.put(request.model, manifest.version, &held).map_err(failed("keep"))?;
                held
            }
        };
        if held.keys.own_count() != manifest.own_keys() {
            let object = format!("the keyring's entry of {} version {}", manifest.model, manifest.version);
            return Err(Error::NotAuthentic { object, what: "the number of keys" });
        }
        Ok(OpenModel { store: Arc::clone(&self.store), job: Arc::new(Job::new(manifest, held.keys)) })
    }

    /// [`Vault::open`], then [`OpenModel::write_to`]; a refusal becomes an event.
    ///
    /// # Errors
    /// As both.
    pub async fn fetch<K: WrappingKeys>(
        &self,
        request: FetchRequest<'_>,
        target: &FilePath,
        keys: &K,
        ring: &impl ModelKeys,
        observer: &mut dyn Observer,
    ) -> Result<Fetched> {
        let fetched = match self.open(request, keys, ring).await {
            Ok(model) => model.write_to(target, observer).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &fetched
            && is_refusal(error)
        {
            // The refusal stands whether or not it could be logged; its own error says more.
            let refused = Event::ModelRefused { model: request.model.clone(), reason: error.to_string() };
            let _ = record(observer, refused).await;
        }
        fetched
    }

    async fn unwrap_envelope<K: WrappingKeys>(
        &self,
        manifest: &VerifiedManifest,
        site: &SiteId,
        keys: &K,
    ) -> Result<HeldKeys> {
        let Some(expected) = manifest.envelope_keys(site) else {
            return Err(Error::NoEnvelope {
                model: manifest.model.clone(),
                version: manifest.version,
                site: site.clone(),
                sites: manifest.envelopes.iter().map(|envelope| envelope.site.clone()).collect(),
            });
        };
        let path = envelope_path(&attempt_path(&manifest.model, manifest.version, manifest.attempt), site);
        let bytes = self.read_small(&path, ENVELOPE_MAX).await?;
        let envelope = Envelope::decode(&bytes).map_err(Error::malformed(&path))?;
        // Checked before any key is fetched: a wrong envelope must not burn one.
        check_envelope(&envelope, manifest, site, &path)?;
        let failed = |source| Error::Keys { peer: manifest.publisher.clone(), source };
        let wrapping = keys.collect(&manifest.publisher, &expected.keys).await.map_err(failed)?;
        if wrapping.len() != expected.keys.len() {
            let reason = format!("{} keys were asked for, {} came", expected.keys.len(), wrapping.len());
            return Err(failed(KeyError::PeerMisbehaved { reason }));
        }
        let keys = envelope
            .open(wrapping)
            .map_err(|_| Error::NotAuthentic { object: path.to_string(), what: "a key wrapped for this site" })?;
        Ok(HeldKeys { manifest_sha256: *manifest.sha256(), keys })
    }
}

pub(crate) fn check_envelope(
    envelope: &Envelope,
    manifest: &VerifiedManifest,
    site: &SiteId,
    path: &Path,
) -> Result<()> {
    let of = |model: &ModelId, version, epoch, publisher: &SiteId, site: &SiteId, digest: &Sha256Value| {
        let digest = hex::encode(digest);
        format!("{model} version {version} epoch {epoch} from {publisher} for {site}, manifest {digest}")
    };
    let Envelope { model, version, epoch, publisher, site: receiver, manifest_sha256, .. } = envelope;
    let found = of(model, *version, *epoch, publisher, receiver, manifest_sha256);
    let expected = of(&manifest.model, manifest.version, manifest.epoch, &manifest.publisher, site, manifest.sha256());
    if found != expected {
        return Err(Error::Misplaced { object: path.to_string(), found, expected });
    }
    let ids = manifest.envelope_keys(site).map(|envelope| envelope.keys.as_slice()).unwrap_or_default();
    if !envelope.keys.iter().map(|wrapped| &wrapped.key).eq(ids) {
        return Err(Error::NotAuthentic { object: path.to_string(), what: "the list of its key ids" });
    }
    Ok(())
}

impl OpenModel {
    /// The verified manifest.
    #[must_use]
    pub fn manifest(&self) -> &VerifiedManifest {
        &self.job.manifest
    }

    /// One tensor's bytes, without reading the rest of the model.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`], or what is wrong with its chunks.
    pub async fn read_tensor(&self, name: &str) -> Result<Vec<u8>> {
        let manifest = &self.job.manifest;
        let at = manifest.pieces.iter().position(|sealed| sealed.piece.is_tensor() && sealed.piece.name == name);
        let Some(at) = at else {
            let (model, version) = (manifest.model.clone(), manifest.version);
            return Err(Error::NoSuchTensor { model, version, tensor: name.to_owned() });
        };
        let places = &self.job.layout.places;
        let (start, end) =
            (places.partition_point(|place| place.piece < at), places.partition_point(|place| place.piece <= at));
        let mut tensor = Vec::new();
        for chunk in start..end {
            let mut sealed = self.read_sealed(chunk..chunk + 1).await?;
            let job = Arc::clone(&self.job);
            let opened = blocking(move || {
                let len = job.open(chunk, &mut sealed)?.len();
                sealed.truncate(len);
                Ok::<_, Error>(sealed)
            });
            tensor.extend_from_slice(&opened.await?);
        }
        Ok(tensor)
    }

    /// Writes the whole file beside `target`, checks its SHA-256, syncs it and renames it to `target`. What an
    /// interrupted run has left beside `target` is used.
    ///
    /// # Errors
    /// [`Error`]; what was opened until then stays for the next run, and `target` is as it was before.
    pub async fn write_to(&self, target: &FilePath, observer: &mut dyn Observer) -> Result<Fetched> {
        let manifest = &self.job.manifest;
        let partial_path = partial_path(target, manifest.sha256())?;
        let partial = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&partial_path)
            .map_err(Error::file("write", &partial_path))?;
        let len = partial.metadata().map_err(Error::file("read", &partial_path))?.len();
        let partial = Arc::new(Partial { file: partial, path: partial_path, had: len });
        let (digest, resumed_bytes) = self.open_packs(&partial, observer).await?;
        if digest != manifest.file_sha256 {
            let _ = fs::remove_file(&partial.path);
            return Err(Error::FileDigest { path: target.to_owned() });
        }
        partial.file.set_len(manifest.file_len).map_err(Error::file("write", &partial.path))?;
        let syncing = Arc::clone(&partial);
        blocking(move || syncing.file.sync_all()).await.map_err(Error::file("sync", &partial.path))?;
        let fetched = Event::ModelFetched {
            model: manifest.model.clone(),
            version: manifest.version,
            manifest_sha256: hex::encode(manifest.sha256()),
            bytes: manifest.file_len,
        };
        record(observer, fetched).await?;
        fs::rename(&partial.path, target).map_err(Error::file("rename the fetched file to", target))?;
        let folder =
            partial.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(FilePath::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::file("sync", folder))?;
        Ok(Fetched {
            model: manifest.model.clone(),
            version: manifest.version,
            manifest_sha256: *manifest.sha256(),
            file_sha256: manifest.file_sha256,
            bytes: manifest.file_len,
            resumed_bytes,
        })
    }

    /// Brings every chunk into the partial file. Three packs are in hand: one is checked or read from the store, one
    /// is opened and written, one is hashed. Returns the file's digest and the bytes that were there before.
    async fn open_packs(&self, partial: &Arc<Partial>, observer: &mut dyn Observer) -> Result<(Sha256Value, u64)> {
        let ranges = self.job.layout.by_pack();
        let total = self.job.manifest.file_len;
        let mut hasher = Some(Sha256Stream::default());
        let mut prepared: Option<Prepared> = None;
        let (mut resumed, mut done) = (0, 0);
        observer.progress(Progress { stage: Stage::Opening, done, total });
        for step in 0..ranges.len() + 2 {
            let prepare = async {
                let Some(range) = ranges.get(step) else { return Ok(None) };
                self.prepare(range.clone(), partial).await.map(Some)
            };
            let open = async {
                let Some(Prepared { missing, sealed, .. }) = prepared.take() else { return Ok(()) };
                let (job, partial) = (Arc::clone(&self.job), Arc::clone(partial));
                blocking(move || job.open_into(&missing, sealed, &partial)).await
            };
            let hash = async {
                let Some(range) = step.checked_sub(2).and_then(|at| ranges.get(at)) else { return Ok(0) };
                let (job, partial, range) = (Arc::clone(&self.job), Arc::clone(partial), range.clone());
                let mut taken = hasher.take().expect("the hasher comes back with every pack");
                let (back, bytes) = blocking(move || {
                    let bytes = job.hash(range, &partial, &mut taken);
                    (taken, bytes)
                })
                .await;
                hasher = Some(back);
                bytes
            };
            let (next, opened, hashed) = join3(prepare, open, hash).await;
            opened?;
            done += hashed?;
            prepared = next?;
            resumed += prepared.as_ref().map_or(0, |prepared| prepared.had);
            observer.progress(Progress { stage: Stage::Opening, done, total });
        }
        Ok((hasher.unwrap_or_default().finish(), resumed))
    }

    /// Finds out which chunks of a pack are missing from the partial file and reads those from the store.
    async fn prepare(&self, range: Range<usize>, partial: &Arc<Partial>) -> Result<Prepared> {
        let (job, checked, all) = (Arc::clone(&self.job), Arc::clone(partial), range.clone());
        let missing = blocking(move || job.missing(all, &checked)).await;
        let bytes =
            |chunks: &mut dyn Iterator<Item = usize>| chunks.map(|at| u64::from(self.job.place(at).len)).sum::<u64>();
        let had = bytes(&mut range.clone()) - bytes(&mut missing.iter().copied());
        let sealed = match (missing.first(), missing.last()) {
            (Some(first), Some(last)) => self.read_sealed(*first..*last + 1).await?,
            _ => BytesMut::new(),
        };
        Ok(Prepared { missing, sealed, had })
    }

    /// The sealed bytes of a row of chunks in one pack.
    async fn read_sealed(&self, chunks: Range<usize>) -> Result<BytesMut> {
        let (first, last) = (self.job.place(chunks.start), self.job.place(chunks.end - 1));
        let path = pack_path(&self.job.folder, first.pack);
        let range = first.pack_range().start..last.pack_range().end;
        let needed = self.job.layout.packs.get(first.pack as usize).map_or(range.end, |len| u64::from(*len));
        match self.store.get_range(&path, range.clone()).await {
            Ok(bytes) if bytes.len() as u64 == range.end - range.start => {
                Ok(bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref())))
            }
            Ok(bytes) => {
                Err(Error::Truncated { object: path.to_string(), len: range.start + bytes.len() as u64, needed })
            }
            Err(error) => Err(diagnose(self.store.as_ref(), &path, needed, error).await),
        }
    }
}

impl Job {
    fn new(manifest: VerifiedManifest, keys: KeySet) -> Self {
        let (layout, digests) = manifest.layout();
        Self {
            keys,
            binding: manifest.binding(),
            folder: attempt_path(&manifest.model, manifest.version, manifest.attempt),
            own: manifest.own_places(),
            layout,
            digests,
            manifest,
        }
    }

    fn place(&self, at: usize) -> &Place {
        self.layout.places.get(at).expect("chunk numbers come from the layout")
    }

    fn digest(&self, at: usize) -> &Sha256Value {
        self.digests.get(at).expect("there is a digest for each chunk")
    }

    fn context(&self, at: usize) -> ChunkContext<'_> {
        let place = self.place(at);
        ChunkContext {
            keys: &self.keys,
            binding: &self.binding,
            piece: &self.manifest.pieces.get(place.piece).expect("the layout is of this manifest").piece,
            own: self.own.get(place.piece).copied().flatten(),
            index: place.index,
        }
    }

    fn open<'b>(&self, at: usize, sealed: &'b mut [u8]) -> Result<&'b mut [u8]> {
        let context = self.context(at);
        context.open(sealed, self.digest(at)).ok_or_else(|| Error::CorruptChunk {
            object: pack_path(&self.folder, self.place(at).pack).to_string(),
            tensor: context.piece.name.clone(),
            chunk: context.index,
        })
    }

    /// Chunks of a pack that the partial file does not hold: sealed again, they must have the published digest.
    fn missing(&self, range: Range<usize>, partial: &Partial) -> Vec<usize> {
        let there = |at: &usize| {
            let place = self.place(*at);
            if place.file_offset + u64::from(place.len) > partial.had {
                return false;
            }
            let mut chunk = Vec::with_capacity(place.sealed_len() as usize);
            chunk.resize(place.len as usize, 0);
            partial.file.read_exact_at(&mut chunk, place.file_offset).is_ok()
                && self.context(*at).seal(&mut chunk) == *self.digest(*at)
        };
        range.into_par_iter().filter(|at| !there(at)).collect()
    }

    fn open_into(&self, missing: &[usize], mut sealed: BytesMut, partial: &Partial) -> Result<()> {
        let Some(first) = missing.first() else { return Ok(()) };
        let mut rest = sealed.as_mut();
        let mut position = self.place(*first).pack_offset;
        let mut chunks = Vec::with_capacity(missing.len());
        for at in missing {
            let place = self.place(*at);
            let (_, from) = rest.split_at_mut((place.pack_offset - position) as usize);
            let (chunk, after) = from.split_at_mut(place.sealed_len() as usize);
            chunks.push((*at, chunk));
            (rest, position) = (after, place.pack_offset + place.sealed_len());
        }
        chunks.into_par_iter().try_for_each(|(at, chunk)| {
            let plain = self.open(at, chunk)?;
            partial.file.write_all_at(plain, self.place(at).file_offset).map_err(Error::file("write", &partial.path))
        })
    }

    /// Hashes a pack's plaintext as it stands in the partial file; returns its length.
    fn hash(&self, range: Range<usize>, partial: &Partial, hasher: &mut Sha256Stream) -> Result<u64> {
        let mut buffer = vec![0; 1024 * 1024];
        let places = self.layout.places.get(range).unwrap_or_default();
        let (Some(first), Some(last)) = (places.first(), places.last()) else { return Ok(0) };
        let end = last.file_offset + u64::from(last.len);
        let mut at = first.file_offset;
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..len).unwrap_or_default();
            partial.file.read_exact_at(part, at).map_err(Error::file("read", &partial.path))?;
            hasher.update(part);
            at += len as u64;
        }
        Ok(end - first.file_offset)
    }
}

/// The file that grows beside the target.
struct Partial {
    file: File,
    path: PathBuf,
    /// Its length when it was opened.
    had: u64,
}

/// `.<name>.<manifest>.partial` beside the target: another version never meets this one's bytes.
fn partial_path(target: &FilePath, manifest_sha256: &Sha256Value) -> Result<PathBuf> {
    let name = target.file_name().filter(|_| !target.is_dir());
    let name = name.ok_or_else(|| Error::Request {
        what: format!("target {}", target.display()),
        reason: "give the name of a file to write".to_owned(),
    })?;
    let tag = hex::encode(manifest_sha256.get(..8).unwrap_or_default());
    Ok(target.with_file_name(format!(".{}.{tag}.partial", name.to_string_lossy())))
}

/// Whether the model was refused (and not merely out of reach).
fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::Truncated { .. }
            | Error::Malformed { .. }
            | Error::Misplaced { .. }
            | Error::UnknownPublisher { .. }
            | Error::OtherPublisher { .. }
            | Error::NotAuthentic { .. }
            | Error::CorruptChunk { .. }
            | Error::FileDigest { .. }
            | Error::RolledBack { .. }
            | Error::Replaced { .. }
    )
}
