//! The site that a model command acts for.
//!
//! Beside `node.toml` stand the vault's SAE (`sae/vault-<site>/sae.toml`); beside the trust file stands the folder
//! `trust` with every site's verifying key, `<site>.pub`, in hexadecimal. Model keys are kept in `model-keys` in the
//! site's data folder, sealed under its root key.

use std::fs;
use std::path::{Path, PathBuf};

use client::Kme;
use crypto::secret::Key256;
use crypto::sign::{SigningKey, VerifyingKey};
use types::id::SiteId;
use vault::{FileKeyring, Publishers, Vault};

use super::failed;
use crate::config::{NodeConfig, SaeConfig, read_network, read_secret};
use crate::failure::{Context as _, Failure, Outcome};
use crate::provision::vault_sae;
use crate::sae;

/// A site's configuration, as far as models need it.
#[derive(Debug)]
pub struct LocalSite {
    config: NodeConfig,
    folder: PathBuf,
}

impl LocalSite {
    /// Reads `node.toml`.
    ///
    /// # Errors
    /// If it is missing or malformed.
    pub fn read(file: &Path) -> Outcome<Self> {
        let config = NodeConfig::read(file)?;
        let folder = file.parent().unwrap_or(Path::new(".")).to_owned();
        Ok(Self { config, folder })
    }

    /// Which site it is.
    #[must_use]
    pub fn id(&self) -> &SiteId {
        &self.config.site
    }

    /// Every other site of the network.
    ///
    /// # Errors
    /// If the network file cannot be read.
    pub fn others(&self) -> Outcome<Vec<SiteId>> {
        let network = read_network(&self.config.network)?;
        Ok(network.sites().keys().filter(|site| *site != self.id()).cloned().collect())
    }

    /// The store, to read from.
    ///
    /// # Errors
    /// If its folder is not there.
    pub fn store(&self) -> Outcome<Vault> {
        Vault::open_folder(&self.config.models).map_err(failed)
    }

    /// The store, to write to.
    ///
    /// # Errors
    /// If its folder cannot be made.
    pub fn writable_store(&self) -> Outcome<Vault> {
        Vault::create_folder(&self.config.models).map_err(failed)
    }

    /// The site's signing key.
    ///
    /// # Errors
    /// If its seed cannot be read or others can read it.
    pub fn signing_key(&self) -> Outcome<SigningKey> {
        let seed = read_secret::<32>(&self.config.signing_seed)?;
        Ok(SigningKey::from_seed(&Key256::copy_of(&seed)))
    }

    /// Where model keys are kept.
    ///
    /// # Errors
    /// If the root key cannot be read or the folder cannot be made.
    pub fn keyring(&self) -> Outcome<FileKeyring> {
        let root = self.config.open_root_key()?;
        let folder = self.config.data.join("model-keys");
        FileKeyring::open(&folder, root.into_key()).context(|| "cannot open the model keyring".to_owned())
    }

    /// The sites that may publish, with their keys.
    ///
    /// # Errors
    /// If a key cannot be read.
    pub fn publishers(&self) -> Outcome<Publishers> {
        let folder = self.config.trust.with_file_name("trust");
        let what = || format!("cannot read the trusted keys in {}", folder.display());
        let mut keys = Vec::new();
        for entry in fs::read_dir(&folder).context(what)? {
            let path = entry.context(what)?.path();
            let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".pub"));
            if let Some(site) = name.and_then(|name| SiteId::new(name).ok()) {
                keys.push((site, read_key(&path)?));
            }
        }
        Ok(keys.into_iter().collect())
    }

    /// The client of the site's key management entity, as the vault's SAE.
    ///
    /// # Errors
    /// If the SAE's files are missing.
    pub fn client(&self) -> Outcome<Kme> {
        let vault = vault_sae(self.id())?;
        sae::client(&SaeConfig::read(&self.folder.join("sae").join(vault.as_str()).join("sae.toml"))?)
    }
}

fn read_key(path: &Path) -> Outcome<VerifyingKey> {
    let text = fs::read_to_string(path).context(|| format!("cannot read {}", path.display()))?;
    hex::decode(text.trim()).ok().and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok()).ok_or_else(|| {
        Failure::new(format!("{} is no verifying key in hexadecimal", path.display()))
            .remedy("copy the file again from the site that it names")
    })
}
