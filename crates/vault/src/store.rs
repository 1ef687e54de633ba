//! The object store as the vault sees it. Nothing that it says is trusted: it can be slow, full, wrong or hostile.
//!
//! ```text
//! models/<model>/<version>/manifest                  signed; its creation publishes the version
//! models/<model>/<version>/<attempt>/pack-<number>   sealed chunks
//! models/<model>/<version>/<attempt>/envelope-<site> sealed keys
//! ```
//! `<attempt>` is random, so a crashed or lost attempt at a version never mixes with the one that won.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use types::id::{ModelId, SiteId};
use types::units::UtcNanos;

use crate::error::{Error, Result};
use crate::keys::Attempt;
use crate::limits::MANIFEST_MAX;
use crate::manifest::{Publishers, SignedManifest, VerifiedManifest};

/// Models in one object store.
#[derive(Clone, Debug)]
pub struct Vault {
    pub(crate) store: Arc<dyn ObjectStore>,
}

/// What [`Vault::sweep`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Vault {
    /// Over any object store.
    #[must_use]
    pub fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    /// Over a local folder that is there. Writes are synced to disk before they count.
    ///
    /// # Errors
    /// [`Error::File`] if there is no such folder.
    pub fn open_folder(folder: &FilePath) -> Result<Self> {
        fs::read_dir(folder).map_err(Error::file("open the store folder", folder))?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(Error::store("open", &Path::default()))?;
        Ok(Self::over(Arc::new(store.with_fsync(true))))
    }

    /// Over a local folder, made if it is not there.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be made.
    pub fn create_folder(folder: &FilePath) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::file("make the store folder", folder))?;
        Self::open_folder(folder)
    }

    /// All versions of all models, in order. Only committed ones.
    pub(crate) async fn all_versions(&self) -> Result<Vec<(ModelId, u64)>> {
        let mut versions = Vec::new();
        for model in self.children(&Path::from("models")).await? {
            if let Ok(model) = ModelId::new(&model) {
                versions.extend(self.versions(&model).await?.into_iter().map(|version| (model.clone(), version)));
            }
        }
        versions.sort();
        Ok(versions)
    }

    /// Committed versions of a model, oldest first.
    pub(crate) async fn versions(&self, model: &ModelId) -> Result<Vec<u64>> {
        let mut versions = Vec::new();
        for name in self.children(&model_path(model)).await? {
            // Only the shortest decimal form names a version.
            let version = name.parse::<u64>().ok().filter(|version| *version > 0 && version.to_string() == name);
            let Some(version) = version else { continue };
            if self.exists(&manifest_path(model, version)).await? {
                versions.push(version);
            }
        }
        versions.sort_unstable();
        Ok(versions)
    }

    async fn children(&self, path: &Path) -> Result<Vec<String>> {
        match self.store.list_with_delimiter(Some(path)).await {
            Ok(list) => Ok(list.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect()),
            Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(Error::store("list", path)(error)),
        }
    }

    pub(crate) async fn exists(&self, path: &Path) -> Result<bool> {
        match self.store.head(path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(Error::store("look at", path)(error)),
        }
    }

    /// An object of at most `max` bytes.
    pub(crate) async fn read_small(&self, path: &Path, max: usize) -> Result<Bytes> {
        let got = self.store.get(path).await.map_err(Error::store("read", path))?;
        if got.meta.size > max as u64 {
            return Err(Error::Limit {
                what: "the size of a manifest or envelope",
                found: got.meta.size,
                max: max as u64,
            });
        }
        got.bytes().await.map_err(Error::store("read", path))
    }

    /// Reads a version's manifest; checks everything but the signature.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Malformed`], [`Error::Misplaced`] or [`Error::Store`].
    pub async fn signed_manifest(&self, model: &ModelId, version: u64) -> Result<SignedManifest> {
        let path = manifest_path(model, version);
        let bytes = self.read_small(&path, MANIFEST_MAX).await?;
        let signed = SignedManifest::parse(bytes.to_vec()).map_err(Error::malformed(&path))?;
        let claims = signed.claims();
        if claims.model != *model || claims.version != version {
            return Err(Error::Misplaced {
                object: path.to_string(),
                found: format!("{} version {}", claims.model, claims.version),
                expected: format!("{model} version {version}"),
            });
        }
        Ok(signed)
    }

    /// Reads a manifest and checks its signature. Without `version`, the newest one in the store.
    ///
    /// # Errors
    /// [`Error::NoSuchModel`], [`Error::NoSuchVersion`], [`Error::UnknownPublisher`], [`Error::OtherPublisher`],
    /// [`Error::NotAuthentic`], or as [`Vault::signed_manifest`].
    pub async fn manifest(
        &self,
        model: &ModelId,
        version: Option<u64>,
        publishers: &Publishers,
    ) -> Result<VerifiedManifest> {
        let versions = self.versions(model).await?;
        let newest = *versions.last().ok_or_else(|| Error::NoSuchModel { model: model.clone() })?;
        let version = version.unwrap_or(newest);
        if !versions.contains(&version) {
            return Err(Error::NoSuchVersion { model: model.clone(), version, newest });
        }
        let signed = self.signed_manifest(model, version).await?;
        let object = manifest_path(model, version).to_string();
        let claims = signed.claims();
        let Some(key) = publishers.key(&claims.publisher).cloned() else {
            return Err(Error::UnknownPublisher { object, site: claims.publisher.clone() });
        };
        let (signer, trusted) = (claims.signer, key.fingerprint());
        if signer != trusted {
            let short = |digest: [u8; 32]| hex::encode(digest.get(..8).unwrap_or_default());
            return Err(Error::OtherPublisher { object, signed_by: short(signer), trusted: short(trusted) });
        }
        signed.verify(&key).map_err(|_| Error::NotAuthentic { object, what: "the publisher's signature" })
    }

    /// Removes what attempts that never committed have left, when all of it is older than `age`.
    ///
    /// # Errors
    /// [`Error::Store`]; what was removed until then stays removed.
    pub async fn sweep(&self, now: UtcNanos, age: Duration) -> Result<Swept> {
        let young = now.0.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        let root = Path::from("models");
        let mut objects: Vec<ObjectMeta> = Vec::new();
        let mut listing = self.store.list(Some(&root));
        while let Some(object) = listing.next().await {
            match object {
                Ok(object) => objects.push(object),
                Err(object_store::Error::NotFound { .. }) => break,
                Err(error) => return Err(Error::store("list", &root)(error)),
            }
        }
        let keep = self.committed(&objects).await?;
        let mut swept = Swept::default();
        let mut busy = BTreeSet::new();
        let attempt_of = |object: &ObjectMeta| object.location.parent().filter(|path| path.parts_count() == 4);
        for object in &objects {
            let modified = object.last_modified.timestamp_nanos_opt().and_then(|at| u64::try_from(at).ok());
            if modified.is_none_or(|at| at > young) {
                busy.extend(attempt_of(object));
            }
        }
        for object in &objects {
            let Some(attempt) = attempt_of(object) else { continue };
            if keep.iter().any(|kept| attempt.prefix_matches(kept)) || busy.contains(&attempt) {
                continue;
            }
            self.store.delete(&object.location).await.map_err(Error::store("remove", &object.location))?;
            swept.objects += 1;
            swept.bytes += object.size;
        }
        Ok(swept)
    }

    /// Folders that a sweep must not touch: the attempts that manifests name, and whole versions whose manifest
    /// cannot be read.
    async fn committed(&self, objects: &[ObjectMeta]) -> Result<Vec<Path>> {
        let mut keep = Vec::new();
        for object in objects.iter().filter(|object| object.location.filename() == Some("manifest")) {
            let Some(folder) = object.location.parent() else { continue };
            let bytes = self.read_small(&object.location, MANIFEST_MAX).await;
            keep.push(match bytes.ok().and_then(|bytes| SignedManifest::parse(bytes.to_vec()).ok()) {
                Some(signed) => folder.join(hex::encode(signed.claims().attempt.0)),
                None => folder,
            });
        }
        Ok(keep)
    }

    pub(crate) async fn put(&self, path: &Path, payload: PutPayload) -> Result<()> {
        self.store.put(path, payload).await.map(|_| ()).map_err(Error::store("write", path))
    }

    /// Best effort: what stays is found by a later sweep.
    pub(crate) async fn remove_attempt(&self, folder: &Path) {
        let mut listing = self.store.list(Some(folder));
        let mut found = Vec::new();
        while let Some(Ok(object)) = listing.next().await {
            found.push(object.location);
        }
        for path in found {
            if self.store.delete(&path).await.is_err() {
                return;
            }
        }
    }
}

fn model_path(model: &ModelId) -> Path {
    Path::from("models").join(model.as_str())
}

pub(crate) fn manifest_path(model: &ModelId, version: u64) -> Path {
    model_path(model).join(version.to_string()).join("manifest")
}

pub(crate) fn attempt_path(model: &ModelId, version: u64, attempt: Attempt) -> Path {
    model_path(model).join(version.to_string()).join(hex::encode(attempt.0))
}

pub(crate) fn pack_path(attempt: &Path, pack: u32) -> Path {
    attempt.clone().join(format!("pack-{pack:06}"))
}

pub(crate) fn envelope_path(attempt: &Path, site: &SiteId) -> Path {
    attempt.clone().join(format!("envelope-{site}"))
}

/// Says what is wrong with an object that could not be read in full.
pub(crate) async fn diagnose(store: &dyn ObjectStore, path: &Path, needed: u64, error: object_store::Error) -> Error {
    match store.head(path).await {
        Err(object_store::Error::NotFound { .. }) => Error::Missing { object: path.to_string() },
        Ok(meta) if meta.size < needed => Error::Truncated { object: path.to_string(), len: meta.size, needed },
        _ => Error::store("read", path)(error),
    }
}
