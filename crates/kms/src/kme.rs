//! The key management entity of one site.
//!
//! | file | does |
//! |---|---|
//! | `restore` | builds the state from durable records |
//! | `fill` | the owner's half of relay: fills stocks, splits keys over several ways |
//! | `confirm` | what both ends check of keys from several ways |
//! | `ways` | which way a batch takes |
//! | `relay` | hops: takes turns for key, relays for others, stores what arrives |
//! | `supply` | answers SAEs |
//! | `wait` | admits requests, lets them wait, forecasts |
//! | `owner` | the owner's half of an assignment |
//! | `assign` | the holder's half of an assignment |
//! | `group` | the same keys for several sites; keys from other networks |
//! | `export` | keys into other networks |
//! | `withdraw` | keys that another network takes back |
//! | `sync` | compares with peers, repairs what losses and crashes left |
//! | `set_back` | notices records that were set back to an older state |

mod assign;
mod confirm;
mod export;
mod fill;
mod group;
mod owner;
mod relay;
mod restore;
mod set_back;
mod supply;
mod sync;
mod wait;
mod ways;
mod withdraw;

pub use self::restore::Restore;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crypto::rand_core::CryptoRng;
use crypto::record::Record;
use crypto::secret::SecretBytes;
use types::event::Event;
use types::id::{BlockSeq, KeyId, LinkId, SaeId, SiteId};
use types::units::{BitLen, ByteLen, Time, UtcNanos};

use self::export::LocalExport;
use self::fill::{Demand, Outgoing};
use self::group::Group;
use self::owner::{Assignment, ParkKey};
use self::relay::Parts;
use self::set_back::Heard;
use self::wait::{Turn, Waiter};
use self::ways::{AckTime, Ways};
use self::withdraw::Withdrawal;
use crate::Error;
use crate::api::{Counters, Input, LinkStock, Output, PairStock, Priority};
use crate::config::{BATCH_FIRST, Config};
use crate::delivery::Deliveries;
use crate::flow::{Made, Taken};
use crate::journal::Journal;
use crate::message::Message;
use crate::pool::LinkPool;
use crate::queue::Outlet;
use crate::quota::Quotas;
use crate::spending::Spending;
use crate::stock::{HeldStock, OwnStock};

/// The key management entity of one site: a core without IO.
///
/// Call one of [`Kme::handle_input`] and [`Kme::handle_timeout`], then drain [`Kme::poll_output`] until it gives
/// `None`, then ask [`Kme::poll_timeout`] when to call [`Kme::handle_timeout`] at the latest. Commits are to be made
/// durable in the order in which they come out.
#[derive(Debug)]
pub struct Kme {
    config: Config,
    journal: Journal,
    spending: Spending,
    directory: BTreeMap<SaeId, SiteId>,
    foreign: BTreeMap<SaeId, String>,
    quotas: Quotas,
    ways: Ways,
    pools: BTreeMap<LinkId, LinkPool>,
    /// What waits for key of the links to a neighbour.
    outlets: BTreeMap<SiteId, Outlet>,
    /// Batches of which some shares have come, by owner.
    parts: BTreeMap<(SiteId, KeyId), Parts>,
    waits_watched: bool,
    /// Random number of this run; 0 before the first input.
    run: u64,
    peers: BTreeMap<SiteId, Peer>,
    outgoing: BTreeMap<KeyId, Outgoing>,
    assignments: BTreeMap<KeyId, Assignment>,
    parked: BTreeMap<ParkKey, Vec<KeyId>>,
    groups: BTreeMap<u64, Group>,
    groups_begun: u64,
    waiters: BTreeMap<Turn, Waiter>,
    waiters_begun: u64,
    local_exports: BTreeMap<KeyId, LocalExport>,
    withdrawals: BTreeMap<KeyId, Withdrawal>,
    /// Withdrawals of others that were done here, the last ones.
    withdrawn: VecDeque<KeyId>,
    deliveries: Deliveries,
    timers: BTreeSet<(Time, Timer)>,
    counters: Counters,
    fill_due: bool,
    serve_due: bool,
    /// When the KME was built, and the time of the mutation under way.
    built: Time,
    now: Time,
}

/// What this KME knows of and shares with another site.
#[derive(Debug)]
struct Peer {
    up: bool,
    /// It let a request time out and said nothing since.
    silent: bool,
    own: OwnStock,
    held: HeldStock,
    batches_in_flight: usize,
    keys_in_flight: usize,
    /// Keys that plain stock does not have and that were asked for.
    demands: Vec<Demand>,
    batch: u16,
    next_relay: Time,
    failures: u32,
    made: Made,
    /// By class, in the order of [`Priority::ALL`].
    taken: [Taken; 4],
    /// Keys of any way that requests wait for, by class.
    awaited: [usize; 4],
    /// Requests that wait and are not to be overtaken, by class.
    waiting: [usize; 4],
    /// When the last failure was counted.
    failed: Time,
    ack_time: AckTime,
    heard: Heard,
    /// Our records were set back: what it had heard of us, until we know all that it knows.
    set_back: Option<u64>,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            up: false,
            silent: false,
            own: OwnStock::default(),
            held: HeldStock::default(),
            batches_in_flight: 0,
            keys_in_flight: 0,
            demands: Vec::new(),
            batch: BATCH_FIRST,
            next_relay: Time::ZERO,
            failures: 0,
            made: Made::default(),
            taken: [Taken::default(); 4],
            awaited: [0; 4],
            waiting: [0; 4],
            failed: Time::ZERO,
            ack_time: AckTime::default(),
            heard: Heard::default(),
            set_back: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Fill,
    Sync,
    Waits,
    Relay(KeyId),
    Assign(KeyId),
    Group(u64),
    Wait(Priority, u64),
    Export(KeyId),
    Withdraw(KeyId),
}

impl Kme {
    /// Builds a KME from its durable records, in order of table and key; without records it is new. All peers are
    /// down until told otherwise. Where reading may fail, [`Restore`] takes them one by one.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a record is not what this program writes.
    pub fn restore(now: Time, config: Config, records: impl IntoIterator<Item = Record>) -> Result<Self, Error> {
        let mut restore = Restore::new(now, config);
        records.into_iter().try_for_each(|record| restore.record(record))?;
        restore.finish()
    }

    fn empty(now: Time, config: Config) -> Self {
        let timers = BTreeSet::from([(now.after(config.sync_interval), Timer::Sync)]);
        let quotas = Quotas::new(config.supply_wait);
        Self {
            config,
            quotas,
            foreign: BTreeMap::new(),
            groups: BTreeMap::new(),
            groups_begun: 0,
            waiters: BTreeMap::new(),
            waiters_begun: 0,
            local_exports: BTreeMap::new(),
            withdrawals: BTreeMap::new(),
            withdrawn: VecDeque::new(),
            serve_due: false,
            journal: Journal::default(),
            spending: Spending::default(),
            directory: BTreeMap::new(),
            ways: Ways::default(),
            pools: BTreeMap::new(),
            outlets: BTreeMap::new(),
            parts: BTreeMap::new(),
            waits_watched: false,
            run: 0,
            peers: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            assignments: BTreeMap::new(),
            parked: BTreeMap::new(),
            deliveries: Deliveries::default(),
            timers,
            counters: Counters::default(),
            fill_due: false,
            built: now,
            now,
        }
    }

    /// The time that ages are counted in.
    fn utc(&self) -> UtcNanos {
        let running = u64::try_from(self.now.since(self.built).as_nanos()).unwrap_or(u64::MAX);
        UtcNanos(self.config.started.0.saturating_add(running))
    }

    /// Takes one input.
    pub fn handle_input(&mut self, now: Time, input: Input, rng: &mut impl CryptoRng) {
        self.now = now;
        while self.run == 0 {
            self.run = rng.next_u64();
        }
        match input {
            Input::LinkBlock { link, peer, seq, key } => self.file_block(now, link, &peer, seq, &key),
            Input::Message { from, bytes } => self.message(now, &from, &bytes, rng),
            Input::Request { id, sae, request } => self.request(now, id, sae, request, rng),
            Input::Directory(directory) => self.directory = directory,
            Input::Foreign(foreign) => self.foreign = foreign,
            Input::Saes(policies) => {
                self.quotas.replace(policies);
                self.serve_due = true;
            }
            Input::Reserves(percent) => {
                self.config.reserve_percent = percent;
                self.serve_due = true;
            }
            Input::Exported { export, result } => self.exported(export, result),
            Input::Import { id, initiator, targets, keys } => self.import(now, id, initiator, targets, keys, rng),
            Input::Withdraw { id, initiator, targets, ids } => self.withdraw(now, id, initiator, &targets, ids, rng),
            Input::Routes(routes) => {
                self.ways.replace(&self.config.site, routes);
                self.fill_due = true;
            }
            Input::LinkUp { link, peer } => {
                self.pool(link, &peer).up = true;
                self.fill_due = true;
            }
            Input::LinkDown { link } => {
                if let Some(pool) = self.pools.get_mut(&link) {
                    pool.up = false;
                    let peer = pool.peer.clone();
                    self.serve(now, &peer);
                }
            }
            Input::PeerUp(site) => self.peer_up(now, &site),
            Input::PeerDown(site) => self.peer_down(now, &site),
            Input::Durable(seq) => self.journal.durable(seq),
        }
        self.look_after_waiters(now, rng);
        self.fill(now, rng);
        self.close();
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time, rng: &mut impl CryptoRng) {
        self.now = now;
        while let Some((_, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.pop_first();
            match timer {
                Timer::Fill => self.fill_due = true,
                Timer::Sync => self.sync_all(now),
                Timer::Waits => self.waits_due(now),
                Timer::Relay(relay) => self.relay_timed_out(now, relay),
                Timer::Assign(assign) => self.assign_due(now, assign),
                Timer::Group(group) => self.group_due(group),
                Timer::Wait(class, number) => self.wait_due((class, number)),
                Timer::Export(export) => self.export_due(export),
                Timer::Withdraw(withdraw) => self.withdraw_due(now, withdraw),
            }
        }
        if self.deliveries.next_expiry().is_some_and(|at| at <= now) {
            self.expire_deliveries(now);
        }
        self.look_after_waiters(now, rng);
        self.fill(now, rng);
        self.close();
    }

    /// Looks after those who wait, if there may be key for them.
    fn look_after_waiters(&mut self, now: Time, rng: &mut impl CryptoRng) {
        if std::mem::take(&mut self.serve_due) && !self.waiters.is_empty() {
            self.serve_waiters(now, rng);
        }
    }

    /// Ends a mutation.
    fn close(&mut self) {
        self.spending.count(&mut self.journal);
        self.journal.close();
    }

    /// The next output; drain after every mutation.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.journal.poll()
    }

    /// When [`Kme::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.deliveries.next_expiry()].into_iter().flatten().min()
    }

    /// End-to-end keys per peer.
    #[must_use]
    pub fn stock(&self) -> Vec<PairStock> {
        let count = |keys: usize| u32::try_from(keys).unwrap_or(u32::MAX);
        let stock = |(site, peer): (&SiteId, &Peer)| PairStock {
            peer: site.clone(),
            ready: count(peer.own.ready()),
            target: self.config.target_keys,
            low: count(peer.own.ready()) < self.config.low_water_keys,
            held: count(peer.held.count()),
        };
        self.peers.iter().map(stock).collect()
    }

    /// Key left per link.
    #[must_use]
    pub fn link_stock(&self) -> Vec<LinkStock> {
        let stock = |pool: &LinkPool| LinkStock { reached: self.is_up(&pool.peer), ..pool.stock() };
        self.pools.values().map(stock).collect()
    }

    /// What was done since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn message(&mut self, now: Time, from: &SiteId, bytes: &[u8], rng: &mut impl CryptoRng) {
        let Ok(message) = Message::decode(bytes) else {
            return self.misbehaved(from, "a message that does not decode");
        };
        self.peer(from).silent = false;
        match message {
            Message::Pool(state) => self.pool_state(now, from, &state),
            Message::Relay(relay) => self.relay_arrived(now, from, relay),
            Message::RelayAck { relay, proof } => self.relay_acked(now, from, relay, proof.as_ref()),
            Message::RelayNack { relay, reason } => self.relay_refused(now, from, relay, reason),
            Message::RelayVoid { sets } => self.keys_voided(from, &sets),
            Message::RelayWait { waits } => self.relays_wait(now, from, &waits),
            Message::Held { range, end, sets } => self.held(from, range, end, &sets),
            Message::HeldDigest(digest) => self.held_digest(from, &digest),
            Message::HeldAsk { range } => self.held_asked(from, range),
            Message::Standing(standing) => self.standing_heard(now, from, standing),
            Message::Assign(assign) => self.assign_arrived(now, from, assign),
            Message::AssignAck { assign } => self.assign_acked(now, from, assign, rng),
            Message::AssignNack { assign, reason } => self.assign_refused(now, from, assign, reason, rng),
            Message::AssignVoid { assign, runs } => self.assign_voided(from, assign, &runs),
            Message::AssignPending { assign } => self.assign_pending(now, from, assign),
            Message::Withdraw { withdraw, step, initiator, ids } => {
                self.withdraw_arrived(now, from, withdraw, step, &initiator, &ids);
            }
            Message::Withdrawn { withdraw, step, state } => self.withdraw_answered(now, from, withdraw, step, state),
        }
    }

    fn file_block(&mut self, now: Time, link: LinkId, peer: &SiteId, seq: BlockSeq, key: &SecretBytes) {
        let bytes_max = self.config.link_pool_max_bytes;
        let site = self.config.site.clone();
        self.pool(link.clone(), peer);
        let pool = self.pools.get_mut(&link).expect("the line above made it");
        let burned = pool.file(&site, seq, key, bytes_max, &mut self.journal);
        let state = Message::Pool(pool.state());
        self.burned(burned);
        self.fill_due = true;
        self.journal.effect(Output::BlockFiled { link, seq });
        self.send(peer, &state);
        self.serve(now, peer);
    }

    /// The pool of a link, made if it is new.
    fn pool(&mut self, link: LinkId, peer: &SiteId) -> &mut LinkPool {
        let pool = self.pools.entry(link).or_insert_with_key(|link| LinkPool::new(link.clone(), peer.clone()));
        assert!(pool.peer == *peer, "a link joins the same two sites for ever");
        pool
    }

    fn peer(&mut self, site: &SiteId) -> &mut Peer {
        if !self.peers.contains_key(site) {
            self.peers.insert(site.clone(), Peer::default());
        }
        self.peers.get_mut(site).expect("the lines above made it")
    }

    fn is_up(&self, site: &SiteId) -> bool {
        self.peers.get(site).is_some_and(|peer| peer.up)
    }

    /// Sends after everything before it is durable; to a peer that is down nothing is sent.
    fn send(&mut self, to: &SiteId, message: &Message) {
        if self.is_up(to) {
            self.journal.effect(Output::Send { to: to.clone(), bytes: message.encode() });
        }
    }

    fn misbehaved(&mut self, site: &SiteId, reason: &'static str) {
        self.counters.messages_refused += 1;
        self.journal.direct(Output::PeerMisbehaved { site: site.clone(), reason });
    }

    fn burned(&mut self, bytes: ByteLen) {
        self.counters.burned += BitLen::from(bytes);
    }

    /// Counts and reports destroyed pair keys.
    fn burned_keys(&mut self, reason: &str, bytes: usize) {
        if bytes > 0 {
            let bytes = ByteLen(bytes as u64);
            self.burned(bytes);
            self.journal.event(Event::KeyBurned { reason: reason.to_owned(), bits: bytes.into() });
        }
    }

    fn expire_deliveries(&mut self, now: Time) {
        let gone = self.deliveries.expire(now);
        self.destroyed(&gone, "the slave never asked");
        self.exports_expired(&gone);
    }
}

const RETRY_SOON: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
