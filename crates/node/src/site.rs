//! One site's process, assembled: configuration in, roles built, tasks spawned, drained at the end.
//!
//! Everything that can be wrong at a start is found before the first effect: configuration, certificates,
//! ports, the store's lock. What fails later is either one connection, which is retried, or the disk, which
//! ends the process.

use std::error::Error as _;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use crypto::hash::sha256;
use crypto::record::Table;
use crypto::secret::Key256;
use crypto::sign::SigningKey;
use kms::interwork::Interwork;
use kms::{Kme, Restore};
use ledger::SiteLog;
use store::{Loaded, Store, Writer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use types::event::Event;
use types::id::SiteId;
use types::network::Network;
use types::quantum::Role;

use crate::api::etsi015::View;
use crate::api::notify::Notices;
use crate::api::{self, ApiState};
use crate::backups::Backups;
use crate::board::Board;
use crate::config::{NodeConfig, read_network, read_secret};
use crate::entropy::os_rng;
use crate::failure::{Context as _, Failure, Outcome};
use crate::interwork::{self, Gateway};
use crate::keeper::{DiskError, DiskFailure, Keeper, KeeperParts};
use crate::kx;
use crate::provision::own_log_origin;
use crate::quantum::link::{LinkEndConfig, LinkTask};
use crate::routes::Switchboard;
use crate::serve::Guard;
use crate::streams::StreamDesk;
use crate::{clock, dashboard, policies, serve};

/// Runs a site until `stop` is cancelled.
///
/// # Errors
/// If it cannot start, or its disk fails.
pub async fn run(config: NodeConfig, stop: CancellationToken) -> Outcome<()> {
    let network = read_network(&config.network)?;
    if !network.sites().contains_key(&config.site) {
        return Err(Failure::new(format!("the network file has no site {}", config.site)));
    }
    let guard = Guard::open(&config)?;
    // First, because a replica that waits for its turn must not take connections.
    let Some(store) = open_store(&config, &stop).await? else { return Ok(()) };
    let listeners = Listeners::bind(&config, &network).await?;
    let gateway = Gateway::open(&config, &guard.refusals).await?;
    let state = State::open(&config, &network, store)?;

    let board = Arc::new(Board::new());
    let failure = Arc::new(DiskFailure::default());
    let (kx_events, kx_inbox) = mpsc::channel(KX_EVENTS_MAX);
    let peers: Vec<_> = config.peer.iter().map(|peer| (peer.site.clone(), peer.kx)).collect();
    let tasks = stop.child_token();
    let (foreign_calls, foreign_inbox) = mpsc::channel(FOREIGN_CALLS_MAX);
    let kx = kx::start(&peers, &guard.tls, &kx_events, &tasks);
    tokio::spawn(guard.tls.clone().keep_fresh(tasks.clone()));
    let keeper = Keeper::start(
        KeeperParts {
            site: config.site.clone(),
            kme: state.kme,
            store: state.store,
            log: state.log,
            saes: config.sae.clone(),
            kx: kx.clone(),
            interwork: state.interwork.map(|core| (core, foreign_calls)),
            backups: state.backups,
            refusals: guard.refusals.clone(),
            data: config.data.clone(),
        },
        &failure,
    );
    if keeper.record(vec![started(&config)?]).await.is_none() {
        // It says why a moment after those who wait hear nothing.
        failure.happened().await;
        return Err(disk_failed(&config, &failure));
    }
    tokio::spawn(policies::keep_fresh(config.clone(), keeper.clone(), tasks.clone()));

    let mut links = Vec::new();
    for (end, listener) in state.links.into_iter().zip(listeners.classical) {
        // One without authentication key waits for it; the others run.
        if let Some(end) = end {
            links.push(LinkTask::start(end, listener, &keeper, &board, &tasks).await?);
        }
    }
    let streams = StreamDesk::start(&config.site, &config.sae, &keeper, &kx, &tasks);
    gateway.start(&keeper, foreign_inbox, &tasks);
    if let Some(listener) = listeners.streams {
        tracing::info!(at = ?listener.local_addr().ok(), "key streams are offered");
        tokio::spawn(api::etsi004::serve(listener, guard.clone(), streams.clone(), tasks.clone()));
    }
    let notices = Arc::new(Notices::new(keeper.clone(), kx.clone(), tasks.clone()));
    let view = Arc::new(View::new(&network, &config));
    tokio::spawn(view.clone().run(keeper.clone(), board.clone(), tasks.clone()));
    let desks = (streams.clone(), notices.clone());
    let switchboard = Switchboard::new(&network, config.site.clone(), keeper.clone(), kx, board.clone(), desks)?;
    tokio::spawn(switchboard.run(kx_inbox, tasks.clone()));
    let skip = Arc::new(config.skip.clone());
    tokio::spawn(kx::accept(listeners.kx, guard.clone(), kx_events, tasks.clone()));
    let body_time = Duration::from_secs(config.limits.body_s);
    let router = api::router(ApiState::new(keeper.clone(), board.clone(), (notices, skip, view), body_time));
    let https = tokio::spawn(serve::https(listeners.kme, guard, router, tasks.clone()));
    if let Some(listener) = listeners.metrics {
        tokio::spawn(dashboard::serve_metrics(listener, board.clone(), config.site.clone(), tasks.clone()));
    }
    if let Some(listener) = listeners.dashboard {
        tokio::spawn(dashboard::serve(listener, board, network, tasks.clone()));
    }
    tracing::info!(site = %config.site, kme = %config.listen.kme, "site is up");

    tokio::select! {
        () = stop.cancelled() => {}
        () = failure.happened() => {}
    }
    tasks.cancel();
    for link in links {
        link.join().await;
    }
    drop(tokio::time::timeout(DRAIN_MAX, https).await);
    if failure.why().is_some() {
        return Err(disk_failed(&config, &failure));
    }
    keeper.stop().await;
    tracing::info!(site = %config.site, "site is down");
    Ok(())
}

/// Listeners, bound before anything else, so that a taken port costs nothing.
struct Listeners {
    kme: TcpListener,
    kx: TcpListener,
    dashboard: Option<TcpListener>,
    metrics: Option<TcpListener>,
    streams: Option<TcpListener>,
    /// In the order of the configuration's links; `None` where this site is Bob.
    classical: Vec<Option<TcpListener>>,
}

impl Listeners {
    async fn bind(config: &NodeConfig, network: &Network) -> Outcome<Self> {
        let mut classical = Vec::new();
        for link in &config.link {
            let known = network.links().get(&link.id);
            let role = known.and_then(|known| known.role_of(&config.site)).ok_or_else(|| {
                Failure::new(format!("node.toml has link {}, which does not end at {}", link.id, config.site))
            })?;
            classical.push(match role {
                Role::Alice => {
                    Some(serve::bind(link.classical, &format!("the classical channel of link {}", link.id)).await?)
                }
                Role::Bob => None,
            });
        }
        Ok(Self {
            kme: serve::bind(config.listen.kme, "ETSI GS QKD 014").await?,
            kx: serve::bind(config.listen.kx, "other key management entities").await?,
            dashboard: match config.listen.dashboard {
                Some(address) => Some(serve::bind(address, "the dashboard").await?),
                None => None,
            },
            metrics: match config.listen.metrics {
                Some(address) => Some(serve::bind(address, "metrics").await?),
                None => None,
            },
            streams: match &config.etsi004 {
                Some(streams) => Some(serve::bind(streams.listen, "ETSI GS QKD 004").await?),
                None => None,
            },
            classical,
        })
    }
}

/// Durable state, opened and handed to the cores.
struct State {
    store: Store,
    log: SiteLog,
    kme: Kme,
    interwork: Option<Interwork>,
    backups: Option<Backups>,
    /// In the order of the configuration; `None` where a link waits for a new initial key.
    links: Vec<Option<LinkEndConfig>>,
}

impl State {
    fn open(config: &NodeConfig, network: &Network, mut store: Store) -> Outcome<Self> {
        let seed = Key256::copy_of(&*read_secret::<32>(&config.signing_seed)?);
        let what = || "records of the key store".to_owned();
        let backup = config.store.backup.clone();
        let backups = backup.map(|backup| Backups::new(config.site.clone(), backup)).transpose()?;
        if let Some(number) = store.incarnation().context(what)?.filter(|life| life.restored_from.is_some()) {
            tracing::warn!(incarnation = number.number, "this store was restored from a backup");
        }
        let origin = own_log_origin(network, config)?;
        let log = SiteLog::open(&config.log_dir(), origin, SigningKey::from_seed(&seed), clock::utc_now())
            .context(|| format!("audit log {}", config.log_dir().display()))?;

        let mut for_links = Vec::new();
        for table in LINK_TABLES {
            for record in store.records_of(table).context(what)? {
                for_links.push(record.and_then(Loaded::whole).context(what)?);
            }
        }
        // Before the KME's records are read: a link that begins anew gives up its pool.
        let links = LinkEndConfig::restore_all(config, network, for_links, &mut store)?;
        let mut settings = kme_settings(network, &config.site);
        settings.allow_self_pair = config.allow_self_pair;
        let (mut restore, mut for_interwork) = (Restore::new(clock::now(), settings), Vec::new());
        for record in store.records().context(what)? {
            // One at a time: a site may hold millions of keys.
            let record = record.and_then(Loaded::whole).context(what)?;
            match record.table {
                table if LINK_TABLES.contains(&table) => {}
                Table::Interwork => for_interwork.push(record),
                _ => restore.record(record).context(what)?,
            }
        }
        let mut kme = restore.finish().context(what)?;
        let interwork = interwork::settings(config)?
            .map(|settings| Interwork::restore(clock::now(), settings, for_interwork).context(what))
            .transpose()?;
        let beside = interwork.as_ref().map(Interwork::foreign_saes).unwrap_or_default();
        let mut directory = config.sae.clone();
        directory.extend(config.foreign.clone());
        directory.extend(beside.keys().map(|sae| (sae.clone(), config.site.clone())));
        kme.handle_input(clock::now(), kms::Input::Directory(directory), &mut os_rng());
        kme.handle_input(clock::now(), kms::Input::Foreign(beside), &mut os_rng());
        for input in policies::inputs(config)? {
            kme.handle_input(clock::now(), input, &mut os_rng());
        }
        Ok(Self { store, log, kme, interwork, backups, links })
    }
}

/// Settings of a site's KME.
pub(crate) fn kme_settings(network: &Network, site: &SiteId) -> kms::Config {
    let stock = network.stock();
    let mut settings = kms::Config::new(site.clone());
    settings.started = clock::utc_now();
    settings.target_keys = stock.target_keys;
    settings.low_water_keys = stock.low_water_keys;
    settings
}

/// Opens the store; with a database this may take as long as another replica writes. `None` when the stop came first.
async fn open_store(config: &NodeConfig, stop: &CancellationToken) -> Outcome<Option<Store>> {
    fs::create_dir_all(&config.data).context(|| format!("cannot make folder {}", config.data.display()))?;
    let (config, stop) = (config.clone(), stop.clone());
    let mut said = None;
    let waiting = move |stop: &CancellationToken, writer: &Writer| {
        if said.as_ref() != Some(&writer.replica) {
            tracing::info!(writer = %writer.replica, "another replica of the site writes; waiting for its place");
            said = Some(writer.replica.clone());
        }
        !stop.is_cancelled()
    };
    let open = move || {
        let mut waiting = waiting;
        let opened = config.open_store(|writer| waiting(&stop, writer));
        match opened {
            Err(_) if stop.is_cancelled() => Ok(None),
            opened => opened.map(Some),
        }
    };
    tokio::task::spawn_blocking(open).await.context(|| "opening the store".to_owned())?
}

const LINK_TABLES: [Table; 3] = [Table::LinkState, Table::LinkAuthentication, Table::LinkPending];

fn started(config: &NodeConfig) -> Outcome<Event> {
    let text = toml::to_string(config).context(|| "configuration".to_owned())?;
    Ok(Event::ServiceStarted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config_sha256: hex::encode(sha256(text.as_bytes())),
    })
}

fn disk_failed(config: &NodeConfig, failure: &DiskFailure) -> Failure {
    let site = &config.site;
    let (what, remedy) = match failure.why() {
        Some(DiskError::Store(store::Error::Fenced { .. })) => (
            format!("site {site} stopped: this replica is not its writer any more"),
            "start it again: it waits until its turn comes. If this repeats, look why it was silent, or raise lease_s"
                .to_owned(),
        ),
        Some(DiskError::Store(store::Error::Database { .. })) => (
            format!("site {site} stopped: its database does not take what must be durable"),
            "look after the server and the way to it, then start again; nothing acknowledged is lost".to_owned(),
        ),
        _ => (
            format!("site {site} stopped: its disk does not take what must be durable"),
            format!(
                "free space on or repair the disk of {}, then start again; nothing acknowledged is lost",
                config.data.display()
            ),
        ),
    };
    let why = failure.why().map(|why| {
        let below = why.source().map(|source| format!(": {source}")).unwrap_or_default();
        format!("{why}{below}")
    });
    let failed = Failure::new(what).remedy(remedy);
    match why {
        Some(why) => failed.source(why),
        None => failed,
    }
}

const KX_EVENTS_MAX: usize = 4_096;
const FOREIGN_CALLS_MAX: usize = 1_024;
const DRAIN_MAX: Duration = Duration::from_secs(3);
