//! Figures of key management, at real site processes with their durable stores on.

mod ground;
mod load;
mod nginx;
mod relay;
mod rival;

use std::time::Duration;

use rustls::client::Resumption;
use serde::Deserialize;
use tokio::net::TcpStream;
use types::id::SiteId;

use self::ground::Ground;
use self::load::{Load, Paths, Told, resident_mb};
use super::{Better, Effort, Row, median};
use crate::failure::{Context as _, Failure, Outcome};

/// Measures the whole group.
///
/// # Errors
/// If a site cannot be started or gives what it must not.
pub fn kms(effort: Effort) -> Outcome<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context(|| "threads of the benchmark".to_owned())?;
    runtime.block_on(async {
        let mut rows = supply(effort).await?;
        rows.extend(growth(effort).await?);
        rows.extend(relay::relay(effort).await?);
        Ok(rows)
    })
}

/// Supply at two linked sites with stock enough.
async fn supply(effort: Effort) -> Outcome<Vec<Row>> {
    let stock = u32::try_from(effort.of(200_000, 1_000)).unwrap_or(u32::MAX);
    let mut ground = Ground::line(&["a", "b"], stock)?;
    ground.fill(1, 0)?;
    ground.start().await?;
    let bench = Bench::new(&ground, effort)?;
    let mut rows = Vec::new();

    let one = bench.rounds(&["a"], || Paths::Same("/api/v1/keys/vault-a/enc_keys".to_owned(), bench.count)).await?;
    rows.push(
        Row::at_least("kms.enc_one.per_cpu_s", middle(&one), PER_CPU, 8_000.0, bench.how("both SAEs at one KME", &one))
            .beside(781.0, "qkd_kme_server 4d53a3d, 6.4 k keys in memory"),
    );
    let two = bench.rounds(&["a", "b"], || Paths::Same("/api/v1/keys/app-b/enc_keys".to_owned(), bench.count)).await?;
    let how = bench.how("SAEs at two KMEs, both processes counted", &two);
    rows.push(
        Row::at_least("kms.enc_two.per_cpu_s", middle(&two), PER_CPU, 5_000.0, how)
            .beside(436.0, "qkd_kme_server 4d53a3d, 6.4 k keys in memory"),
    );
    let p99 = median(two.iter().map(|told| told.percentile_ms(99)).collect());
    let p50 = median(two.iter().map(|told| told.percentile_ms(50)).collect());
    let how =
        format!("the same requests, {CONNECTIONS} connections, median {p50:.2} ms; the load runs on the same machine");
    rows.push(Row::at_most("kms.p99_ms", p99, "ms", 10.0, how).beside(36.0, "qkd_kme_server 4d53a3d, SAEs at one KME"));
    let dec = bench.collected().await?;
    rows.push(
        Row::at_least("kms.dec.per_cpu_s", middle(&dec), PER_CPU, 8_000.0, bench.how("one key a request", &dec))
            .beside(4_972.0, "qkd_kme_server 4d53a3d, its first; 1,644 after 6 k"),
    );
    let status = bench.rounds(&["a"], || Paths::Same("/api/v1/keys/app-b/status".to_owned(), bench.count)).await?;
    rows.push(
        Row::at_least("kms.status.per_cpu_s", middle(&status), PER_CPU, 30_000.0, bench.how("real counts", &status))
            .beside(1_467.0, "qkd_kme_server 4d53a3d"),
    );
    rows.push(bench.silent().await?);
    rows.push(bench.handshakes().await?);
    rows.extend(rival::rows(&ground, &bench.load, effort).await?);
    Ok(rows)
}

/// What requests cost with a thousand keys in stock and with a million, and the memory of a million.
async fn growth(effort: Effort) -> Outcome<Vec<Row>> {
    let path = || Paths::Same("/api/v1/keys/app-b/enc_keys".to_owned(), GROWTH_REQUESTS);
    let mut small = Vec::new();
    for _ in 0..effort.of(5, 1) {
        tracing::info!("growth");
        let mut ground = Ground::line(&["a", "b"], 1_000)?;
        ground.fill(1, 0)?;
        ground.start().await?;
        let bench = Bench::new(&ground, effort)?;
        let told = bench.load.run(&ground.pids(&["a", "b"]), path(), LONGEST).await?;
        small.push(1e6 / told.per_cpu_s());
    }
    let million = u32::try_from(effort.of(1_000_000, 2_000)).unwrap_or(u32::MAX);
    let mut ground = Ground::line(&["a", "b"], million)?;
    ground.fill(1, 0)?;
    ground.start().await?;
    let resident = ground.pids(&["a"]).into_iter().map(resident_mb).collect::<Outcome<Vec<_>>>()?;
    let bench = Bench::new(&ground, effort)?;
    let mut large = Vec::new();
    for _ in 0..effort.of(5, 1) {
        let told = bench.load.run(&ground.pids(&["a", "b"]), path(), LONGEST).await?;
        large.push(1e6 / told.per_cpu_s());
    }
    let (small, large) = (median(small), median(large));
    let how = format!("get key at two KMEs: {small:.0} us of both at 1,000 keys in stock, {large:.0} us at {million}");
    Ok(vec![
        Row::at_most("kms.pool_growth", large / small, "", 1.1, how)
            .beside(11.0, "qkd_kme_server 4d53a3d, 6.4 k to 51 k"),
        Row::at_most(
            "kms.rss_mb",
            resident.iter().sum(),
            "MB",
            200.0,
            format!("a site that owns {million} keys and holds as many for its peer, after its start"),
        )
        .beside(800.0, "dkms, published, a node"),
    ])
}

struct Bench<'a> {
    ground: &'a Ground,
    load: Load,
    effort: Effort,
    /// Requests of a round.
    count: usize,
}

impl<'a> Bench<'a> {
    fn new(ground: &'a Ground, effort: Effort) -> Outcome<Self> {
        let load = ground.load(&site("a")?, CONNECTIONS)?;
        Ok(Self { ground, load, effort, count: effort.of(1_000_000, 100) })
    }

    async fn rounds(&self, servers: &[&str], paths: impl Fn() -> Paths) -> Outcome<Vec<Told>> {
        let mut rounds = Vec::new();
        for _ in 0..self.effort.of(5, 1) {
            rounds.push(self.load.run(&self.ground.pids(servers), paths(), ROUND).await?);
            tracing::info!(servers = servers.join(" "), per_cpu_s = middle(&rounds), "load");
        }
        Ok(rounds)
    }

    fn how(&self, what: &str, rounds: &[Told]) -> String {
        let rate = median(rounds.iter().map(|told| told.requests as f64 / told.seconds).collect());
        format!(
            "{what}; {CONNECTIONS} connections, TLS 1.3 with client certificates, durable store on, median of {} rounds of \
             {} requests, {rate:.0} a second beside the load",
            rounds.len(),
            rounds.first().map_or(0, |told| told.requests)
        )
    }

    /// Keys taken at one site in bulk and collected at the other, one a request.
    async fn collected(&self) -> Outcome<Vec<Told>> {
        let mut rounds = Vec::new();
        let west = self.ground.load(&site("b")?, CONNECTIONS)?;
        for _ in 0..self.effort.of(5, 1) {
            let mut paths = Vec::new();
            while paths.len() < self.effort.of(5_000, 100) {
                let body = self.load.once("/api/v1/keys/app-b/enc_keys?number=100").await?;
                let container: Container = serde_json::from_slice(&body).context(|| "an answer of a KME".to_owned())?;
                paths.extend(
                    container.keys.into_iter().map(|key| format!("/api/v1/keys/app-a/dec_keys?key_ID={}", key.id)),
                );
            }
            rounds.push(west.run(&self.ground.pids(&["b"]), Paths::Each(paths), LONGEST).await?);
        }
        Ok(rounds)
    }

    /// The slowest hundredth of requests while many clients connect and say nothing.
    async fn silent(&self) -> Outcome<Row> {
        let mut silent = Vec::new();
        for _ in 0..SILENT {
            silent.push(TcpStream::connect(self.load.address).await.context(|| "a silent client".to_owned())?);
        }
        let load = Load { reconnect: true, ..self.load.clone() };
        let paths = Paths::Same("/api/v1/keys/app-b/status".to_owned(), self.effort.of(3_000, 50));
        let told = load.run(&self.ground.pids(&["a"]), paths, LONGEST).await?;
        drop(silent);
        let how = format!("status over new connections while {SILENT} clients connect and say nothing");
        Ok(Row::at_most("kms.silent.p99_ms", told.percentile_ms(99), "ms", 100.0, how))
    }

    /// New connections against nginx, in turn.
    async fn handshakes(&self) -> Outcome<Row> {
        let (name, bar) = ("kms.handshake.vs_nginx", 0.7);
        let rival = match nginx::Nginx::start(self.ground.folder(), &self.ground.server(&site("a")?)?).await {
            Ok(rival) => rival,
            Err(failure) => return Ok(Row::missing(name, "", Better::Higher, bar, failure.to_string())),
        };
        let fresh = |address| {
            let mut tls = (*self.load.tls).clone();
            tls.resumption = Resumption::disabled();
            Load { address, tls: tls.into(), reconnect: true, ..self.load.clone() }
        };
        let (ours, theirs) = (fresh(self.load.address), fresh(rival.address()));
        let paths = || Paths::Same("/api/v1/keys/app-b/status".to_owned(), self.effort.of(2_000, 30));
        let (mut our_rates, mut their_rates) = (Vec::new(), Vec::new());
        for _ in 0..self.effort.of(5, 1) {
            our_rates.push(ours.run(&self.ground.pids(&["a"]), paths(), LONGEST).await?.per_cpu_s());
            their_rates.push(theirs.run(&rival.pids()?, paths(), LONGEST).await?.per_cpu_s());
        }
        let (ours, theirs) = (median(our_rates), median(their_rates));
        let how = format!(
            "new connections with client certificate and one request each, no resumption: {ours:.0} and {theirs:.0} per \
             processor second, in turn"
        );
        Ok(Row::at_least(name, ours / theirs, "", bar, how).beside(0.63, "qkd_kme_server 4d53a3d"))
    }
}

#[derive(Deserialize)]
struct Container {
    keys: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "key_ID")]
    id: String,
}

fn middle(rounds: &[Told]) -> f64 {
    median(rounds.iter().map(Told::per_cpu_s).collect())
}

fn site(name: &str) -> Outcome<SiteId> {
    SiteId::new(name).map_err(|error| Failure::new(error.to_string()))
}

const PER_CPU: &str = "requests/CPU s";
const CONNECTIONS: usize = 16;
const SILENT: usize = 200;
const GROWTH_REQUESTS: usize = 900;
/// How long a round takes.
const ROUND: Duration = Duration::from_secs(4);
/// No round takes longer than this.
const LONGEST: Duration = Duration::from_secs(120);
