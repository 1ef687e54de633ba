//! `qurrent store protect|rekey`: the root key of a stopped site.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use store::RootKey;
use types::id::ModelId;
use vault::{FileKeyring, ModelKeys as _};

use super::say;
use crate::config::{NodeConfig, Unlock};
use crate::entropy::os_rng;
use crate::failure::{Context as _, Failure, Outcome};

/// The root key that everything at rest is sealed under.
#[derive(Args, Debug)]
pub struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Subcommand, Debug)]
enum StoreCommand {
    /// Seal the root key under the passphrase or by the token of `[store] root`, into the file `root_key`.
    #[command(
        after_help = "Example, after node.toml says root_key = \"root.sealed\" and how it is sealed:\n  qurrent store protect --config sites/taiyuan/node.toml --from sites/taiyuan/root.key"
    )]
    Protect {
        /// The site's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The bare root key, 32 bytes. It stays; destroy it when the site has started with the sealed one.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
    },
    /// Make a new root key and seal keys anew under it. May be started again after a crash.
    #[command(after_help = "Example:\n  qurrent store rekey --config sites/taiyuan/node.toml")]
    Rekey {
        /// The site's configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

/// Runs a store command.
///
/// # Errors
/// If a file, the token or the store cannot be read or written, or the site is running.
pub fn run(args: StoreArgs) -> Outcome<()> {
    match args.command {
        StoreCommand::Protect { config, from } => {
            let config = NodeConfig::read(&config)?;
            if from.canonicalize().ok() == config.root_key.canonicalize().ok() {
                return Err(Failure::new(format!("{} cannot be sealed in place", from.display()))
                    .remedy("name another file as root_key in node.toml"));
            }
            let unlock = config.unlock()?;
            let root = RootKey::from_file(&from).context(|| format!("root key {}", from.display()))?;
            unlock.protect(&root, &config.root_key)?;
            // What was written is read back before anybody destroys the other.
            unlock.open(&config.root_key)?;
            say(&format!(
                "{} holds the root key, sealed. Start the site with it, then destroy {}.",
                config.root_key.display(),
                from.display()
            ))
        }
        StoreCommand::Rekey { config } => {
            let config = NodeConfig::read(&config)?;
            rekey(&config)?;
            say(&format!("site {} has a new root key; destroy every file of the old one", config.site))
        }
    }
}

/// ```text
/// new key in root_key.next  →  model keys sealed anew  →  store sealed anew  →  root_key.next renamed to root_key
/// ```
/// At every point the two files open everything, and the steps that are done are passed over.
fn rekey(config: &NodeConfig) -> Outcome<()> {
    let unlock = config.unlock()?;
    let mut next = config.root_key.clone().into_os_string();
    next.push(".next");
    let next = PathBuf::from(next);
    if !next.exists() {
        match &unlock {
            Unlock::Bare => drop(RootKey::create_file(&next, &mut os_rng()).context(|| next.display().to_string())?),
            sealed => sealed.protect(&RootKey::random(&mut os_rng()), &next)?,
        }
    }
    let (old, new) = (unlock.open(&config.root_key)?, unlock.open(&next)?);
    let what = || format!("the store of site {}", config.site);
    match config.open_store_with(old.duplicate(), |_| false)? {
        Ok(mut store) => {
            reseal_model_keys(&config.data.join("model-keys"), old, &new)?;
            store.rekey(new).context(what)?;
        }
        // The crash was after the last step but one; the model keys were done before.
        Err(store::Error::WrongRootKey { .. }) => {
            drop(config.open_store_with(new, |_| false)?.context(what)?);
        }
        Err(error) => return Err(error).context(what),
    }
    fs::rename(&next, &config.root_key)
        .and_then(|()| fs::File::open(config.root_key.parent().unwrap_or(Path::new(".")))?.sync_all())
        .context(|| format!("cannot rename {}", next.display()))
}

/// Seals each model key under the new root key, unless it is.
fn reseal_model_keys(folder: &Path, old: RootKey, new: &RootKey) -> Outcome<()> {
    if !folder.exists() {
        return Ok(());
    }
    let what = || format!("model keys in {}", folder.display());
    let old = FileKeyring::open(folder, old.into_key()).context(what)?;
    let new = FileKeyring::open(folder, new.duplicate().into_key()).context(what)?;
    for model in fs::read_dir(folder).context(what)? {
        let model = model.context(what)?.path();
        let Some(id) = model.file_name().and_then(|name| ModelId::new(name.to_str()?).ok()) else { continue };
        for entry in fs::read_dir(&model).context(what)? {
            let entry = entry.context(what)?.path();
            let version = entry.file_name().and_then(|name| name.to_str()?.strip_suffix(".key")?.parse().ok());
            let Some(version) = version else { continue };
            if new.get(&id, version).is_ok() {
                continue;
            }
            if let Some(held) = old.get(&id, version).context(what)? {
                new.put(&id, version, &held).context(what)?;
            }
        }
    }
    Ok(())
}
