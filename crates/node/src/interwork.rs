//! Interworking with KMEs of other makers or networks in the same trusted node (ETSI GS QKD 020): one listener and
//! one caller for each, TLS 1.3 with certificates at both ends.
//!
//! ```text
//!  foreign KME ──► listener ──► api::etsi020 ──► keeper: interworking core ──► caller ──► foreign KME
//! ```
//! What is decided is decided by [`kms::interwork`]; here are sockets, certificates and time limits.

mod caller;
mod listener;
mod tls;

use std::collections::{BTreeMap, BTreeSet};

use kms::interwork::{Config, PeerConfig};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::caller::Caller;
pub use self::caller::Outgoing;
use crate::config::NodeConfig;
use crate::failure::{Failure, Outcome};
use crate::keeper::Keeper;
use crate::refusals::Refusals;
use crate::serve;
use crate::tls::LiveTls;

/// The core's settings, if this site interworks at all.
///
/// # Errors
/// If a name stands twice, a URL is none, or an SAE is said to be in two networks.
pub fn settings(config: &NodeConfig) -> Outcome<Option<Config>> {
    if config.interwork.is_empty() {
        return Ok(None);
    }
    let mut settings = Config::new(config.sae.keys().cloned().collect());
    let mut placed: BTreeSet<_> = config.sae.keys().collect();
    for peer in &config.interwork {
        for sae in &peer.saes {
            if !placed.insert(sae) {
                return Err(Failure::new(format!("SAE {sae} of interwork {} stands in another place too", peer.name))
                    .remedy("an SAE id must be unique over all networks that are connected"));
            }
        }
        let found = PeerConfig {
            authority: peer.base()?.authority(),
            callback: peer.own_callback()?,
            saes: peer.saes.iter().cloned().collect(),
        };
        if settings.peers.insert(peer.name.clone(), found).is_some() {
            return Err(Failure::new(format!("two entries of interwork are named {}", peer.name)));
        }
    }
    Ok(Some(settings))
}

/// Listeners and callers of all foreign KMEs, ready to run.
pub struct Gateway {
    listeners: Vec<(TcpListener, listener::Guard)>,
    callers: BTreeMap<String, Caller>,
    certificates: Vec<LiveTls>,
}

impl Gateway {
    /// Binds and reads everything that can be wrong at a start.
    ///
    /// # Errors
    /// If an address is taken or a certificate file is missing or wrong.
    pub async fn open(config: &NodeConfig, refusals: &Refusals) -> Outcome<Self> {
        let (mut listeners, mut callers, mut certificates) = (Vec::new(), BTreeMap::new(), Vec::new());
        for peer in &config.interwork {
            let live = tls::live(peer)?;
            let guard = listener::Guard::new(peer, live.clone(), refusals.clone());
            callers.insert(peer.name.clone(), Caller::new(peer, live.clone())?);
            certificates.push(live);
            let socket = serve::bind(peer.listen, &format!("the key management entity {}", peer.name)).await?;
            listeners.push((socket, guard));
        }
        Ok(Self { listeners, callers, certificates })
    }

    /// Runs until the token is cancelled.
    pub fn start(self, keeper: &Keeper, outgoing: mpsc::Receiver<Outgoing>, stop: &CancellationToken) {
        for live in self.certificates {
            tokio::spawn(live.keep_fresh(stop.clone()));
        }
        for (socket, guard) in self.listeners {
            tokio::spawn(listener::serve(socket, guard, keeper.clone(), stop.clone()));
        }
        tokio::spawn(caller::run(self.callers, outgoing, keeper.clone(), stop.clone()));
    }
}
