//! Provisioning: from a network file to one folder that holds everything each site needs to start.
//!
//! ```text
//! DIR/network.toml                 the network file
//!     trust.toml, trust/SITE.pub   log origins with key fingerprints; verifying keys
//!     authority/ca.pem, ca.key     certificate authority
//!     fibre.toml                   simulated quantum channels
//!     models/                      object store
//!     sites/SITE/node.toml         configuration of one site's process
//!     sites/SITE/root.key, signing.seed, tls/, links/, sae/SAE/sae.toml
//! ```
//!
//! A site's folder is all that goes to that site. The two files of a link's first key are made here, once, and
//! must travel by a trusted hand; everything later comes from the link itself.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use crypto::hash::sha256;
use crypto::secret::{Key256, SecretBytes};
use crypto::sign::SigningKey;
use kms::Priority;
use ledger::Origin;
use serde::{Deserialize, Serialize};
use types::id::{LinkId, SaeId, SiteId};
use types::network::Network;

use crate::backups::seconds_since_1970;
use crate::config::{
    DatabaseSettings, FibreConfig, FibreLink, Limits, LinkConfig, LinkSource, Listen, NodeConfig, PeerConfig,
    PolicyConfig, PolicyTable, SaeConfig, SkipConfig, StoreConfig, StreamListen, TlsFiles, read_network, write_secret,
    write_toml,
};
use crate::entropy::os_rng;
use crate::failure::{Context as _, Failure, Outcome};
use crate::pki::Authority;
use crate::quantum::initial_key::InitialKey;

/// What `trust.toml` holds: an auditor's only trust input.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustFile {
    /// Origin of a site's log to the SHA-256 of the site's verifying key, hexadecimal.
    pub log: BTreeMap<String, String>,
}

/// A provisioned folder.
#[derive(Clone, Debug)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The layout of a folder, provisioned or to be.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    /// The folder itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the folder was provisioned before.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.network().is_file()
    }

    /// The network file.
    #[must_use]
    pub fn network(&self) -> PathBuf {
        self.dir.join("network.toml")
    }

    /// The simulated fibres' configuration.
    #[must_use]
    pub fn fibre(&self) -> PathBuf {
        self.dir.join("fibre.toml")
    }

    /// The audit trust file.
    #[must_use]
    pub fn trust(&self) -> PathBuf {
        self.dir.join("trust.toml")
    }

    /// The object store.
    #[must_use]
    pub fn models(&self) -> PathBuf {
        self.dir.join("models")
    }

    /// Certificate of the authority.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.dir.join("authority/ca.pem")
    }

    /// A site's folder.
    #[must_use]
    pub fn site(&self, site: &SiteId) -> PathBuf {
        self.dir.join("sites").join(site.as_str())
    }

    /// A site's configuration.
    #[must_use]
    pub fn node(&self, site: &SiteId) -> PathBuf {
        self.site(site).join("node.toml")
    }

    /// Where the dashboard of a provisioned network listens.
    ///
    /// # Errors
    /// If no site has one.
    pub fn dashboard(&self, network: &Network) -> Outcome<SocketAddr> {
        for site in network.sites().keys() {
            if let Some(address) = NodeConfig::read(&self.node(site))?.listen.dashboard {
                return Ok(address);
            }
        }
        Err(Failure::new("no site of this network has a dashboard").remedy("name a [[centre]] with served_by"))
    }

    /// An SAE's folder.
    #[must_use]
    pub fn sae(&self, site: &SiteId, sae: &SaeId) -> PathBuf {
        self.site(site).join("sae").join(sae.as_str())
    }

    /// A site's verifying key.
    #[must_use]
    pub fn verifying_key(&self, site: &SiteId) -> PathBuf {
        self.dir.join("trust").join(format!("{site}.pub"))
    }
}

/// Makes a folder for a network: authority, certificates, first keys, configurations. Refuses a folder that
/// has a network already.
///
/// # Errors
/// If the folder is taken or something cannot be written.
pub fn provision(network_file: &Path, layout: &Layout, time_scale: f64) -> Outcome<Network> {
    let network = read_network(network_file)?;
    if layout.exists() {
        return Err(Failure::new(format!("{} holds a network already", layout.dir().display()))
            .remedy("choose another folder, or remove that one with all its keys"));
    }
    let authority = Authority::create(network.name())?;
    make_dir(&layout.dir.join("authority"))?;
    make_dir(&layout.dir.join("trust"))?;
    make_dir(&layout.models())?;
    authority.write(&layout.ca(), &layout.dir.join("authority/ca.key"))?;

    let mut ports = FreePorts::default();
    let plan = AddressPlan::new(&network, &mut ports)?;
    let saes = sae_directory(&network)?;
    let mut trust = TrustFile::default();
    for site in network.sites().keys() {
        provision_site(&network, layout, &authority, &plan, &saes, site)?;
        let seed = SigningKey::fresh_seed(&mut os_rng());
        seed.expose(|seed| write_secret(&layout.site(site).join("signing.seed"), seed))?;
        let key = SigningKey::from_seed(&seed);
        let bytes = key.verifying_key().as_bytes();
        write_text(&layout.verifying_key(site), &hex::encode(bytes))?;
        trust.log.insert(log_origin(&network, site)?.as_str().to_owned(), hex::encode(sha256(bytes)));
    }
    for link in network.links().values() {
        let key = SecretBytes::random(INITIAL_KEY_BYTES, &mut os_rng());
        for site in [&link.alice, &link.bob] {
            key.expose(|key| write_secret(&layout.site(site).join(initial_key_path(&link.id)), key))?;
        }
    }
    write_toml(&layout.trust(), &trust)?;
    write_toml(&layout.fibre(), &plan.fibre_config(time_scale))?;
    // Last: its presence says that everything else is there.
    let text = fs::read(network_file).context(|| format!("cannot read {}", network_file.display()))?;
    fs::write(layout.network(), text).context(|| format!("cannot write {}", layout.network().display()))?;
    Ok(network)
}

/// Makes a new initial key of a link and writes it for both ends; returns the files.
///
/// # Errors
/// If there is no such link, or a file cannot be written.
pub fn rekey(layout: &Layout, link: &LinkId) -> Outcome<Vec<PathBuf>> {
    let network = read_network(&layout.network())?;
    let found = network.links().get(link).ok_or_else(|| {
        Failure::new(format!("network {} has no link {link}", network.name()))
            .remedy("`qurrent network show` lists its links")
    })?;
    let key = SecretBytes::random(INITIAL_KEY_BYTES, &mut os_rng());
    let initial = InitialKey { generation: InitialKey::generation_at(seconds_since_1970()), key };
    let mut files = Vec::new();
    for site in [&found.alice, &found.bob] {
        let file = layout.site(site).join(initial_key_path(link));
        initial.write(&file)?;
        files.push(file);
    }
    Ok(files)
}

/// Origin of a site's audit log.
///
/// # Errors
/// Never for ids of a parsed network.
pub fn log_origin(network: &Network, site: &SiteId) -> Outcome<Origin> {
    Origin::new(network.name(), site).context(|| format!("log of site {site}"))
}

/// Origin of the audit log that a process of a site writes: its own, if it is one of several replicas.
///
/// # Errors
/// If the replica's name is none for a log.
pub fn own_log_origin(network: &Network, config: &NodeConfig) -> Outcome<Origin> {
    let origin = log_origin(network, &config.site)?;
    match &config.store.database {
        Some(DatabaseSettings { replica, .. }) => {
            origin.of_replica(replica).context(|| format!("[store.database] replica of site {}", config.site))
        }
        None => Ok(origin),
    }
}

/// The SAE that applications of a site may use.
///
/// # Errors
/// Never for ids of a parsed network.
pub fn app_sae(site: &SiteId) -> Outcome<SaeId> {
    sae(&format!("app-{site}"))
}

/// The SAE of a site's model vault.
///
/// # Errors
/// Never for ids of a parsed network.
pub fn vault_sae(site: &SiteId) -> Outcome<SaeId> {
    sae(&format!("vault-{site}"))
}

/// The SAE of a dispatch centre's gateway.
///
/// # Errors
/// Never for ids of a parsed network.
pub fn gateway_sae(centre: &SiteId) -> Outcome<SaeId> {
    sae(&format!("gateway-{centre}"))
}

/// Every SAE that provisioning makes, with the site that serves it.
///
/// # Errors
/// Never for a parsed network.
pub fn sae_directory(network: &Network) -> Outcome<BTreeMap<SaeId, SiteId>> {
    let mut saes = BTreeMap::new();
    for site in network.sites().keys() {
        saes.insert(app_sae(site)?, site.clone());
        saes.insert(vault_sae(site)?, site.clone());
    }
    for centre in network.centres() {
        if let Some(site) = &centre.served_by {
            saes.insert(gateway_sae(&centre.id)?, site.clone());
        }
    }
    for terminal in network.terminals().values() {
        saes.insert(sae(terminal.id.as_str())?, terminal.site.clone());
    }
    Ok(saes)
}

/// Gives every listener of a provisioned folder a free port again. For networks on one machine, whose ports
/// may have been taken since.
///
/// # Errors
/// If no port is free or a configuration cannot be rewritten.
pub fn reassign_ports(network: &Network, layout: &Layout) -> Outcome<()> {
    let plan = AddressPlan::new(network, &mut FreePorts::default())?;
    let saes = sae_directory(network)?;
    for site in network.sites().keys() {
        write_node_config(network, layout, &plan, &saes, site)?;
    }
    for (sae, site) in &saes {
        write_sae_config(layout, &plan, sae, site)?;
    }
    let time_scale = FibreConfig::read(&layout.fibre())?.time_scale;
    write_toml(&layout.fibre(), &plan.fibre_config(time_scale))
}

fn provision_site(
    network: &Network,
    layout: &Layout,
    authority: &Authority,
    plan: &AddressPlan,
    saes: &BTreeMap<SaeId, SiteId>,
    site: &SiteId,
) -> Outcome<()> {
    let dir = layout.site(site);
    for folder in ["tls", "links", "sae", "data"] {
        make_dir(&dir.join(folder))?;
    }
    Key256::random(&mut os_rng()).expose(|key| write_secret(&dir.join("root.key"), key))?;
    let address = plan.site(site)?.kme.ip();
    authority.issue_kme(site, address, &dir.join("tls/kme.pem"), &dir.join("tls/kme.key"))?;
    fs::copy(layout.ca(), dir.join("tls/ca.pem")).context(|| format!("cannot write {}", dir.display()))?;
    write_node_config(network, layout, plan, saes, site)?;
    for (sae, _) in saes.iter().filter(|(_, home)| *home == site) {
        let folder = layout.sae(site, sae);
        make_dir(&folder)?;
        authority.issue_sae(sae, &folder.join("cert.pem"), &folder.join("key.pem"))?;
        fs::copy(layout.ca(), folder.join("ca.pem")).context(|| format!("cannot write {}", folder.display()))?;
        write_sae_config(layout, plan, sae, site)?;
    }
    Ok(())
}

fn write_node_config(
    network: &Network,
    layout: &Layout,
    plan: &AddressPlan,
    saes: &BTreeMap<SaeId, SiteId>,
    site: &SiteId,
) -> Outcome<()> {
    let listen = plan.site(site)?.clone();
    let peers = network.sites().keys().filter(|other| *other != site);
    let link = |id: &LinkId| -> Outcome<LinkConfig> {
        Ok(LinkConfig {
            id: id.clone(),
            classical: plan.address(&plan.classical, id)?,
            initial_key: initial_key_path(id),
            source: LinkSource::Simulated { fibre: plan.address(&plan.fibre, id)? },
        })
    };
    let config = NodeConfig {
        site: site.clone(),
        network: "../../network.toml".into(),
        data: "data".into(),
        models: "../../models".into(),
        trust: "../../trust.toml".into(),
        root_key: "root.key".into(),
        signing_seed: "signing.seed".into(),
        tls: TlsFiles {
            ca: "tls/ca.pem".into(),
            certificate: "tls/kme.pem".into(),
            key: "tls/kme.key".into(),
            crl: None,
        },
        listen,
        etsi004: plan.streams.get(site).map(|listen| StreamListen { listen: *listen }),
        peer: peers
            .map(|peer| Ok(PeerConfig { site: peer.clone(), kx: plan.site(peer)?.kx }))
            .collect::<Outcome<_>>()?,
        link: network.links_of(site).map(|(found, _)| link(&found.id)).collect::<Outcome<_>>()?,
        limits: Limits::default(),
        allow_self_pair: false,
        sae: saes.clone(),
        foreign: BTreeMap::new(),
        interwork: Vec::new(),
        controllers: Vec::new(),
        skip: SkipConfig::default(),
        saes: Vec::new(),
        store: StoreConfig::default(),
        policy: policies(network, saes, site)?,
        file: PathBuf::new(),
    };
    write_toml(&layout.node(site), &config)
}

/// Telecontrol before applications before models; nobody is limited.
fn policies(network: &Network, saes: &BTreeMap<SaeId, SiteId>, site: &SiteId) -> Outcome<PolicyTable> {
    let mut table = PolicyTable { default: Some(PolicyConfig::of_class(Priority::Other)), ..PolicyTable::default() };
    let (app, vault) = (app_sae(site)?, vault_sae(site)?);
    for sae in saes.iter().filter(|(_, home)| *home == site).map(|(sae, _)| sae) {
        let class = match sae {
            sae if *sae == app => Priority::Telemetry,
            sae if *sae == vault => Priority::Model,
            // Gateways of centres and terminals in the field.
            _ => Priority::Telecontrol,
        };
        table.sae.insert(sae.clone(), PolicyConfig::of_class(class));
    }
    table.of_site(site, saes).context(|| format!("policies of {}", network.name()))?;
    Ok(table)
}

fn write_sae_config(layout: &Layout, plan: &AddressPlan, sae: &SaeId, site: &SiteId) -> Outcome<()> {
    let config = SaeConfig {
        id: sae.clone(),
        kme: plan.site(site)?.kme,
        tls: TlsFiles { ca: "ca.pem".into(), certificate: "cert.pem".into(), key: "key.pem".into(), crl: None },
    };
    write_toml(&layout.sae(site, sae).join("sae.toml"), &config)
}

/// Who listens where.
struct AddressPlan {
    sites: BTreeMap<SiteId, Listen>,
    /// Empty if the network has no key streams.
    streams: BTreeMap<SiteId, SocketAddr>,
    classical: BTreeMap<LinkId, SocketAddr>,
    fibre: BTreeMap<LinkId, SocketAddr>,
}

impl AddressPlan {
    fn new(network: &Network, ports: &mut FreePorts) -> Outcome<Self> {
        let dashboard_at = network.centres().iter().find_map(|centre| centre.served_by.as_ref());
        let mut sites = BTreeMap::new();
        for site in network.sites().keys() {
            let dashboard = if Some(site) == dashboard_at { Some(ports.take()?) } else { None };
            sites.insert(
                site.clone(),
                Listen { kme: ports.take()?, kx: ports.take()?, dashboard, metrics: Some(ports.take()?) },
            );
        }
        let mut streams = BTreeMap::new();
        for site in network.sites().keys().filter(|_| network.key_streams()) {
            streams.insert(site.clone(), ports.take()?);
        }
        let mut per_link = || -> Outcome<BTreeMap<LinkId, SocketAddr>> {
            network.links().keys().map(|link| Ok((link.clone(), ports.take()?))).collect()
        };
        Ok(Self { sites, streams, classical: per_link()?, fibre: per_link()? })
    }

    fn fibre_config(&self, time_scale: f64) -> FibreConfig {
        let quiet = |at: &SocketAddr| FibreLink { at: *at, attack: None };
        let link = self.fibre.iter().map(|(id, at)| (id.clone(), quiet(at))).collect();
        FibreConfig { network: "network.toml".into(), time_scale, link }
    }

    fn site(&self, site: &SiteId) -> Outcome<&Listen> {
        self.sites.get(site).ok_or_else(|| Failure::new(format!("no addresses for site {site}")))
    }

    fn address(&self, table: &BTreeMap<LinkId, SocketAddr>, link: &LinkId) -> Outcome<SocketAddr> {
        table.get(link).copied().ok_or_else(|| Failure::new(format!("no address for link {link}")))
    }
}

/// Hands out free loopback ports; holds each one bound until all are handed out, so that none comes twice.
#[derive(Default)]
struct FreePorts {
    held: Vec<TcpListener>,
}

impl FreePorts {
    fn take(&mut self) -> Outcome<SocketAddr> {
        let what = || "no free port on the loopback interface".to_owned();
        let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).context(what)?;
        let address = listener.local_addr().context(what)?;
        self.held.push(listener);
        Ok(address)
    }
}

fn initial_key_path(link: &LinkId) -> PathBuf {
    PathBuf::from("links").join(format!("{link}.key"))
}

fn sae(text: &str) -> Outcome<SaeId> {
    SaeId::new(text).context(|| "SAE id".to_owned())
}

fn make_dir(dir: &Path) -> Outcome<()> {
    fs::create_dir_all(dir).context(|| format!("cannot make folder {}", dir.display()))
}

fn write_text(file: &Path, text: &str) -> Outcome<()> {
    fs::write(file, text).context(|| format!("cannot write {}", file.display()))
}

/// Bytes of a link's first authentication key.
const INITIAL_KEY_BYTES: usize = 4096;
