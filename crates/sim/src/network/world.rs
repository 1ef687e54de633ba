//! The clock of the simulated network: what happens when, from one seed.

mod applications;

use std::collections::BTreeMap;
use std::time::Duration;

use control::{Advertisement, LinkReport, LinkStateTable, Topology};
use crypto::record::Change;
use crypto::secret::SecretBytes;
use kms::{CommitSeq, Config, Input, Kme, Output};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use types::event::Event;
use types::id::{BlockSeq, KeyId, LinkId, RequestId, SaeId, SiteId};
use types::network::Network;
use types::units::{BitsPerSecond, Time, UtcNanos};

use self::applications::Asked;
use super::audit::Audit;
use super::disk::Disk;

/// How unkind the world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chaos {
    /// Longest way of a message in milliseconds.
    pub delay_ms_max: u64,
    /// Messages lost without notice, of a thousand.
    pub loss_permille: u64,
    /// Longest time until a commit is durable, in milliseconds.
    pub commit_ms_max: u64,
    /// A site crashes about every so many milliseconds; 0 is never.
    pub crash_every_ms: u64,
    /// A connection breaks about every so many milliseconds; 0 is never.
    pub flap_every_ms: u64,
}

impl Chaos {
    /// Nothing goes wrong.
    pub const CALM: Self =
        Self { delay_ms_max: 20, loss_permille: 0, commit_ms_max: 5, crash_every_ms: 0, flap_every_ms: 0 };
    /// Everything goes wrong.
    pub const ROUGH: Self =
        Self { delay_ms_max: 200, loss_permille: 30, commit_ms_max: 60, crash_every_ms: 2_500, flap_every_ms: 2_000 };
}

/// What happened in a world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Inputs and timeouts of all cores.
    pub steps: u64,
    /// Sites that crashed.
    pub crashes: u64,
    /// Messages that did not arrive.
    pub lost: u64,
    /// Relays over one hop.
    pub relays: u64,
    /// Link-key bytes that hid or authenticated a relay.
    pub pad_bytes: u64,
    /// Keys that masters got.
    pub supplied: u64,
    /// Keys that slaves got.
    pub delivered: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Hash over everything that came out of the cores, in order.
    pub trace: u64,
    /// What must not be.
    pub violations: Vec<String>,
}

struct Site {
    kme: Option<Kme>,
    epoch: u64,
    disk: Disk,
    /// Blocks that the link has not seen filed.
    unfiled: BTreeMap<(LinkId, BlockSeq), SecretBytes>,
    commits_until: Time,
}

#[derive(Default)]
struct Connection {
    up: bool,
    generation: u64,
    /// When the last message of each direction arrives; the first is the one from the smaller site id.
    busy_until: [Time; 2],
}

enum Happening {
    Deliver { from: SiteId, to: SiteId, generation: u64, bytes: Vec<u8> },
    Durable { site: SiteId, epoch: u64, seq: CommitSeq, changes: Vec<Change>, events: Vec<Event> },
    Distil { link: LinkId },
    File { site: SiteId, link: LinkId, seq: BlockSeq },
    Ask,
    Fetch { master: SaeId, slave: SaeId, ids: Vec<KeyId>, fair: bool },
    Crash,
    Start { site: SiteId },
    Flap,
    Connect { pair: (SiteId, SiteId) },
    Route,
}

/// A network of key management entities under virtual time.
pub struct World {
    now: Time,
    chaos: Chaos,
    rng: ChaCha12Rng,
    core_rng: ChaCha12Rng,
    network: Network,
    table: LinkStateTable,
    sites: BTreeMap<SiteId, Site>,
    connections: BTreeMap<(SiteId, SiteId), Connection>,
    happenings: BTreeMap<(Time, u64), Happening>,
    order: u64,
    directory: BTreeMap<SaeId, SiteId>,
    asked: BTreeMap<RequestId, (SiteId, Asked)>,
    requests: u64,
    next_block: BTreeMap<LinkId, u64>,
    asking: bool,
    paths: u8,
    audit: Audit,
    report: Report,
}

impl World {
    /// All sites of a network, each with two SAEs, connected and without key.
    #[must_use]
    pub fn new(network: Network, seed: u64, chaos: Chaos) -> Self {
        Self::with_paths(network, seed, chaos, 1)
    }

    /// The same, with keys that are combined from so many ways where there are as many.
    #[must_use]
    pub fn with_paths(network: Network, seed: u64, chaos: Chaos, paths: u8) -> Self {
        let names: Vec<SiteId> = network.sites().keys().cloned().collect();
        let sae = |site: &SiteId, n: u32| SaeId::new(&format!("{site}/{n}")).expect("site ids are short");
        let directory = names.iter().flat_map(|site| [1, 2].map(|n| (sae(site, n), site.clone()))).collect();
        let table = LinkStateTable::new(Topology::from(&network), Duration::from_secs(10));
        let mut world = Self {
            now: Time::from_nanos(1),
            chaos,
            rng: ChaCha12Rng::seed_from_u64(seed),
            core_rng: ChaCha12Rng::seed_from_u64(!seed),
            table,
            sites: BTreeMap::new(),
            connections: BTreeMap::new(),
            happenings: BTreeMap::new(),
            order: 0,
            directory,
            asked: BTreeMap::new(),
            requests: 0,
            next_block: BTreeMap::new(),
            asking: true,
            paths,
            audit: Audit::default(),
            report: Report::default(),
            network,
        };
        for site in &names {
            let (disk, unfiled) = (Disk::default(), BTreeMap::new());
            let empty = Site { kme: None, epoch: 0, disk, unfiled, commits_until: Time::ZERO };
            world.sites.insert(site.clone(), empty);
            world.connections.extend(
                names
                    .iter()
                    .filter(|other| site < *other)
                    .map(|other| ((site.clone(), other.clone()), Default::default())),
            );
        }
        for site in names {
            world.start(&site);
        }
        let links: Vec<LinkId> = world.network.links().keys().cloned().collect();
        links.into_iter().for_each(|link| world.later(0, 2_000, Happening::Distil { link }));
        world.later(0, 1, Happening::Route);
        world.later(100, 200, Happening::Ask);
        world.later_if(chaos.crash_every_ms, Happening::Crash);
        world.later_if(chaos.flap_every_ms, Happening::Flap);
        world
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now.after(time);
        loop {
            let next = self.happenings.first_key_value().map(|(key, _)| key.0);
            let timeout = |(site, state): (&SiteId, &Site)| Some((state.kme.as_ref()?.poll_timeout()?, site.clone()));
            let timeout = self.sites.iter().filter_map(timeout).min();
            match timeout {
                Some((at, site)) if at <= end && next.is_none_or(|next| at < next) => {
                    self.now = self.now.max(at);
                    self.report.steps += 1;
                    let kme = self.sites.get_mut(&site).and_then(|site| site.kme.as_mut());
                    kme.expect("a dead core has no timeout").handle_timeout(self.now, &mut self.core_rng);
                    self.drain(&site);
                }
                _ => match self.happenings.first_entry() {
                    Some(entry) if entry.key().0 <= end => {
                        self.now = self.now.max(entry.key().0);
                        let happening = entry.remove();
                        self.happen(happening);
                    }
                    _ => break,
                },
            }
        }
        self.now = end;
    }

    /// Ends all trouble, lets the network recover, fetches every key that waits, and looks whether both sides agree.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.chaos = Chaos::CALM;
        self.asking = false;
        self.run(Duration::from_secs(100));
        let in_doubt: Vec<RequestId> = self.asked.keys().copied().collect();
        self.audit.require(in_doubt.is_empty(), || format!("no answer to {in_doubt:?}"));
        let waiting: Vec<(KeyId, SaeId, SaeId)> = self
            .audit
            .supplied
            .iter()
            .filter(|(_, supplied)| !supplied.delivered && !supplied.in_doubt)
            .map(|(id, supplied)| (*id, supplied.master.clone(), supplied.slave.clone()))
            .collect();
        for (id, master, slave) in waiting {
            self.fetch(master, slave, vec![id], true);
        }
        self.run(Duration::from_secs(5));
        let lost = self.audit.supplied.values().filter(|s| !s.delivered && !s.in_doubt).count();
        self.audit.require(lost == 0, || format!("{lost} keys were supplied and cannot be fetched"));
        self.compare_stocks();
        self.report.relays = self.audit.relays_seen;
        self.report.pad_bytes = self.audit.pad_bytes;
        self.report.violations = self.audit.violations;
        self.report
    }

    fn compare_stocks(&mut self) {
        let stocks: BTreeMap<SiteId, Vec<kms::PairStock>> =
            self.sites.iter().filter_map(|(site, state)| Some((site.clone(), state.kme.as_ref()?.stock()))).collect();
        let held = |at: &SiteId, owner: &SiteId| {
            stocks.get(at).and_then(|stock| stock.iter().find(|pair| pair.peer == *owner)).map_or(0, |pair| pair.held)
        };
        for (owner, pairs) in &stocks {
            for pair in pairs {
                let held = held(&pair.peer, owner);
                let full = pair.ready + 8 > pair.target;
                self.audit.require(full && pair.ready == held, || {
                    format!("{owner} has {} of {} keys for {}, which holds {held}", pair.ready, pair.target, pair.peer)
                });
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Deliver { from, to, generation, bytes } => {
                let connection = self.connection(&from, &to);
                if connection.up && connection.generation == generation {
                    self.input(&to, Input::Message { from, bytes });
                } else {
                    self.report.lost += 1;
                }
            }
            Happening::Durable { site, epoch, seq, changes, events } => {
                self.durable(&site, epoch, seq, changes, events)
            }
            Happening::Distil { link } => self.distil(link),
            Happening::File { site, link, seq } => self.file(&site, &link, seq),
            Happening::Ask => self.ask(),
            Happening::Fetch { master, slave, ids, fair } => self.fetch(master, slave, ids, fair),
            Happening::Crash => self.crash(),
            Happening::Start { site } => self.start(&site),
            Happening::Flap => self.flap(),
            Happening::Connect { pair } => self.connect(&pair),
            Happening::Route => self.route(),
        }
    }

    fn start(&mut self, site: &SiteId) {
        let mut config = Config::new(site.clone());
        config.target_keys = 48;
        config.paths_wanted = self.paths;
        config.started = UtcNanos(self.now.as_nanos());
        let state = self.sites.get_mut(site).expect("all sites are there");
        let kme = Kme::restore(self.now, config, state.disk.records());
        state.kme = Some(kme.expect("what was made durable can be read"));
        let unfiled: Vec<(LinkId, BlockSeq)> = state.unfiled.keys().cloned().collect();
        self.drain(site);
        self.input(site, Input::Directory(self.directory.clone()));
        let links: Vec<(LinkId, SiteId)> = self
            .network
            .links_of(site)
            .filter_map(|(link, _)| Some((link.id.clone(), link.other_end(site)?.clone())))
            .collect();
        for (link, peer) in links {
            self.input(site, Input::LinkUp { link, peer });
        }
        for (link, seq) in unfiled {
            self.later(0, 500, Happening::File { site: site.clone(), link, seq });
        }
        let pairs: Vec<(SiteId, SiteId)> =
            self.connections.keys().filter(|(a, b)| a == site || b == site).cloned().collect();
        for pair in pairs {
            self.later(10, 300, Happening::Connect { pair });
        }
    }

    fn crash(&mut self) {
        self.later_if(self.chaos.crash_every_ms, Happening::Crash);
        if self.chaos.crash_every_ms == 0 {
            return;
        }
        let site = self.any_site();
        if self.sites.get(&site).is_none_or(|state| state.kme.is_none()) {
            return;
        }
        self.report.crashes += 1;
        let pairs: Vec<(SiteId, SiteId)> =
            self.connections.keys().filter(|(a, b)| *a == site || *b == site).cloned().collect();
        let state = self.sites.get_mut(&site).expect("all sites are there");
        state.kme = None;
        state.epoch += 1;
        state.commits_until = self.now;
        // Whether a key that was being fetched went out is unknown: it may be gone, and must not come twice.
        let asked = std::mem::take(&mut self.asked);
        for (id, (at, asked)) in asked {
            match asked {
                _ if at != site => _ = self.asked.insert(id, (at, asked)),
                Asked::Decrypt { ids, fair: true, .. } => self.audit_doubt(&ids),
                _ => {}
            }
        }
        for pair in pairs {
            self.disconnect(&pair);
        }
        self.later(100, 1_500, Happening::Start { site });
    }

    fn audit_doubt(&mut self, ids: &[KeyId]) {
        for id in ids {
            if let Some(supplied) = self.audit.supplied.get_mut(id) {
                supplied.in_doubt = true;
            }
        }
    }

    fn flap(&mut self) {
        self.later_if(self.chaos.flap_every_ms, Happening::Flap);
        let (a, b) = (self.any_site(), self.any_site());
        if a < b && self.chaos.flap_every_ms > 0 {
            let pair = (a, b);
            self.disconnect(&pair);
            self.later(10, 1_000, Happening::Connect { pair });
        }
    }

    fn disconnect(&mut self, pair: &(SiteId, SiteId)) {
        let connection = self.connections.get_mut(pair).expect("every pair has a connection");
        if !connection.up {
            return;
        }
        connection.up = false;
        connection.generation += 1;
        self.input(&pair.0, Input::PeerDown(pair.1.clone()));
        self.input(&pair.1, Input::PeerDown(pair.0.clone()));
    }

    fn connect(&mut self, pair: &(SiteId, SiteId)) {
        let alive = |site: &SiteId| self.sites.get(site).is_some_and(|state| state.kme.is_some());
        let both = alive(&pair.0) && alive(&pair.1);
        let connection = self.connections.get_mut(pair).expect("every pair has a connection");
        if connection.up || !both {
            return;
        }
        connection.up = true;
        connection.busy_until = [self.now; 2];
        self.input(&pair.0, Input::PeerUp(pair.1.clone()));
        self.input(&pair.1, Input::PeerUp(pair.0.clone()));
    }

    fn distil(&mut self, link: LinkId) {
        // Aborted blocks leave gaps.
        let aborted = u64::from(self.below(8) == 0);
        let next = self.next_block.entry(link.clone()).or_default();
        let seq = BlockSeq(*next + aborted);
        *next = seq.0 + 1;
        let len = 1_000 + self.below(12_000);
        let key = SecretBytes::random(usize::try_from(len).expect("blocks are small"), &mut self.rng);
        self.audit.block(&link, seq, &key);
        let ends = self.network.links().get(&link).map(|link| [link.alice.clone(), link.bob.clone()]);
        for site in ends.into_iter().flatten() {
            let state = self.sites.get_mut(&site).expect("all sites are there");
            state.unfiled.insert((link.clone(), seq), key.duplicate());
            self.later(0, 800, Happening::File { site, link: link.clone(), seq });
        }
        self.later(300, 2_500, Happening::Distil { link });
    }

    fn file(&mut self, site: &SiteId, link: &LinkId, seq: BlockSeq) {
        let state = self.sites.get(site).expect("all sites are there");
        let Some(key) = state.unfiled.get(&(link.clone(), seq)).map(SecretBytes::duplicate) else { return };
        let peer = self.network.links().get(link).and_then(|link| link.other_end(site)).cloned();
        let peer = peer.expect("blocks are filed at the ends of their link");
        self.input(site, Input::LinkBlock { link: link.clone(), peer, seq, key });
    }

    /// Every living site says what its links have, and takes its routes from what all say.
    fn route(&mut self) {
        self.later(500, 1_000, Happening::Route);
        self.order += 1;
        for (origin, state) in &self.sites {
            let Some(kme) = &state.kme else { continue };
            let report = |stock: kms::LinkStock| {
                let (a, b) = (origin.min(&stock.peer).clone(), origin.max(&stock.peer).clone());
                let up = self.connections.get(&(a, b)).is_some_and(|connection| connection.up);
                // About what `distil` makes for one direction.
                let (rate, demand) = (BitsPerSecond(20_000.0), BitsPerSecond(0.0));
                LinkReport { link: stock.link, up, stock: stock.bits_out, rate, demand }
            };
            let links = kme.link_stock().into_iter().map(report).collect();
            let advertisement = Advertisement { origin: origin.clone(), seq: self.order, links };
            self.table.accept(self.now, advertisement).expect("a core speaks of its own links");
        }
        for site in self.sites.keys().cloned().collect::<Vec<_>>() {
            let routes = self.table.ways(self.now, &site);
            self.input(&site, Input::Routes(routes));
        }
    }

    fn durable(&mut self, site: &SiteId, epoch: u64, seq: CommitSeq, changes: Vec<Change>, events: Vec<Event>) {
        let state = self.sites.get_mut(site).expect("all sites are there");
        if state.epoch != epoch {
            return;
        }
        for change in changes {
            self.audit.change(site, &change, &state.disk);
            state.disk.apply(change);
        }
        events.iter().for_each(|event| self.audit.event(site, event));
        self.input(site, Input::Durable(seq));
    }

    fn input(&mut self, site: &SiteId, input: Input) {
        let state = self.sites.get_mut(site).expect("all sites are there");
        if let Some(kme) = &mut state.kme {
            self.report.steps += 1;
            kme.handle_input(self.now, input, &mut self.core_rng);
            self.drain(site);
        }
    }

    fn drain(&mut self, site: &SiteId) {
        loop {
            let state = self.sites.get_mut(site).expect("all sites are there");
            let Some(output) = state.kme.as_mut().and_then(Kme::poll_output) else { return };
            match output {
                Output::Commit { seq, changes, events } => {
                    self.trace(&[0, seq.0, changes.len() as u64]);
                    let at = self.now.after(self.millis(1, self.chaos.commit_ms_max));
                    let state = self.sites.get_mut(site).expect("all sites are there");
                    let at = at.max(state.commits_until);
                    state.commits_until = at;
                    let (site, epoch) = (site.clone(), state.epoch);
                    self.at(at, Happening::Durable { site, epoch, seq, changes, events });
                }
                Output::Send { to, bytes } => self.send(site, to, bytes),
                Output::Reply { id, result } => {
                    self.trace(&[2, id.0, u64::from(result.is_ok())]);
                    self.reply(site, id, result);
                }
                Output::BlockFiled { link, seq } => _ = state.unfiled.remove(&(link, seq)),
                Output::Imported { .. }
                | Output::Withdrawn { .. }
                | Output::Export { .. }
                | Output::ExportVoid { .. } => {
                    self.audit.violations.push("keys of another network, of which there is none".to_owned());
                }
                Output::PeerMisbehaved { site: peer, reason } => {
                    self.audit.violations.push(format!("{site} says that {peer} misbehaved: {reason}"));
                }
            }
        }
    }

    fn send(&mut self, from: &SiteId, to: SiteId, bytes: Vec<u8>) {
        self.trace(&[1, bytes.len() as u64, bytes.iter().map(|byte| u64::from(*byte)).sum()]);
        let state = self.sites.get(from).expect("all sites are there");
        self.audit.sent(from, &to, &bytes, &state.disk);
        let lost = self.below(1_000) < self.chaos.loss_permille;
        let delay = self.millis(1, self.chaos.delay_ms_max);
        let connection = self.connection(from, &to);
        let generation = connection.generation;
        if lost || !connection.up {
            self.report.lost += 1;
            return;
        }
        let now = self.now;
        let direction = usize::from(*from > to);
        let connection = self.connection(from, &to);
        let at = now.after(delay).max(connection.busy_until[direction]);
        connection.busy_until[direction] = at;
        self.at(at, Happening::Deliver { from: from.clone(), to, generation, bytes });
    }

    fn connection(&mut self, one: &SiteId, other: &SiteId) -> &mut Connection {
        let pair = (one.min(other).clone(), one.max(other).clone());
        self.connections.get_mut(&pair).expect("every pair has a connection")
    }

    fn later_if(&mut self, every_ms: u64, happening: Happening) {
        if every_ms > 0 {
            self.later(every_ms / 2, every_ms * 3 / 2, happening);
        }
    }

    fn later(&mut self, ms_min: u64, ms_max: u64, happening: Happening) {
        let at = self.now.after(self.millis(ms_min, ms_max));
        self.at(at, happening);
    }

    fn at(&mut self, at: Time, happening: Happening) {
        self.order += 1;
        self.happenings.insert((at, self.order), happening);
    }

    fn millis(&mut self, min: u64, max: u64) -> Duration {
        let nanos = max.saturating_sub(min).max(1) * 1_000_000;
        Duration::from_nanos(min * 1_000_000 + self.below(nanos))
    }

    fn below(&mut self, end: u64) -> u64 {
        self.rng.next_u64() % end
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        let index = usize::try_from(self.below(choices.len() as u64)).expect("it is below a length");
        choices[index].clone()
    }

    fn any_site(&mut self) -> SiteId {
        let names: Vec<SiteId> = self.sites.keys().cloned().collect();
        self.one_of(&names)
    }

    /// FNV-1a over words.
    fn trace(&mut self, words: &[u64]) {
        for word in words {
            self.report.trace = (self.report.trace ^ word ^ self.now.as_nanos()).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
