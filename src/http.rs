//! Checks over HTTP (`HTTP_LISTEN`): whether the instance is master, follows one, or is fit for use.
//!
//! ```text
//!  loop ── show(snapshot), ran(now) ──▶ Display ◀── look() and the clock, for each answer ── thread ◀── clients
//! ```
//!
//! A thread with a runtime of its own answers, from memory alone. So it answers while Consul or the instance hangs, and
//! no number of clients is in the loop's way: the two share one pointer, which neither waits for. Which answer is right,
//! and why a master check never says yes past a lease, stands in `core/src/check.rs`
//! and `vouch.rs`.

mod crowd;
mod routes;
mod server;
mod tls;
mod valve;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use thiserror::Error;

use crate::clock::Clock;
use crate::config::Config;
use crate::decide::check::Snapshot;
use crate::decide::timing::Tick;
use server::{PATIENCE, Server};
use tls::{Tls, TlsError};

/// Why no checks are answered.
#[derive(Debug, Error)]
pub(crate) enum HttpError {
    /// A file of `HTTP_TLS_*` is of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system has no thread, or nothing to wait with, to give.
    #[error("could not start the thread that answers checks")]
    Thread {
        /// What it said.
        source: io::Error,
    },
}

/// Where a loop shows what it knows; without `HTTP_LISTEN` nobody looks, and nothing is made to be shown.
#[derive(Clone)]
pub(crate) struct Display {
    shown: Option<Arc<Shown>>,
}

/// What the loop has shown last.
struct Shown {
    clock: Clock,
    cluster: String,
    snapshot: ArcSwap<Snapshot>,
    /// The loop was at work then, in nanoseconds of its clock.
    ran_at_ns: AtomicU64,
}

impl Display {
    /// At the end of a turn.
    pub(crate) fn show(&self, snapshot: impl FnOnce() -> Snapshot) {
        if let Some(shown) = &self.shown {
            shown.snapshot.store(Arc::new(snapshot()));
        }
    }

    /// The loop was at work, whether or not it took a turn.
    pub(crate) fn ran(&self, now: Tick) {
        if let Some(shown) = &self.shown {
            let ran_at = u64::try_from(now.elapsed().as_nanos()).unwrap_or(u64::MAX);
            shown.ran_at_ns.store(ran_at, Ordering::Release);
        }
    }

    /// Whether anybody may look.
    pub(crate) fn is_on(&self) -> bool {
        self.shown.is_some()
    }
}

impl Shown {
    fn new(clock: Clock, cluster: String, lease: Duration) -> Self {
        let shown = Self {
            clock,
            cluster,
            snapshot: ArcSwap::from_pointee(Snapshot::of_nobody(lease)),
            ran_at_ns: AtomicU64::new(0),
        };
        let now = u64::try_from(clock.now().elapsed().as_nanos()).unwrap_or(u64::MAX);
        shown.ran_at_ns.store(now, Ordering::Release);
        shown
    }

    fn ran_at(&self) -> Tick {
        Tick::at(Duration::from_nanos(self.ran_at_ns.load(Ordering::Acquire)))
    }
}

/// Begins to answer where `HTTP_LISTEN` is set. `clock` is that of the loops that will show what they know.
///
/// # Errors
/// Files that cannot be used, or no thread. An address that is taken is waited for: an agent without checks is worth more
/// than none.
pub(crate) fn start(config: &Config, clock: Clock) -> Result<Display, HttpError> {
    let Some(http) = &config.http else {
        return Ok(Display { shown: None });
    };
    let tls = http.tls.clone().map(Tls::read).transpose()?;
    let lease = config.timing.lease();
    let shown = Arc::new(Shown::new(clock, config.cluster.clone(), lease));
    let failed = |source| HttpError::Thread { source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let server = Server {
        listen: http.listen,
        tls,
        patience: PATIENCE,
        shown: Arc::clone(&shown),
    };
    // It ends with the process.
    thread::Builder::new()
        .name("http".to_owned())
        .spawn(move || runtime.block_on(server.run()))
        .map_err(failed)?;
    Ok(Display { shown: Some(shown) })
}
