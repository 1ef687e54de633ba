//! Publishing: seal in parallel, write packs, then envelopes, then the manifest, whose creation is the commit point.
//!
//! Three packs are in hand at a time: one is read and hashed, one is sealed, one is written. A crash leaves objects
//! that no manifest names; nobody sees them, and [`Vault::sweep`] removes them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use crypto::aead::TAG_LEN;
use crypto::hash::{Sha256Stream, Sha256Value};
use crypto::sign::SigningKey;
use futures_util::future::join3;
use object_store::path::Path;
use object_store::{ObjectStore, PutMode, PutOptions, PutPayload};
use rand_core::CryptoRng;
use rayon::prelude::*;
use types::event::Event;
use types::id::{ModelId, SiteId};
use types::units::UtcNanos;

use crate::chunk::ChunkContext;
use crate::envelope::Envelope;
use crate::error::{Error, Result};
use crate::format::ModelFile;
use crate::keyring::ModelKeys;
use crate::keys::{Attempt, Binding, HeldKeys, KeySet};
use crate::layout::Layout;
use crate::limits::{IN_FLIGHT_MAX, KEY_IDS_MAX, MANIFEST_MAX, PACK_CHUNKS, PACK_PLAIN, SITES_MAX};
use crate::manifest::{EnvelopeKeys, Manifest, SealedChunk, SealedPiece, SignedManifest, VerifiedManifest, own_places};
use crate::observer::{Observer, Progress, Stage, record};
use crate::plan::Plan;
use crate::store::{Vault, attempt_path, envelope_path, manifest_path, pack_path};
use crate::supply::{KeyError, WrappingKeys};

/// What to publish, for whom, by whom.
#[derive(Clone, Copy, Debug)]
pub struct PublishRequest<'a> {
    /// The model's name.
    pub model: &'a ModelId,
    /// The publishing site.
    pub publisher: &'a SiteId,
    /// The receiving sites.
    pub sites: &'a [SiteId],
    /// The publisher's signing key.
    pub signing: &'a SigningKey,
    /// The wall clock, for the record.
    pub now: UtcNanos,
}

/// Three packs are in hand at a time.
const _: () = assert!(3 * (PACK_PLAIN as u64 + PACK_CHUNKS as u64 * TAG_LEN as u64) <= IN_FLIGHT_MAX);

/// One sealed or plain chunk each.
type Chunks = Vec<Vec<u8>>;

/// A publish that failed.
struct Failed {
    error: Error,
    /// Whether the version may be visible in spite of it.
    may_be_committed: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, may_be_committed: false }
    }
}

/// What was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The model.
    pub model: ModelId,
    /// The version that it became.
    pub version: u64,
    /// SHA-256 of the signed manifest.
    pub manifest_sha256: Sha256Value,
    /// SHA-256 of the file.
    pub file_sha256: Sha256Value,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the pack objects.
    pub sealed_bytes: u64,
    /// Tensors.
    pub tensors: u64,
    /// Sealed chunks.
    pub chunks: u64,
    /// Receiving sites.
    pub sites: Vec<SiteId>,
    /// Wrapping keys spent for each site.
    pub keys_per_site: u32,
}

/// Everything that reading and sealing need, shared with the threads that do it.
struct Job {
    file: Arc<ModelFile>,
    layout: Layout,
    own: Vec<Option<usize>>,
    keys: KeySet,
    binding: Binding,
    /// Where the attempt's objects go.
    folder: Path,
}

impl Vault {
    /// Publishes a file as the next version of a model, as planned.
    ///
    /// Wrapping keys are taken when all chunks are written, so that a failure before costs none. The publisher's own
    /// keyring keeps the model key. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error`]; nothing of the version is visible then, but for [`Error::Keyring`], which comes after the commit.
    pub async fn publish<K: WrappingKeys>(
        &self,
        (file, plan): (&Arc<ModelFile>, &Plan),
        request: PublishRequest<'_>,
        keys: &K,
        ring: &impl ModelKeys,
        rng: &mut (impl CryptoRng + Send),
        observer: &mut dyn Observer,
    ) -> Result<Published> {
        let sites = check_request(file, plan, request)?;
        for site in &sites {
            check_stock(keys, site, plan.keys_per_site()).await?;
        }
        let version = match self.versions(request.model).await?.last().copied() {
            Some(u64::MAX) => return Err(Error::Limit { what: "the version", found: u64::MAX, max: u64::MAX - 1 }),
            newest => newest.map_or(1, |newest| newest + 1),
        };
        let mut attempt = Attempt([0; 16]);
        rng.fill_bytes(&mut attempt.0);
        let own = own_places(plan.pieces().iter().map(|planned| planned.class));
        let own_keys = own.iter().flatten().count();
        let job = Arc::new(Job {
            file: Arc::clone(file),
            layout: Layout::of(file.pieces())?,
            own,
            keys: KeySet::random(own_keys, rng),
            binding: Binding { model: request.model.clone(), version, epoch: 0, attempt },
            folder: attempt_path(request.model, version, attempt),
        });
        let request = PublishRequest { sites: &sites, ..request };
        let manifest = match self.seal_and_commit(&job, plan, request, keys, observer).await {
            Ok(manifest) => manifest,
            Err(Failed { error, may_be_committed }) => {
                if !may_be_committed {
                    self.remove_attempt(&job.folder).await;
                }
                return Err(error);
            }
        };
        let published = Published {
            model: request.model.clone(),
            version,
            manifest_sha256: *manifest.sha256(),
            file_sha256: manifest.file_sha256,
            bytes: manifest.file_len,
            sealed_bytes: manifest.sealed_len(),
            tensors: manifest.tensors() as u64,
            chunks: manifest.chunks() as u64,
            keys_per_site: plan.keys_per_site(),
            sites,
        };
        let job = Arc::into_inner(job).expect("all threads that sealed have ended");
        let held = HeldKeys { manifest_sha256: *manifest.sha256(), keys: job.keys };
        ring.put(&published.model, version, &held).map_err(|source| Error::Keyring {
            action: "keep (the model is published)",
            model: published.model.clone(),
            version,
            source,
        })?;
        Ok(published)
    }

    async fn seal_and_commit<K: WrappingKeys>(
        &self,
        job: &Arc<Job>,
        plan: &Plan,
        request: PublishRequest<'_>,
        keys: &K,
        observer: &mut dyn Observer,
    ) -> Result<VerifiedManifest, Failed> {
        let (file_sha256, digests) = self.seal_packs(job, observer).await?;
        job.file.unchanged()?;
        let path = manifest_path(request.model, job.binding.version);
        if self.exists(&path).await? {
            return Err(Error::VersionTaken { model: request.model.clone(), version: job.binding.version }.into());
        }
        let mut wrapping = Vec::with_capacity(request.sites.len());
        for site in request.sites {
            wrapping.push(supply(keys, site, plan.keys_per_site()).await?);
        }
        let mut manifest = manifest_of(job, plan, request, file_sha256, &digests);
        manifest.envelopes = request
            .sites
            .iter()
            .zip(&wrapping)
            .map(|(site, keys)| EnvelopeKeys { site: site.clone(), keys: keys.iter().map(|(id, _)| *id).collect() })
            .collect();
        let manifest = SignedManifest::sign(&manifest, request.signing)?;
        let total = request.sites.len() as u64;
        for (done, (site, wrapping)) in (1..).zip(request.sites.iter().zip(wrapping)) {
            let envelope = Envelope::seal(&manifest, site, &job.keys, wrapping);
            self.put(&envelope_path(&job.folder, site), PutPayload::from(envelope.encode())).await?;
            observer.progress(Progress { stage: Stage::Wrapping, done, total });
        }
        let published = Event::ModelPublished {
            model: request.model.clone(),
            version: manifest.version,
            manifest_sha256: hex::encode(manifest.sha256()),
            sites: total,
            bytes: manifest.file_len,
        };
        record(observer, published).await?;
        if let Err(failed) = self.commit(&manifest).await {
            let reason = format!("version {} was not published: {}", manifest.version, failed.error);
            // The commit failed whether or not that could be logged; its own error says more.
            let _ = record(observer, Event::ModelRefused { model: request.model.clone(), reason }).await;
            return Err(failed);
        }
        Ok(manifest)
    }

    /// Reads, seals and writes all packs; returns the file's digest and those of the chunks.
    async fn seal_packs(&self, job: &Arc<Job>, observer: &mut dyn Observer) -> Result<(Sha256Value, Vec<Sha256Value>)> {
        let ranges = job.layout.by_pack();
        let total = job.file.byte_len();
        let mut digests = Vec::with_capacity(job.layout.places.len());
        let mut hasher = Some(Sha256Stream::default());
        let (mut plain, mut sealed): (Option<Chunks>, Option<Chunks>) = (None, None);
        observer.progress(Progress { stage: Stage::Sealing, done: 0, total });
        let mut done = 0;
        for step in 0..ranges.len() + 2 {
            let read = async {
                let Some(range) = ranges.get(step) else { return Ok(None) };
                let (job, range) = (Arc::clone(job), range.clone());
                let hasher = hasher.take().expect("the hasher comes back with every pack");
                blocking(move || job.read(range, hasher)).await.map(Some)
            };
            let seal = async {
                let (Some(chunks), Some(range)) = (plain.take(), step.checked_sub(1).and_then(|at| ranges.get(at)))
                else {
                    return None;
                };
                let (job, range) = (Arc::clone(job), range.clone());
                Some(blocking(move || job.seal(range, chunks)).await)
            };
            let write = async {
                let (Some(chunks), Some(pack)) = (sealed.take(), step.checked_sub(2)) else { return Ok(()) };
                let path = pack_path(&job.folder, u32::try_from(pack).expect("packs are limited"));
                self.put(&path, chunks.into_iter().map(Bytes::from).collect()).await
            };
            // All three end before an error counts, so that nothing is written after it.
            let (read, seal, write) = join3(read, seal, write).await;
            write?;
            if let Some(range) = step.checked_sub(2).and_then(|at| ranges.get(at)) {
                done += job
                    .layout
                    .places
                    .get(range.clone())
                    .unwrap_or_default()
                    .iter()
                    .map(|place| u64::from(place.len))
                    .sum::<u64>();
                observer.progress(Progress { stage: Stage::Sealing, done, total });
            }
            if let Some((chunks, more)) = seal {
                sealed = Some(chunks);
                digests.extend(more);
            }
            if let Some((chunks, back)) = read? {
                plain = Some(chunks);
                hasher = Some(back);
            }
        }
        Ok((hasher.unwrap_or_default().finish(), digests))
    }

    /// Creates the manifest's object. It alone makes the version visible.
    async fn commit(&self, manifest: &VerifiedManifest) -> Result<(), Failed> {
        let path = manifest_path(&manifest.model, manifest.version);
        let payload = PutPayload::from(manifest.as_bytes().to_vec());
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let Err(error) = self.store.put_opts(&path, payload, options).await else { return Ok(()) };
        // The store may have taken it although it reports an error, or somebody was faster.
        match self.read_small(&path, MANIFEST_MAX).await {
            Ok(there) if there == manifest.as_bytes() => Ok(()),
            Ok(_) => Err(Error::VersionTaken { model: manifest.model.clone(), version: manifest.version }.into()),
            Err(Error::Missing { .. }) => Err(Error::store("write", &path)(error).into()),
            Err(_) => Err(Failed { error: Error::store("write", &path)(error), may_be_committed: true }),
        }
    }
}

impl Job {
    fn context(&self, at: usize) -> ChunkContext<'_> {
        let place = self.layout.places.get(at).expect("a pack's range is within the layout");
        ChunkContext {
            keys: &self.keys,
            binding: &self.binding,
            piece: self.file.pieces().get(place.piece).expect("the layout is of this file"),
            own: self.own.get(place.piece).copied().flatten(),
            index: place.index,
        }
    }

    /// Reads the chunks of a pack with room for their tags, and hashes them: packs come in the file's order.
    fn read(&self, range: Range<usize>, mut hasher: Sha256Stream) -> Result<(Chunks, Sha256Stream)> {
        let mut chunks = Vec::with_capacity(range.len());
        for place in self.layout.places.get(range).unwrap_or_default() {
            let mut chunk = Vec::with_capacity(place.sealed_len() as usize);
            chunk.resize(place.len as usize, 0);
            self.file.read_exact_at(&mut chunk, place.file_offset)?;
            hasher.update(&chunk);
            chunks.push(chunk);
        }
        Ok((chunks, hasher))
    }

    fn seal(&self, range: Range<usize>, mut chunks: Chunks) -> (Chunks, Vec<Sha256Value>) {
        let digests =
            chunks.par_iter_mut().zip(range.into_par_iter()).map(|(chunk, at)| self.context(at).seal(chunk)).collect();
        (chunks, digests)
    }
}

/// The receiving sites in the order of their ids, once each.
fn check_request(file: &ModelFile, plan: &Plan, request: PublishRequest<'_>) -> Result<Vec<SiteId>> {
    let wrong = |what: &str, reason: &str| Err(Error::Request { what: what.to_owned(), reason: reason.to_owned() });
    if plan.format() != file.format() || !plan.pieces().iter().map(|planned| &planned.piece).eq(file.pieces()) {
        return wrong("plan", "it was made for another file");
    }
    let mut sites = request.sites.to_vec();
    sites.sort();
    sites.dedup();
    if sites.is_empty() {
        return wrong("sites", "name one receiving site at least");
    }
    if sites.contains(request.publisher) {
        return wrong("sites", "the publishing site keeps the model key anyway: name the others only");
    }
    let ids = sites.len() as u64 * u64::from(plan.keys_per_site());
    if sites.len() > SITES_MAX {
        return Err(Error::Limit { what: "the number of sites", found: sites.len() as u64, max: SITES_MAX as u64 });
    }
    if ids > KEY_IDS_MAX as u64 {
        return Err(Error::Limit {
            what: "the number of wrapping keys over all sites",
            found: ids,
            max: KEY_IDS_MAX as u64,
        });
    }
    Ok(sites)
}

async fn check_stock(keys: &impl WrappingKeys, site: &SiteId, wanted: u32) -> Result<()> {
    let wanted = u64::from(wanted);
    match keys.stock(site).await {
        Ok(Some(available)) if available < wanted => {
            Err(Error::Keys { peer: site.clone(), source: KeyError::Short { wanted, available } })
        }
        Ok(_) => Ok(()),
        Err(source) => Err(Error::Keys { peer: site.clone(), source }),
    }
}

async fn supply(
    keys: &impl WrappingKeys,
    site: &SiteId,
    wanted: u32,
) -> Result<Vec<(types::id::KeyId, crypto::secret::Key256)>> {
    let failed = |source| Error::Keys { peer: site.clone(), source };
    let supplied = keys.supply(site, wanted).await.map_err(failed)?;
    if supplied.len() as u64 != u64::from(wanted) {
        let reason = format!("{wanted} keys were asked for, {} came", supplied.len());
        return Err(failed(KeyError::PeerMisbehaved { reason }));
    }
    let mut ids: Vec<_> = supplied.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err(failed(KeyError::PeerMisbehaved { reason: "two keys came under one id".to_owned() }));
    }
    Ok(supplied)
}

fn manifest_of(
    job: &Job,
    plan: &Plan,
    request: PublishRequest<'_>,
    file_sha256: Sha256Value,
    digests: &[Sha256Value],
) -> Manifest {
    assert_eq!(digests.len(), job.layout.places.len(), "every chunk was sealed");
    let mut pieces: Vec<SealedPiece> = plan
        .pieces()
        .iter()
        .map(|planned| SealedPiece { piece: planned.piece.clone(), class: planned.class, chunks: Vec::new() })
        .collect();
    for (place, sha256) in job.layout.places.iter().zip(digests) {
        let piece = pieces.get_mut(place.piece).expect("the plan is of this file");
        piece.chunks.push(SealedChunk {
            pack: place.pack,
            offset: place.pack_offset,
            len: place.sealed_len(),
            sha256: *sha256,
        });
    }
    Manifest {
        model: request.model.clone(),
        version: job.binding.version,
        epoch: job.binding.epoch,
        publisher: request.publisher.clone(),
        signer: request.signing.verifying_key().fingerprint(),
        published_at: request.now,
        attempt: job.binding.attempt,
        format: job.file.format(),
        file_len: job.file.byte_len(),
        file_sha256,
        packs: job.layout.packs.clone(),
        pieces,
        envelopes: Vec::new(),
    }
}

/// Runs work that takes long on a thread of its own kind; a panic there is a panic here.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
