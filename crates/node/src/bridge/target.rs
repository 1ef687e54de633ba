//! Where keys go. Keys reach programs through pipes, and files only where the program wants one; never as arguments.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crypto::secret::SecretBytes;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;
use types::id::KeyId;

use super::config::{BridgeConfig, Fallback};
use super::hook::Hook;
use super::ike::IkeFile;
use super::wireguard::WireGuard;
use crate::failure::{Context as _, Failure, Outcome};

/// A target.
pub(super) enum Target {
    WireGuard(WireGuard),
    Ike(IkeFile),
    Hook(Hook),
}

impl Target {
    pub(super) fn new(config: &BridgeConfig) -> Outcome<Self> {
        Ok(match (&config.wireguard, &config.ike, &config.hook) {
            (Some(wireguard), None, None) => Self::WireGuard(WireGuard::new(wireguard)),
            (None, Some(ike), None) => Self::Ike(IkeFile::new(ike, &config.name)),
            (None, None, Some(hook)) => Self::Hook(Hook::new(hook, &config.name)),
            _ => return Err(Failure::new("exactly one of [wireguard], [ike] and [hook] is needed")),
        })
    }

    /// What it is, for events.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::WireGuard(wireguard) => wireguard.describe(),
            Self::Ike(ike) => ike.describe(),
            Self::Hook(hook) => hook.describe(),
        }
    }

    /// Whether it would take a key now; changes nothing.
    pub(super) async fn check(&self) -> Outcome<()> {
        match self {
            Self::WireGuard(wireguard) => wireguard.check().await,
            Self::Ike(ike) => ike.check(),
            Self::Hook(hook) => hook.check(),
        }
    }

    /// Makes a key the one in use.
    pub(super) async fn apply(&self, id: KeyId, key: &SecretBytes) -> Outcome<()> {
        match self {
            Self::WireGuard(wireguard) => wireguard.apply(key).await,
            Self::Ike(ike) => ike.apply(id, key).await,
            Self::Hook(hook) => hook.apply(id, key).await,
        }
    }

    /// Does what the file says for the case that no fresh key comes.
    pub(super) async fn fall_back(&self, policy: Fallback) -> Outcome<()> {
        match (self, policy) {
            (_, Fallback::Keep) => Ok(()),
            (Self::WireGuard(wireguard), policy) => wireguard.fall_back(policy).await,
            (Self::Ike(ike), policy) => ike.fall_back(policy).await,
            (Self::Hook(hook), _) => hook.remove().await,
        }
    }
}

/// A program that is run to its end, with something secret on its standard input.
pub(super) async fn run(command: &mut Command, input: &[u8]) -> Outcome<Vec<u8>> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        Failure::new(format!("cannot run {name}")).source(error).remedy("is it installed, and on the PATH?")
    })?;
    let mut stdin = child.stdin.take();
    let exchange = async {
        if let Some(mut stdin) = stdin.take() {
            // A program that does not read its input says so with its exit code, if it minds.
            drop(stdin.write_all(input).await);
        }
        child.wait_with_output().await
    };
    let output = timeout(RUN_MAX, exchange).await;
    let output = output.map_err(|_| Failure::new(format!("{name} did not end within {} s", RUN_MAX.as_secs())))?;
    let output = output.context(|| format!("cannot run {name}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(SAID_MAX).collect();
    Err(Failure::new(format!("{name} failed ({}): {said}", output.status)))
}

/// Replaces a file at once: nobody sees a part of it, and only its owner can read it.
pub(super) fn replace(file: &Path, bytes: &[u8]) -> Outcome<()> {
    let folder = folder_of(file);
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or("key");
    let fresh = folder.join(format!(".{name}.{}.new", std::process::id()));
    // What a killed process left behind may have other rights.
    drop(std::fs::remove_file(&fresh));
    crate::config::write_secret(&fresh, bytes)?;
    std::fs::rename(&fresh, file).context(|| format!("cannot write {}", file.display()))?;
    let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.context(|| format!("cannot write {}", file.display()))
}

/// Whether a file could be replaced.
pub(super) fn check_folder(file: &Path) -> Outcome<()> {
    let folder = folder_of(file);
    if file.is_dir() || !folder.is_dir() {
        let what = if file.is_dir() { file } else { folder };
        return Err(Failure::new(format!(
            "{} cannot be written: {} is {}",
            file.display(),
            what.display(),
            if file.is_dir() { "a folder" } else { "no folder" }
        ))
        .remedy("make the folder, with rights for this process alone"));
    }
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .context(|| format!("folder {} cannot be written by this process", folder.display()))
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

const RUN_MAX: Duration = Duration::from_secs(10);
const SAID_MAX: usize = 300;
