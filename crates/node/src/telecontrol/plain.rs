//! Plain connections: one task reads, one writes. A reader waits until the session took what it read, a writer
//! holds no more than the stream's credit.

use std::sync::Arc;
use std::time::Duration;

use gateway::{Input, StreamId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// What the session says to a plain connection.
enum Word {
    Deliver(Vec<u8>),
    Finish,
    Reset,
}

/// A plain connection, or one that is being made.
#[derive(Debug)]
pub(super) struct Plain {
    words: mpsc::UnboundedSender<Word>,
    ready: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Plain {
    /// Serves an accepted connection.
    pub(super) fn serve(stream: StreamId, tcp: TcpStream, inputs: mpsc::Sender<Input>) -> Self {
        Self::start(stream, inputs, async move { Some(tcp) })
    }

    /// Makes a connection and serves it.
    pub(super) fn dial(stream: StreamId, address: String, inputs: mpsc::Sender<Input>) -> Self {
        Self::start(stream, inputs, async move {
            match timeout(DIAL_TIMEOUT, TcpStream::connect(&address)).await {
                Ok(Ok(tcp)) => Some(tcp),
                Ok(Err(error)) => {
                    tracing::warn!(%address, %error, "plain side cannot be reached");
                    None
                }
                Err(_) => {
                    tracing::warn!(%address, "plain side does not answer");
                    None
                }
            }
        })
    }

    /// Hands bytes to the connection. The stream's credit bounds what can wait here.
    pub(super) fn deliver(&self, bytes: Vec<u8>) {
        drop(self.words.send(Word::Deliver(bytes)));
    }

    /// No more bytes will come.
    pub(super) fn finish(&self) {
        drop(self.words.send(Word::Finish));
    }

    /// The other end's connection is gone.
    pub(super) fn reset(&self) {
        drop(self.words.send(Word::Reset));
        // A connection that is still being made hears nothing.
        self.ready.notify_one();
    }

    /// The session takes more.
    pub(super) fn ready(&self) {
        self.ready.notify_one();
    }

    /// Whether both directions are over.
    pub(super) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    fn start(
        stream: StreamId,
        inputs: mpsc::Sender<Input>,
        connect: impl Future<Output = Option<TcpStream>> + Send + 'static,
    ) -> Self {
        let (words, heard) = mpsc::unbounded_channel();
        let ready = Arc::new(Notify::new());
        let task = tokio::spawn(run(stream, inputs, connect, heard, Arc::clone(&ready)));
        Self { words, ready, task }
    }
}

/// Accepts plain connections until the task is aborted.
pub(super) async fn accept(listener: TcpListener, accepted: mpsc::Sender<TcpStream>) {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                if accepted.send(tcp).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "plain side cannot accept");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn run(
    stream: StreamId,
    inputs: mpsc::Sender<Input>,
    connect: impl Future<Output = Option<TcpStream>>,
    words: mpsc::UnboundedReceiver<Word>,
    ready: Arc<Notify>,
) {
    let Some(tcp) = connect.await else {
        drop(inputs.send(Input::PlainReset(stream)).await);
        return;
    };
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "plain side refuses TCP_NODELAY");
    }
    let (read, write) = tcp.into_split();
    let mut reader = tokio::spawn(reading(stream, read, inputs.clone(), ready));
    let whole = writing(stream, write, &inputs, words).await;
    if !whole {
        reader.abort();
    }
    drop((&mut reader).await);
}

async fn reading(stream: StreamId, mut read: OwnedReadHalf, inputs: mpsc::Sender<Input>, ready: Arc<Notify>) {
    loop {
        let mut bytes = Vec::with_capacity(READ_MAX);
        let input = match read.read_buf(&mut bytes).await {
            Ok(0) => Input::PlainFinished(stream),
            Ok(_) => Input::PlainReceived { stream, bytes },
            Err(_) => Input::PlainReset(stream),
        };
        let last = !matches!(input, Input::PlainReceived { .. });
        if inputs.send(input).await.is_err() || last {
            return;
        }
        ready.notified().await;
    }
}

/// Writes until told to stop. False if the connection is to be torn down.
async fn writing(
    stream: StreamId,
    mut write: OwnedWriteHalf,
    inputs: &mpsc::Sender<Input>,
    mut words: mpsc::UnboundedReceiver<Word>,
) -> bool {
    while let Some(word) = words.recv().await {
        let bytes = match word {
            Word::Deliver(bytes) => bytes,
            Word::Finish => return write.shutdown().await.is_ok(),
            Word::Reset => break,
        };
        if write.write_all(&bytes).await.is_err() {
            drop(inputs.send(Input::PlainReset(stream)).await);
            break;
        }
        if inputs.send(Input::PlainDelivered { stream, bytes: bytes.len() }).await.is_err() {
            break;
        }
    }
    // Closing with nothing to linger for sends RST.
    if let Err(error) = write.as_ref().set_zero_linger() {
        tracing::debug!(%error, "plain side cannot be reset");
    }
    write.forget();
    false
}

const READ_MAX: usize = 16 * 1024;
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
const ACCEPT_RETRY: Duration = Duration::from_millis(200);
