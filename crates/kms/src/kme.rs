//! The key management entity of one site.
//!
//! | file | does |
//! |---|---|
//! | `restore` | builds the state from durable records |
//! | `relay` | fills stocks, relays for others, stores what arrives |
//! | `supply` | answers SAEs; the owner's half of an assignment |
//! | `assign` | the holder's half of an assignment |
//! | `sync` | compares with peers, repairs what losses and crashes left |

mod assign;
mod relay;
mod restore;
mod supply;
mod sync;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crypto::rand_core::CryptoRng;
use crypto::record::Record;
use crypto::secret::SecretBytes;
use types::event::Event;
use types::id::{BlockSeq, KeyId, LinkId, SaeId, SiteId};
use types::units::{BitLen, ByteLen, Time};

use self::relay::Outgoing;
use self::supply::{Assignment, ParkKey};
use crate::api::{Counters, Input, LinkStock, Output, PairStock};
use crate::config::{BATCH_FIRST, Config, PATH_MAX};
use crate::delivery::Deliveries;
use crate::journal::Journal;
use crate::message::Message;
use crate::pool::LinkPool;
use crate::stock::{HeldStock, OwnStock};
use crate::{Error, record};

/// The key management entity of one site: a core without IO.
///
/// Call one of [`Kme::handle_input`] and [`Kme::handle_timeout`], then drain [`Kme::poll_output`] until it gives
/// `None`, then ask [`Kme::poll_timeout`] when to call [`Kme::handle_timeout`] at the latest. Commits are to be made
/// durable in the order in which they come out.
#[derive(Debug)]
pub struct Kme {
    config: Config,
    journal: Journal,
    directory: BTreeMap<SaeId, SiteId>,
    routes: BTreeMap<SiteId, Vec<SiteId>>,
    pools: BTreeMap<LinkId, LinkPool>,
    peers: BTreeMap<SiteId, Peer>,
    outgoing: BTreeMap<KeyId, Outgoing>,
    assignments: BTreeMap<KeyId, Assignment>,
    parked: BTreeMap<ParkKey, Vec<KeyId>>,
    deliveries: Deliveries,
    timers: BTreeSet<(Time, Timer)>,
    counters: Counters,
    fill_due: bool,
}

/// What this KME knows of and shares with another site.
#[derive(Debug)]
struct Peer {
    up: bool,
    /// It let a request time out and said nothing since.
    silent: bool,
    own: OwnStock,
    held: HeldStock,
    batches_in_flight: u32,
    keys_in_flight: usize,
    batch: u16,
    next_relay: Time,
    failures: u32,
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
            batch: BATCH_FIRST,
            next_relay: Time::ZERO,
            failures: 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Fill,
    Sync,
    Relay(KeyId),
    Assign(KeyId),
}

impl Kme {
    /// Builds a KME from its durable records; without records it is new. All peers are down until told otherwise.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a record is not what this program writes.
    pub fn restore(now: Time, config: Config, records: Vec<Record>) -> Result<Self, Error> {
        restore::restore(now, config, records)
    }

    fn empty(now: Time, config: Config) -> Self {
        let timers = BTreeSet::from([(now.after(config.sync_interval), Timer::Sync)]);
        Self {
            config,
            journal: Journal::default(),
            directory: BTreeMap::new(),
            routes: BTreeMap::new(),
            pools: BTreeMap::new(),
            peers: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            assignments: BTreeMap::new(),
            parked: BTreeMap::new(),
            deliveries: Deliveries::default(),
            timers,
            counters: Counters::default(),
            fill_due: false,
        }
    }

    /// Takes one input.
    pub fn handle_input(&mut self, now: Time, input: Input, rng: &mut impl CryptoRng) {
        match input {
            Input::LinkBlock { link, peer, seq, key } => self.file_block(link, &peer, seq, &key),
            Input::Message { from, bytes } => self.message(now, &from, &bytes, rng),
            Input::Request { id, sae, request } => self.request(now, id, sae, request, rng),
            Input::Directory(directory) => self.directory = directory,
            Input::Routes(routes) => {
                let site = &self.config.site;
                let is_way = |to: &SiteId, path: &[SiteId]| {
                    (2..=PATH_MAX).contains(&path.len()) && path.first() == Some(site) && path.last() == Some(to)
                };
                self.routes = routes.into_iter().filter(|(to, path)| is_way(to, path)).collect();
                self.fill_due = true;
            }
            Input::LinkUp { link, peer } => self.pool(link, &peer).up = true,
            Input::LinkDown { link } => {
                if let Some(pool) = self.pools.get_mut(&link) {
                    pool.up = false;
                }
            }
            Input::PeerUp(site) => self.peer_up(now, &site),
            Input::PeerDown(site) => self.peer_down(now, &site),
            Input::Durable(seq) => self.journal.durable(seq),
        }
        self.fill(now, rng);
        self.journal.close();
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time, rng: &mut impl CryptoRng) {
        while let Some((_, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.pop_first();
            match timer {
                Timer::Fill => self.fill_due = true,
                Timer::Sync => self.sync_all(now),
                Timer::Relay(relay) => self.relay_timed_out(now, relay),
                Timer::Assign(assign) => self.assign_due(now, assign),
            }
        }
        if self.deliveries.next_expiry().is_some_and(|at| at <= now) {
            self.expire_deliveries(now);
        }
        self.fill(now, rng);
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
        self.pools.values().map(LinkPool::stock).collect()
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
            Message::Pool(state) => self.pool_state(from, &state),
            Message::Relay(relay) => self.relay_arrived(from, relay),
            Message::RelayAck { relay } => self.relay_acked(from, relay),
            Message::RelayNack { relay, reason } => self.relay_refused(now, from, relay, reason),
            Message::RelayVoid { sets } => self.keys_voided(from, &sets),
            Message::Held { sets } => self.held(from, &sets),
            Message::Assign(assign) => self.assign_arrived(now, from, assign),
            Message::AssignAck { assign } => self.assign_acked(from, assign),
            Message::AssignNack { assign, reason } => self.assign_refused(now, from, assign, reason, rng),
            Message::AssignVoid { assign, runs } => self.assign_voided(from, assign, &runs),
        }
    }

    fn file_block(&mut self, link: LinkId, peer: &SiteId, seq: BlockSeq, key: &SecretBytes) {
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
    }

    /// The pool of a link, made if it is new.
    fn pool(&mut self, link: LinkId, peer: &SiteId) -> &mut LinkPool {
        let reserve = self.config.link_reserve_bytes;
        let pool = self.pools.entry(link).or_insert_with_key(|link| LinkPool::new(link.clone(), peer.clone(), reserve));
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
        let (ids, bytes) = self.deliveries.expire(now);
        ids.into_iter().for_each(|id| self.journal.change(record::delete_delivery(id)));
        self.burned_keys("the slave never asked", bytes);
    }
}

const RETRY_SOON: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
