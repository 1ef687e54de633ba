//! The fibre process: for each link it waits for both modules, then lets simulated time run and reports the
//! receiver's clicks to Bob.
//!
//! Simulated time runs `time_scale` times as fast as the wall clock, or slower when Bob's process does not keep
//! up: the connection's back-pressure stops the light, never loses clicks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crypto::rand_core::Rng as _;
use crypto::secret::SecretBytes;
use futures_util::{SinkExt as _, StreamExt as _};
use optics::{Attack, Channel, Emission};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use types::id::LinkId;
use types::network::{Link, Network};
use types::quantum::Slot;

use super::plug::{FromFibre, Hello, PlugStream, frame};
use crate::clock;
use crate::config::{FibreConfig, FibreLink, read_network};
use crate::entropy::os_rng;
use crate::failure::{Failure, Outcome};
use crate::serve;

/// Runs the fibres of a configuration until the token is cancelled. Attacks in the file may be changed at any time;
/// the other fields count at the start.
///
/// # Errors
/// If the network file is wrong, a link is unknown, or a port is taken.
pub async fn run(file: PathBuf, stop: CancellationToken) -> Outcome<()> {
    let config = FibreConfig::read(&file)?;
    let network = read_network(&config.network)?;
    let mut fibres = JoinSet::new();
    let mut attackers = BTreeMap::new();
    for (id, FibreLink { at, attack }) in &config.link {
        let link = link_of(&network, id)?;
        let listener = serve::bind(*at, &format!("the fibre of link {id}")).await?;
        let (attacker, attack) = watch::channel(*attack);
        attackers.insert(id.clone(), attacker);
        let fibre = Fibre { link, time_scale: config.time_scale, attack, stop: stop.clone() };
        fibres.spawn(fibre.run(listener));
    }
    tracing::info!(links = config.link.len(), time_scale = config.time_scale, "fibres lit");
    fibres.spawn(follow(file, attackers, stop));
    while fibres.join_next().await.is_some() {}
    Ok(())
}

fn link_of(network: &Network, id: &LinkId) -> Outcome<Arc<Link>> {
    let link = network.links().get(id).cloned().map(Arc::new);
    link.ok_or_else(|| Failure::new(format!("fibre.toml names link {id}, which the network file does not have")))
}

/// Reads the file again whenever it changes, for its attacks.
async fn follow(file: PathBuf, attackers: BTreeMap<LinkId, watch::Sender<Option<Attack>>>, stop: CancellationToken) {
    let changed = |file: &Path| std::fs::metadata(file).and_then(|meta| meta.modified()).ok();
    let mut last = changed(&file);
    loop {
        tokio::select! {
            () = tokio::time::sleep(FOLLOW) => {}
            () = stop.cancelled() => return,
        }
        let now = changed(&file);
        if now == last {
            continue;
        }
        last = now;
        match FibreConfig::read(&file) {
            Ok(config) => {
                for (id, attacker) in &attackers {
                    let attack = config.link.get(id).and_then(|link| link.attack);
                    attacker.send_if_modified(|now| std::mem::replace(now, attack) != attack);
                }
            }
            Err(error) => tracing::warn!(%error, "attacks stay as they are"),
        }
    }
}

struct Fibre {
    link: Arc<Link>,
    time_scale: f64,
    attack: watch::Receiver<Option<Attack>>,
    stop: CancellationToken,
}

impl Fibre {
    async fn run(mut self, listener: TcpListener) {
        let (plugged, mut modules) = mpsc::channel(8);
        let accept = accept(listener, self.link.clone(), plugged);
        let stop = self.stop.clone();
        let sessions = async {
            let mut waiting = Waiting::default();
            while let Some((hello, stream)) = modules.recv().await {
                waiting.plug(hello, stream);
                while let Some((emission, alice, bob)) = waiting.pair() {
                    // A module that is plugged in meanwhile takes the place of the one that is there.
                    tokio::select! {
                        () = self.session(&emission, alice, bob) => {}
                        Some((hello, stream)) = modules.recv() => waiting.plug(hello, stream),
                    }
                }
            }
        };
        tokio::select! {
            () = accept => {}
            () = sessions => {}
            () = stop.cancelled() => {}
        }
    }

    /// One quantum session: ends when either module is unplugged.
    async fn session(&mut self, emission: &SecretBytes, mut alice: PlugStream, mut bob: PlugStream) {
        let Ok(emission) = emission.expose(Emission::from_bytes) else {
            let reason = "the light of the transmitter is malformed".to_owned();
            drop(alice.send(FromFibre::Refused { reason }.encode()).await);
            return;
        };
        let mut seed = [0; 32];
        os_rng().fill_bytes(&mut seed);
        // The wall clock makes the number larger than that of any session before, also after a restart.
        let session = clock::utc_now().0;
        let link = self.link.clone();
        let mut channel = Channel::new(&link, emission, seed);
        self.attack.mark_changed();
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
            if self.attack.has_changed().unwrap_or_default() {
                let attack = *self.attack.borrow_and_update();
                tracing::info!(link = %link.id, attack = attack.map_or("none".to_owned(), |attack| attack.to_string()), "attack");
                channel.set_attack(attack);
            }
            let slots = whole_slots(&mut owed);
            let until = Slot(channel.position().0.saturating_add(slots));
            let clicks = tokio::task::block_in_place(|| {
                let mut clicks = Vec::new();
                channel.run_until(until, &mut clicks);
                clicks
            });
            let watched = FromFibre::Transmitter(channel.take_transmitter_reading()).encode();
            let reading = FromFibre::Receiver(channel.take_reading()).encode();
            let clicks = FromFibre::Clicks { until, clicks }.encode();
            if alice.send(watched).await.is_err() || bob.feed(reading).await.is_err() || bob.send(clicks).await.is_err()
            {
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

/// How soon a change of the file is noticed.
const FOLLOW: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(40);
const CATCH_UP_MAX: Duration = Duration::from_millis(250);
const HELLO_MAX: Duration = Duration::from_secs(5);
