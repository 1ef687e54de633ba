//! Load from many connections at once over mutual TLS, and what it cost the servers.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::failure::{Context as _, Failure, Outcome};
use crate::tls;

/// Who asks whom over how many connections.
#[derive(Clone)]
pub(super) struct Load {
    /// The server.
    pub(super) address: SocketAddr,
    /// The client's certificate and authority.
    pub(super) tls: Arc<ClientConfig>,
    /// Connections at once.
    pub(super) connections: usize,
    /// Whether every request gets a connection of its own.
    pub(super) reconnect: bool,
}

/// What a load saw and cost.
pub(super) struct Told {
    /// Requests answered with 200.
    pub(super) requests: usize,
    /// Processor seconds of the server processes.
    pub(super) cpu_s: f64,
    /// Wall seconds.
    pub(super) seconds: f64,
    /// Latencies in milliseconds, sorted.
    latencies: Vec<f64>,
}

impl Told {
    /// Requests for each second of the servers' processor time.
    pub(super) fn per_cpu_s(&self) -> f64 {
        self.requests as f64 / self.cpu_s
    }

    /// The latency in milliseconds that so many percent of the requests do not exceed.
    pub(super) fn percentile_ms(&self, percent: usize) -> f64 {
        let at = (self.latencies.len() * percent / 100).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(at).copied().unwrap_or(f64::NAN)
    }
}

impl Load {
    /// Sends a GET for each path, in any order, until all are answered or the time is over.
    ///
    /// # Errors
    /// If a connection fails or an answer is not 200: a figure of failures means nothing.
    pub(super) async fn run(&self, servers: &[u32], paths: Paths, at_most: Duration) -> Outcome<Told> {
        let (paths, next) = (Arc::new(paths), Arc::new(AtomicUsize::new(0)));
        let (begun, cpu) = (Instant::now(), cpu_seconds(servers)?);
        let mut workers = JoinSet::new();
        for _ in 0..self.connections {
            let (load, paths, next) = (self.clone(), paths.clone(), next.clone());
            workers.spawn(async move { load.work(&paths, &next, begun + at_most).await });
        }
        let mut latencies = Vec::new();
        while let Some(worker) = workers.join_next().await {
            latencies.extend(worker.context(|| "a worker of the load".to_owned())??);
        }
        let (seconds, cpu_s) = (begun.elapsed().as_secs_f64(), cpu_seconds(servers)? - cpu);
        latencies.sort_by(f64::total_cmp);
        Ok(Told { requests: latencies.len(), cpu_s, seconds, latencies })
    }

    async fn work(&self, paths: &Paths, next: &AtomicUsize, end: Instant) -> Outcome<Vec<f64>> {
        let mut latencies = Vec::new();
        let mut kept = None;
        while Instant::now() < end {
            let Some(path) = paths.at(next.fetch_add(1, Ordering::Relaxed)) else { break };
            let begun = Instant::now();
            let mut sender = match kept.take() {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            let (status, body) = self.ask(&mut sender, path).await?;
            latencies.push(begun.elapsed().as_secs_f64() * 1e3);
            if status != StatusCode::OK {
                let said = String::from_utf8_lossy(&body);
                return Err(Failure::new(format!("{path} was answered {status}: {said}")));
            }
            if !self.reconnect {
                kept = Some(sender);
            }
        }
        Ok(latencies)
    }

    /// Asks once, on a connection of its own; gives the body of a 200.
    ///
    /// # Errors
    /// If the answer is not 200.
    pub(super) async fn once(&self, path: &str) -> Outcome<Bytes> {
        self.call().await?.get(path).await
    }

    /// One connection, to be asked again and again.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) async fn call(&self) -> Outcome<Call<'_>> {
        Ok(Call { load: self, sender: self.connect().await? })
    }

    async fn ask(&self, sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> Outcome<(StatusCode, Bytes)> {
        let what = || format!("{} {path}", self.address);
        let request = Request::get(path).header("host", self.address.to_string()).body(Empty::new()).context(what)?;
        sender.ready().await.context(what)?;
        let answer = sender.send_request(request).await.context(what)?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await.context(what)?.to_bytes()))
    }

    async fn connect(&self) -> Outcome<SendRequest<Empty<Bytes>>> {
        let what = || format!("connection to {}", self.address);
        let tcp = TcpStream::connect(self.address).await.context(what)?;
        tcp.set_nodelay(true).context(what)?;
        let connector = TlsConnector::from(self.tls.clone());
        let stream = connector.connect(tls::server_name(self.address.ip()), tcp).await.context(what)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context(what)?;
        // Ends with its sender.
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// One connection.
pub(super) struct Call<'a> {
    load: &'a Load,
    sender: SendRequest<Empty<Bytes>>,
}

impl Call<'_> {
    /// The body of a 200.
    ///
    /// # Errors
    /// If the answer is something else.
    pub(super) async fn get(&mut self, path: &str) -> Outcome<Bytes> {
        let (status, body) = self.load.ask(&mut self.sender, path).await?;
        if status == StatusCode::OK {
            return Ok(body);
        }
        Err(Failure::new(format!("{path} was answered {status}: {}", String::from_utf8_lossy(&body))))
    }

    /// Keys in stock for another SAE.
    ///
    /// # Errors
    /// If the KME does not say.
    pub(super) async fn stock(&mut self, sae: &str) -> Outcome<u64> {
        let body = self.get(&format!("/api/v1/keys/{sae}/status")).await?;
        let told: StockTold = serde_json::from_slice(&body).context(|| "a status".to_owned())?;
        Ok(told.stored_key_count)
    }
}

#[derive(Deserialize)]
struct StockTold {
    stored_key_count: u64,
}

/// What is asked for.
pub(super) enum Paths {
    /// The same, this often.
    Same(String, usize),
    /// Each once.
    Each(Vec<String>),
}

impl Paths {
    fn at(&self, index: usize) -> Option<&str> {
        match self {
            Self::Same(path, count) => (index < *count).then_some(path),
            Self::Each(paths) => paths.get(index).map(String::as_str),
        }
    }
}

/// Processor seconds of some processes so far, by the kernel's accounting of each thread that lives.
///
/// # Errors
/// If a process is gone.
pub(super) fn cpu_seconds(pids: &[u32]) -> Outcome<f64> {
    let mut nanoseconds = 0;
    for pid in pids {
        let folder = format!("/proc/{pid}/task");
        for task in fs::read_dir(&folder).context(|| format!("process {pid}"))?.flatten() {
            let told = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            nanoseconds += told.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or_default();
        }
    }
    Ok(nanoseconds as f64 * 1e-9)
}

/// Memory of a process in MB that is really there.
///
/// # Errors
/// If the process is gone.
pub(super) fn resident_mb(pid: u32) -> Outcome<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context(|| format!("process {pid}"))?;
    let kb = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse::<f64>().ok());
    kb.map(|kb| kb / 1024.0).ok_or_else(|| Failure::new(format!("process {pid} says no VmRSS")))
}
