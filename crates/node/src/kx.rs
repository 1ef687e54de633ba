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
    /// A frame came from a peer.
    Frame(SiteId, Channel, Bytes),
}

/// Sends frames to peers.
#[derive(Clone)]
pub struct KxSender {
    queues: Arc<BTreeMap<SiteId, mpsc::Sender<Bytes>>>,
}

impl KxSender {
    /// Queues a frame; drops it when the peer is unknown, unreachable or slow.
    pub fn send(&self, to: &SiteId, channel: Channel, bytes: &[u8]) {
        let Some(queue) = self.queues.get(to) else { return };
        let mut frame = BytesMut::with_capacity(bytes.len() + 1);
        frame.put_u8(channel.number());
        frame.put_slice(bytes);
        if queue.try_send(frame.freeze()).is_err() {
            tracing::debug!(%to, ?channel, "frame dropped: peer is down or slow");
        }
    }

    /// The peers that this sender knows.
    pub fn peers(&self) -> impl Iterator<Item = &SiteId> {
        self.queues.keys()
    }
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
        let (sender, receiver) = mpsc::channel(QUEUE_FRAMES_MAX);
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
            let mut frames = Framed::new(stream, codec());
            loop {
                let frame = tokio::select! {
                    frame = timeout(SILENCE_MAX, frames.next()) => frame,
                    () = stopped.cancelled() => return,
                };
                match frame {
                    Ok(Some(Ok(frame))) if frame[..] == ARE_YOU_THERE => {
                        if !sent(frames.send(Bytes::from_static(&ARE_YOU_THERE))).await {
                            return;
                        }
                    }
                    Ok(Some(Ok(mut frame))) if !frame.is_empty() => {
                        let number = frame.split_to(1);
                        let Some(channel) = number.first().copied().and_then(Channel::from_number) else { continue };
                        if events.send(KxEvent::Frame(site.clone(), channel, frame.freeze())).await.is_err() {
                            return;
                        }
                    }
                    Ok(Some(Ok(_))) => {}
                    Ok(Some(Err(error))) => {
                        tracing::warn!(%site, %error, "malformed frame; connection closed");
                        return;
                    }
                    Ok(None) | Err(_) => return,
                }
            }
        }
    })
    .await;
}

struct Dialler {
    site: SiteId,
    address: SocketAddr,
    tls: LiveTls,
    events: mpsc::Sender<KxEvent>,
}

impl Dialler {
    async fn run(self, mut queue: mpsc::Receiver<Bytes>) {
        let mut pause = PAUSE_MIN;
        loop {
            match self.connect().await {
                Ok(connection) => {
                    pause = PAUSE_MIN;
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
        queue: &mut mpsc::Receiver<Bytes>,
    ) {
        let mut frames = Vec::with_capacity(FRAMES_AT_ONCE);
        let mut ask = interval(ASK_EVERY);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard: Option<Instant> = None;
        loop {
            tokio::select! {
                count = queue.recv_many(&mut frames, FRAMES_AT_ONCE) => {
                    let mut burst = stream::iter(frames.drain(..).map(Ok));
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
const QUEUE_FRAMES_MAX: usize = 1_024;
/// Frames that share one write to the connection.
const FRAMES_AT_ONCE: usize = 64;
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// A frame of channel 0.
const ARE_YOU_THERE: [u8; 1] = [0];
const ASK_EVERY: Duration = Duration::from_secs(2);
/// A peer that has answered once answers so soon, or is gone.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const SILENCE_MAX: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
