//! Whether pairs of sites get their share of scarce link key: real KMEs on a ring, a star, a random geometric graph.
//!
//! Every ordered pair wants more than the links make: stocks are never full. What each pair gets is compared with its
//! max-min fair share: the shares of all pairs grow alike until a link is full, then those of the pairs that do not
//! need it, and so on. A pair whose shortest ways are several spreads over them. The shares are of link key with no
//! cost for tags, so that nobody can reach them quite.
//!
//! Messages take a fixed time and arrive in order, commits are durable at once, links make key at a constant rate;
//! nothing is lost but what [`Load::mute`] swallows. One seed gives one run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use control::{Advertisement, LinkReport, LinkStateTable, Topology};
use crypto::secret::SecretBytes;
use kms::{Config, Input, Kme, LinkStock, Output, PAIR_KEY_BYTES};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use types::id::{BlockSeq, LinkId, SiteId};
use types::units::{BitsPerSecond, Time};

/// How sites are joined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Each with the next, the last with the first.
    Ring,
    /// All others with the first.
    Star,
    /// Scattered over a square of side 1 and joined if nearer than `radius`; sites that would be alone are joined
    /// with the nearest that is not.
    Geometric {
        /// Largest distance of a link.
        radius: f64,
    },
}

/// An experiment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setup {
    /// How sites are joined.
    pub shape: Shape,
    /// How many sites, 2 to 200.
    pub sites: usize,
    /// Key that each link makes; half of it for each direction.
    pub link_rate: BitsPerSecond,
    /// From how many ways keys are combined.
    pub paths: u8,
    /// Time before counting starts.
    pub warm_up: Duration,
    /// Time that counts.
    pub time: Duration,
    /// Replays the run.
    pub seed: u64,
}

/// What pairs got.
#[derive(Clone, Debug, PartialEq)]
pub struct Fairness {
    /// Ordered pairs of sites.
    pub pairs: usize,
    /// Jain's index over what each pair got of its fair share: 1 if all got the same part of it.
    pub jain: f64,
    /// The least that any pair got of its fair share.
    pub worst: f64,
    /// Keys of 256 bit per second of all pairs.
    pub keys_per_second: f64,
    /// What all pairs got of all fair shares.
    pub of_ceiling: f64,
    /// Relays that failed.
    pub failed: u64,
}

/// Runs an experiment.
///
/// # Panics
/// If the number of sites is out of range.
#[must_use]
pub fn fairness(setup: &Setup) -> Fairness {
    let mut load = Load::new(setup);
    load.run(setup.warm_up);
    let before = load.stocks();
    load.run(setup.time);
    let after = load.stocks();
    let shares = fair_shares(setup.sites, &load.links, setup.link_rate.0 / 2.0 / KEY_BITS);
    let seconds = setup.time.as_secs_f64();
    let got = |pair: &(usize, usize)| {
        let keys = |stocks: &BTreeMap<(usize, usize), u32>| f64::from(stocks.get(pair).copied().unwrap_or_default());
        (keys(&after) - keys(&before)) / seconds
    };
    let parts: Vec<f64> = shares.iter().map(|(pair, share)| got(pair) / share).collect();
    let total: f64 = shares.keys().map(got).sum();
    let (sum, squares) = parts.iter().fold((0.0, 0.0), |(sum, squares), part| (sum + part, squares + part * part));
    #[expect(clippy::cast_precision_loss, reason = "there are few pairs")]
    let pairs = parts.len() as f64;
    Fairness {
        pairs: parts.len(),
        jain: if squares > 0.0 { sum * sum / (pairs * squares) } else { 0.0 },
        worst: parts.iter().copied().fold(f64::INFINITY, f64::min),
        keys_per_second: total,
        of_ceiling: total / shares.values().sum::<f64>(),
        failed: load.kmes.iter().map(|kme| kme.counters().relays_failed).sum(),
    }
}

/// Joined pairs of sites.
fn links(setup: &Setup, rng: &mut ChaCha12Rng) -> Vec<(usize, usize)> {
    let count = setup.sites;
    match setup.shape {
        Shape::Ring => (0..count).map(|at| (at, (at + 1) % count)).take(if count == 2 { 1 } else { count }).collect(),
        Shape::Star => (1..count).map(|at| (0, at)).collect(),
        Shape::Geometric { radius } => {
            let mut unit = || f64::from(rng.next_u32()) / f64::from(u32::MAX);
            let places: Vec<(f64, f64)> = (0..count).map(|_| (unit(), unit())).collect();
            let apart = |a: usize, b: usize| {
                let (dx, dy) = (places[a].0 - places[b].0, places[a].1 - places[b].1);
                dx * dx + dy * dy
            };
            let all = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
            let mut links: Vec<(usize, usize)> = all.filter(|(a, b)| apart(*a, *b) <= radius * radius).collect();
            // Join what is apart by the shortest link until all is one.
            loop {
                let mut reached = BTreeSet::from([0]);
                while links.iter().any(|(a, b)| reached.contains(a) != reached.contains(b)) {
                    let ends = links.iter().filter(|(a, b)| reached.contains(a) != reached.contains(b));
                    let ends: Vec<usize> = ends.flat_map(|(a, b)| [*a, *b]).collect();
                    reached.extend(ends);
                }
                let gaps =
                    (0..count).filter(|b| !reached.contains(b)).flat_map(|b| reached.iter().map(move |a| (*a, b)));
                let Some((a, b)) = gaps.min_by(|x, y| apart(x.0, x.1).total_cmp(&apart(y.0, y.1))) else { break };
                links.push((a.min(b), a.max(b)));
            }
            links
        }
    }
}

/// Max-min fair share of every ordered pair in keys per second, if each direction of a link carries `capacity`.
fn fair_shares(sites: usize, links: &[(usize, usize)], capacity: f64) -> BTreeMap<(usize, usize), f64> {
    let hops: Vec<(usize, usize)> = links.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]).collect();
    // Which part of a pair's traffic takes a hop, over all its shortest ways alike.
    let mut uses: BTreeMap<(usize, usize), BTreeMap<usize, f64>> = BTreeMap::new();
    for from in 0..sites {
        let near = distances(sites, &hops, from);
        for to in (0..sites).filter(|to| *to != from && near[*to] != usize::MAX) {
            let mut flow = BTreeMap::from([(near[to], BTreeMap::from([(to, 1.0)]))]);
            let mut used: BTreeMap<usize, f64> = BTreeMap::new();
            for distance in (1..=near[to]).rev() {
                for (site, part) in flow.remove(&distance).unwrap_or_default() {
                    let before = |(_, hop): &(usize, &(usize, usize))| hop.1 == site && near[hop.0] + 1 == distance;
                    let last: Vec<(usize, usize)> =
                        hops.iter().enumerate().filter(before).map(|(at, hop)| (at, hop.0)).collect();
                    #[expect(clippy::cast_precision_loss, reason = "sites have few links")]
                    let part = part / last.len() as f64;
                    for (at, site) in last {
                        *used.entry(at).or_default() += part;
                        *flow.entry(distance - 1).or_default().entry(site).or_default() += part;
                    }
                }
            }
            uses.insert((from, to), used);
        }
    }
    let mut left = vec![capacity; hops.len()];
    let mut shares: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    let mut level = 0.0;
    while !uses.is_empty() {
        let mut load = vec![0.0; hops.len()];
        uses.values().flatten().for_each(|(at, part)| load[*at] += part);
        let room = |at: usize| if load[at] > 0.0 { left[at] / load[at] } else { f64::INFINITY };
        let step = (0..hops.len()).map(room).fold(f64::INFINITY, f64::min);
        level += step;
        (0..hops.len()).for_each(|at| left[at] -= step * load[at]);
        let full: BTreeSet<usize> = (0..hops.len()).filter(|at| left[*at] < capacity * 1e-9).collect();
        let done = uses.iter().filter(|(_, used)| used.keys().any(|at| full.contains(at)));
        let done: Vec<(usize, usize)> = done.map(|(pair, _)| *pair).collect();
        done.iter().for_each(|pair| _ = uses.remove(pair));
        shares.extend(done.into_iter().map(|pair| (pair, level)));
    }
    shares
}

fn distances(sites: usize, hops: &[(usize, usize)], from: usize) -> Vec<usize> {
    let mut near = vec![usize::MAX; sites];
    near[from] = 0;
    let mut open = VecDeque::from([from]);
    while let Some(site) = open.pop_front() {
        for (_, next) in hops.iter().filter(|hop| hop.0 == site) {
            if near[*next] == usize::MAX {
                near[*next] = near[site] + 1;
                open.push_back(*next);
            }
        }
    }
    near
}

enum Happening {
    Deliver { from: usize, to: usize, bytes: Vec<u8> },
    Distil { link: usize },
    Route,
}

/// A network of KMEs that want more key than there is.
pub struct Load {
    now: Time,
    kmes: Vec<Kme>,
    names: Vec<SiteId>,
    number: BTreeMap<SiteId, usize>,
    links: Vec<(usize, usize)>,
    blocks: Vec<u64>,
    block_bytes: usize,
    rate: BitsPerSecond,
    table: LinkStateTable,
    asked: BTreeMap<(usize, LinkId), u64>,
    routed: u64,
    happenings: BTreeMap<(Time, u64), Happening>,
    order: u64,
    /// When each core wants to be called, kept so that the first is found quickly.
    due: BTreeSet<(Time, usize)>,
    due_of: Vec<Option<Time>>,
    muted: BTreeSet<usize>,
    rng: ChaCha12Rng,
}

impl Load {
    /// All sites connected, without key.
    ///
    /// # Panics
    /// If the number of sites is out of range.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        assert!((2..=200).contains(&setup.sites), "2 to 200 sites");
        let mut rng = ChaCha12Rng::seed_from_u64(setup.seed);
        let links = links(setup, &mut rng);
        let names: Vec<SiteId> =
            (0..setup.sites).map(|at| SiteId::new(&format!("s{at:03}")).expect("it is a short name")).collect();
        let ends = links.iter().map(|(a, b)| (link_id(*a, *b), names[*a].clone(), names[*b].clone()));
        let topology = Topology::new(ends).expect("links join different sites, each pair once");
        let kme = |name: &SiteId| {
            let mut config = Config::new(name.clone());
            config.target_keys = 1 << 22;
            config.paths_wanted = setup.paths;
            Kme::restore(Time::ZERO, config, Vec::new()).expect("nothing is stored")
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate of links, in bounds")]
        let block_bytes = (setup.link_rate.0 * BLOCK_EVERY.as_secs_f64() / 8.0).clamp(64.0, 4e6) as usize;
        let mut load = Self {
            now: Time::ZERO,
            kmes: names.iter().map(kme).collect(),
            number: names.iter().cloned().zip(0..).collect(),
            blocks: vec![0; links.len()],
            links,
            block_bytes,
            rate: setup.link_rate,
            table: LinkStateTable::new(topology, Duration::from_secs(3_600)),
            asked: BTreeMap::new(),
            routed: 0,
            happenings: BTreeMap::new(),
            order: 0,
            due: BTreeSet::new(),
            due_of: vec![None; names.len()],
            muted: BTreeSet::new(),
            rng,
            names,
        };
        for (at, (a, b)) in load.links.clone().into_iter().enumerate() {
            for (site, peer) in [(a, b), (b, a)] {
                let peer = load.names[peer].clone();
                load.input(site, Input::LinkUp { link: link_id(a, b), peer });
            }
            let first = BLOCK_EVERY.mul_f64(f64::from(load.rng.next_u32()) / f64::from(u32::MAX));
            load.later(first, Happening::Distil { link: at });
        }
        for site in 0..load.names.len() {
            for peer in load.names.clone().into_iter().enumerate().filter(|(at, _)| *at != site) {
                load.input(site, Input::PeerUp(peer.1));
            }
        }
        load.later(Duration::ZERO, Happening::Route);
        load
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now.after(time);
        loop {
            let next = self.happenings.first_key_value().map(|(at, _)| at.0);
            let due = self.due.first().copied().filter(|(at, _)| next.is_none_or(|next| *at < next));
            if let Some((at, site)) = due.filter(|(at, _)| *at <= end) {
                self.now = self.now.max(at);
                self.kmes[site].handle_timeout(self.now, &mut self.rng);
                self.drain(site);
                continue;
            }
            let Some(((at, _), happening)) = self.happenings.pop_first() else { break };
            if at > end {
                self.happenings.insert((at, 0), happening);
                break;
            }
            self.now = self.now.max(at);
            self.happen(happening);
        }
        self.now = end;
    }

    /// From now on a site's messages, both ways, are swallowed; everyone believes to be connected with it.
    pub fn mute(&mut self, site: usize) {
        self.muted.insert(site);
    }

    /// Keys that each ordered pair has in stock.
    #[must_use]
    pub fn stocks(&self) -> BTreeMap<(usize, usize), u32> {
        let of = |(site, kme): (usize, &Kme)| {
            let stocks = kme.stock().into_iter();
            stocks.map(|stock| ((site, self.number[&stock.peer]), stock.ready)).collect::<Vec<_>>()
        };
        self.kmes.iter().enumerate().flat_map(of).collect()
    }

    /// Key of all links of a site.
    #[must_use]
    pub fn link_stock(&self, site: usize) -> Vec<LinkStock> {
        self.kmes[site].link_stock()
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Deliver { from, to, bytes } => {
                let from = self.names[from].clone();
                self.input(to, Input::Message { from, bytes });
            }
            Happening::Distil { link } => {
                let (a, b) = self.links[link];
                let seq = BlockSeq(self.blocks[link]);
                self.blocks[link] += 1;
                let key = SecretBytes::random(self.block_bytes, &mut self.rng);
                for (site, peer) in [(a, b), (b, a)] {
                    let (peer, key) = (self.names[peer].clone(), key.duplicate());
                    self.input(site, Input::LinkBlock { link: link_id(a, b), peer, seq, key });
                }
                self.later(BLOCK_EVERY, Happening::Distil { link });
            }
            Happening::Route => self.route(),
        }
    }

    fn route(&mut self) {
        let many = self.names.len() > 24;
        let every = if many { ROUTE_EVERY * 10 } else { ROUTE_EVERY };
        self.later(every, Happening::Route);
        self.routed += 1;
        for (site, kme) in self.kmes.iter().enumerate() {
            let report = |stock: LinkStock| {
                let before = self.asked.insert((site, stock.link.clone()), stock.used.asked.0).unwrap_or_default();
                #[expect(clippy::cast_precision_loss, reason = "bits of a short run")]
                let demand = BitsPerSecond((stock.used.asked.0 - before) as f64 / every.as_secs_f64());
                let rate = BitsPerSecond(self.rate.0 / 2.0);
                LinkReport { link: stock.link, up: stock.reached, stock: stock.bits_out, rate, demand }
            };
            let links = kme.link_stock().into_iter().map(report).collect();
            let advertisement = Advertisement { origin: self.names[site].clone(), seq: self.routed, links };
            self.table.accept(self.now, advertisement).expect("a core speaks of its own links");
        }
        for site in 0..self.kmes.len() {
            let routes = self.table.ways(self.now, &self.names[site]);
            self.input(site, Input::Routes(routes));
        }
    }

    fn input(&mut self, site: usize, input: Input) {
        self.kmes[site].handle_input(self.now, input, &mut self.rng);
        self.drain(site);
    }

    fn drain(&mut self, site: usize) {
        while let Some(output) = self.kmes[site].poll_output() {
            match output {
                Output::Commit { seq, .. } => {
                    self.kmes[site].handle_input(self.now, Input::Durable(seq), &mut self.rng);
                }
                Output::Send { to, bytes } => {
                    let to = self.number[&to];
                    if !self.muted.contains(&site) && !self.muted.contains(&to) {
                        self.later(DELAY, Happening::Deliver { from: site, to, bytes });
                    }
                }
                _ => {}
            }
        }
        let due = self.kmes[site].poll_timeout();
        if due != self.due_of[site] {
            if let Some(before) = std::mem::replace(&mut self.due_of[site], due) {
                self.due.remove(&(before, site));
            }
            self.due.extend(due.map(|due| (due, site)));
        }
    }

    fn later(&mut self, after: Duration, happening: Happening) {
        self.order += 1;
        self.happenings.insert((self.now.after(after), self.order), happening);
    }
}

fn link_id(a: usize, b: usize) -> LinkId {
    LinkId::new(&format!("l{a:03}-{b:03}")).expect("it is a short name")
}

#[expect(clippy::cast_precision_loss, reason = "a small constant")]
const KEY_BITS: f64 = (PAIR_KEY_BYTES * 8) as f64;
const DELAY: Duration = Duration::from_millis(5);
const BLOCK_EVERY: Duration = Duration::from_millis(500);
const ROUTE_EVERY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
