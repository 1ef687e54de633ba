//! The accept loop of a TLS server: one task a connection, so that a silent client delays nobody; limits on
//! connections, handshake time and header time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::failure::{Failure, Outcome};
use crate::tls::{self, Identity};

/// Binds a listener; says which address and what to do when it is taken.
///
/// # Errors
/// If the address is taken or not ours.
pub async fn bind(address: SocketAddr, what: &str) -> Outcome<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(format!("cannot listen on {address} for {what}"))
            .source(error)
            .remedy("another process may have it: stop that one, or change the address in node.toml")
    })
}

/// Serves a router over mutual TLS until the token is cancelled. Handlers find the caller as an
/// `Extension<Identity>`.
pub async fn https(listener: TcpListener, config: Arc<ServerConfig>, router: Router, stop: CancellationToken) {
    connections(listener, config, stop.clone(), move |stream, identity| {
        let router = router.clone().layer(axum::Extension(identity));
        let stop = stop.clone();
        async move {
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
    })
    .await;
}

/// Accepts TLS connections with a known identity and hands each to `handle` in its own task.
pub async fn connections<F, Fut>(listener: TcpListener, config: Arc<ServerConfig>, stop: CancellationToken, handle: F)
where
    F: Fn(TlsStream<TcpStream>, Identity) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(config);
    let handle = Arc::new(handle);
    accept(&listener, CONNECTIONS_MAX, &stop, &TaskTracker::new(), |tcp| {
        let (acceptor, handle) = (acceptor.clone(), handle.clone());
        async move {
            if let Some((stream, identity)) = handshake(acceptor, tcp).await {
                handle(stream, identity).await;
            }
        }
    })
    .await;
}

/// Accepts TCP connections until the token is cancelled, each in a task of its own and at most `max` at once.
pub async fn accept<F, Fut>(
    listener: &TcpListener,
    max: usize,
    stop: &CancellationToken,
    tasks: &TaskTracker,
    handle: F,
) where
    F: Fn(TcpStream) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(max));
    loop {
        let tcp = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => tcp,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = stop.cancelled() => return,
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            tracing::warn!("more than {max} connections; one was turned away");
            continue;
        };
        let connection = handle(tcp);
        tasks.spawn(async move {
            connection.await;
            drop(slot);
        });
    }
}

async fn handshake(acceptor: TlsAcceptor, tcp: TcpStream) -> Option<(TlsStream<TcpStream>, Identity)> {
    tcp.set_nodelay(true).ok()?;
    let stream = match timeout(HANDSHAKE_MAX, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::info!(%error, "TLS handshake refused");
            return None;
        }
        Err(_) => return None,
    };
    let identity = stream.get_ref().1.peer_certificates().and_then(|chain| tls::identity(chain.first()?));
    match identity {
        Some(identity) => Some((stream, identity)),
        None => {
            tracing::info!("a client's certificate names neither KME nor SAE");
            None
        }
    }
}

const CONNECTIONS_MAX: usize = 4_096;
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
const HEADER_MAX: Duration = Duration::from_secs(10);
const DRAIN_MAX: Duration = Duration::from_secs(2);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
