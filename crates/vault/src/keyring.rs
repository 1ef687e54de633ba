//! Where a site keeps model keys: a wrapping key can be fetched once, so what it unwrapped must be kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crypto::aead::AeadKey;
use crypto::domain::Domain;
use crypto::kdf::derive;
use crypto::secret::{Key256, SecretBytes};
use types::id::ModelId;

use crate::keys::HeldKeys;

/// Keeps the keys of model versions, sealed under the site's root key.
pub trait ModelKeys: Sync {
    /// The keys of a version, if they are here.
    ///
    /// # Errors
    /// [`KeyringError`] if the keyring cannot be read or an entry is not authentic.
    fn get(&self, model: &ModelId, version: u64) -> Result<Option<HeldKeys>, KeyringError>;

    /// Keeps keys durably before it returns; replaces what was there for this version.
    ///
    /// # Errors
    /// [`KeyringError`] if they are not durable.
    fn put(&self, model: &ModelId, version: u64, held: &HeldKeys) -> Result<(), KeyringError>;

    /// The newest version of a model whose keys are here.
    ///
    /// # Errors
    /// [`KeyringError`] if the keyring cannot be read.
    fn newest(&self, model: &ModelId) -> Result<Option<u64>, KeyringError>;
}

/// Why the keyring failed.
#[derive(Debug, thiserror::Error)]
#[error("keyring entry {entry}")]
pub struct KeyringError {
    /// Which entry or folder.
    pub entry: String,
    /// Why.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A keyring in a folder: one sealed file for each version, `<model>/<version>.key`.
///
/// Layout of a file (`docs/formats/vault.md`): magic `QVKR`, version 1, 32 bytes of salt, then the entry under
/// AES-256-GCM with a key derived from root key, salt, model and version, which seals nothing else: the salt is
/// itself derived from the entry.
#[derive(Debug)]
pub struct FileKeyring {
    folder: PathBuf,
    root: Key256,
}

const MAGIC: &[u8; 5] = b"QVKR\x01";
const SALT_LEN: usize = 32;
const ENTRY_MAX: u64 = 1024 * 1024;

impl FileKeyring {
    /// A keyring in a folder, made when it is not there, sealed under the site's root key.
    ///
    /// # Errors
    /// [`KeyringError`] if the folder cannot be made.
    pub fn open(folder: &Path, root: Key256) -> Result<Self, KeyringError> {
        fs::create_dir_all(folder).map_err(failed(folder))?;
        Ok(Self { folder: folder.to_owned(), root })
    }

    fn path(&self, model: &ModelId, version: u64) -> PathBuf {
        self.folder.join(model.as_str()).join(format!("{version}.key"))
    }

    /// A salt that differs whenever the entry does, so that no sealing key ever seals two entries.
    fn salt(&self, entry: &SecretBytes, model: &ModelId, version: u64) -> [u8; SALT_LEN] {
        let model = model.as_str().as_bytes();
        let salt = entry.expose(|entry| {
            derive(&self.root, Domain::SiteKeyring, &[b"vault/model-key-salt", model, &version.to_be_bytes(), entry])
        });
        salt.expose(|salt| *salt)
    }

    fn sealing_key(&self, salt: &[u8], model: &ModelId, version: u64) -> AeadKey {
        let context: [&[u8]; 4] = [b"vault/model-key", salt, model.as_str().as_bytes(), &version.to_be_bytes()];
        AeadKey::new(&derive(&self.root, Domain::SiteKeyring, &context))
    }
}

impl ModelKeys for FileKeyring {
    fn get(&self, model: &ModelId, version: u64) -> Result<Option<HeldKeys>, KeyringError> {
        let path = self.path(model, version);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed(&path))?,
        };
        let len = file.metadata().map_err(failed(&path))?.len();
        let corrupt = |why: &str| failed(&path)(why.to_owned());
        if len > ENTRY_MAX {
            return Err(corrupt("it is too long"));
        }
        let bytes = fs::read(&path).map_err(failed(&path))?;
        let sealed = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_at_checked(SALT_LEN));
        let (salt, sealed) = sealed.ok_or_else(|| corrupt("it is no keyring entry"))?;
        let secret = self
            .sealing_key(salt, model, version)
            .open_once(MAGIC, sealed)
            .map_err(|_| corrupt("it is not authentic under this root key"))?;
        HeldKeys::from_secret(&secret).map(Some).map_err(failed(&path))
    }

    fn put(&self, model: &ModelId, version: u64, held: &HeldKeys) -> Result<(), KeyringError> {
        let path = self.path(model, version);
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let secret = held.to_secret();
        let salt = self.salt(&secret, model, version);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&salt);
        bytes.extend_from_slice(&self.sealing_key(&salt, model, version).seal_once(MAGIC, &secret));
        let staged = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&staged, &path)?;
            File::open(folder)?.sync_all()?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(failed(&path))
    }

    fn newest(&self, model: &ModelId) -> Result<Option<u64>, KeyringError> {
        let folder = self.folder.join(model.as_str());
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries.map_err(failed(&folder))?,
        };
        let mut newest = None;
        for entry in entries {
            let name = entry.map_err(failed(&folder))?.file_name();
            let version = name.to_str().and_then(|name| name.strip_suffix(".key")?.parse::<u64>().ok());
            newest = newest.max(version);
        }
        Ok(newest)
    }
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(path: &Path) -> impl FnOnce(E) -> KeyringError + use<E> {
    let entry = path.display().to_string();
    move |source| KeyringError { entry, source: source.into() }
}
