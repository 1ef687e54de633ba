//! The fibre process: for each link it waits for both modules, then lets simulated time run and reports the
//! receiver's clicks to Bob.
//!
//! Simulated time runs `time_scale` times as fast as the wall clock, or slower when Bob's process does not keep
//! up: the connection's back-pressure stops the light, never loses clicks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crypto::rand_core::Rng as _;
use crypto::secret::SecretBytes;
use futures_util::{SinkExt as _, StreamExt as _};
use optics::{Channel, Emission};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use types::network::{Link, Network};
use types::quantum::Slot;

use super::plug::{FromFibre, Hello, PlugStream, frame};
use crate::clock;
use crate::config::{FibreConfig, read_network};
use crate::entropy::os_rng;
use crate::failure::{Failure, Outcome};
use crate::serve;

/// Runs the fibres of a configuration until the token is cancelled.
///
/// # Errors
/// If the network file is wrong, a link is unknown, or a port is taken.
pub async fn run(config: FibreConfig, stop: CancellationToken) -> Outcome<()> {
    let network = read_network(&config.network)?;
    let mut fibres = JoinSet::new();
    for (id, address) in &config.link {
        let link = link_of(&network, id)?;
        let listener = serve::bind(*address, &format!("the fibre of link {id}")).await?;
        let fibre = Fibre { link, time_scale: config.time_scale, stop: stop.clone() };
        fibres.spawn(fibre.run(listener));
    }
    tracing::info!(links = config.link.len(), time_scale = config.time_scale, "fibres lit");
    while fibres.join_next().await.is_some() {}
    Ok(())
}

fn link_of(network: &Network, id: &types::id::LinkId) -> Outcome<Arc<Link>> {
    let link = network.links().get(id).cloned().map(Arc::new);
    link.ok_or_else(|| Failure::new(format!("fibre.toml names link {id}, which the network file does not have")))
}

struct Fibre {
    link: Arc<Link>,
    time_scale: f64,
    stop: CancellationToken,
}

impl Fibre {
    async fn run(self, listener: TcpListener) {
        let (plugged, mut modules) = mpsc::channel(8);
        let accept = accept(listener, self.link.clone(), plugged);
        let sessions = async {
            let mut waiting = Waiting::default();
            while let Some((hello, stream)) = modules.recv().await {
                waiting.plug(hello, stream);
                if let Some((emission, alice, bob)) = waiting.pair() {
                    self.session(&emission, alice, bob).await;
                }
            }
        };
        tokio::select! {
            () = accept => {}
            () = sessions => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// One quantum session: ends when either module is unplugged.
    async fn session(&self, emission: &SecretBytes, mut alice: PlugStream, mut bob: PlugStream) {
        let Ok(emission) = emission.expose(Emission::from_bytes) else {
            let reason = "the light of the transmitter is malformed".to_owned();
            drop(alice.send(FromFibre::Refused { reason }.encode()).await);
            return;
        };
        let mut seed = [0; 32];
        os_rng().fill_bytes(&mut seed);
        // The wall clock makes the number larger than that of any session before, also after a restart.
        let session = clock::utc_now().0;
        let link = &self.link;
        let mut channel = Channel::new(&link.hardware, link.length, &link.decoy, emission, seed);
        let started = FromFibre::Started { session }.encode();
        if alice.send(started.clone()).await.is_err() || bob.send(started).await.is_err() {
            return;
        }
        tracing::info!(link = %link.id, "light on");
        let mut last = Instant::now();
        let mut owed = 0.0_f64;
        loop {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                _ = alice.next() => break,
                _ = bob.next() => break,
            }
            let elapsed = last.elapsed().min(CATCH_UP_MAX);
            last = Instant::now();
            owed += elapsed.as_secs_f64() * self.time_scale * link.hardware.clock_hz;
            let slots = whole_slots(&mut owed);
            let until = Slot(channel.position().0.saturating_add(slots));
            let clicks = tokio::task::block_in_place(|| {
                let mut clicks = Vec::new();
                channel.run_until(until, &mut clicks);
                clicks
            });
            if bob.send(FromFibre::Clicks { until, clicks }.encode()).await.is_err() {
                break;
            }
        }
        let counts = channel.counts();
        tracing::info!(link = %link.id, clicks = counts.clicks, live = counts.live_fraction(), "light off");
    }
}

/// Modules that wait for their counterpart. A newer module replaces an older one of the same role.
#[derive(Default)]
struct Waiting {
    alice: Option<(SecretBytes, PlugStream)>,
    bob: Option<PlugStream>,
}

impl Waiting {
    fn plug(&mut self, hello: Hello, stream: PlugStream) {
        match hello {
            Hello::Alice(_, emission) => self.alice = Some((emission, stream)),
            Hello::Bob(_) => self.bob = Some(stream),
        }
    }

    fn pair(&mut self) -> Option<(SecretBytes, PlugStream, PlugStream)> {
        let (emission, alice) = self.alice.take()?;
        match self.bob.take() {
            Some(bob) => Some((emission, alice, bob)),
            None => {
                self.alice = Some((emission, alice));
                None
            }
        }
    }
}

async fn accept(listener: TcpListener, link: Arc<Link>, plugged: mpsc::Sender<(Hello, PlugStream)>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (link, plugged) = (link.clone(), plugged.clone());
        tokio::spawn(async move {
            if let Some(module) = greet(tcp, &link).await {
                drop(plugged.send(module).await);
            }
        });
    }
}

async fn greet(tcp: TcpStream, link: &Link) -> Option<(Hello, PlugStream)> {
    tcp.set_nodelay(true).ok()?;
    let mut stream = frame(tcp);
    let first = timeout(HELLO_MAX, stream.next()).await.ok()??.ok()?;
    let refused = match Hello::decode(&first) {
        Ok(hello) => {
            let (Hello::Alice(named, _) | Hello::Bob(named)) = &hello;
            if *named == link.id {
                return Some((hello, stream));
            }
            format!("this is the fibre of link {}, not of {named}", link.id)
        }
        Err(error) => format!("malformed first message: {error}"),
    };
    tracing::warn!(link = %link.id, %refused, "a module was refused");
    drop(stream.send(FromFibre::Refused { reason: refused }.encode()).await);
    None
}

/// Takes the whole slots out of a fractional debt.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a quarter second of slots fits u64")]
fn whole_slots(owed: &mut f64) -> u64 {
    let whole = owed.max(0.0).floor();
    *owed -= whole;
    whole as u64
}

const TICK: Duration = Duration::from_millis(40);
const CATCH_UP_MAX: Duration = Duration::from_millis(250);
const HELLO_MAX: Duration = Duration::from_secs(5);
