//! A TCP link that can be broken, and healed again.
//!
//! A fault applies at once, to the connections that exist as well as to new ones. One thing a proxy
//! cannot do: where the target refuses connections, the client's connection is accepted first and
//! reset then.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::error::{Error, Result};
use crate::requests::{Counting, Counts};
use crate::wait::eventually;
use crate::world::Shared;

/// Bytes read at once, and chunks that a delayed direction may hold: 16 MiB in flight.
const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 256;
const APPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// What a link does to the bytes that pass through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Lets everything pass.
    Pass,
    /// Resets connections that exist and refuses new ones, as a host does whose process is gone.
    Cut,
    /// Takes connections and lets nothing through either way, as a network does that lost its routes. Bytes that were
    /// sent meanwhile arrive after [`Proxy::restore`], as TCP would have it.
    BlackHole,
    /// Lets requests through and holds every reply back.
    MuteReplies,
    /// Holds everything back for so long.
    Delay {
        /// From the client to the target.
        to_target: Duration,
        /// From the target to the client.
        to_client: Duration,
    },
}

/// A link. Cheap to clone; the link ends with its last clone or its world.
#[derive(Debug, Clone)]
pub struct Proxy {
    addr: String,
    target: String,
    fault: Arc<watch::Sender<Fault>>,
    /// The fault that the listener obeys.
    applied: watch::Receiver<Fault>,
    connections: Arc<AtomicUsize>,
    requests: Counts,
}

#[derive(Clone, Copy)]
enum Direction {
    ToTarget,
    ToClient,
}

impl Proxy {
    pub(crate) async fn start(shared: &Shared, target: &str) -> Result<Self> {
        Self::start_on(&shared.handle, shared.port()?, target).await
    }

    pub(crate) async fn start_on(handle: &Handle, port: u16, target: &str) -> Result<Self> {
        let addr = format!("127.0.0.1:{port}");
        let listening = listen(addr.clone());
        // The socket must belong to the runtime that will poll it.
        let listener = handle
            .spawn(listening)
            .await
            .map_err(|error| Error::malformed(error.to_string()))??;
        let (fault, seen) = watch::channel(Fault::Pass);
        let (done, applied) = watch::channel(Fault::Pass);
        let connections = Arc::<AtomicUsize>::default();
        let link = Link {
            addr: addr.clone(),
            target: target.to_owned(),
            fault: seen,
            connections,
            requests: Counts::default(),
        };
        let connections = link.connections.clone();
        let requests = link.requests.clone();
        handle.spawn(link.run(listener, done));
        Ok(Self {
            addr,
            target: target.to_owned(),
            fault: Arc::new(fault),
            applied,
            connections,
            requests,
        })
    }

    /// The address to which clients connect.
    #[must_use]
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// The address to which the link leads.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The connections that exist.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The HTTP requests that have passed so far, by method and path, without the caller's own names in it: `PUT
    /// /v1/session/renew`.
    #[must_use]
    pub fn http_requests(&self) -> BTreeMap<String, u64> {
        self.requests.so_far()
    }

    /// Applies a fault; returns once it is in force.
    ///
    /// # Errors
    /// When the link has ended with its world.
    pub async fn set(&self, fault: Fault) -> Result<()> {
        self.fault.send_replace(fault);
        let mut applied = self.applied.clone();
        let obeyed = applied.wait_for(|obeyed| *obeyed == fault);
        let ended = || Error::NotRunning {
            name: format!("the link to {}", self.target),
        };
        let obeyed = tokio::time::timeout(APPLY_TIMEOUT, obeyed).await;
        obeyed.map_err(|_| ended())?.map_err(|_| ended())?;
        if fault != Fault::Cut {
            return Ok(());
        }
        eventually(
            APPLY_TIMEOUT,
            "the link's connections to be reset",
            async || match self.connections() {
                0 => Ok(()),
                some => Err(format!("{some} are left")),
            },
        )
        .await
    }

    /// [`Fault::Cut`].
    ///
    /// # Errors
    /// As [`Proxy::set`].
    pub async fn cut(&self) -> Result<()> {
        self.set(Fault::Cut).await
    }

    /// [`Fault::BlackHole`].
    ///
    /// # Errors
    /// As [`Proxy::set`].
    pub async fn black_hole(&self) -> Result<()> {
        self.set(Fault::BlackHole).await
    }

    /// [`Fault::Delay`], the same in both directions.
    ///
    /// # Errors
    /// As [`Proxy::set`].
    pub async fn delay(&self, each_way: Duration) -> Result<()> {
        self.set(Fault::Delay {
            to_target: each_way,
            to_client: each_way,
        })
        .await
    }

    /// [`Fault::Pass`].
    ///
    /// # Errors
    /// As [`Proxy::set`].
    pub async fn restore(&self) -> Result<()> {
        self.set(Fault::Pass).await
    }
}

/// What the proxy's task knows.
struct Link {
    addr: String,
    target: String,
    fault: watch::Receiver<Fault>,
    connections: Arc<AtomicUsize>,
    requests: Counts,
}

impl Link {
    async fn run(mut self, listener: TcpListener, done: watch::Sender<Fault>) {
        let mut listener = Some(listener);
        loop {
            let fault = *self.fault.borrow_and_update();
            if fault == Fault::Cut {
                // Only a port on which no process listens refuses.
                listener = None;
            } else if listener.is_none() {
                listener = listen(self.addr.clone()).await.ok();
                if listener.is_none() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            }
            done.send_replace(fault);
            tokio::select! {
                changed = self.fault.changed() => if changed.is_err() { return },
                client = accept(listener.as_ref()) => self.take(client),
            }
        }
    }

    fn take(&self, client: TcpStream) {
        let (target, fault) = (self.target.clone(), self.fault.clone());
        let counted = Counted::new(&self.connections);
        let requests = self.requests.connection();
        tokio::spawn(async move {
            carry(client, &target, fault, requests).await;
            drop(counted);
        });
    }
}

/// Counts a connection for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn listen(addr: String) -> Result<TcpListener> {
    TcpListener::bind(&addr)
        .await
        .map_err(Error::io(format!("listen on {addr}")))
}

/// The next client; never, while nobody listens.
async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else {
        return pending().await;
    };
    loop {
        // A client that gave up meanwhile is none.
        if let Ok((client, _)) = listener.accept().await {
            return client;
        }
    }
}

/// Carries bytes until both ends are done, one of them breaks, or the link is cut.
async fn carry(
    mut client: TcpStream,
    target: &str,
    fault: watch::Receiver<Fault>,
    requests: Counting,
) {
    let mut server = None;
    let mut cut = fault.clone();
    let ended_well = tokio::select! {
        biased;
        // The link's own end counts as a cut.
        _ = cut.wait_for(|fault| *fault == Fault::Cut) => false,
        ended_well = exchange(&mut client, &mut server, target, fault, requests) => ended_well,
    };
    if !ended_well {
        // A close without linger is a reset. Where that fails the connection has ended already.
        client.set_zero_linger().ok();
        server.as_ref().map(TcpStream::set_zero_linger);
    }
}

async fn exchange(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    target: &str,
    mut fault: watch::Receiver<Fault>,
    mut requests: Counting,
) -> bool {
    // A connection made into a black hole reaches its target once that is healed.
    if fault
        .wait_for(|fault| *fault != Fault::BlackHole)
        .await
        .is_err()
    {
        return false;
    }
    let Ok(connected) = TcpStream::connect(target).await else {
        return false;
    };
    // A link that could not do without Nagle's algorithm is merely slower.
    connected
        .set_nodelay(true)
        .and(client.set_nodelay(true))
        .ok();
    let (from_server, to_server) = server.insert(connected).split();
    let (from_client, to_client) = client.split();
    let there = Direction::ToTarget;
    let there = pump(from_client, to_server, fault.clone(), there, |chunk| {
        requests.feed(chunk);
    });
    let back = pump(from_server, to_client, fault, Direction::ToClient, |_| {});
    tokio::try_join!(there, back).is_ok()
}

/// Carries one direction until its source ends it.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut fault: watch::Receiver<Fault>,
    direction: Direction,
    mut see: impl FnMut(&[u8]),
) -> std::io::Result<()> {
    let (chunks, mut arrived) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let read = async move {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            if from.read_buf(&mut chunk).await? == 0
                || chunks.send((Instant::now(), chunk)).await.is_err()
            {
                return std::io::Result::Ok(());
            }
        }
    };
    let write = async move {
        while let Some((read_at, chunk)) = arrived.recv().await {
            hold(&mut fault, direction, read_at).await;
            see(&chunk);
            to.write_all(&chunk).await?;
        }
        // An end is a message like any other.
        hold(&mut fault, direction, Instant::now()).await;
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(|_| ())
}

/// Returns when bytes that were read at `read_at` may pass.
async fn hold(fault: &mut watch::Receiver<Fault>, direction: Direction, read_at: Instant) {
    loop {
        let current = *fault.borrow_and_update();
        let delay = match (current, direction) {
            (Fault::Pass, _) | (Fault::MuteReplies, Direction::ToTarget) => return,
            // The caller that cuts the link also ends this task.
            (Fault::Cut | Fault::BlackHole, _) | (Fault::MuteReplies, Direction::ToClient) => {
                Duration::MAX
            }
            (Fault::Delay { to_target, .. }, Direction::ToTarget) => to_target,
            (Fault::Delay { to_client, .. }, Direction::ToClient) => to_client,
        };
        let left = delay.saturating_sub(read_at.elapsed());
        if left.is_zero() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(left) => return,
            changed = fault.changed() => if changed.is_err() { return },
        }
    }
}
