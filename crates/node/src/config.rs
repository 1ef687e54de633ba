//! The configuration files of a site's process, of its SAEs and of the simulated fibres.
//!
//! Paths in a file are relative to that file. Secrets stand in files of their own, named by path, and are
//! refused when others can read them.

mod interwork;
mod link;
mod policy;
mod skip;
mod store;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use optics::Attack;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use types::id::{LinkId, SaeId, SiteId};
use types::network::Network;

pub use self::interwork::InterworkConfig;
pub use self::link::{DeviceConfig, HostPort, LinkConfig, LinkSource};
pub use self::policy::{PolicyConfig, PolicyTable, RateConfig, ReserveConfig};
pub use self::skip::SkipConfig;
pub use self::store::{BackupConfig, DatabaseSettings, RootProtection, Source, StoreConfig, Unlock};
use crate::failure::{Context as _, Failure, Outcome};

/// `node.toml`: one site's process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Which site of the network this is.
    pub site: SiteId,
    /// The network file.
    pub network: PathBuf,
    /// Folder of all durable state of the process.
    pub data: PathBuf,
    /// Folder of the object store that models are published to.
    pub models: PathBuf,
    /// File of audit trust: fingerprint of every site's log key.
    pub trust: PathBuf,
    /// File of the key that seals the store: 32 bytes, or sealed itself as `[store] root` says.
    pub root_key: PathBuf,
    /// 32-byte seed of the site's signing key.
    pub signing_seed: PathBuf,
    /// Certificates, by the id that they name, that may read the view of ETSI GS QKD 015.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controllers: Vec<SaeId>,
    /// Certificate, key and authority of the site.
    pub tls: TlsFiles,
    /// Where the process listens.
    pub listen: Listen,
    /// Key streams (ETSI GS QKD 004) for SAEs; none if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etsi004: Option<StreamListen>,
    /// The other sites' key management entities.
    #[serde(default)]
    pub peer: Vec<PeerConfig>,
    /// Links that end here.
    #[serde(default)]
    pub link: Vec<LinkConfig>,
    /// Limits of its TLS listeners.
    #[serde(default)]
    pub limits: Limits,
    /// Whether an SAE may be its own slave. For tests of clients alone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_self_pair: bool,
    /// Every SAE of the network and the site that serves it.
    #[serde(default)]
    pub sae: BTreeMap<SaeId, SiteId>,
    /// SAEs of other networks, and the site of this one that has the other network's KME beside it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub foreign: BTreeMap<SaeId, SiteId>,
    /// Key management entities of other makers or networks beside this site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interwork: Vec<InterworkConfig>,
    /// Names of systems for SKIP.
    #[serde(default, skip_serializing_if = "SkipConfig::is_default")]
    pub skip: SkipConfig,
    /// SAEs that are known by the fingerprint of their certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub saes: Vec<SaeFingerprint>,
    /// Where records are, and what protects them.
    #[serde(default, skip_serializing_if = "StoreConfig::is_default")]
    pub store: StoreConfig,
    /// What each SAE of the site may draw.
    #[serde(default, skip_serializing_if = "PolicyTable::is_empty")]
    pub policy: PolicyTable,
    /// The file that this was read from.
    #[serde(skip)]
    pub file: PathBuf,
}

/// `[[saes]]`: an SAE whose certificate does not name it as this network knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaeFingerprint {
    /// Its id in this network.
    pub id: SaeId,
    /// SHA-256 of its certificate, hexadecimal; colons are ignored.
    pub fingerprint: String,
}

/// `[limits]`: what one caller may take of a site's TLS listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections of each listener at once.
    pub connections: usize,
    /// Connections from one address, also those that have not shown a certificate yet.
    pub connections_per_address: usize,
    /// Connections of one SAE or KME.
    pub connections_per_caller: usize,
    /// Seconds that a TLS handshake may take.
    pub handshake_s: u64,
    /// Seconds until a request's head is there, counted from the connection or the answer before: also how long an
    /// idle connection is kept.
    pub head_s: u64,
    /// Seconds until a request's body is there.
    pub body_s: u64,
    /// Seconds that a client may read nothing of its answer.
    pub stall_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            connections_per_address: 1_024,
            connections_per_caller: 256,
            handshake_s: 5,
            head_s: 30,
            body_s: 10,
            stall_s: 20,
        }
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Certificate, private key and trusted authority, as PEM files.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificates of the authorities that peers must chain to.
    pub ca: PathBuf,
    /// Own certificate chain.
    pub certificate: PathBuf,
    /// Own private key.
    pub key: PathBuf,
    /// Certificates that the authorities have revoked, PEM. One list for each authority of `ca`: a client whose
    /// authority has none is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl: Option<PathBuf>,
}

/// Addresses that a site's process listens on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// ETSI GS QKD 014 for SAEs, over mutual TLS.
    pub kme: SocketAddr,
    /// Key management entity to key management entity, over mutual TLS.
    pub kx: SocketAddr,
    /// Dashboard, plain HTTP; leave it on a loopback or management address.
    pub dashboard: Option<SocketAddr>,
    /// Metrics of this site alone, plain HTTP; leave it on a loopback or management address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
}

/// Where SAEs find the key streams of a site.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamListen {
    /// ETSI GS QKD 004 over mutual TLS.
    pub listen: SocketAddr,
}

/// Another site's key management entity.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Which site.
    pub site: SiteId,
    /// Where its KME listens for other KMEs.
    pub kx: SocketAddr,
}

/// `sae.toml`: one secure application entity and the KME that serves it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaeConfig {
    /// Its id; the same stands in its certificate.
    pub id: SaeId,
    /// The KME that serves it.
    pub kme: SocketAddr,
    /// Its certificate, key and authority.
    pub tls: TlsFiles,
}

/// `fibre.toml`: the quantum channels that one process stands for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FibreConfig {
    /// The network file.
    pub network: PathBuf,
    /// Simulated seconds per second of the wall clock.
    pub time_scale: f64,
    /// The links' quantum channels.
    pub link: BTreeMap<LinkId, FibreLink>,
}

/// The quantum channel of one link.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FibreLink {
    /// Where its modules plug in.
    pub at: SocketAddr,
    /// What an eavesdropper does to it. May be changed while the process runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack: Option<Attack>,
}

impl NodeConfig {
    /// Reads `node.toml` and resolves its paths.
    ///
    /// # Errors
    /// If it cannot be read or has an unknown, missing or malformed field; line and field are named.
    pub fn read(file: &Path) -> Outcome<Self> {
        let mut config: Self = read_toml(file)?;
        let context = || format!("configuration {}", file.display());
        config.policy.of_site(&config.site, &config.sae).context(context)?;
        config.file = file.to_path_buf();
        let base = file.parent().unwrap_or(Path::new("."));
        let paths = [
            &mut config.network,
            &mut config.data,
            &mut config.models,
            &mut config.trust,
            &mut config.root_key,
            &mut config.signing_seed,
        ];
        for path in paths {
            *path = base.join(&*path);
        }
        config.tls.resolve(base);
        config.store.resolve(base);
        for link in &mut config.link {
            link.resolve(base);
        }
        for peer in &mut config.interwork {
            peer.resolve(base);
        }
        Ok(config)
    }

    /// Folder of the site's audit log.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.data.join("log")
    }
}

impl SaeConfig {
    /// Reads `sae.toml` and resolves its paths.
    ///
    /// # Errors
    /// As [`NodeConfig::read`].
    pub fn read(file: &Path) -> Outcome<Self> {
        let mut config: Self = read_toml(file)?;
        config.tls.resolve(file.parent().unwrap_or(Path::new(".")));
        Ok(config)
    }
}

impl FibreConfig {
    /// Reads `fibre.toml` and resolves its paths.
    ///
    /// # Errors
    /// As [`NodeConfig::read`]; the time scale must be above 0 and at most 1,000.
    pub fn read(file: &Path) -> Outcome<Self> {
        let mut config: Self = read_toml(file)?;
        config.network = file.parent().unwrap_or(Path::new(".")).join(&config.network);
        if !(config.time_scale > 0.0 && config.time_scale <= 1_000.0) {
            return Err(Failure::new(format!("{}: time_scale must be above 0 and at most 1,000", file.display())));
        }
        Ok(config)
    }
}

impl TlsFiles {
    pub(crate) fn resolve(&mut self, base: &Path) {
        for path in [&mut self.ca, &mut self.certificate, &mut self.key] {
            *path = base.join(&*path);
        }
        if let Some(crl) = &mut self.crl {
            *crl = base.join(&*crl);
        }
    }
}

/// Reads a network file.
///
/// # Errors
/// If it cannot be read or is wrong; file, line and field are named.
pub fn read_network(file: &Path) -> Outcome<Network> {
    let text = read_text(file)?;
    Network::parse(&text).map_err(|error| {
        Failure::new(format!("network file {}", file.display()))
            .source(error)
            .remedy("correct that line; networks/shanxi.toml is a complete example")
    })
}

/// Reads a secret file of a fixed length.
///
/// # Errors
/// If it is missing, of another length, or readable by anyone but its owner.
pub fn read_secret<const N: usize>(file: &Path) -> Outcome<zeroize::Zeroizing<[u8; N]>> {
    let bytes = read_secret_bytes(file)?;
    let found = bytes.len();
    let array = <[u8; N]>::try_from(bytes.as_slice()).map_err(|_| {
        Failure::new(format!("secret file {} has {found} bytes and needs {N}", file.display()))
            .remedy("restore it from its backup; it cannot be made again")
    })?;
    Ok(zeroize::Zeroizing::new(array))
}

/// Reads a secret file of any length up to 1 MiB.
///
/// # Errors
/// If it is missing or readable by anyone but its owner.
pub fn read_secret_bytes(file: &Path) -> Outcome<zeroize::Zeroizing<Vec<u8>>> {
    let meta = fs::metadata(file).context(|| format!("secret file {}", file.display()))?;
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(Failure::new(format!("secret file {} can be read by others", file.display()))
            .remedy(format!("chmod 600 {}", file.display())));
    }
    if meta.len() > 1 << 20 {
        return Err(Failure::new(format!("secret file {} is larger than 1 MiB", file.display())));
    }
    Ok(zeroize::Zeroizing::new(fs::read(file).context(|| format!("secret file {}", file.display()))?))
}

/// Writes a file that only its owner can read, durably.
///
/// # Errors
/// If it cannot be written.
pub fn write_secret(file: &Path, bytes: &[u8]) -> Outcome<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let write = || -> std::io::Result<()> {
        let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
        out.write_all(bytes)?;
        out.sync_all()
    };
    write().context(|| format!("cannot write {}", file.display()))
}

/// Writes a configuration as TOML.
///
/// # Errors
/// If it cannot be written.
pub fn write_toml(file: &Path, config: &impl Serialize) -> Outcome<()> {
    let text = toml::to_string(config).context(|| format!("cannot write {}", file.display()))?;
    fs::write(file, text).context(|| format!("cannot write {}", file.display()))
}

pub(crate) fn read_toml<T: DeserializeOwned>(file: &Path) -> Outcome<T> {
    let text = read_text(file)?;
    toml::from_str(&text).map_err(|error| {
        Failure::new(format!("configuration {}", file.display()))
            .source(error)
            .remedy("correct that line; `qurrent network init` writes complete examples")
    })
}

fn read_text(file: &Path) -> Outcome<String> {
    fs::read_to_string(file).context(|| format!("cannot read {}", file.display()))
}
