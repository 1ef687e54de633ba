//! The root key of a site: what everything at rest is sealed under.
//!
//! It comes from a file of 32 bytes ([`RootKey::from_file`]), or from a file in which it is sealed under a passphrase
//! ([`RootKey::from_passphrase`]) or by a PKCS #11 token ([`RootKey::from_token`]). The same root key may be in
//! several such files at once: a token for every day and a passphrase in a safe. Callers seal and open through this
//! type and never see the key, which stays in memory until the process ends.
//!
//! Layout of a sealed value: salt (16 B), sealed secret, tag (16 B). The sealing key is derived from root key,
//! label, context and salt, so that it seals exactly one value.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crypto::aead::AeadKey;
use crypto::domain::Domain;
use crypto::kdf::derive;
use crypto::secret::{Key256, SecretBytes};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::Error;

pub(crate) mod protected;
pub(crate) mod source;
pub(crate) mod token;

/// Seals and opens secrets at rest. Printing it shows nothing.
#[derive(Debug)]
pub struct RootKey(Key256);

impl RootKey {
    /// Bytes that sealing adds.
    pub const OVERHEAD: usize = SALT_LEN + crypto::aead::TAG_LEN;

    /// From 32 bytes that the caller has.
    #[must_use]
    pub fn from_key(key: Key256) -> Self {
        Self(key)
    }

    /// A fresh key, to be kept with one of the `protect_with_…` methods.
    #[must_use]
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        Self(Key256::random(rng))
    }

    /// Reads a key file: exactly 32 bytes, readable by its owner alone.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::KeyFileRefused`] if others may read it or its length is wrong.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let refused = |reason| Error::KeyFileRefused { path: path.to_path_buf(), reason };
        let mut file = File::open(path).map_err(Error::io("open key file", path))?;
        let len = check_private(&file, path)?;
        let mut bytes = Zeroizing::new([0; 32]);
        if len != bytes.len() as u64 {
            return Err(refused("a root key has exactly 32 bytes"));
        }
        file.read_exact(&mut *bytes).map_err(Error::io("read key file", path))?;
        Ok(Self::from_key(Key256::copy_of(&bytes)))
    }

    /// Makes a fresh key and writes it to a new file that only its owner can read.
    ///
    /// # Errors
    /// [`Error::Io`], also if the file is there already.
    pub fn create_file(path: &Path, rng: &mut impl CryptoRng) -> Result<Self, Error> {
        let key = Key256::random(rng);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(Error::io("create key file", path))?;
        key.expose(|bytes| file.write_all(bytes)).map_err(Error::io("write key file", path))?;
        file.sync_all().map_err(Error::io("sync key file", path))?;
        sync_folder_of(path)?;
        Ok(Self::from_key(key))
    }

    /// Seals a secret for a purpose and a context; only the same purpose and context open it.
    pub fn seal(&self, domain: Domain, context: &[&[u8]], secret: &SecretBytes, rng: &mut impl CryptoRng) -> Vec<u8> {
        let mut salt = [0; SALT_LEN];
        rng.fill_bytes(&mut salt);
        let mut out = salt.to_vec();
        out.extend_from_slice(&self.sealing_key(domain, context, &salt).seal_once(domain.label(), secret));
        out
    }

    /// Opens what [`RootKey::seal`] made.
    ///
    /// # Errors
    /// [`crypto::Error::NotAuthentic`], or [`crypto::Error::Malformed`] if it is too short.
    pub fn open(&self, domain: Domain, context: &[&[u8]], sealed: &[u8]) -> Result<SecretBytes, crypto::Error> {
        let Some((salt, sealed)) = sealed.split_first_chunk::<SALT_LEN>() else {
            return Err(crypto::Error::Malformed { what: "sealed value" });
        };
        self.sealing_key(domain, context, salt).open_once(domain.label(), sealed)
    }

    /// The key itself, for a part of the site that derives from it on its own.
    #[must_use]
    pub fn into_key(self) -> Key256 {
        self.0
    }

    /// A second holder of the same key, for another part of the site.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::from_key(self.0.expose(Key256::copy_of))
    }

    fn sealing_key(&self, domain: Domain, context: &[&[u8]], salt: &[u8; SALT_LEN]) -> AeadKey {
        let mut parts = context.to_vec();
        parts.push(salt);
        AeadKey::new(&derive(&self.0, domain, &parts))
    }

    fn secret(&self) -> &Key256 {
        &self.0
    }
}

/// Refuses what is not a regular file of its owner alone; returns its length.
fn check_private(file: &File, path: &Path) -> Result<u64, Error> {
    let refused = |reason| Error::KeyFileRefused { path: path.to_path_buf(), reason };
    let metadata = file.metadata().map_err(Error::io("inspect key file", path))?;
    if !metadata.is_file() {
        return Err(refused("it is not a regular file"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(refused("group or others have access; chmod 600 it"));
    }
    Ok(metadata.len())
}

pub(crate) fn sync_folder_of(path: &Path) -> Result<(), Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("sync folder", folder))
}

const SALT_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn key_files_are_private_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.key");
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let key = RootKey::create_file(&path, &mut rng).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let sealed = key.seal(Domain::SiteKeyring, &[b"x"], &SecretBytes::copy_of(b"seed"), &mut rng);
        assert_eq!(sealed.len(), 4 + RootKey::OVERHEAD);
        let again = RootKey::from_file(&path).unwrap().duplicate();
        assert_eq!(again.open(Domain::SiteKeyring, &[b"x"], &sealed).unwrap(), SecretBytes::copy_of(b"seed"));
        assert!(again.open(Domain::SiteKeyring, &[b"y"], &sealed).is_err());
        assert!(again.open(Domain::StoreSegmentKek, &[b"x"], &sealed).is_err());
        assert!(again.open(Domain::SiteKeyring, &[b"x"], &sealed[..15]).is_err());

        assert!(matches!(RootKey::create_file(&path, &mut rng), Err(Error::Io { .. })), "never overwrites a key");
        for mode in [0o640, 0o604, 0o660, 0o610] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            assert!(matches!(RootKey::from_file(&path), Err(Error::KeyFileRefused { .. })), "mode {mode:o}");
        }
        for len in [0, 31, 33] {
            let path = folder.path().join(format!("{len}.key"));
            std::fs::write(&path, vec![1; len]).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            assert!(matches!(RootKey::from_file(&path), Err(Error::KeyFileRefused { .. })), "{len} bytes");
        }
        assert!(matches!(RootKey::from_file(folder.path()), Err(Error::KeyFileRefused { .. })));
        assert_eq!(format!("{again:?}"), "RootKey(Key256([REDACTED]))");
    }
}
