//! HTTPS to one KME: connections are kept, each carries one request at a time, and a request goes out once.

use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::error::Error;

/// Host, by name or address, and port of a KME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    host: String,
    port: u16,
}

impl Server {
    /// A host and a port. The host must stand in the KME's certificate.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port }
    }
}

impl FromStr for Server {
    type Err = Error;
    /// `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Setup { what: format!("{text:?} is not host:port"), source: None };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().map_err(|_| wrong())?;
        if host.is_empty() { Err(wrong()) } else { Ok(Self::new(host, port)) }
    }
}

impl From<std::net::SocketAddr> for Server {
    fn from(address: std::net::SocketAddr) -> Self {
        Self::new(&address.ip().to_string(), address.port())
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// How long a call waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the TCP connection, and again for the TLS handshake.
    pub connect: Duration,
    /// From sending the request to the end of the answer.
    pub answer: Duration,
    /// How long a connection that is not used is kept. Less than servers wait, so that a request never meets a
    /// closing connection.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), answer: Duration::from_secs(30), idle: Duration::from_secs(15) }
    }
}

/// An answer, whole. The body may hold keys, and is wiped.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// One connection.
struct Open {
    requests: SendRequest<Full<Bytes>>,
    /// Why it ended, if it failed.
    ended: oneshot::Receiver<hyper::Error>,
}

/// Connections to one server.
pub(crate) struct Connections {
    server: Server,
    name: ServerName<'static>,
    connector: TlsConnector,
    idle: Mutex<Vec<(Instant, Open)>>,
    pub(crate) timeouts: Timeouts,
}

impl Connections {
    pub(crate) fn new(server: Server, tls: Arc<ClientConfig>) -> Result<Self, Error> {
        let name = ServerName::try_from(server.host.clone())
            .map_err(|error| Error::Setup { what: format!("host {}", server.host), source: Some(error.into()) })?;
        let connector = TlsConnector::from(tls);
        Ok(Self { server, name, connector, idle: Mutex::new(Vec::new()), timeouts: Timeouts::default() })
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Sends a request and reads the whole answer. With `repeatable` it is sent again over a new connection when a
    /// kept one ends without an answer.
    pub(crate) async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        repeatable: bool,
    ) -> Result<Answer, Error> {
        let body = Bytes::from(body);
        if let Some(open) = self.kept().await {
            match self.send(open, self.request(&method, path, &body)?, path).await {
                // A time-out has no source, and is not tried again.
                Err(Error::Unavailable { sent, source: Some(_), .. }) if repeatable || !sent => {}
                outcome => return outcome,
            }
        }
        let open = self.connect().await?;
        self.send(open, self.request(&method, path, &body)?, path).await
    }

    /// A connection that was used before and is still open.
    async fn kept(&self) -> Option<Open> {
        loop {
            let (used, mut open) = self.lock().pop()?;
            if used.elapsed() < self.timeouts.idle && open.requests.ready().await.is_ok() {
                return Some(open);
            }
        }
    }

    async fn send(&self, mut open: Open, request: Request<Full<Bytes>>, path: &str) -> Result<Answer, Error> {
        let server = self.server.to_string();
        let answered = self.in_time(async {
            match open.requests.try_send_request(request).await {
                Ok(answer) => self.read(answer, path).await,
                Err(error) => {
                    let sent = error.message().is_none();
                    let error = error.into_error();
                    // The connection ended before it took the request, and knows why: with TLS 1.3 a server refuses
                    // our certificate after the handshake.
                    let why = if error.is_canceled() { (&mut open.ended).await.ok() } else { None };
                    Err(Error::of_connection(&server, path, sent, why.unwrap_or(error).into()))
                }
            }
        });
        let answer = answered.await.unwrap_or_else(|| {
            let what = format!("{server} did not answer {path} within {} s", self.timeouts.answer.as_secs_f32());
            Err(Error::Unavailable { what, sent: true, source: None })
        })?;
        let mut idle = self.lock();
        if idle.len() < IDLE_MAX && open.requests.is_ready() {
            idle.push((Instant::now(), open));
        }
        Ok(answer)
    }

    async fn read(&self, answer: Response<Incoming>, path: &str) -> Result<Answer, Error> {
        let server = self.server.to_string();
        let number = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let retry_after = number(header::RETRY_AFTER).map(Duration::from_secs);
        let length = number(header::CONTENT_LENGTH).and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let status = answer.status().as_u16();
        let mut bytes = Zeroizing::new(Vec::with_capacity(length.min(ANSWER_BYTES_MAX)));
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Error::of_connection(&server, path, true, error.into()))?;
            let Some(chunk) = frame.data_ref() else { continue };
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                let what = format!("the answer to {path} has more than {ANSWER_BYTES_MAX} bytes");
                return Err(Error::Protocol { server, what });
            }
            append(&mut bytes, chunk);
        }
        Ok(Answer { status, retry_after, body: bytes })
    }

    fn request(&self, method: &Method, path: &str, body: &Bytes) -> Result<Request<Full<Bytes>>, Error> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.server.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.clone()))
            .map_err(|error| Error::Setup { what: format!("request {path}"), source: Some(error.into()) })
    }

    async fn connect(&self) -> Result<Open, Error> {
        let server = self.server.to_string();
        let unreachable =
            |source| Err(Error::Unavailable { what: format!("cannot reach {server}"), sent: false, source });
        let wait = self.timeouts.connect;
        let tcp = match timeout(wait, TcpStream::connect((self.server.host.as_str(), self.server.port))).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) => return unreachable(Some(error.into())),
            Err(late) => return unreachable(Some(late.into())),
        };
        // Requests are small and wait for their answer.
        drop(tcp.set_nodelay(true));
        let tls = match timeout(wait, self.connector.connect(self.name.clone(), tcp)).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => return Err(Error::Handshake { server, source: error.into() }),
            Err(late) => return Err(Error::Handshake { server, source: late.into() }),
        };
        match handshake(TokioIo::new(tls)).await {
            Ok((requests, connection)) => {
                let (why, ended) = oneshot::channel();
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%server, %error, "connection ended");
                        let _nobody_asks = why.send(error);
                    }
                });
                Ok(Open { requests, ended })
            }
            Err(error) => unreachable(Some(error.into())),
        }
    }

    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        timeout(self.timeouts.answer, work).await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, Open)>> {
        // A list of connections is whole whatever the holder did.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Appends without leaving a copy of the bytes in a buffer that became too small.
fn append(bytes: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    if bytes.capacity() - bytes.len() < chunk.len() {
        let mut larger = Zeroizing::new(Vec::with_capacity((bytes.len() + chunk.len()) * 2));
        larger.extend_from_slice(bytes);
        *bytes = larger;
    }
    bytes.extend_from_slice(chunk);
}

/// Idle connections that are kept.
const IDLE_MAX: usize = 8;
const ANSWER_BYTES_MAX: usize = 4 << 20;
