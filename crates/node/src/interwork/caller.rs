//! Calls to foreign KMEs: each POST is made once and answered once, with what came back or with nothing.
//!
//! Connections are kept and used again. Nothing is retried here: the core decides what is sent again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use crypto::secret::SecretBytes;
use etsi::etsi020::{BODY_MAX, CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use kms::interwork::{Answer, CallId};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::config::InterworkConfig;
use crate::failure::{Context as _, Failure, Outcome};
use crate::keeper::Keeper;
use crate::tls::LiveTls;

/// A call on its way out.
#[derive(Debug)]
pub struct Outgoing {
    /// Correlates the answer.
    pub call: CallId,
    /// Which foreign KME.
    pub peer: String,
    /// Path and query there.
    pub path: String,
    /// The body; may hold key bits.
    pub body: SecretBytes,
}

/// Calls one foreign KME.
#[derive(Clone)]
pub(super) struct Caller(Arc<Peer>);

struct Peer {
    /// Host and port.
    authority: String,
    host: ServerName<'static>,
    tls: LiveTls,
    idle: Mutex<Vec<Kept>>,
}

/// An open connection, and how often the certificates had been read again when it was opened.
struct Kept {
    sender: SendRequest<Full<Bytes>>,
    generation: u64,
}

impl Caller {
    pub(super) fn new(peer: &InterworkConfig, tls: LiveTls) -> Outcome<Self> {
        let authority = peer.base()?.authority();
        let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let host = ServerName::try_from(host).context(|| format!("url of interwork {}", peer.name))?;
        Ok(Self(Arc::new(Peer { authority, host, tls, idle: Mutex::default() })))
    }

    async fn post(&self, path: &str, body: SecretBytes) -> Outcome<(u16, Vec<u8>)> {
        let peer = &self.0;
        let body = Zeroizing::new(body.into_public("it goes to the KME of the other network, for its SAE"));
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, &peer.authority)
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .body(Full::new(Bytes::from_owner(body)))
            .context(|| format!("request {path}"))?;
        let mut kept = match self.kept() {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let answer = kept.sender.send_request(request).await.context(|| format!("request to {}", peer.authority))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), BODY_MAX).collect().await;
        let body = body.context(|| format!("answer of {}", peer.authority))?.to_bytes().to_vec();
        let mut idle = peer.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(kept);
        }
        Ok((status, body))
    }

    /// A connection that is open and free, and was made with the certificates of now.
    fn kept(&self) -> Option<Kept> {
        let mut idle = self.0.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let generation = self.0.tls.generation();
        while let Some(kept) = idle.pop() {
            if kept.sender.is_ready() && kept.generation == generation {
                return Some(kept);
            }
        }
        None
    }

    async fn connect(&self) -> Outcome<Kept> {
        let peer = &self.0;
        let generation = peer.tls.generation();
        let connector = TlsConnector::from(peer.tls.client());
        let address = &peer.authority;
        let tcp = timeout(CONNECT_MAX, TcpStream::connect(address.as_str()))
            .await
            .map_err(|_| Failure::new(format!("cannot reach {address}")))?
            .context(|| format!("cannot reach {address}"))?;
        tcp.set_nodelay(true).context(|| format!("connection to {address}"))?;
        let tls = timeout(CONNECT_MAX, connector.connect(peer.host.clone(), tcp))
            .await
            .map_err(|_| Failure::new(format!("TLS handshake with {address} timed out")))?
            .context(|| format!("TLS handshake with {address}"))?;
        let (sender, connection) =
            handshake(TokioIo::new(tls)).await.context(|| format!("HTTP connection to {address}"))?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(Kept { sender, generation })
    }
}

/// Makes calls until the token is cancelled; every call is answered.
pub(super) async fn run(
    callers: BTreeMap<String, Caller>,
    mut outgoing: mpsc::Receiver<Outgoing>,
    keeper: Keeper,
    stop: CancellationToken,
) {
    loop {
        let Outgoing { call, peer, path, body } = tokio::select! {
            next = outgoing.recv() => match next {
                Some(next) => next,
                None => return,
            },
            () = stop.cancelled() => return,
        };
        let (caller, keeper) = (callers.get(&peer).cloned(), keeper.clone());
        tokio::spawn(async move {
            let answer = match caller {
                Some(caller) => match timeout(ANSWER_MAX, caller.post(&path, body)).await {
                    Ok(Ok((status, body))) => Answer::Status(status, body),
                    Ok(Err(failure)) => {
                        tracing::info!(%peer, %path, %failure, "a call to a foreign KME was lost");
                        Answer::Lost
                    }
                    Err(_) => {
                        tracing::info!(%peer, %path, "a foreign KME did not answer in time");
                        Answer::Lost
                    }
                },
                None => Answer::Lost,
            };
            if let Answer::Status(status @ 300.., _) = &answer {
                tracing::info!(%peer, %path, status, "a foreign KME refused a call");
            }
            let _stopping = keeper.foreign_answer(call, answer).await;
        });
    }
}

const CONNECT_MAX: Duration = Duration::from_secs(3);
const ANSWER_MAX: Duration = Duration::from_secs(15);
const IDLE_MAX: usize = 8;
