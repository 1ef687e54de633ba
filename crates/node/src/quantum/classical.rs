//! The classical channel of a link: framed messages over plain TCP. Alice's process listens, Bob's connects.
//!
//! The channel is public: the protocol core authenticates what matters with Wegman-Carter tags. A newer
//! connection replaces an older one, because the older one may be dead without either end having noticed.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use types::id::LinkId;

/// What the channel tells the protocol.
pub enum ChannelEvent {
    /// The other end is connected; what is queued on the sender goes there.
    Up(mpsc::Sender<Bytes>),
    /// The connection is gone.
    Down(String),
    /// A message of the other end.
    Message(Bytes),
}

/// Where the channel's events go.
pub type ChannelEvents = mpsc::Sender<ChannelEvent>;

/// Alice: accepts Bob's connections for ever.
pub async fn listen(listener: TcpListener, link: LinkId, events: ChannelEvents) {
    let mut current: Option<tokio::task::JoinHandle<()>> = None;
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                if let Some(old) = current.take() {
                    old.abort();
                    drop(events.send(ChannelEvent::Down("replaced by a newer connection".to_owned())).await);
                }
                current = Some(tokio::spawn(carry(tcp, events.clone())));
            }
            Err(error) => {
                tracing::warn!(%link, %error, "accept failed on the classical channel");
                sleep(PAUSE).await;
            }
        }
        if events.is_closed() {
            return;
        }
    }
}

/// Bob: connects to Alice for ever.
pub async fn connect(address: SocketAddr, link: LinkId, events: ChannelEvents) {
    while !events.is_closed() {
        match timeout(CONNECT_MAX, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => carry(tcp, events.clone()).await,
            Ok(Err(error)) => tracing::debug!(%link, %address, %error, "classical channel"),
            Err(_) => tracing::debug!(%link, %address, "classical channel: no answer"),
        }
        sleep(PAUSE).await;
    }
}

async fn carry(tcp: TcpStream, events: ChannelEvents) {
    drop(tcp.set_nodelay(true));
    let codec = LengthDelimitedCodec::builder().max_frame_length(link::MESSAGE_MAX).new_codec();
    let mut frames = Framed::new(tcp, codec);
    let (queue, mut outgoing) = mpsc::channel(QUEUE_MAX);
    if events.send(ChannelEvent::Up(queue)).await.is_err() {
        return;
    }
    let reason = loop {
        tokio::select! {
            message = outgoing.recv() => match message {
                Some(message) => {
                    if let Err(error) = frames.send(message).await {
                        break error.to_string();
                    }
                }
                None => break "closed by this end".to_owned(),
            },
            frame = frames.next() => match frame {
                Some(Ok(frame)) => {
                    if events.send(ChannelEvent::Message(frame.freeze())).await.is_err() {
                        return;
                    }
                }
                Some(Err(error)) => break error.to_string(),
                None => break "closed by the other end".to_owned(),
            },
        }
    };
    drop(events.send(ChannelEvent::Down(reason)).await);
}

const QUEUE_MAX: usize = 256;
const CONNECT_MAX: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(200);
