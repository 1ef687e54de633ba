//! `qurrent gateway` and `qurrent terminal`: the two ends that protect telecontrol traffic.
//!
//! ```text
//!  master ── plain TCP ── gateway ══ records over cipher TCP ══ terminal ── plain TCP ── outstation
//!                            │                                     │
//!                       KME: enc_keys                         KME: dec_keys
//! ```
//! Each side of each end listens or connects, so the pair works for masters that dial and for masters that are
//! dialled. One cipher connection carries all plain connections; when it breaks they are reset, and it is opened
//! anew. All protocol is in the crate `gateway`; here are sockets, keys, disk and time.
//!
//! | module | holds |
//! |---|---|
//! | [`args`] | the commands' arguments and `run` |
//! | [`link`] | one session over one cipher connection |
//! | [`plain`] | plain connections |
//! | [`supply`] | where keys come from |
//! | [`pool_store`] | pools on disk |
//! | [`status`] | what the ends tell people, files and the site |

pub mod args;
pub mod link;
pub mod plain;
pub mod pool_store;
pub mod status;
pub mod supply;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gateway::{Policy, Pools, SupplyPlan};
use terminal::EpochLimits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use types::event::Event;
use types::id::SaeId;

pub use args::{GatewayArgs, TerminalArgs, run_gateway, run_terminal};
pub use pool_store::PoolStore;
pub use status::TelecontrolStatus;
pub use supply::{KeySupply, KmeSupply};

use crate::failure::{Context as _, Outcome};

/// One side of an end: it waits for connections or makes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// Wait for connections at this address.
    Listen(String),
    /// Connect to this address.
    Connect(String),
}

/// What one end is run with.
#[derive(Clone, Debug)]
pub struct EndConfig {
    /// The gateway's SAE.
    pub center: SaeId,
    /// The plain side.
    pub plain: Side,
    /// The cipher side.
    pub cipher: Side,
    /// Protection.
    pub policy: Policy,
    /// How keys are ordered; counts at the gateway.
    pub supply: SupplyPlan,
    /// When epoch keys are replaced.
    pub limits: EpochLimits,
}

/// What an end reports to.
pub struct Reports {
    /// Takes events for the audit log.
    pub events: Box<dyn FnMut(Event) + Send>,
    /// Always holds the newest state.
    pub status: watch::Sender<TelecontrolStatus>,
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reports(..)")
    }
}

/// The sockets of an end that listen; bound before anything else, so that a wrong address is said at once.
#[derive(Debug)]
pub struct Sockets {
    plain: Option<TcpListener>,
    cipher: Option<TcpListener>,
}

impl Sockets {
    /// Binds what is to listen.
    ///
    /// # Errors
    /// If an address cannot be bound.
    pub async fn bind(config: &EndConfig) -> Outcome<Self> {
        Ok(Self { plain: listen(&config.plain).await?, cipher: listen(&config.cipher).await? })
    }

    /// Where the plain side listens.
    #[must_use]
    pub fn plain_address(&self) -> Option<std::net::SocketAddr> {
        self.plain.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Where the cipher side listens.
    #[must_use]
    pub fn cipher_address(&self) -> Option<std::net::SocketAddr> {
        self.cipher.as_ref().and_then(|listener| listener.local_addr().ok())
    }
}

/// Runs one end until `stop`: session after session over the cipher side.
///
/// # Errors
/// If the disk fails.
pub async fn serve(
    config: EndConfig,
    sockets: Sockets,
    supply: Arc<impl KeySupply>,
    (store, mut pools): (PoolStore, Pools),
    mut reports: Reports,
    stop: CancellationToken,
) -> Outcome<()> {
    let (accepted_in, mut accepted) = mpsc::channel(ACCEPTED_MAX);
    let acceptor = sockets.plain.map(|listener| tokio::spawn(plain::accept(listener, accepted_in)));
    let mut wait = RECONNECT_MIN;
    while !stop.is_cancelled() {
        let tcp = tokio::select! {
            tcp = cipher_connection(&config.cipher, sockets.cipher.as_ref()) => tcp,
            () = stop.cancelled() => break,
        };
        let reason = match tcp {
            Ok(tcp) => {
                let (link, inbox) = link::Link::new(&config, tcp, Arc::clone(&supply), &store, pools);
                let ended = link.run(inbox, &mut accepted, &mut reports, &stop).await?;
                pools = ended.pools;
                if ended.opened {
                    wait = RECONNECT_MIN;
                }
                ended.reason
            }
            Err(failure) => failure.to_string(),
        };
        tracing::info!(terminal = %pools.terminal(), %reason, "telecontrol session over");
        reports.status.send_modify(|status| status.session_over(&reason));
        if !stop.is_cancelled() {
            tokio::select! { () = sleep(wait) => {}, () = stop.cancelled() => {} }
            wait = (wait * 2).min(RECONNECT_MAX);
        }
    }
    if let Some(acceptor) = acceptor {
        acceptor.abort();
    }
    Ok(())
}

async fn listen(side: &Side) -> Outcome<Option<TcpListener>> {
    let Side::Listen(address) = side else { return Ok(None) };
    TcpListener::bind(address).await.map(Some).context(|| format!("cannot listen on {address}"))
}

async fn cipher_connection(side: &Side, listener: Option<&TcpListener>) -> Outcome<TcpStream> {
    let tcp = match (side, listener) {
        (_, Some(listener)) => listener.accept().await.map(|(tcp, _)| tcp).context(|| "cipher side".to_owned())?,
        (Side::Connect(address) | Side::Listen(address), None) => {
            let failed = || format!("cannot connect to {address}");
            timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await.context(failed)?.context(failed)?
        }
    };
    tcp.set_nodelay(true).context(|| "cipher side".to_owned())?;
    Ok(tcp)
}

const ACCEPTED_MAX: usize = 16;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RECONNECT_MIN: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(5);
