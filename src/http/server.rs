//! Connections: accepted, bounded in number, size and time, and answered.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::Shown;
use super::crowd::{Crowd, Seat};
use super::routes;
use super::tls::Tls;
use super::valve::{TrueUntil, Valve};
use crate::errors::with_causes;

/// Enough for many load balancers that keep their connections. Each may hold a request's head and a few kilobytes of TLS.
const CONNECTIONS: usize = 128;
/// A request's line and its headers together: ours are short, and a browser's cookies fit.
const HEAD_BYTES: usize = 16 * 1024;
/// How many headers: as above.
const HEADERS: usize = 64;
/// A connection ends if it asks nothing for so long, or for twice as long at most: however slowly it sends or reads.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// Until the address is tried again that another process has.
const BIND_RETRY: Duration = Duration::from_secs(1);
/// After a connection that could not be accepted, for want of descriptors say.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What listens at `HTTP_LISTEN`.
pub(super) struct Server {
    pub(super) listen: SocketAddr,
    pub(super) tls: Option<Tls>,
    /// [`PATIENCE`].
    pub(super) patience: Duration,
    pub(super) shown: Arc<Shown>,
}

impl Server {
    /// Answers for as long as the process lives.
    pub(super) async fn run(self) {
        let listener = self.listener().await;
        let crowd = Arc::<Crowd>::default();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (tls, patience) = (self.tls.clone(), self.patience);
                    let shown = Arc::clone(&self.shown);
                    crowd.admit(CONNECTIONS, |seat| async move {
                        serve(
                            stream,
                            tls,
                            Client {
                                shown,
                                patience,
                                seat,
                            },
                        )
                        .await;
                    });
                }
                Err(error) => {
                    debug!(error = with_causes(&error), "a connection was not accepted");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// The agent before may still have the address for a moment, and a stranger for ever.
    async fn listener(&self) -> TcpListener {
        let mut is_said = false;
        loop {
            match TcpListener::bind(self.listen).await {
                Ok(listener) => {
                    let tls = self.tls.is_some();
                    info!(listen = %self.listen, tls, "answering checks over HTTP");
                    return listener;
                }
                Err(error) => {
                    if !is_said {
                        warn!(
                            listen = %self.listen,
                            error = with_causes(&error),
                            "cannot listen at HTTP_LISTEN: no checks are answered until that can be done"
                        );
                    }
                    is_said = true;
                    sleep(BIND_RETRY).await;
                }
            }
        }
    }
}

/// Whoever is at the other end of a connection.
struct Client {
    shown: Arc<Shown>,
    patience: Duration,
    seat: Seat,
}

async fn serve(stream: TcpStream, tls: Option<Tls>, client: Client) {
    // Each answer is one small write.
    let _ = stream.set_nodelay(true);
    let true_until = TrueUntil::ever();
    let stream = Valve::new(stream, client.shown.clock, true_until.clone());
    let Some(tls) = tls else {
        return answer(stream, true_until, client).await;
    };
    match timeout(client.patience, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => answer(stream, true_until, client).await,
        Ok(Err(error)) => debug!(error = with_causes(&error), "no TLS with a client"),
        Err(_) => {}
    }
}

/// One request after the other, until there are no more or none comes.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    true_until: TrueUntil,
    client: Client,
) {
    let Client {
        shown,
        patience,
        seat,
    } = client;
    let has_asked = Arc::new(AtomicBool::new(false));
    let asks = Arc::clone(&has_asked);
    let service = service_fn(move |request| {
        seat.asks();
        asks.store(true, Ordering::Relaxed);
        let (shown, true_until) = (Arc::clone(&shown), true_until.clone());
        // Bodies are not read: hyper ends the connection where there was one.
        async move { Ok::<_, Infallible>(routes::answer(&request, &shown, &true_until)) }
    });
    let connection = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .max_header_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(error = with_causes(&error), "a client's connection ended");
                }
                return;
            }
            () = sleep(patience) => {
                if !has_asked.swap(false, Ordering::Relaxed) {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
