//! `[store]` of `node.toml`: where a site's records are, what protects its root key, when it is backed up.
//!
//! ```toml
//! [store]
//! root = { passphrase = { file = "root.passphrase" } }     # root_key is sealed under it; without this it is bare
//! backup = { folder = "backups", every_s = 86400, keep = 14 }
//! [store.database]                                         # without this the records are in data/store
//! connection = "host=/run/postgresql user=qurrent dbname=taiyuan"
//! replica = "taiyuan-a"
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use crypto::secret::SecretBytes;
use serde::{Deserialize, Serialize};
use store::{DatabaseConfig, PassphraseCost, RootKey, SecretSource, Store, Token, Writer};

use super::{NodeConfig, TlsFiles, read_secret_bytes};
use crate::entropy::os_rng;
use crate::failure::{Context as _, Failure, Outcome};
use crate::tls;

/// `[store]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// What the root key in its file is sealed under; without it the file is the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootProtection>,
    /// Backups that the process makes by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupConfig>,
    /// The records are in a database that several replicas of the site share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseSettings>,
}

/// What seals the root key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum RootProtection {
    /// A passphrase.
    Passphrase(Source),
    /// A PKCS #11 token.
    Token {
        /// The maker's module, a shared library.
        module: PathBuf,
        /// Label of the token.
        label: String,
        /// Label of its AES key.
        key: String,
        /// The user's PIN.
        pin: Source,
    },
}

/// Where a passphrase or a PIN comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum Source {
    /// A file that only its owner can read.
    File(PathBuf),
    /// A file descriptor that the process inherits.
    Descriptor(u32),
    /// An environment variable.
    Environment(String),
}

/// `[store] backup`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupConfig {
    /// Where they go; best a disk of its own.
    pub folder: PathBuf,
    /// Seconds between two of them.
    #[serde(default = "a_day")]
    pub every_s: u32,
    /// How many are kept.
    #[serde(default = "fortnight")]
    pub keep: u32,
}

/// `[store.database]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// Connection string of libpq, without the password.
    pub connection: String,
    /// File with the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PathBuf>,
    /// TLS towards the server; needed unless it is on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
    /// Name of this replica.
    pub replica: String,
    /// Seconds that a silent writer keeps its place.
    #[serde(default = "ten")]
    pub lease_s: u32,
}

impl StoreConfig {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.root.is_none() && self.backup.is_none() && self.database.is_none()
    }

    /// Takes paths as relative to the file that they stand in.
    pub(super) fn resolve(&mut self, base: &Path) {
        let resolve = |path: &mut PathBuf| *path = base.join(&*path);
        let resolve_source = |source: &mut Source| {
            if let Source::File(path) = source {
                resolve(path);
            }
        };
        match &mut self.root {
            Some(RootProtection::Passphrase(source) | RootProtection::Token { pin: source, .. }) => {
                resolve_source(source);
            }
            None => {}
        }
        if let Some(backup) = &mut self.backup {
            resolve(&mut backup.folder);
        }
        if let Some(database) = &mut self.database {
            database.password.iter_mut().for_each(resolve);
            if let Some(tls) = &mut database.tls {
                tls.resolve(base);
            }
        }
    }
}

impl Source {
    /// As the store takes it.
    #[must_use]
    pub fn to_source(&self) -> SecretSource {
        match self {
            Self::File(path) => SecretSource::File(path.clone()),
            Self::Descriptor(number) => SecretSource::Descriptor(*number),
            Self::Environment(name) => SecretSource::Environment(name.clone()),
        }
    }
}

/// What opens the file of a root key, read from where the configuration says; a pipe can be read only once.
#[derive(Debug)]
pub enum Unlock {
    /// Nothing: the file is the key.
    Bare,
    /// A passphrase.
    Passphrase(SecretBytes),
    /// A token with its PIN.
    Token(Token),
}

impl Unlock {
    /// Reads a root key from its file.
    ///
    /// # Errors
    /// If the file, the passphrase or the token do not fit.
    pub fn open(&self, file: &Path) -> Outcome<RootKey> {
        match self {
            Self::Bare => RootKey::from_file(file),
            Self::Passphrase(passphrase) => RootKey::from_passphrase(file, passphrase),
            Self::Token(token) => RootKey::from_token(file, token),
        }
        .context(|| format!("root key {}", file.display()))
    }

    /// Writes a root key into a file; one that is there is replaced. Not for a bare key, which is only ever created.
    ///
    /// # Errors
    /// If the file cannot be written or the token refuses.
    pub fn protect(&self, root: &RootKey, file: &Path) -> Outcome<()> {
        match self {
            Self::Bare => {
                return Err(Failure::new("[store] root in node.toml does not say what the root key is sealed under"));
            }
            Self::Passphrase(passphrase) => {
                root.protect_with_passphrase(file, passphrase, PassphraseCost::RECOMMENDED, &mut os_rng())
            }
            Self::Token(token) => root.protect_with_token(file, token, &mut os_rng()),
        }
        .context(|| format!("root key {}", file.display()))
    }
}

impl NodeConfig {
    /// What opens the file of the site's root key.
    ///
    /// # Errors
    /// If the passphrase or the PIN cannot be read.
    pub fn unlock(&self) -> Outcome<Unlock> {
        Ok(match &self.store.root {
            None => Unlock::Bare,
            Some(RootProtection::Passphrase(source)) => {
                Unlock::Passphrase(source.to_source().read().context(|| "passphrase of the root key".to_owned())?)
            }
            Some(RootProtection::Token { module, label, key, pin }) => Unlock::Token(Token {
                module: module.clone(),
                token: label.clone(),
                key: key.clone(),
                pin: pin.to_source().read().context(|| format!("PIN of token {label}"))?,
            }),
        })
    }

    /// The site's root key.
    ///
    /// # Errors
    /// If its file, passphrase or token cannot be read or do not fit.
    pub fn open_root_key(&self) -> Outcome<RootKey> {
        self.unlock()?.open(&self.root_key)
    }

    /// The site's store. With a database, `waiting` hears of the replica that writes and says whether to wait on.
    ///
    /// # Errors
    /// If it cannot be opened, or `waiting` said no.
    pub fn open_store(&self, waiting: impl FnMut(&Writer) -> bool) -> Outcome<Store> {
        self.open_store_with(self.open_root_key()?, waiting)?.context(|| format!("the store of site {}", self.site))
    }

    /// As [`NodeConfig::open_store`] with a root key of the caller's; what the store says is the inner result.
    ///
    /// # Errors
    /// If a file named in the configuration cannot be read.
    pub fn open_store_with(
        &self,
        root: RootKey,
        waiting: impl FnMut(&Writer) -> bool,
    ) -> Outcome<Result<Store, store::Error>> {
        let Some(database) = &self.store.database else {
            return Ok(Store::open_folder(&self.data.join("store"), root, os_rng()));
        };
        let password = match &database.password {
            Some(file) => {
                let bytes = read_secret_bytes(file)?;
                let text = std::str::from_utf8(&bytes).context(|| format!("password in {}", file.display()))?;
                Some(text.trim_end_matches('\n').to_owned())
            }
            None => None,
        };
        let config = DatabaseConfig {
            connection: database.connection.clone(),
            password,
            tls: match &database.tls {
                Some(files) => Some(tls::client(files)?.as_ref().clone()),
                None => None,
            },
            site: self.site.clone(),
            replica: database.replica.clone(),
            lease: Duration::from_secs(database.lease_s.into()),
        };
        Ok(Store::open_database(&config, root, os_rng(), waiting))
    }

    /// As [`NodeConfig::open_store`], for a command that works while the site is stopped.
    ///
    /// # Errors
    /// Also if the site is running.
    pub fn open_store_now(&self) -> Outcome<Store> {
        self.open_store(|_| false).map_err(|failure| {
            failure.remedy(format!("if site {} is running, stop it first; it holds its store", self.site))
        })
    }
}

impl BackupConfig {
    /// Checked values.
    ///
    /// # Errors
    /// If the interval or the number is zero.
    pub fn check(&self) -> Outcome<()> {
        if self.every_s == 0 || self.keep == 0 {
            return Err(Failure::new("[store] backup: every_s and keep must be above 0"));
        }
        Ok(())
    }
}

fn a_day() -> u32 {
    86_400
}

fn fortnight() -> u32 {
    14
}

fn ten() -> u32 {
    10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_unknown_fields_are_refused() {
        let all = r#"
            root = { token = { module = "/m.so", label = "site", key = "root", pin = { descriptor = 3 } } }
            backup = { folder = "backups" }
            [database]
            connection = "host=/run/postgresql user=q"
            replica = "a"
        "#;
        let mut config: StoreConfig = toml::from_str(all).unwrap();
        config.resolve(Path::new("/base"));
        let backup = config.backup.as_ref().unwrap();
        assert_eq!((backup.folder.as_path(), backup.every_s, backup.keep), (Path::new("/base/backups"), 86_400, 14));
        assert_eq!(config.database.as_ref().unwrap().lease_s, 10);
        assert!(!config.is_default());
        let again: StoreConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        assert!(matches!(again.root, Some(RootProtection::Token { .. })));
        let phrase: StoreConfig = toml::from_str("root = { passphrase = { file = \"p\" } }").unwrap();
        assert!(matches!(phrase.root, Some(RootProtection::Passphrase(Source::File(_)))));
        for bad in [
            "roots = 1",
            "root = { passphrase = { fil = \"p\" } }",
            "root = { password = { file = \"p\" } }",
            "backup = { folder = \"b\", hours = 1 }",
            "[database]\nconnection = \"x\"",
        ] {
            assert!(toml::from_str::<StoreConfig>(bad).is_err(), "{bad}");
        }
    }
}
