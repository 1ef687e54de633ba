//! The listener for one foreign KME: a few connections, TLS 1.3 with certificates, each in a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::tls;
use crate::api::etsi020::{self, Caller};
use crate::clock;
use crate::config::InterworkConfig;
use crate::keeper::Keeper;
use crate::refusals::{Refusals, Who};
use crate::serve::note_handshake;
use crate::tls::LiveTls;

/// Who may come in.
#[derive(Clone)]
pub(super) struct Guard {
    tls: LiveTls,
    refusals: Refusals,
    peer: Arc<str>,
    identity: Arc<str>,
}

impl Guard {
    pub(super) fn new(peer: &InterworkConfig, tls: LiveTls, refusals: Refusals) -> Self {
        Self { tls, refusals, peer: peer.name.as_str().into(), identity: peer.identity.as_str().into() }
    }
}

/// Serves until the token is cancelled.
pub(super) async fn serve(socket: TcpListener, guard: Guard, keeper: Keeper, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let (tcp, from) = tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(peer = %guard.peer, %error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = stop.cancelled() => return,
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            guard.refusals.handshake("listener_full");
            tracing::warn!(peer = %guard.peer, "more than {CONNECTIONS_MAX} connections; one was turned away");
            continue;
        };
        let (guard, keeper, stop) = (guard.clone(), keeper.clone(), stop.clone());
        tokio::spawn(async move {
            connection(tcp, from, &guard, keeper, &stop).await;
            drop(slot);
        });
    }
}

async fn connection(tcp: TcpStream, from: SocketAddr, guard: &Guard, keeper: Keeper, stop: &CancellationToken) {
    let _small_writes_go_at_once = tcp.set_nodelay(true);
    let changes = guard.tls.changes();
    let acceptor = TlsAcceptor::from(guard.tls.server());
    let stream = match timeout(HANDSHAKE_MAX, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            note_handshake(&guard.refusals, from, &error);
            return tracing::info!(peer = %guard.peer, %error, "TLS handshake refused");
        }
        Err(_) => return guard.refusals.handshake("late"),
    };
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let is_peer = shown.first().is_some_and(|certificate| tls::is_named(certificate, &guard.identity));
    guard.refusals.handshake(if is_peer { "accepted" } else { "nameless" });
    let mut watched = guard.tls.watch_over(shown, changes);
    if !is_peer {
        let reason = "the certificate does not name the key management entity beside this site";
        guard.refusals.note(clock::now(), &Who::Address(from.ip()), reason);
        tracing::warn!(peer = %guard.peer, identity = %guard.identity, "a certificate does not name the foreign KME");
    }
    let caller = Caller { peer: is_peer.then(|| guard.peer.to_string()) };
    let router = etsi020::router(keeper).layer(axum::Extension(caller));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => drop(ended),
        () = watched.refused() => {
            tracing::warn!(peer = %guard.peer, "a connection was closed: its certificate is not accepted any more");
        }
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            drop(timeout(DRAIN_MAX, connection).await);
        }
    }
}

const CONNECTIONS_MAX: usize = 64;
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
const HEADER_MAX: Duration = Duration::from_secs(60);
const DRAIN_MAX: Duration = Duration::from_secs(2);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
