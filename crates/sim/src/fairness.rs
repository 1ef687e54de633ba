//! Whether pairs of sites get their share of scarce link key: real KMEs on a ring, a star, a random geometric graph.
//!
//! Every ordered pair wants more than the links make: stocks are never full. What each pair gets is compared with its
//! max-min fair share: the shares of all pairs grow alike until a link is full, then those of the pairs that do not
//! need it, and so on. A pair spreads over all ways that the controller gives it as suits all best. Equal shares would
//! be no measure away from rings: they are what the worst bottleneck allows. The shares are of link key with no cost
//! for tags, so that nobody can reach them quite.
//!
//! **Where it stands.** On a ring of 10 sites pairs get Jain 0.96 of their share, the worst 0.80. Scattered sites
//! (24, radius 0.3, seed 1, 54 links) get 0.64, the worst 0.02: each hop shares its key evenly among the pairs that come
//! over it, but pairs go the shortest way even if it is crowded, so that neighbours across a bridge get no more than all
//! who cross it, where the reference sends most of those round.
//!
//! Messages take a fixed time and arrive in order, commits are durable at once, links make key at a constant rate;
//! nothing is lost but what [`Load::mute`] and [`Load::cut`] swallow, and nothing is late but by [`Load::trouble`]. One
//! seed gives one run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use control::{Advertisement, LinkReport, LinkStateTable, Topology};
use crypto::secret::SecretBytes;
use kms::{Config, Input, Kme, LinkStock, Output, PAIR_KEY_BYTES};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use types::id::{BlockSeq, LinkId, SiteId};
use types::units::{BitLen, BitsPerSecond, Time};

/// How sites are joined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Each with the next, the last with the first.
    Ring,
    /// All others with the first.
    Star,
    /// Two rows of half as many sites, each joined with the next in its row and with its like in the other row.
    Ladder,
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
    let shares = fair_shares(&load.idle_ways(), setup.link_rate.0 / 2.0 / KEY_BITS);
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
        Shape::Ladder => {
            let row = count / 2;
            let rows = (0..2).flat_map(|of| (1..row).map(move |at| (of * row + at - 1, of * row + at)));
            rows.chain((0..row).map(|at| (at, row + at))).collect()
        }
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

/// Max-min fair share of every ordered pair in keys per second, if each direction of a link carries `capacity` and a
/// pair may spread over all ways that the controller gives it.
///
/// Water filling: the shares of all pairs grow alike by small steps, each over that way of the pair whose hops together
/// are the least full; a pair whose ways all have a full hop keeps what it has. Steps are not taken back, so that shares
/// are those of a good division, not proven to be the best.
fn fair_shares(ways: &BTreeMap<(usize, usize), Vec<Vec<usize>>>, capacity: f64) -> BTreeMap<(usize, usize), f64> {
    let mut used: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    let mut shares: BTreeMap<(usize, usize), f64> = ways.keys().map(|pair| (*pair, 0.0)).collect();
    let hops = |way: &[usize]| way.windows(2).map(|hop| (hop[0], hop[1])).collect::<Vec<_>>();
    let mut growing: Vec<(Hop, Vec<Vec<Hop>>)> =
        ways.iter().map(|(pair, ways)| (*pair, ways.iter().map(|way| hops(way)).collect())).collect();
    let step = 1.0 / STEPS;
    while !growing.is_empty() {
        growing.retain_mut(|(pair, ways)| {
            let fill = |hop: &(usize, usize)| used.get(hop).copied().unwrap_or_default();
            ways.retain(|way| way.iter().all(|hop| fill(hop) + step <= 1.0 + 1e-9));
            let cost = |way: &[(usize, usize)]| way.iter().map(|hop| (FULL_COST * fill(hop)).exp()).sum::<f64>();
            let Some(way) = ways.iter().min_by(|one, other| cost(one).total_cmp(&cost(other))) else { return false };
            way.iter().for_each(|hop| *used.entry(*hop).or_default() += step);
            *shares.entry(*pair).or_default() += step * capacity;
            true
        });
    }
    shares
}

/// From one site to the next, or to another.
type Hop = (usize, usize);

enum Happening {
    Deliver { from: usize, to: usize, bytes: Vec<u8> },
    Distil { link: usize },
    Route,
}

/// What is wrong with the connections between sites. They are reliable streams: a lost packet comes later, and so does
/// what was sent after it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// Packets that get lost, of a hundred.
    pub lost_percent: u32,
    /// How much later a lost packet comes each time.
    pub resend: Duration,
    /// Messages before which the connection stalls, of a thousand.
    pub stalls_permille: u32,
    /// How long it stalls.
    pub stall: Duration,
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
    cut: BTreeSet<(usize, usize)>,
    trouble: Option<Trouble>,
    /// When the last message between two sites arrives.
    busy_until: BTreeMap<(usize, usize), Time>,
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
            cut: BTreeSet::new(),
            trouble: None,
            busy_until: BTreeMap::new(),
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

    /// The ways that the controller gives while nobody asks for key.
    fn idle_ways(&self) -> BTreeMap<(usize, usize), Vec<Vec<usize>>> {
        let mut table = LinkStateTable::new(self.table.topology().clone(), Duration::from_secs(3_600));
        for (site, kme) in self.kmes.iter().enumerate() {
            let report = |stock: LinkStock| {
                let (rate, demand) = (BitsPerSecond(self.rate.0 / 2.0), BitsPerSecond(0.0));
                LinkReport { link: stock.link, up: true, stock: BitLen(0), rate, demand }
            };
            let links = kme.link_stock().into_iter().map(report).collect();
            let advertisement = Advertisement { origin: self.names[site].clone(), seq: 1, links };
            table.accept(self.now, advertisement).expect("a core speaks of its own links");
        }
        let of = |site: usize| {
            let ways = table.ways(self.now, &self.names[site]).into_iter();
            ways.map(move |(to, ways)| ((site, self.number[&to]), ways.iter().map(|way| self.numbers(way)).collect()))
        };
        (0..self.names.len()).flat_map(of).collect()
    }

    fn numbers(&self, way: &[SiteId]) -> Vec<usize> {
        way.iter().map(|site| self.number[site]).collect()
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

    /// From now on messages between two sites, both ways, are swallowed; both believe to be connected.
    pub fn cut(&mut self, one: usize, other: usize) {
        self.cut.extend([(one, other), (other, one)]);
    }

    /// From now on connections between sites have this.
    pub fn trouble(&mut self, trouble: Trouble) {
        self.trouble = Some(trouble);
    }

    /// Relays of all sites that failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.kmes.iter().map(|kme| kme.counters().relays_failed).sum()
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
                    let silent = self.muted.contains(&site) || self.muted.contains(&to);
                    if !silent && !self.cut.contains(&(site, to)) {
                        let after = self.delay(site, to);
                        self.later(after, Happening::Deliver { from: site, to, bytes });
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

    /// How long a message takes; none overtakes another of its connection.
    fn delay(&mut self, from: usize, to: usize) -> Duration {
        let Some(trouble) = self.trouble else { return DELAY };
        let mut takes = DELAY;
        while self.rng.next_u32() % 100 < trouble.lost_percent {
            takes += trouble.resend;
        }
        let stalled = self.rng.next_u32() % 1_000 < trouble.stalls_permille;
        takes += if stalled { trouble.stall } else { Duration::ZERO };
        let busy = self.busy_until.entry((from, to)).or_insert(self.now);
        *busy = (*busy).max(self.now.after(takes));
        busy.since(self.now)
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
/// Steps of water filling until a hop that one pair has for itself is full.
const STEPS: f64 = 2_000.0;
/// How steeply a hop gets dearer as it fills: e^8 times when it is full.
const FULL_COST: f64 = 8.0;
const DELAY: Duration = Duration::from_millis(5);
const BLOCK_EVERY: Duration = Duration::from_millis(500);
const ROUTE_EVERY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
