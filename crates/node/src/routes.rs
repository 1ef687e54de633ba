//! The switchboard: carries what comes from other sites to the cores, keeps the link-state table, sets routes,
//! and makes the site's report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use control::{Advertisement, LinkReport, LinkStateTable, Topology};
use kms::{PairFlow, stream};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use types::id::{LinkId, SiteId};
use types::network::Network;
use types::units::{BitLen, BitsPerSecond};

use crate::api::notify::Notices;
use crate::board::Board;
use crate::clock;
use crate::failure::{Context as _, Outcome};
use crate::keeper::{Keeper, Snapshot};
use crate::kx::{Channel, KxEvent, KxSender};
use crate::report::{FlowReport, InterworkReport, KeyCounters, PairReport, ServiceReport, SiteReport, StreamReport};
use crate::streams::StreamDesk;

/// Joins transport, control core, keeper and board of one site.
pub struct Switchboard {
    site: SiteId,
    keeper: Keeper,
    streams: StreamDesk,
    kx: KxSender,
    board: Arc<Board>,
    notices: Arc<Notices>,
    states: LinkStateTable,
    sequence: u64,
    /// The ways to each site, the best first.
    routes: BTreeMap<SiteId, Vec<Vec<SiteId>>>,
    /// Bits of each link that relays had asked for when last looked at, and how fast they ask.
    asked: BTreeMap<LinkId, (u64, f64)>,
}

impl Switchboard {
    /// A switchboard that knows only its own site yet.
    ///
    /// # Errors
    /// Never for a parsed network.
    pub fn new(
        network: &Network,
        site: SiteId,
        keeper: Keeper,
        kx: KxSender,
        board: Arc<Board>,
        (streams, notices): (StreamDesk, Arc<Notices>),
    ) -> Outcome<Self> {
        let links = network.links().values().map(|link| (link.id.clone(), link.alice.clone(), link.bob.clone()));
        let topology = Topology::new(links).context(|| "topology".to_owned())?;
        Ok(Self {
            states: LinkStateTable::new(topology, ADVERTISEMENT_AGE_MAX),
            // Newest wins, also after a restart: sequence numbers start at the wall clock.
            sequence: clock::utc_now().0,
            site,
            keeper,
            streams,
            kx,
            board,
            notices,
            routes: BTreeMap::new(),
            asked: BTreeMap::new(),
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
            KxEvent::Up(site) => {
                self.streams.input(stream::Input::PeerUp(site.clone())).await?;
                self.keeper.input(kms::Input::PeerUp(site)).await
            }
            KxEvent::Down(site) => {
                self.streams.input(stream::Input::PeerDown(site.clone())).await?;
                self.keeper.input(kms::Input::PeerDown(site)).await
            }
            KxEvent::Frames(from, frames) => {
                let mut for_kme = Vec::new();
                for (channel, bytes) in frames {
                    if channel == Channel::Kms {
                        for_kme.push(kms::Input::Message { from: from.clone(), bytes: bytes.to_vec() });
                        continue;
                    }
                    // Order is kept between channels too.
                    self.tell_kme(&mut for_kme).await?;
                    self.frame(&from, channel, &bytes).await?;
                }
                self.tell_kme(&mut for_kme).await
            }
        }
    }

    async fn tell_kme(&self, inputs: &mut Vec<kms::Input>) -> Option<()> {
        if inputs.is_empty() {
            return Some(());
        }
        self.keeper.inputs(std::mem::take(inputs)).await
    }

    async fn frame(&mut self, from: &SiteId, channel: Channel, bytes: &Bytes) -> Option<()> {
        match channel {
            Channel::Kms => {
                self.keeper.input(kms::Input::Message { from: from.clone(), bytes: bytes.to_vec() }).await?;
            }
            Channel::Streams => {
                self.streams.input(stream::Input::Message { from: from.clone(), bytes: bytes.to_vec() }).await?;
            }
            Channel::Control => self.learn(from, bytes),
            Channel::Notice => self.notices.frame_arrived(from, bytes),
            Channel::Report => match serde_json::from_slice::<SiteReport>(bytes) {
                Ok(report) if report.site == *from => self.board.add_site(report),
                _ => tracing::warn!(%from, "a site sent a report that is not its own or malformed"),
            },
        }
        Some(())
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
        let routes = self.states.ways(clock::now(), &self.site);
        if routes != self.routes {
            self.routes.clone_from(&routes);
            self.keeper.input(kms::Input::Routes(routes)).await?;
        }
        self.streams.input(stream::Input::Forecast(self.forecast())).await?;
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
            // A link that makes no key stays in the routes with what it has left.
            let rate = rates.get(&stock.link).and_then(|link| link.secret_bit_s).filter(|_| stock.up);
            let (before, demand) = self.asked.get(&stock.link).copied().unwrap_or((stock.used.asked.0, 0.0));
            let latest = stock.used.asked.0.saturating_sub(before) as f64 / TICK.as_secs_f64();
            let demand = demand + (latest - demand) * DEMAND_WEIGHT;
            self.asked.insert(stock.link.clone(), (stock.used.asked.0, demand));
            LinkReport {
                link: stock.link.clone(),
                up: stock.reached,
                stock: BitLen(stock.bits_out.0),
                rate: BitsPerSecond(rate.unwrap_or_default()),
                demand: BitsPerSecond(demand),
            }
        });
        Advertisement { origin: self.site.clone(), seq: self.sequence, links: links.collect() }
    }

    /// Bits in a second that can be made for each site: half of what the slowest link of the way makes, since a link's
    /// key is split by direction.
    fn forecast(&self) -> BTreeMap<SiteId, u64> {
        let now = clock::now();
        let links = self.states.topology().links();
        let rate = |from: &SiteId, to: &SiteId| {
            let between = |(alice, bob): &(SiteId, SiteId)| (alice, bob) == (from, to) || (alice, bob) == (to, from);
            let rates = links.iter().filter(|(_, ends)| between(ends)).filter_map(|(link, _)| {
                let report = self.states.report(now, from, link).or_else(|| self.states.report(now, to, link))?;
                (report.rate.0 > 0.0).then_some(report.rate.0)
            });
            rates.reduce(f64::max)
        };
        let slowest = |path: &Vec<SiteId>| {
            let rates: Option<Vec<f64>> = path.windows(2).map(|hop| rate(&hop[0], &hop[1])).collect();
            rates?.into_iter().reduce(f64::min)
        };
        let forecasts = self.routes.iter().filter_map(|(site, ways)| Some((site.clone(), slowest(ways.first()?)?)));
        forecasts.map(|(site, rate)| (site, whole_bits(rate / 2.0))).collect()
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
            path: self.routes.get(&pair.peer).and_then(|ways| ways.first()).cloned().unwrap_or_default(),
            flow: snapshot.flows.iter().find(|flow| flow.peer == pair.peer).map(flow_report).unwrap_or_default(),
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
            service: self.service_report(&snapshot),
            audit: snapshot.audit,
            audit_entries: snapshot.audit_entries,
        }
    }

    fn service_report(&self, snapshot: &Snapshot) -> ServiceReport {
        let streams = self.streams.counters();
        let refusals = self.keeper.refusals();
        let request = |((interface, reason), count): ((String, String), u64)| (interface, reason, count);
        ServiceReport {
            streams: StreamReport {
                ends: streams.ends,
                waiting: streams.waiting,
                opened: streams.opened,
                chunks: streams.chunks,
                bytes: streams.bytes,
                refused: streams.refused,
            },
            interwork: snapshot.interwork.map(|counters| InterworkReport {
                exported: counters.exported_keys,
                exports_failed: counters.exports_failed,
                imported: counters.imported_keys,
                voided: counters.voided_keys,
                refused: counters.requests_refused,
                calls_failed: counters.calls_failed,
            }),
            handshakes: refusals.handshakes().into_iter().collect(),
            refusals: refusals.requests().into_iter().map(request).collect(),
            store_commits: snapshot.disk.commits.clone(),
            log_appends: snapshot.disk.appends.clone(),
            store_changes: snapshot.disk.changes,
            relays_failed: snapshot.counters.relays_failed,
            burned_bits: snapshot.counters.burned.0,
            messages_refused: snapshot.counters.messages_refused,
        }
    }
}

fn flow_report(flow: &PairFlow) -> FlowReport {
    FlowReport {
        held: flow.held.into(),
        made: flow.made,
        made_per_second: flow.made_per_second,
        taken: flow.taken,
        taken_per_second: flow.taken_per_second,
        waiting: flow.waiting.into(),
        seconds_to_empty: flow.time_to_empty.map(|left| left.as_secs_f64()),
    }
}

/// A rate in whole bits; what is out of range is cut to it.
fn whole_bits(rate: f64) -> u64 {
    let capped = rate.clamp(0.0, f64::from(u32::MAX));
    // A float between 0 and 2^32 prints as at most ten digits before its point.
    format!("{capped:.0}").parse().unwrap_or_default()
}

/// Weight of the latest tick in the demand that is told.
const DEMAND_WEIGHT: f64 = 0.1;
const TICK: Duration = Duration::from_millis(500);
const ADVERTISEMENT_AGE_MAX: Duration = Duration::from_secs(5);
