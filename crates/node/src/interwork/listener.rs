//! The listener for one foreign KME: a few connections, TLS 1.3 with certificates, each in a task of its own.

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
use crate::config::InterworkConfig;
use crate::failure::Outcome;
use crate::keeper::Keeper;

/// Who may come in.
#[derive(Clone)]
pub(super) struct Guard {
    acceptor: TlsAcceptor,
    peer: Arc<str>,
    identity: Arc<str>,
}

impl Guard {
    pub(super) fn new(peer: &InterworkConfig) -> Outcome<Self> {
        let acceptor = TlsAcceptor::from(tls::server(&peer.tls)?);
        Ok(Self { acceptor, peer: peer.name.as_str().into(), identity: peer.identity.as_str().into() })
    }
}

/// Serves until the token is cancelled.
pub(super) async fn serve(socket: TcpListener, guard: Guard, keeper: Keeper, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let tcp = tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((tcp, _)) => tcp,
                Err(error) => {
                    tracing::warn!(peer = %guard.peer, %error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = stop.cancelled() => return,
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            tracing::warn!(peer = %guard.peer, "more than {CONNECTIONS_MAX} connections; one was turned away");
            continue;
        };
        let (guard, keeper, stop) = (guard.clone(), keeper.clone(), stop.clone());
        tokio::spawn(async move {
            connection(tcp, &guard, keeper, &stop).await;
            drop(slot);
        });
    }
}

async fn connection(tcp: TcpStream, guard: &Guard, keeper: Keeper, stop: &CancellationToken) {
    let _small_writes_go_at_once = tcp.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_MAX, guard.acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::info!(peer = %guard.peer, %error, "TLS handshake refused"),
        Err(_) => return,
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let is_peer = certificate.is_some_and(|certificate| tls::is_named(certificate, &guard.identity));
    if !is_peer {
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
