//! Transport between key management entities: framed messages over mutual TLS, one connection per direction
//! and pair.
//!
//! ```text
//! frame: u32 length (at most 1 MiB) | u8 channel | bytes
//! channel 1: a message of the `kms` core      channel 2: a link-state advertisement of the `control` core
//! channel 3: a site report (JSON) for dashboards      channel 4: a message of the key streams
//! channel 6: a notification of key ids, or the answer to one (`docs/formats/notice.md`)
//! channel 0, without bytes: are you there; who accepted the connection answers the same
//! ```
//!
//! Provided: peers are known by certificate, order is kept while a connection lasts, dead peers are noticed, also those
//! whose machine is gone or whose process stands still.
//! Not provided: delivery. What was queued for a lost connection is dropped; the cores have their own time-outs.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _, stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;
use types::id::SiteId;

use crate::failure::{Context as _, Failure, Outcome};
use crate::serve::{self, Guard};
use crate::tls::{self, Identity, LiveTls};

/// Which core or view a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Key management.
    Kms,
    /// Link states.
    Control,
    /// Site reports.
    Report,
    /// Key streams.
    Streams,
    /// Notifications of key ids.
    Notice,
}

/// What the transport tells its owner.
#[derive(Debug)]
pub enum KxEvent {
    /// The connection to a peer is up.
    Up(SiteId),
    /// The connection to a peer is down.
    Down(SiteId),
    /// Frames that came from a peer together, in order.
    Frames(SiteId, Vec<(Channel, Bytes)>),
}

/// Sends frames to peers.
#[derive(Clone)]
pub struct KxSender {
    queues: Arc<BTreeMap<SiteId, mpsc::Sender<Burst>>>,
}

/// Frames that share one write to the connection, as far as they fit.
type Burst = Vec<Bytes>;

impl KxSender {
    /// Queues a frame; drops it when the peer is unknown, unreachable or slow.
    pub fn send(&self, to: &SiteId, channel: Channel, bytes: &[u8]) {
        self.send_together(to, channel, &[bytes]);
    }

    /// Queues frames that are ready at the same time, so that they cost the connection and the peer one wake-up and not
    /// many; drops them when the peer is unknown, unreachable or slow.
    pub fn send_together(&self, to: &SiteId, channel: Channel, frames: &[impl AsRef<[u8]>]) {
        let Some(queue) = self.queues.get(to) else { return };
        for together in frames.chunks(FRAMES_AT_ONCE) {
            let burst = together.iter().map(|bytes| framed(channel, bytes.as_ref())).collect();
            if queue.try_send(burst).is_err() {
                tracing::debug!(%to, ?channel, frames = together.len(), "frames dropped: peer is down or slow");
            }
        }
    }

    /// The peers that this sender knows.
    pub fn peers(&self) -> impl Iterator<Item = &SiteId> {
        self.queues.keys()
    }
}

fn framed(channel: Channel, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(bytes.len() + 1);
    frame.put_u8(channel.number());
    frame.put_slice(bytes);
    frame.freeze()
}

impl Channel {
    fn number(self) -> u8 {
        match self {
            Self::Kms => 1,
            Self::Control => 2,
            Self::Report => 3,
            Self::Streams => 4,
            Self::Notice => 6,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        let all = [Self::Kms, Self::Control, Self::Report, Self::Streams, Self::Notice];
        all.into_iter().find(|channel| channel.number() == number)
    }
}

/// Starts dialling every peer; what they send and their state goes to `events`.
#[must_use]
pub fn start(
    peers: &[(SiteId, SocketAddr)],
    tls: &LiveTls,
    events: &mpsc::Sender<KxEvent>,
    stop: &CancellationToken,
) -> KxSender {
    let mut queues = BTreeMap::new();
    for (site, address) in peers {
        let (sender, receiver) = mpsc::channel(QUEUE_BURSTS_MAX);
        queues.insert(site.clone(), sender);
        let dialler = Dialler { site: site.clone(), address: *address, tls: tls.clone(), events: events.clone() };
        let stop = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = dialler.run(receiver) => {}
                () = stop.cancelled() => {}
            }
        });
    }
    KxSender { queues: Arc::new(queues) }
}

/// Accepts connections of peers until the token is cancelled.
pub async fn accept(listener: TcpListener, guard: Guard, events: mpsc::Sender<KxEvent>, stop: CancellationToken) {
    let stopped = stop.clone();
    serve::connections(listener, guard, stop, move |stream, identity| {
        let (events, stopped) = (events.clone(), stopped.clone());
        async move {
            let Identity::Kme(site) = identity else {
                tracing::warn!(?identity, "an SAE called the KME-to-KME port; refused");
                return;
            };
            // All that has come is taken together: the keeper goes to disk once for it.
            let (mut answers, frames) = Framed::new(stream, codec()).split();
            let mut frames = frames.ready_chunks(FRAMES_AT_ONCE);
            loop {
                let together = tokio::select! {
                    together = timeout(SILENCE_MAX, frames.next()) => together,
                    () = stopped.cancelled() => return,
                };
                let Ok(Some(together)) = together else { return };
                let (mut good, mut failed) = (Vec::with_capacity(together.len()), None);
                for frame in together {
                    match frame {
                        Ok(frame) if frame[..] == ARE_YOU_THERE => {
                            if !sent(answers.send(Bytes::from_static(&ARE_YOU_THERE))).await {
                                return;
                            }
                        }
                        Ok(frame) => good.extend(opened(frame)),
                        Err(error) => failed = Some(error),
                    }
                }
                if !good.is_empty() && events.send(KxEvent::Frames(site.clone(), good)).await.is_err() {
                    return;
                }
                match failed {
                    Some(error) if error.kind() == io::ErrorKind::InvalidData => {
                        tracing::warn!(%site, %error, "malformed frame; connection closed");
                        return;
                    }
                    Some(error) => {
                        tracing::debug!(%site, %error, "connection lost");
                        return;
                    }
                    None => {}
                }
            }
        }
    })
    .await;
}

/// Channel and bytes of a frame; `None` if it is empty or of a channel that is not known here.
fn opened(mut frame: BytesMut) -> Option<(Channel, Bytes)> {
    if frame.is_empty() {
        return None;
    }
    let channel = Channel::from_number(frame.split_to(1)[0])?;
    Some((channel, frame.freeze()))
}

struct Dialler {
    site: SiteId,
    address: SocketAddr,
    tls: LiveTls,
    events: mpsc::Sender<KxEvent>,
}

impl Dialler {
    async fn run(self, mut queue: mpsc::Receiver<Burst>) {
        let mut pause = PAUSE_MIN;
        let (mut last_up, mut said) = (Instant::now(), None::<Instant>);
        loop {
            match self.connect().await {
                Ok(connection) => {
                    let begun = Instant::now();
                    // What waited for the old connection is stale.
                    while queue.try_recv().is_ok() {}
                    if self.events.send(KxEvent::Up(self.site.clone())).await.is_err() {
                        return;
                    }
                    tracing::info!(site = %self.site, "peer up");
                    self.pump(connection, &mut queue).await;
                    tracing::info!(site = %self.site, "peer down");
                    if self.events.send(KxEvent::Down(self.site.clone())).await.is_err() {
                        return;
                    }
                    // One that lets us in and throws us out at once is not asked ten times a second.
                    if begun.elapsed() > PAUSE_MAX {
                        pause = PAUSE_MIN;
                    }
                    (last_up, said) = (Instant::now(), None);
                }
                Err(error) if last_up.elapsed() > PATIENCE && said.is_none_or(|said| said.elapsed() > SAY_EVERY) => {
                    said = Some(Instant::now());
                    tracing::warn!(site = %self.site, %error, "peer not reached; trying on");
                }
                Err(error) => tracing::debug!(site = %self.site, %error, "peer not reached"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn connect(&self) -> Outcome<Framed<tokio_rustls::client::TlsStream<TcpStream>, LengthDelimitedCodec>> {
        let what = || format!("site {} at {}", self.site, self.address);
        let tcp = timeout(CONNECT_MAX, TcpStream::connect(self.address)).await.context(what)?.context(what)?;
        tcp.set_nodelay(true).context(what)?;
        let connector = TlsConnector::from(self.tls.client());
        let tls = timeout(CONNECT_MAX, connector.connect(tls::server_name(self.address.ip()), tcp))
            .await
            .context(what)?
            .context(what)?;
        let named = tls.get_ref().1.peer_certificates().and_then(|chain| tls::identity(chain.first()?));
        if named != Some(Identity::Kme(self.site.clone())) {
            return Err(Failure::new(format!("{} shows a certificate of {named:?}", what())));
        }
        Ok(Framed::new(tls, codec()))
    }

    /// Sends what is queued until the peer is gone. On a connection that we dialled peers only say that they are there;
    /// one that has said so and falls silent is gone: another process may have its place and its address by now.
    async fn pump(
        &self,
        mut connection: Framed<tokio_rustls::client::TlsStream<TcpStream>, LengthDelimitedCodec>,
        queue: &mut mpsc::Receiver<Burst>,
    ) {
        let mut bursts = Vec::with_capacity(BURSTS_AT_ONCE);
        let mut ask = interval(ASK_EVERY);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard: Option<Instant> = None;
        loop {
            tokio::select! {
                count = queue.recv_many(&mut bursts, BURSTS_AT_ONCE) => {
                    let mut burst = stream::iter(bursts.drain(..).flatten().map(Ok));
                    if count == 0 || !sent(connection.send_all(&mut burst)).await {
                        return;
                    }
                }
                frame = connection.next() => match frame {
                    Some(Ok(_)) => heard = Some(Instant::now()),
                    _ => return,
                },
                _ = ask.tick() => {
                    if heard.is_some_and(|heard| heard.elapsed() > ANSWER_MAX) {
                        tracing::warn!(site = %self.site, "the peer does not answer any more; connecting anew");
                        return;
                    }
                    if !sent(connection.send(Bytes::from_static(&ARE_YOU_THERE))).await {
                        return;
                    }
                }
            }
        }
    }
}

/// Whether something went out. A peer that stands still takes nothing.
async fn sent<E>(sending: impl Future<Output = Result<(), E>>) -> bool {
    matches!(timeout(ANSWER_MAX, sending).await, Ok(Ok(())))
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(FRAME_MAX).new_codec()
}

const FRAME_MAX: usize = 1 << 20;
const QUEUE_BURSTS_MAX: usize = 256;
/// Most frames of a burst.
const FRAMES_AT_ONCE: usize = 64;
const BURSTS_AT_ONCE: usize = 16;
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// A frame of channel 0.
const ARE_YOU_THERE: [u8; 1] = [0];
const ASK_EVERY: Duration = Duration::from_secs(2);
/// A peer that has answered once answers so soon, or is gone.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const SILENCE_MAX: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A peer that is away for longer is worth a line in the log, and another now and then.
const PATIENCE: Duration = Duration::from_secs(10);
const SAY_EVERY: Duration = Duration::from_secs(60);
