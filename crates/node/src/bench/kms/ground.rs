//! A network of real sites whose pools are full before they start: the real KME cores make the stock in this process
//! and their records go into the sites' own stores, so that no figure waits for photons.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crypto::record::Change;
use crypto::secret::SecretBytes;
use kms::{Input, Kme, Output};
use rustls::ClientConfig;
use store::{RootKey, Store};
use types::id::{BlockSeq, SaeId, SiteId};
use types::network::Network;

use super::load::Load;
use crate::config::{NodeConfig, SaeConfig, write_toml};
use crate::entropy::os_rng;
use crate::failure::{Context as _, Failure, Outcome};
use crate::provision::{Layout, provision};
use crate::{clock, site, tls};

/// Provisioned sites, some of them running. Their processes end with it.
pub(super) struct Ground {
    folder: tempfile::TempDir,
    layout: Layout,
    network: Network,
    running: BTreeMap<SiteId, Child>,
}

impl Ground {
    /// Provisions sites in a row (`a`, `b`, ...), each linked with the next, with this much stock for every pair.
    ///
    /// # Errors
    /// If something cannot be written.
    pub(super) fn line(sites: &[&str], target_keys: u32) -> Outcome<Self> {
        let links: Vec<(&str, &str)> = sites.windows(2).map(|pair| (pair[0], pair[1])).collect();
        Self::linked(sites, &links, target_keys)
    }

    /// The same with other links.
    ///
    /// # Errors
    /// If something cannot be written.
    pub(super) fn linked(sites: &[&str], links: &[(&str, &str)], target_keys: u32) -> Outcome<Self> {
        let folder = tempfile::tempdir().context(|| "a folder for the benchmark".to_owned())?;
        let file = folder.path().join("network.toml");
        std::fs::write(&file, network_file(sites, links, target_keys)).context(|| file.display().to_string())?;
        let layout = Layout::new(&folder.path().join("net"));
        let network = provision(&file, &layout, 1.0)?;
        for site in network.sites().keys() {
            without_policies(&layout.node(site))?;
        }
        Ok(Self { folder, layout, network, running: BTreeMap::new() })
    }

    /// Fills every store: end-to-end keys of all pairs up to their target whose way has at most `hops` links (more than
    /// none only for sites in a row), and then `left` bytes of key in every direction of every link.
    ///
    /// # Errors
    /// If a store cannot be written.
    pub(super) fn fill(&self, hops: usize, left: usize) -> Outcome<()> {
        let mut filling = Filling::new(self, hops)?;
        let mut ready = 0;
        while filling.lacks() {
            filling.blocks(left.max(BLOCK_BYTES))?;
            let now = filling.ready();
            if now <= ready {
                return Err(Failure::new(format!("the stores take no more than {now} keys")));
            }
            ready = now;
            tracing::info!(ready, "keys in stock");
        }
        for _ in 0..left.div_ceil(BLOCK_BYTES) {
            filling.blocks(BLOCK_BYTES)?;
        }
        Ok(())
    }

    /// Starts every site and waits until each has met the others.
    ///
    /// # Errors
    /// If one does not come up.
    pub(super) async fn start(&mut self) -> Outcome<()> {
        self.start_alone()?;
        let sites: Vec<SiteId> = self.network.sites().keys().cloned().collect();
        for (master, slave) in sites.iter().zip(sites.iter().skip(1)).chain(sites.iter().skip(1).zip(&sites)) {
            self.wait_for_key(master, slave).await?;
        }
        Ok(())
    }

    /// Starts every site and waits for nothing.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub(super) fn start_alone(&mut self) -> Outcome<()> {
        let sites: Vec<SiteId> = self.network.sites().keys().cloned().collect();
        sites.iter().try_for_each(|site| self.start_site(site))
    }

    /// Ends a site at once, as a power cut would; its machine goes on.
    ///
    /// # Errors
    /// If it does not run.
    pub(super) fn kill(&mut self, site: &SiteId) -> Outcome<()> {
        let what = || format!("site {site}");
        let mut child = self.running.remove(site).ok_or_else(|| Failure::new(format!("{} does not run", what())))?;
        child.kill().context(what)?;
        child.wait().context(what).map(drop)
    }

    /// Starts one site.
    ///
    /// # Errors
    /// If its process cannot be started.
    pub(super) fn start_site(&mut self, site: &SiteId) -> Outcome<()> {
        let program = std::env::current_exe().context(|| "cannot find this program's file".to_owned())?;
        let log = std::fs::File::create(self.folder.path().join(format!("{site}.log"))).context(|| site.to_string())?;
        let child = Command::new(program)
            .args(["--log", "warn", "node", "--stop-with-stdin", "--config"])
            .arg(self.layout.node(site))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context(|| format!("cannot start site {site}"))?;
        self.running.insert(site.clone(), child);
        Ok(())
    }

    /// Until a key for the other site can be had: the two have met.
    ///
    /// # Errors
    /// If they do not meet.
    pub(super) async fn wait_for_key(&self, master: &SiteId, slave: &SiteId) -> Outcome<()> {
        let load = self.load(master, 1)?;
        let path = format!("/api/v1/keys/{}/enc_keys", Self::sae(slave, "app")?);
        for _ in 0..WAITS_MAX {
            if load.once(&path).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(WAIT).await;
        }
        let log = std::fs::read_to_string(self.folder.path().join(format!("{master}.log"))).unwrap_or_default();
        Err(Failure::new(format!("site {master} gives no key for {slave}: {}", log.lines().last().unwrap_or(""))))
    }

    /// Ends every site.
    pub(super) fn stop(&mut self) {
        for (_, mut child) in std::mem::take(&mut self.running) {
            drop(child.stdin.take());
            drop(child.wait());
        }
    }

    /// Process ids of some sites.
    pub(super) fn pids(&self, sites: &[&str]) -> Vec<u32> {
        let is_wanted = |site: &SiteId| sites.contains(&site.as_str());
        self.running.iter().filter(|(site, _)| is_wanted(site)).map(|(_, child)| child.id()).collect()
    }

    /// A load of a site's application on its KME.
    ///
    /// # Errors
    /// If its certificate cannot be read.
    pub(super) fn load(&self, site: &SiteId, connections: usize) -> Outcome<Load> {
        let (config, tls) = self.client(site)?;
        Ok(Load { address: config.kme, tls, connections, reconnect: false })
    }

    /// The configuration and TLS of a site's application.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(super) fn client(&self, site: &SiteId) -> Outcome<(SaeConfig, Arc<ClientConfig>)> {
        let config = self.sae_config(site, Self::sae(site, "app")?.as_str())?;
        let tls = tls::client(&config.tls)?;
        Ok((config, tls))
    }

    /// The configuration of one of a site's SAEs.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn sae_config(&self, site: &SiteId, sae: &str) -> Outcome<SaeConfig> {
        let sae = SaeId::new(sae).context(|| "SAE id".to_owned())?;
        SaeConfig::read(&self.layout.sae(site, &sae).join("sae.toml"))
    }

    /// Certificate, key and authority of a site's KME.
    ///
    /// # Errors
    /// If its configuration cannot be read.
    pub(super) fn server(&self, site: &SiteId) -> Outcome<crate::config::TlsFiles> {
        Ok(NodeConfig::read(&self.layout.node(site))?.tls)
    }

    /// An SAE that provisioning made.
    ///
    /// # Errors
    /// Never for short names.
    pub(super) fn sae(site: &SiteId, kind: &str) -> Outcome<SaeId> {
        SaeId::new(&format!("{kind}-{site}")).context(|| "SAE id".to_owned())
    }

    /// The folder of temporary files.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The KMEs of all sites in this process, each with its own store.
struct Filling<'a> {
    network: &'a Network,
    sites: BTreeMap<SiteId, Site>,
    wire: VecDeque<(SiteId, SiteId, Vec<u8>)>,
    blocks: u64,
    hops: usize,
}

struct Site {
    kme: Kme,
    store: Store,
    pending: Vec<Change>,
}

impl<'a> Filling<'a> {
    fn new(ground: &'a Ground, hops: usize) -> Outcome<Self> {
        let network = &ground.network;
        let mut sites = BTreeMap::new();
        for id in network.sites().keys() {
            let config = NodeConfig::read(&ground.layout.node(id))?;
            let root = RootKey::from_file(&config.root_key).context(|| "root key".to_owned())?;
            let (store, records) =
                Store::open(&config.data.join("store"), root, os_rng()).context(|| format!("store of {id}"))?;
            let mut settings = site::kme_settings(network, id);
            // Nothing is late here, and much may share one pass to disk.
            settings.relay_timeout = Duration::from_secs(3_600);
            settings.batches_in_flight = 256;
            let kme = Kme::restore(clock::now(), settings, records).context(|| format!("records of {id}"))?;
            sites.insert(id.clone(), Site { kme, store, pending: Vec::new() });
        }
        let mut filling = Self { network, sites, wire: VecDeque::new(), blocks: 0, hops };
        let row: Vec<SiteId> = network.sites().keys().cloned().collect();
        for (at, site) in row.iter().enumerate() {
            let ways = row.iter().enumerate().filter(|(to, _)| *to != at && to.abs_diff(at) <= hops);
            let way = |to: usize| -> Vec<SiteId> {
                let mut way = row[at.min(to)..=at.max(to)].to_vec();
                if to < at {
                    way.reverse();
                }
                way
            };
            let routes = ways.map(|(to, other)| (other.clone(), vec![way(to)])).collect();
            filling.input(site, Input::Routes(routes));
            row.iter()
                .filter(|other| *other != site)
                .for_each(|other| filling.input(site, Input::PeerUp(other.clone())));
        }
        filling.settle()?;
        Ok(filling)
    }

    /// Whether a pair that has a way lacks keys.
    fn lacks(&self) -> bool {
        let row: Vec<&SiteId> = self.sites.keys().collect();
        let near = |a: &SiteId, b: &SiteId| {
            let at = |site: &SiteId| row.iter().position(|other| *other == site).unwrap_or_default();
            at(a).abs_diff(at(b)) <= self.hops
        };
        self.sites.iter().any(|(id, site)| {
            let stock = site.kme.stock();
            let is_full = |other: &SiteId| stock.iter().any(|pair| pair.peer == *other && pair.ready + 8 > pair.target);
            row.iter().any(|other| *other != id && near(id, other) && !is_full(other))
        })
    }

    /// Keys ready at all sites.
    fn ready(&self) -> u64 {
        self.sites.values().flat_map(|site| site.kme.stock()).map(|pair| u64::from(pair.ready)).sum()
    }

    /// Files a block on every link, at both ends.
    fn blocks(&mut self, bytes_a_direction: usize) -> Outcome<()> {
        let seq = BlockSeq(self.blocks);
        self.blocks += 1;
        let len = bytes_a_direction.min(BLOCK_BYTES) * 2;
        for link in self.network.links().values() {
            let key = SecretBytes::random(len, &mut os_rng());
            for (at, peer) in [(&link.alice, &link.bob), (&link.bob, &link.alice)] {
                let (link, peer, key) = (link.id.clone(), peer.clone(), key.duplicate());
                self.input(at, Input::LinkBlock { link, peer, seq, key });
            }
        }
        self.settle()
    }

    fn input(&mut self, site: &SiteId, input: Input) {
        if let Some(site) = self.sites.get_mut(site) {
            site.kme.handle_input(clock::now(), input, &mut os_rng());
        }
    }

    /// Until nothing is on its way: every pass takes all messages and then goes to each disk once.
    fn settle(&mut self) -> Outcome<()> {
        loop {
            for (from, to, bytes) in std::mem::take(&mut self.wire) {
                self.input(&to, Input::Message { from, bytes });
            }
            let now = clock::now();
            for (id, site) in &mut self.sites {
                if site.kme.poll_timeout().is_some_and(|at| at <= now) {
                    site.kme.handle_timeout(now, &mut os_rng());
                }
                let mut last = None;
                loop {
                    let mut drained = true;
                    while let Some(output) = site.kme.poll_output() {
                        drained = false;
                        match output {
                            Output::Commit { seq, changes, .. } => {
                                site.pending.extend(changes);
                                last = Some(seq);
                            }
                            Output::Send { to, bytes } => self.wire.push_back((id.clone(), to, bytes)),
                            _ => {}
                        }
                    }
                    if let Some(seq) = last.take() {
                        site.store.commit(&site.pending).context(|| format!("store of {id}"))?;
                        site.pending.clear();
                        site.kme.handle_input(now, Input::Durable(seq), &mut os_rng());
                    } else if drained {
                        break;
                    }
                }
            }
            if self.wire.is_empty() {
                return Ok(());
            }
        }
    }
}

/// Every key in stock may be drawn: nothing is kept for more urgent SAEs.
fn without_policies(node: &Path) -> Outcome<()> {
    let what = || node.display().to_string();
    let mut config: toml::Table = std::fs::read_to_string(node).context(what)?.parse().context(what)?;
    config.remove("policy");
    write_toml(node, &config)
}

fn network_file(sites: &[&str], links: &[(&str, &str)], target_keys: u32) -> String {
    let mut text = format!(
        "name = \"bench\"\n[security]\nepsilon_secrecy = 1e-10\nepsilon_correctness = 1e-15\n\
         [stock]\ntarget_keys = {target_keys}\nlow_water_keys = 0\n{HARDWARE}"
    );
    for site in sites {
        text.push_str(&format!("[[site]]\nid = \"{site}\"\nname = \"{site}\"\nlatitude = 37.0\nlongitude = 112.0\n"));
    }
    for (alice, bob) in links {
        text.push_str(&format!(
            "[[link]]\nid = \"{alice}-{bob}\"\nalice = \"{alice}\"\nbob = \"{bob}\"\nlength_km = 50.0\nhardware = \"s1\"\n{DECOY}"
        ));
    }
    text
}

const HARDWARE: &str = "[hardware.s1]\nclock_hz = 900e6\nattenuation_db_per_km = 0.2\nefficiency = 0.2\n\
    dark_count_hz = 50.0\ngate_ns = 1.0\nmisalignment = 0.027\ndead_time_us = 60.0\nafterpulse = 0.01\n";
const DECOY: &str = "decoy = { key_basis = 0.7, intensities = [0.12, 0.04, 0.0002], \
    probabilities = [0.15, 0.45, 0.4], block_bits = 100_000 }\n";
/// Bytes of one direction of one block.
const BLOCK_BYTES: usize = 1 << 20;
const WAIT: Duration = Duration::from_millis(100);
const WAITS_MAX: usize = 600;
