//! A small HTTPS client: one kept-alive connection to one server, mutual TLS, JSON both ways.
//!
//! A request is sent once. Nothing is retried here, because a supplied key that got lost on the way is burned,
//! never supplied again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::HostPort;
use crate::failure::{Context as _, Failure, Outcome};
use crate::tls;

/// A client of one HTTPS server.
pub struct HttpsClient {
    server: HostPort,
    /// What the server's certificate must hold.
    name: ServerName<'static>,
    connector: TlsConnector,
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl HttpsClient {
    /// A client that connects at its first request.
    #[must_use]
    pub fn new(address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        Self {
            server: address.into(),
            name: tls::server_name(address.ip()),
            connector: TlsConnector::from(config),
            connection: Mutex::new(None),
        }
    }

    /// As [`HttpsClient::new`], for a server known by name or address; a name is looked up at every connection.
    ///
    /// # Errors
    /// If the host is neither a name nor an address.
    pub fn named(server: HostPort, config: Arc<ClientConfig>) -> Outcome<Self> {
        let name = ServerName::try_from(server.host().to_owned()).context(|| format!("host {}", server.host()))?;
        Ok(Self { server, name, connector: TlsConnector::from(config), connection: Mutex::new(None) })
    }

    /// The server's host and port.
    #[must_use]
    pub fn server(&self) -> &HostPort {
        &self.server
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// If the server cannot be reached, does not answer in time, or answers more than 4 MiB.
    pub async fn request(&self, method: Method, path: &str, body: Option<Bytes>) -> Outcome<(StatusCode, Bytes)> {
        let exchange = timeout(ANSWER_MAX, self.exchange(method, path, body));
        exchange.await.unwrap_or_else(|_| {
            Err(Failure::new(format!("{} did not answer {path} within {} s", self.server, ANSWER_MAX.as_secs())))
        })
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<Bytes>) -> Outcome<(StatusCode, Bytes)> {
        let mut slot = self.connection.lock().await;
        let mut kept = slot.take();
        if let Some(sender) = &mut kept
            && sender.ready().await.is_err()
        {
            kept = None;
        }
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.server.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.unwrap_or_default()))
            .context(|| format!("request {path}"))?;
        let answer = sender.send_request(request).await.context(|| format!("request {path} to {}", self.server))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .context(|| format!("answer of {} to {path}", self.server))?
            .to_bytes();
        *slot = Some(sender);
        Ok((status, body))
    }

    async fn connect(&self) -> Outcome<SendRequest<Full<Bytes>>> {
        let address = &self.server;
        let unreachable = || Failure::new(format!("cannot reach {address}")).remedy("is that site's process running?");
        let tcp = timeout(CONNECT_MAX, TcpStream::connect((address.host(), address.port())))
            .await
            .map_err(|_| unreachable())?
            .map_err(|error| unreachable().source(error))?;
        tcp.set_nodelay(true).context(|| format!("connection to {address}"))?;
        let tls = timeout(CONNECT_MAX, self.connector.connect(self.name.clone(), tcp))
            .await
            .map_err(|_| Failure::new(format!("TLS handshake with {address} timed out")))?
            .map_err(|error| {
                Failure::new(format!("TLS handshake with {address}"))
                    .source(error)
                    .remedy("check that certificate and authority come from the same `qurrent network init`")
            })?;
        let (sender, connection) =
            handshake(TokioIo::new(tls)).await.context(|| format!("HTTP connection to {address}"))?;
        let address = address.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "connection ended");
            }
        });
        Ok(sender)
    }
}

const CONNECT_MAX: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 4 << 20;
