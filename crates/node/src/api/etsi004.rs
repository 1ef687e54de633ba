//! ETSI GS QKD 004 V2.1.1 over mutual TLS: key streams for SAEs, in the two dialects of `etsi::etsi004`.
//!
//! Provided: one call after the other on a connection, or one connection a call; a stream belongs to the SAE of the
//! certificate, not to the connection; a call waits in a task of its own up to the stream's time and consumes nothing if
//! its caller leaves; limits on connections, silence and frames.
//! Not provided: clients without a certificate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etsi::etsi004::{Decoder, RawFrame, Request, ServerSession};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use types::id::SaeId;
use zeroize::Zeroizing;

use crate::serve::{Guard, connections};
use crate::streams::StreamDesk;
use crate::tls::Identity;

/// Serves key streams until the token is cancelled.
pub async fn serve(listener: TcpListener, guard: Guard, desk: StreamDesk, stop: CancellationToken) {
    let guests = Arc::new(Mutex::new(BTreeMap::new()));
    connections(listener, guard, stop.clone(), move |stream, identity| {
        let (desk, stop, guests) = (desk.clone(), stop.clone(), guests.clone());
        async move {
            let Identity::Sae(sae) = identity else {
                tracing::info!("a KME called the port of key streams; refused");
                return;
            };
            let Some(_seat) = Seat::take(&guests, &sae) else {
                tracing::warn!(%sae, "more than {CONNECTIONS_PER_SAE_MAX} connections; one was turned away");
                return;
            };
            let connection = Connection { stream, sae, desk, session: ServerSession::new() };
            tokio::select! {
                () = connection.run() => {}
                () = stop.cancelled() => {}
            }
        }
    })
    .await;
}

/// One connection of an SAE.
struct Connection {
    stream: TlsStream<TcpStream>,
    sae: SaeId,
    desk: StreamDesk,
    session: ServerSession,
}

impl Connection {
    async fn run(mut self) {
        let mut decoder = Decoder::of_requests();
        let mut buffer = vec![0; READ_BYTES];
        let mut patience = FIRST_FRAME_MAX;
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    let Some(answer) = self.answer(&frame, &mut decoder, &mut buffer).await else { return };
                    if !self.write(&answer).await {
                        return;
                    }
                    patience = SILENCE_MAX;
                }
                Ok(None) => {
                    // What has begun must go on soon; between two calls there may be silence.
                    let limit = if decoder.waiting() > 0 { FIRST_FRAME_MAX } else { patience };
                    match timeout(limit, self.stream.read(&mut buffer)).await {
                        Ok(Ok(count)) if count > 0 => decoder.push(&buffer[..count]),
                        _ => return,
                    }
                }
                Err(error) => {
                    tracing::info!(sae = %self.sae, %error, "not a frame of ETSI GS QKD 004; connection closed");
                    self.write(&self.session.fault()).await;
                    return;
                }
            }
        }
    }

    /// Answers one call; `None` if the caller left or the site is stopping.
    async fn answer(
        &mut self,
        frame: &RawFrame,
        decoder: &mut Decoder,
        buffer: &mut [u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        let mut request = match self.session.request(frame) {
            Ok(request) => request,
            Err(error) => {
                tracing::info!(sae = %self.sae, %error, "a call that cannot be read; connection closed");
                self.write(&self.session.fault()).await;
                return None;
            }
        };
        if let Request::Get(get) = &mut request
            && get.is_symmetric_hint()
        {
            get.metadata_size = 0;
        }
        let call = self.desk.call(self.sae.clone(), request);
        tokio::pin!(call);
        loop {
            tokio::select! {
                response = &mut call => return response.map(|response| self.session.respond(&response)),
                // A caller that leaves shall cost nothing. What it sends meanwhile is its next call.
                count = self.stream.read(buffer) => match count {
                    Ok(count) if count > 0 && decoder.waiting() + count <= PIPELINE_BYTES_MAX => {
                        decoder.push(&buffer[..count]);
                    }
                    _ => return None,
                },
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> bool {
        let written = timeout(WRITE_MAX, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        });
        matches!(written.await, Ok(Ok(())))
    }
}

/// One of the connections that an SAE may have.
struct Seat {
    guests: Guests,
    sae: SaeId,
}

type Guests = Arc<Mutex<BTreeMap<SaeId, usize>>>;

impl Seat {
    fn take(guests: &Guests, sae: &SaeId) -> Option<Self> {
        let mut counts = guests.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(sae.clone()).or_default();
        if *count >= CONNECTIONS_PER_SAE_MAX {
            return None;
        }
        *count += 1;
        Some(Self { guests: guests.clone(), sae: sae.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.sae) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.sae);
            }
        }
    }
}

const READ_BYTES: usize = 16 * 1_024;
const PIPELINE_BYTES_MAX: usize = 128 * 1_024;
const CONNECTIONS_PER_SAE_MAX: usize = 256;
const FIRST_FRAME_MAX: Duration = Duration::from_secs(10);
const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);
const WRITE_MAX: Duration = Duration::from_secs(10);
