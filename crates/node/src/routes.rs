//! The switchboard: carries what comes from other sites to the cores, keeps the link-state table, sets routes,
//! and makes the site's report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use control::{Advertisement, LinkReport, LinkStateTable, Topology};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use types::id::SiteId;
use types::network::Network;
use types::units::{BitLen, BitsPerSecond};

use crate::board::Board;
use crate::clock;
use crate::failure::{Context as _, Outcome};
use crate::keeper::{Keeper, Snapshot};
use crate::kx::{Channel, KxEvent, KxSender};
use crate::report::{KeyCounters, PairReport, SiteReport};

/// Joins transport, control core, keeper and board of one site.
pub struct Switchboard {
    site: SiteId,
    keeper: Keeper,
    kx: KxSender,
    board: Arc<Board>,
    states: LinkStateTable,
    sequence: u64,
    routes: BTreeMap<SiteId, Vec<SiteId>>,
}

impl Switchboard {
    /// A switchboard that knows only its own site yet.
    ///
    /// # Errors
    /// Never for a parsed network.
    pub fn new(network: &Network, site: SiteId, keeper: Keeper, kx: KxSender, board: Arc<Board>) -> Outcome<Self> {
        let links = network.links().values().map(|link| (link.id.clone(), link.alice.clone(), link.bob.clone()));
        let topology = Topology::new(links).context(|| "topology".to_owned())?;
        Ok(Self {
            states: LinkStateTable::new(topology, ADVERTISEMENT_AGE_MAX),
            // Newest wins, also after a restart: sequence numbers start at the wall clock.
            sequence: clock::utc_now().0,
            site,
            keeper,
            kx,
            board,
            routes: BTreeMap::new(),
        })
    }

    /// Runs until the token is cancelled.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<KxEvent>, stop: CancellationToken) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let lasting = tokio::select! {
                event = inbox.recv() => match event {
                    Some(event) => self.take(event).await,
                    None => None,
                },
                _ = tick.tick() => self.tick().await,
                () = stop.cancelled() => None,
            };
            if lasting.is_none() {
                return;
            }
        }
    }

    async fn take(&mut self, event: KxEvent) -> Option<()> {
        match event {
            KxEvent::Up(site) => self.keeper.input(kms::Input::PeerUp(site)).await,
            KxEvent::Down(site) => self.keeper.input(kms::Input::PeerDown(site)).await,
            KxEvent::Frame(from, Channel::Kms, bytes) => {
                self.keeper.input(kms::Input::Message { from, bytes: bytes.to_vec() }).await
            }
            KxEvent::Frame(from, Channel::Control, bytes) => {
                self.learn(&from, &bytes);
                Some(())
            }
            KxEvent::Frame(from, Channel::Report, bytes) => {
                match serde_json::from_slice::<SiteReport>(&bytes) {
                    Ok(report) if report.site == from => self.board.add_site(report),
                    _ => tracing::warn!(%from, "a site sent a report that is not its own or malformed"),
                }
                Some(())
            }
        }
    }

    /// Takes a link state from the site that it is about; nobody may speak for another.
    fn learn(&mut self, from: &SiteId, bytes: &Bytes) {
        match Advertisement::decode(bytes) {
            Ok(advertisement) if advertisement.origin == *from => self.accept(advertisement),
            _ => tracing::warn!(%from, "a site sent a link state that is not its own or malformed"),
        }
    }

    fn accept(&mut self, advertisement: Advertisement) {
        if let Err(error) = self.states.accept(clock::now(), advertisement) {
            tracing::warn!(%error, "link state refused");
        }
    }

    async fn tick(&mut self) -> Option<()> {
        let snapshot = self.keeper.snapshot().await?;
        let advertisement = self.advertisement(&snapshot);
        let wire = advertisement.encode();
        self.accept(advertisement);
        let routes = self.states.routes(clock::now(), &self.site);
        if routes != self.routes {
            self.routes.clone_from(&routes);
            self.keeper.input(kms::Input::Routes(routes)).await?;
        }
        let report = self.report(snapshot);
        let encoded = serde_json::to_vec(&report).unwrap_or_default();
        for peer in self.kx.peers() {
            self.kx.send(peer, Channel::Control, &wire);
            self.kx.send(peer, Channel::Report, &encoded);
        }
        self.board.add_site(report);
        Some(())
    }

    fn advertisement(&mut self, snapshot: &Snapshot) -> Advertisement {
        self.sequence += 1;
        let rates: BTreeMap<_, _> = self.board.links().into_iter().map(|link| (link.link.clone(), link)).collect();
        let links = snapshot.links.iter().map(|stock| {
            let rate = rates.get(&stock.link).and_then(|link| link.secret_bit_s).unwrap_or_default();
            LinkReport {
                link: stock.link.clone(),
                up: stock.up,
                stock: BitLen(stock.bits_out.0),
                rate: BitsPerSecond(rate),
            }
        });
        Advertisement { origin: self.site.clone(), seq: self.sequence, links: links.collect() }
    }

    fn report(&self, snapshot: Snapshot) -> SiteReport {
        let mut links = self.board.links();
        for link in &mut links {
            if let Some(stock) = snapshot.links.iter().find(|stock| stock.link == link.link) {
                link.stock_out_bits = stock.bits_out.0;
                link.stock_in_bits = stock.bits_in.0;
            }
        }
        let pairs = snapshot.pairs.iter().map(|pair| PairReport {
            peer: pair.peer.clone(),
            ready: pair.ready.into(),
            target: pair.target.into(),
            path: self.routes.get(&pair.peer).cloned().unwrap_or_default(),
        });
        let counters = snapshot.counters;
        SiteReport {
            site: self.site.clone(),
            made: clock::utc_now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            links,
            pairs: pairs.collect(),
            keys: KeyCounters {
                relayed: counters.relayed_keys,
                transit: counters.transit_keys,
                supplied: counters.supplied_keys,
                delivered: counters.delivered_keys,
                refused: counters.requests_refused,
            },
            models: self.board.models(),
            terminals: self.board.terminals(),
            audit: snapshot.audit,
            audit_entries: snapshot.audit_entries,
        }
    }
}

const TICK: Duration = Duration::from_millis(500);
const ADVERTISEMENT_AGE_MAX: Duration = Duration::from_secs(5);
