//! The accept loop of a TLS server: one task a connection, so that a silent client delays nobody; limits on
//! connections, addresses, callers and time.

mod counts;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::counts::{Counts, Seldom};
use self::stream::HttpStream;
use crate::clock;
use crate::config::{Limits, NodeConfig};
use crate::failure::{Failure, Outcome};
use crate::refusals::{Refusals, Who};
use crate::tls::{Identity, LiveTls};

/// What guards a site's TLS listeners; cheap to clone.
#[derive(Clone)]
pub struct Guard {
    /// Certificates, authorities, revocations.
    pub tls: LiveTls,
    /// What one caller may take.
    pub limits: Limits,
    /// Who was turned away.
    pub refusals: Refusals,
}

impl Guard {
    /// Reads a site's certificates and limits.
    ///
    /// # Errors
    /// As [`LiveTls::open`].
    pub fn open(config: &NodeConfig) -> Outcome<Self> {
        Ok(Self { tls: LiveTls::open(config)?, limits: config.limits, refusals: Refusals::default() })
    }

    fn handshake_refused(&self, from: SocketAddr, error: &io::Error) {
        note_handshake(&self.refusals, from, error);
        tracing::info!(%from, %error, "TLS handshake refused");
    }
}

/// Counts a handshake that failed. Who only went away did nothing that an auditor wants to know of.
pub fn note_handshake(refusals: &Refusals, from: SocketAddr, error: &io::Error) {
    if error.kind() == io::ErrorKind::InvalidData {
        refusals.handshake("refused");
        refusals.note(clock::now(), &Who::Address(from.ip()), "TLS handshake refused");
    } else {
        refusals.handshake("broken_off");
    }
}

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
/// `Extension<Identity>`. A connection carries one request at a time.
pub async fn https(listener: TcpListener, guard: Guard, router: Router, stop: CancellationToken) {
    let limits = guard.limits;
    connections(listener, guard, stop.clone(), move |stream, identity| {
        let router = router.clone().layer(axum::Extension(identity));
        let stop = stop.clone();
        async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(limits.head_s))
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(
                    TokioIo::new(HttpStream::new(stream, Duration::from_secs(limits.stall_s))),
                    TowerToHyperService::new(router),
                );
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

/// Accepts TLS connections with a known identity and hands each to `handle` in its own task. A connection ends when
/// its client's certificate is not accepted any more.
pub async fn connections<F, Fut>(listener: TcpListener, guard: Guard, stop: CancellationToken, handle: F)
where
    F: Fn(TlsStream<TcpStream>, Identity) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let handle = Arc::new(handle);
    let limits = guard.limits;
    let addresses = Counts::new(limits.connections_per_address);
    let callers = Arc::new(Counts::new(limits.connections_per_caller));
    let turned_away = Arc::new(Seldom::default());
    let full = || guard.refusals.handshake("listener_full");
    accept(&listener, limits.connections, &stop, &TaskTracker::new(), full, |tcp| {
        let address = tcp.peer_addr().map(|peer| peer.ip()).ok();
        let counted = address.and_then(|address| addresses.take(&address));
        let (guard, handle, callers, turned_away) =
            (guard.clone(), handle.clone(), callers.clone(), turned_away.clone());
        async move {
            let Some(_counted) = counted else {
                guard.refusals.handshake("address_full");
                if let Some(times) = turned_away.happened() {
                    tracing::warn!(?address, times, "too many connections of one address; turned away");
                }
                return;
            };
            let changes = guard.tls.changes();
            let Some((stream, identity)) = handshake(&guard, tcp).await else { return };
            let Some(_of_caller) = callers.take(&identity) else {
                guard.refusals.handshake("caller_full");
                if let Some(times) = turned_away.happened() {
                    tracing::warn!(?identity, times, "too many connections of one caller; turned away");
                }
                return;
            };
            let mut peers = guard.tls.watch_over(stream.get_ref().1.peer_certificates().unwrap_or_default(), changes);
            tokio::select! {
                () = handle(stream, identity.clone()) => {}
                () = peers.refused() => {
                    tracing::warn!(?identity, "a connection was closed: its certificate is not accepted any more");
                }
            }
        }
    })
    .await;
}

/// Accepts TCP connections until the token is cancelled, each in a task of its own and at most `max` at once;
/// `turned_away` hears of each that is too many.
pub async fn accept<F, Fut>(
    listener: &TcpListener,
    max: usize,
    stop: &CancellationToken,
    tasks: &TaskTracker,
    turned_away: impl Fn(),
    handle: F,
) where
    F: Fn(TcpStream) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(max));
    let (full, failed) = (Seldom::default(), Seldom::default());
    loop {
        let tcp = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => tcp,
                Err(error) => {
                    if let Some(times) = failed.happened() {
                        tracing::warn!(%error, times, "accept failed");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = stop.cancelled() => return,
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            turned_away();
            if let Some(times) = full.happened() {
                tracing::warn!(times, "more than {max} connections; turned away");
            }
            continue;
        };
        let connection = handle(tcp);
        tasks.spawn(async move {
            connection.await;
            drop(slot);
        });
    }
}

async fn handshake(guard: &Guard, tcp: TcpStream) -> Option<(TlsStream<TcpStream>, Identity)> {
    tcp.set_nodelay(true).ok()?;
    let from = tcp.peer_addr().ok()?;
    let acceptor = TlsAcceptor::from(guard.tls.server());
    let stream = match timeout(Duration::from_secs(guard.limits.handshake_s), acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            guard.handshake_refused(from, &error);
            return None;
        }
        Err(_) => {
            guard.refusals.handshake("late");
            tracing::debug!(%from, "TLS handshake not done in time");
            return None;
        }
    };
    let identity = stream.get_ref().1.peer_certificates().and_then(|chain| guard.tls.identity(chain.first()?));
    match identity {
        Some(identity) => {
            guard.refusals.handshake("accepted");
            Some((stream, identity))
        }
        None => {
            guard.refusals.handshake("nameless");
            let reason = "the certificate names neither KME nor SAE";
            guard.refusals.note(clock::now(), &Who::Address(from.ip()), reason);
            tracing::info!(%from, "a client's certificate names neither KME nor SAE");
            None
        }
    }
}

/// Bytes of a request's head, and of its body that wait to be read.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const DRAIN_MAX: Duration = Duration::from_secs(2);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
