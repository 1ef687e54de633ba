//! A TLS stream as HTTP sees it: a client that reads nothing does not hold its answer for ever, and a request that
//! is no HTTP gets a body like every other refusal.
//!
//! What HTTP cannot parse is answered by the HTTP library itself, with a status and no body; no answer of ours is
//! without. Such an answer is replaced as it passes.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use etsi::etsi014::{ErrorBody, Reason};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// The stream.
pub(super) struct HttpStream<S> {
    inner: S,
    stall: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Left of a replaced answer, and the length of the original.
    replaced: Option<(Vec<u8>, usize)>,
}

impl<S: AsyncWrite + Unpin> HttpStream<S> {
    pub(super) fn new(inner: S, stall: Duration) -> Self {
        Self { inner, stall, stalled: None, replaced: None }
    }

    /// Passes on what a write gave; fails when nothing could be written for too long.
    fn in_time<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let until = Instant::now() + self.stall;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(until - Instant::now())));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
    }

    /// Writes what replaces an answer; says the length of the original when it is through.
    fn write_replaced(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        while let Some((rest, length)) = &mut self.replaced {
            if rest.is_empty() {
                let length = *length;
                self.replaced = None;
                return Poll::Ready(Ok(length));
            }
            let written = Pin::new(&mut self.inner).poll_write(cx, rest);
            if let Poll::Ready(Ok(count)) = &written {
                rest.drain(..*count);
            }
            match ready!(self.in_time(written, cx)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(0))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HttpStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HttpStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.replaced.is_none()
            && let Some(whole) = bufs.iter().find(|buf| !buf.is_empty())
            && bufs.iter().filter(|buf| !buf.is_empty()).count() == 1
            && let Some(better) = with_body(whole)
        {
            self.replaced = Some((better, whole.len()));
        }
        if self.replaced.is_some() {
            return self.write_replaced(cx);
        }
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.in_time(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.in_time(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let down = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.in_time(down, cx)
    }
}

/// The same answer with a body, if it is one that the HTTP library made.
fn with_body(answer: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(answer).ok()?.strip_suffix("\r\n\r\n")?;
    let status = ["400", "414", "431"].into_iter().find(|code| {
        head.strip_prefix("HTTP/1.1 ")
            .or_else(|| head.strip_prefix("HTTP/1.0 "))
            .is_some_and(|line| line.starts_with(code))
    })?;
    if !head.split("\r\n").any(|line| line.eq_ignore_ascii_case("content-length: 0")) {
        return None;
    }
    let message = match status {
        "414" => "the path is too long",
        "431" => "the header fields are too large",
        _ => "the request is no HTTP",
    };
    let body = ErrorBody::new(message, Reason::BadHttp).write();
    let kept = head.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("content-length:"));
    let mut better: Vec<u8> = kept.flat_map(|line| [line, "\r\n"]).collect::<String>().into_bytes();
    better.extend_from_slice(
        format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(),
    );
    better.extend_from_slice(&body);
    Some(better)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    #[tokio::test]
    async fn an_answer_without_body_gets_one_and_others_pass() {
        let (near, mut far) = duplex(16);
        let mut stream = HttpStream::new(near, Duration::from_secs(5));
        let reading = tokio::spawn(async move {
            let mut all = String::new();
            far.read_to_string(&mut all).await.unwrap();
            all
        });
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
        stream.shutdown().await.unwrap();
        let all = reading.await.unwrap();
        let body = r#"{"message":"the request is no HTTP","details":[{"reason":"bad_http"}]}"#;
        let first = format!(
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(all, format!("{first}HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{{}}"));
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_left() {
        let (near, _far) = duplex(16);
        let mut stream = HttpStream::new(near, Duration::from_millis(20));
        let error = stream.write_all(&[7; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
