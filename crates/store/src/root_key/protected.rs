//! A root secret in a file, sealed under a passphrase or by a token. Layout in `docs/formats/store.md`.
//!
//! | length | field | rule |
//! |---|---|---|
//! | 4 | magic | `QRKS` |
//! | 2 | version | 1 |
//! | 1 | kind | 1 passphrase, 2 token |
//! | 12 + 16 | only kind 1: KiB of memory, passes, lanes; salt | Argon2id |
//! | 2 + n, 2 + n, 12 | only kind 2: label of the token, label of the key; nonce | |
//! | 48 | sealed root secret | AES-256-GCM, bound to label and all bytes before |

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use crypto::aead::AeadKey;
use crypto::domain::Domain;
use crypto::secret::{Key256, SecretBytes};
use rand_core::CryptoRng;
use types::codec::{CodecError, Reader, Writer};
use zeroize::Zeroizing;

use super::{RootKey, check_private, sync_folder_of};
use crate::Error;

/// What a passphrase costs to try: parameters of Argon2id (RFC 9106). Stored with the sealed secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassphraseCost {
    /// KiB of memory.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl PassphraseCost {
    /// The second recommendation of RFC 9106, 4: 64 MiB, 3 passes, 4 lanes.
    pub const RECOMMENDED: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };
    /// Less is refused.
    pub const LEAST: Self = Self { memory_kib: 19 * 1024, passes: 2, lanes: 1 };
    /// More is refused, so that a bent file cannot ask for any amount of memory.
    pub const MOST: Self = Self { memory_kib: 1024 * 1024, passes: 64, lanes: 16 };

    fn is_allowed(self) -> bool {
        (Self::LEAST.memory_kib..=Self::MOST.memory_kib).contains(&self.memory_kib)
            && (Self::LEAST.passes..=Self::MOST.passes).contains(&self.passes)
            && (Self::LEAST.lanes..=Self::MOST.lanes).contains(&self.lanes)
    }
}

/// What seals the secret in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seal {
    Passphrase { cost: PassphraseCost, salt: [u8; SALT_LEN] },
    Token { token: String, key: String, nonce: [u8; NONCE_LEN] },
}

/// A file with a sealed root secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Protected {
    pub(crate) seal: Seal,
    pub(crate) sealed: Vec<u8>,
}

impl Seal {
    /// What the sealed secret is bound to, and the file up to it.
    fn head(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.put(MAGIC).u16(VERSION);
        match self {
            Self::Passphrase { cost, salt } => {
                w.u8(PASSPHRASE).u32(cost.memory_kib).u32(cost.passes).u32(cost.lanes).put(salt);
            }
            Self::Token { token, key, nonce } => {
                w.u8(TOKEN).bytes16(token.as_bytes()).bytes16(key.as_bytes()).put(nonce);
            }
        }
        w.finish()
    }

    pub(crate) fn binding(&self) -> Vec<u8> {
        [Domain::StoreRootSecret.label(), &self.head()].concat()
    }
}

impl Protected {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.seal.head();
        out.extend_from_slice(&self.sealed);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        if r.take("magic", MAGIC.len())? != MAGIC {
            return Err(CodecError::Value { field: "magic" });
        }
        if r.u16("version")? != VERSION {
            return Err(CodecError::Value { field: "version" });
        }
        let seal = match r.u8("kind")? {
            PASSPHRASE => {
                let cost =
                    PassphraseCost { memory_kib: r.u32("memory")?, passes: r.u32("passes")?, lanes: r.u32("lanes")? };
                if !cost.is_allowed() {
                    return Err(CodecError::Value { field: "cost" });
                }
                Seal::Passphrase { cost, salt: r.array("salt")? }
            }
            TOKEN => Seal::Token {
                token: r.text16("token", LABEL_MAX)?.to_owned(),
                key: r.text16("key", LABEL_MAX)?.to_owned(),
                nonce: r.array("nonce")?,
            },
            _ => return Err(CodecError::Value { field: "kind" }),
        };
        let sealed = r.take("sealed secret", SEALED_LEN)?.to_vec();
        r.end()?;
        Ok(Self { seal, sealed })
    }

    /// Reads a file that only its owner can read.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let refused = |reason| Error::KeyFileRefused { path: path.to_path_buf(), reason };
        let mut file = File::open(path).map_err(Error::io("open key file", path))?;
        check_private(&file, path)?;
        let mut bytes = Vec::new();
        (&mut file).take(FILE_MAX).read_to_end(&mut bytes).map_err(Error::io("read key file", path))?;
        Self::decode(&bytes).map_err(|_| refused("it is not a sealed root secret; restore it from its copy"))
    }

    /// Writes the file, in place of one that is there. The old one is whole until the new one is.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let fresh = std::path::PathBuf::from(name);
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(Error::io("create key file", &fresh))?;
        file.write_all(&self.encode()).and_then(|()| file.sync_all()).map_err(Error::io("write key file", &fresh))?;
        std::fs::rename(&fresh, path).map_err(Error::io("rename key file", &fresh))?;
        sync_folder_of(path)
    }
}

impl RootKey {
    /// Opens a file made by [`RootKey::protect_with_passphrase`].
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::KeyFileRefused`] if the passphrase is wrong or the file is damaged.
    pub fn from_passphrase(path: &Path, passphrase: &SecretBytes) -> Result<Self, Error> {
        let refused = |reason| Error::KeyFileRefused { path: path.to_path_buf(), reason };
        let protected = Protected::read(path)?;
        let Seal::Passphrase { cost, salt } = &protected.seal else {
            return Err(refused("its secret is sealed by a token, not under a passphrase"));
        };
        let key = stretch(passphrase, *cost, salt).ok_or_else(|| refused("no memory for its passphrase"))?;
        let secret = key.open_once(&protected.seal.binding(), &protected.sealed);
        let secret = secret.map_err(|_| refused("the passphrase is wrong, or the file is damaged"))?;
        let secret = Key256::from_secret(&secret).ok_or_else(|| refused("it does not hold a root secret"))?;
        Ok(Self::from_key(secret))
    }

    /// Writes the root secret into a file, sealed under a passphrase; a file that is there is replaced. With a fresh
    /// [`RootKey::random`] this makes a new root key, with one in use it changes the passphrase.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::ApiMisuse`] for a passphrase below [`PASSPHRASE_MIN`] bytes or a cost out of bounds.
    pub fn protect_with_passphrase(
        &self,
        path: &Path,
        passphrase: &SecretBytes,
        cost: PassphraseCost,
        rng: &mut impl CryptoRng,
    ) -> Result<(), Error> {
        if passphrase.len() < PASSPHRASE_MIN {
            return Err(Error::ApiMisuse(format!("a passphrase has at least {PASSPHRASE_MIN} bytes")));
        }
        if !cost.is_allowed() {
            return Err(Error::ApiMisuse(format!("a passphrase's cost is out of bounds: {cost:?}")));
        }
        let mut salt = [0; SALT_LEN];
        rng.fill_bytes(&mut salt);
        let key = stretch(passphrase, cost, &salt)
            .ok_or_else(|| Error::ApiMisuse(format!("no memory for {} KiB", cost.memory_kib)))?;
        let seal = Seal::Passphrase { cost, salt };
        let sealed = key.seal_once(&seal.binding(), &self.secret().to_secret());
        Protected { seal, sealed }.write(path)
    }
}

/// Argon2id, version 0x13. `None` without memory for it.
fn stretch(passphrase: &SecretBytes, cost: PassphraseCost, salt: &[u8; SALT_LEN]) -> Option<AeadKey> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).ok()?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut key = Zeroizing::new([0; 32]);
    passphrase.expose(|passphrase| argon2.hash_password_into(passphrase, salt, &mut *key)).ok()?;
    Some(AeadKey::new(&Key256::copy_of(&key)))
}

/// Fewest bytes of a passphrase.
pub const PASSPHRASE_MIN: usize = 12;
const MAGIC: &[u8] = b"QRKS";
const VERSION: u16 = 1;
const PASSPHRASE: u8 = 1;
const TOKEN: u8 = 2;
const SALT_LEN: usize = 16;
pub(crate) const NONCE_LEN: usize = 12;
/// 32 bytes and a tag.
pub(crate) const SEALED_LEN: usize = 48;
/// Longest label of a token or a key.
pub(crate) const LABEL_MAX: usize = 64;
const FILE_MAX: u64 = 1024;

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn a_passphrase_opens_its_root_key_and_no_other_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.sealed");
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let (right, wrong) = (SecretBytes::copy_of(b"correct horse battery"), SecretBytes::copy_of(b"incorrect horse"));
        let root = RootKey::random(&mut rng);
        let sealed = root.seal(Domain::SiteKeyring, &[], &SecretBytes::copy_of(b"x"), &mut rng);
        let opens = |root: &RootKey| root.open(Domain::SiteKeyring, &[], &sealed).is_ok();
        root.protect_with_passphrase(&path, &right, PassphraseCost::LEAST, &mut rng).unwrap();
        assert!(opens(&RootKey::from_passphrase(&path, &right).unwrap()));
        let error = RootKey::from_passphrase(&path, &wrong).unwrap_err();
        assert!(matches!(&error, Error::KeyFileRefused { .. }) && error.to_string().contains("passphrase is wrong"));
        // The passphrase changes, the root key does not.
        let fresh = SecretBytes::copy_of(b"another passphrase");
        root.protect_with_passphrase(&path, &fresh, PassphraseCost::LEAST, &mut rng).unwrap();
        assert!(opens(&RootKey::from_passphrase(&path, &fresh).unwrap()));
        assert!(RootKey::from_passphrase(&path, &right).is_err());
        // Every byte of the file matters.
        let good = std::fs::read(&path).unwrap();
        for at in [0, 5, 6, 20, 40, good.len() - 1] {
            let mut bent = good.clone();
            bent[at] ^= 1;
            std::fs::write(&path, bent).unwrap();
            assert!(matches!(RootKey::from_passphrase(&path, &fresh), Err(Error::KeyFileRefused { .. })), "byte {at}");
        }
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(RootKey::from_passphrase(&path, &fresh), Err(Error::KeyFileRefused { .. })));
        let short = SecretBytes::copy_of(b"short");
        let refused = root.protect_with_passphrase(&path, &short, PassphraseCost::LEAST, &mut rng);
        assert!(matches!(refused, Err(Error::ApiMisuse(_))));
    }

    /// A vector of the authors' reference program (its test.c): Argon2id, version 0x13, 2 passes, 2^8 KiB, one lane.
    #[test]
    fn the_stretching_is_argon2id() {
        let params = Params::new(256, 2, 1, Some(32)).unwrap();
        let mut out = [0; 32];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_into(b"password", b"somesalt", &mut out).unwrap();
        let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe");
    }

    #[test]
    fn the_file_is_pinned_and_every_other_is_refused() {
        let token = Protected {
            seal: Seal::Token { token: "t".into(), key: "k2".into(), nonce: [7; 12] },
            sealed: vec![9; SEALED_LEN],
        };
        let bytes = token.encode();
        assert_eq!(bytes[..26], *b"QRKS\0\x01\x02\0\x01t\0\x02k2\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07");
        assert_eq!(Protected::decode(&bytes), Ok(token));
        let cost = PassphraseCost::RECOMMENDED;
        let phrase = Protected { seal: Seal::Passphrase { cost, salt: [1; 16] }, sealed: vec![9; SEALED_LEN] };
        let bytes = phrase.encode();
        assert_eq!(bytes[..19], *b"QRKS\0\x01\x01\0\x01\0\0\0\0\0\x03\0\0\0\x04");
        assert_eq!(Protected::decode(&bytes), Ok(phrase));
        let refused = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let mut bent = bytes.clone();
            change(&mut bent);
            assert!(Protected::decode(&bent).is_err(), "{name}");
        };
        refused("magic", &|b| b[0] = b'q');
        refused("version", &|b| b[5] = 2);
        refused("kind 0", &|b| b[6] = 0);
        refused("kind 3", &|b| b[6] = 3);
        refused("too little memory", &|b| b[8] = 0);
        refused("too much memory", &|b| b[7] = 1);
        refused("one pass", &|b| b[14] = 1);
        refused("too many passes", &|b| b[13] = 1);
        refused("no lane", &|b| b[18] = 0);
        refused("too many lanes", &|b| b[18] = 17);
        refused("trailing byte", &|b| b.push(0));
        for len in 0..bytes.len() {
            refused("cut short", &|b| b.truncate(len));
        }
    }
}
