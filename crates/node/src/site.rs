//! One site's process, assembled: configuration in, roles built, tasks spawned, drained at the end.
//!
//! Everything that can be wrong at a start is found before the first effect: configuration, certificates,
//! ports, the store's lock. What fails later is either one connection, which is retried, or the disk, which
//! ends the process.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use crypto::hash::sha256;
use crypto::record::{Record, Table};
use crypto::secret::Key256;
use crypto::sign::SigningKey;
use kms::Kme;
use ledger::SiteLog;
use store::{RootKey, Store};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use types::event::Event;
use types::network::Network;
use types::quantum::Role;

use crate::api::{self, ApiState};
use crate::board::Board;
use crate::config::{NodeConfig, read_network, read_secret};
use crate::entropy::os_rng;
use crate::failure::{Context as _, Failure, Outcome};
use crate::keeper::{Keeper, KeeperParts};
use crate::kx;
use crate::provision::log_origin;
use crate::quantum::link::{LinkEndConfig, LinkTask};
use crate::routes::Switchboard;
use crate::{clock, dashboard, serve, tls};

/// Runs a site until `stop` is cancelled.
///
/// # Errors
/// If it cannot start, or its disk fails.
pub async fn run(config: NodeConfig, stop: CancellationToken) -> Outcome<()> {
    let network = read_network(&config.network)?;
    if !network.sites().contains_key(&config.site) {
        return Err(Failure::new(format!("the network file has no site {}", config.site)));
    }
    let listeners = Listeners::bind(&config, &network).await?;
    let server_tls = tls::server(&config.tls)?;
    let client_tls = tls::client(&config.tls)?;
    let state = State::open(&config, &network)?;

    let board = Arc::new(Board::new());
    let broken = CancellationToken::new();
    let (kx_events, kx_inbox) = mpsc::channel(KX_EVENTS_MAX);
    let peers: Vec<_> = config.peer.iter().map(|peer| (peer.site.clone(), peer.kx)).collect();
    let tasks = stop.child_token();
    let kx = kx::start(&peers, &client_tls, &kx_events, &tasks);
    let keeper = Keeper::start(
        KeeperParts {
            site: config.site.clone(),
            kme: state.kme,
            store: state.store,
            log: state.log,
            saes: config.sae.clone(),
            kx: kx.clone(),
            data: config.data.clone(),
        },
        broken.clone(),
    );
    keeper.record(vec![started(&config)?]).await.ok_or_else(|| disk_failed(&config))?;

    let mut links = Vec::new();
    for (end, listener) in state.links.into_iter().zip(listeners.classical) {
        links.push(LinkTask::start(end, listener, &keeper, &board, &tasks).await?);
    }
    let switchboard = Switchboard::new(&network, config.site.clone(), keeper.clone(), kx, board.clone())?;
    tokio::spawn(switchboard.run(kx_inbox, tasks.clone()));
    tokio::spawn(kx::accept(listeners.kx, server_tls.clone(), kx_events, tasks.clone()));
    let router = api::router(ApiState { keeper: keeper.clone(), board: board.clone() });
    let https = tokio::spawn(serve::https(listeners.kme, server_tls, router, tasks.clone()));
    if let Some(listener) = listeners.dashboard {
        tokio::spawn(dashboard::serve(listener, board, network, tasks.clone()));
    }
    tracing::info!(site = %config.site, kme = %config.listen.kme, "site is up");

    tokio::select! {
        () = stop.cancelled() => {}
        () = broken.cancelled() => {}
    }
    tasks.cancel();
    for link in links {
        link.join().await;
    }
    drop(tokio::time::timeout(DRAIN_MAX, https).await);
    if broken.is_cancelled() {
        return Err(disk_failed(&config));
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
            classical,
        })
    }
}

/// Durable state, opened and handed to the cores.
struct State {
    store: Store,
    log: SiteLog,
    kme: Kme,
    links: Vec<LinkEndConfig>,
}

impl State {
    fn open(config: &NodeConfig, network: &Network) -> Outcome<Self> {
        fs::create_dir_all(&config.data).context(|| format!("cannot make folder {}", config.data.display()))?;
        let root =
            RootKey::from_file(&config.root_key).context(|| format!("root key {}", config.root_key.display()))?;
        let seed = Key256::copy_of(&*read_secret::<32>(&config.signing_seed)?);
        let store_dir = config.data.join("store");
        let (mut store, records) =
            Store::open(&store_dir, root, os_rng()).context(|| format!("store {}", store_dir.display()))?;
        let origin = log_origin(network, &config.site)?;
        let log = SiteLog::open(&config.log_dir(), origin, SigningKey::from_seed(&seed), clock::utc_now())
            .context(|| format!("audit log {}", config.log_dir().display()))?;

        let (for_links, for_kme): (Vec<_>, Vec<_>) = records.into_iter().partition(is_of_link);
        let stock = network.stock();
        let mut kms_config = kms::Config::new(config.site.clone());
        kms_config.target_keys = stock.target_keys;
        kms_config.low_water_keys = stock.low_water_keys;
        let mut kme =
            Kme::restore(clock::now(), kms_config, for_kme).context(|| "records of the key store".to_owned())?;
        kme.handle_input(clock::now(), kms::Input::Directory(config.sae.clone()), &mut os_rng());
        let links = LinkEndConfig::restore_all(config, network, for_links, &mut store)?;
        Ok(Self { store, log, kme, links })
    }
}

fn is_of_link(record: &Record) -> bool {
    matches!(record.table, Table::LinkState | Table::LinkAuthentication | Table::LinkPending)
}

fn started(config: &NodeConfig) -> Outcome<Event> {
    let text = toml::to_string(config).context(|| "configuration".to_owned())?;
    Ok(Event::ServiceStarted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config_sha256: hex::encode(sha256(text.as_bytes())),
    })
}

fn disk_failed(config: &NodeConfig) -> Failure {
    Failure::new(format!("site {} stopped: its disk does not take what must be durable", config.site)).remedy(format!(
        "free space on or repair the disk of {}, then start again; nothing acknowledged is lost",
        config.data.display()
    ))
}

const KX_EVENTS_MAX: usize = 4_096;
const DRAIN_MAX: Duration = Duration::from_secs(3);
