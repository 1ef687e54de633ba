//! The QKD module of one link end, as the protocol sees it: a source of sessions and, at Bob, of clicks.

use std::net::SocketAddr;
use std::time::Duration;

use crypto::rand_core::Rng as _;
use crypto::secret::SecretBytes;
use futures_util::{SinkExt as _, StreamExt as _};
use optics::Source;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use types::network::Link;
use types::quantum::{Detection, ReceiverReading, Role, Slot, TransmitterReading};
use zeroize::Zeroizing;

use super::plug::{FromFibre, Hello, PlugStream, frame};
use crate::entropy::os_rng;
use crate::failure::{Context as _, Failure, Outcome};

/// What a module tells the protocol.
pub enum ModuleEvent {
    /// A new quantum session began; slots count from 0 again.
    Started {
        /// Its number, the same at both ends.
        session: u64,
        /// At Alice: what her source prepares in this session.
        source: Option<Source>,
    },
    /// Bob's clicks in all slots before `until`.
    Clicks {
        /// Slots before this one are complete.
        until: Slot,
        /// In order of slot.
        clicks: Vec<Detection>,
    },
    /// What Bob's watchdogs measured; comes before the clicks of the same slots.
    Receiver(ReceiverReading),
    /// What Alice's watchdog measured.
    Transmitter(TransmitterReading),
    /// The session ended.
    Lost,
}

/// Keeps one module plugged into its fibre for ever; ends when nobody listens.
pub async fn run(link: Link, role: Role, fibre: SocketAddr, events: mpsc::Sender<ModuleEvent>) {
    loop {
        match session(&link, role, fibre, &events).await {
            Ok(()) => {}
            Err(error) => tracing::debug!(link = %link.id, %error, "quantum session"),
        }
        if events.send(ModuleEvent::Lost).await.is_err() {
            return;
        }
        sleep(PAUSE).await;
    }
}

async fn session(link: &Link, role: Role, fibre: SocketAddr, events: &mpsc::Sender<ModuleEvent>) -> Outcome<()> {
    let what = || format!("fibre of link {} at {fibre}", link.id);
    let tcp = timeout(CONNECT_MAX, TcpStream::connect(fibre)).await.context(what)?.context(what)?;
    tcp.set_nodelay(true).context(what)?;
    let mut stream = frame(tcp);
    let mut source = None;
    let hello = match role {
        Role::Alice => {
            let mut seed = Zeroizing::new([0; 32]);
            os_rng().fill_bytes(&mut *seed);
            let made = Source::new(&link.decoy, *seed);
            let emission = SecretBytes::copy_of(&made.emission().to_bytes());
            source = Some(made);
            Hello::Alice(link.id.clone(), emission)
        }
        Role::Bob => Hello::Bob(link.id.clone()),
    };
    stream.send(hello.encode()).await.context(what)?;
    loop {
        let event = match receive(&mut stream).await? {
            FromFibre::Started { session } => ModuleEvent::Started { session, source: source.take() },
            FromFibre::Clicks { until, clicks } => ModuleEvent::Clicks { until, clicks },
            FromFibre::Receiver(reading) => ModuleEvent::Receiver(reading),
            FromFibre::Transmitter(reading) => ModuleEvent::Transmitter(reading),
            FromFibre::Refused { reason } => return Err(Failure::new(format!("{} refused: {reason}", what()))),
        };
        if events.send(event).await.is_err() {
            return Ok(());
        }
    }
}

async fn receive(stream: &mut PlugStream) -> Outcome<FromFibre> {
    let what = || "fibre".to_owned();
    let bytes = stream.next().await.ok_or_else(|| Failure::new("the fibre went dark"))?.context(what)?;
    FromFibre::decode(&bytes).context(what)
}

const PAUSE: Duration = Duration::from_millis(300);
const CONNECT_MAX: Duration = Duration::from_secs(3);
