//! The way to a client, which lets no answer through that is not true any more. An answer may wait between the moment in
//! which it was made and the one in which it is sent: this process, or its machine, may be frozen just then.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::Clock;
use crate::decide::timing::Tick;

/// Nothing that waits to be sent ends by time.
const NEVER: u64 = u64::MAX;

/// Until when all is true that waits to be sent, in nanoseconds of the agent's clock; clones share it.
#[derive(Clone)]
pub(super) struct TrueUntil(Arc<AtomicU64>);

impl TrueUntil {
    pub(super) fn ever() -> Self {
        Self(Arc::new(AtomicU64::new(NEVER)))
    }

    /// Something more is to be sent, which is true until then.
    pub(super) fn is_at_most(&self, until: Tick) {
        let until = u64::try_from(until.elapsed().as_nanos()).unwrap_or(NEVER);
        self.0.fetch_min(until, Ordering::Relaxed);
    }

    fn is_over(&self, clock: &Clock) -> bool {
        let until = self.0.load(Ordering::Relaxed);
        until != NEVER && clock.now() >= Tick::at(Duration::from_nanos(until))
    }
}

/// A connection whose writing ends with an error once what is to be written is not true any more.
pub(super) struct Valve<S> {
    stream: S,
    clock: Clock,
    true_until: TrueUntil,
}

impl<S> Valve<S> {
    pub(super) fn new(stream: S, clock: Clock, true_until: TrueUntil) -> Self {
        Self {
            stream,
            clock,
            true_until,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Valve<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Valve<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.true_until.is_over(&self.clock) {
            let late = "the answer is not true any more";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, late)));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// Whoever writes has nothing left to write when this is asked for.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.true_until.0.store(NEVER, Ordering::Relaxed);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn an_answer_that_is_not_true_any_more_is_not_sent() {
        let clock = Clock::start();
        let true_until = TrueUntil::ever();
        let (near, mut far) = duplex(64);
        let mut valve = Valve::new(near, clock, true_until.clone());
        true_until.is_at_most(clock.now() + Duration::from_secs(3600));
        valve.write_all(b"yes").await.unwrap();
        valve.flush().await.unwrap();
        // What was sent is no matter of what is sent next.
        valve.write_all(b"no").await.unwrap();
        true_until.is_at_most(clock.now());
        let late = valve.write_all(b"yes").await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        drop(valve);
        let mut sent = String::new();
        far.read_to_string(&mut sent).await.unwrap();
        assert_eq!(sent, "yesno");
    }
}
