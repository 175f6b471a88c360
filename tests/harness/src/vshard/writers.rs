//! Writers that go through a vshard cluster's routers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::error::{Error, Result};
use crate::process::lock;
use crate::tarantool::{Connection, Instance, Reply, Request, Requests};
use crate::wait::eventually;
use crate::world::World;

/// A router gives up on a write after that.
const WRITE_TIMEOUT: Duration = Duration::from_millis(150);
/// For a router that does not let the writer in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// Between two writes of a writer.
const PACE: Duration = Duration::from_millis(6);
/// Writes of a writer that may wait for an answer.
const WINDOW: usize = 64;
/// How long answers to the last writes are waited for: longer than any router waits.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Tells apart the writers of one process, so that no two write the same key.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// One write through a router.
#[derive(Debug, Clone)]
pub struct RouterWrite {
    /// The router's place.
    pub router: usize,
    /// The place of the replica set whose bucket it was for when the writers began.
    pub set: usize,
    /// The key that was written.
    pub key: String,
    /// When it was sent.
    pub sent: Instant,
    /// When it was acknowledged, and by which instance; `None`: it was not.
    pub accepted: Option<(Instant, String)>,
}

/// Writers through routers, one for each router and replica set.
#[derive(Debug)]
pub struct RouterWriters {
    tasks: Vec<JoinHandle<()>>,
    writes: Arc<Mutex<Vec<RouterWrite>>>,
    stop: watch::Sender<bool>,
}

impl RouterWriters {
    pub(super) fn start(world: &World, routers: &[Instance], buckets: &[BTreeSet<u64>]) -> Self {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let (stop, stopped) = watch::channel(false);
        let writes = Arc::<Mutex<Vec<RouterWrite>>>::default();
        let mut tasks = Vec::new();
        for (router, instance) in routers.iter().enumerate() {
            let own = buckets.iter().enumerate();
            for (set, buckets) in own.filter(|(_, buckets)| !buckets.is_empty()) {
                let writer = RouterWriter {
                    router,
                    set,
                    addr: instance.addr().to_owned(),
                    name: format!("{run}-{}-{set}", instance.name()),
                    buckets: buckets.iter().copied().collect(),
                    writes: writes.clone(),
                    stopped: stopped.clone(),
                    seq: 0,
                };
                tasks.push(world.shared().handle.spawn(writer.run()));
            }
        }
        Self {
            tasks,
            writes,
            stop,
        }
    }

    /// Everything so far.
    #[must_use]
    pub fn so_far(&self) -> Vec<RouterWrite> {
        lock(&self.writes).clone()
    }

    /// Waits until, for writes sent from now on, each router has had so many acknowledged in each replica set.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub async fn wait_for_writes(&self, each: usize, deadline: Duration) -> Result<()> {
        let from = Instant::now();
        eventually(
            deadline,
            &format!("{each} writes through each router"),
            async || {
                let mut counts: BTreeMap<(usize, usize), usize> = BTreeMap::new();
                for write in lock(&self.writes).iter().filter(|write| write.sent >= from) {
                    let count = usize::from(write.accepted.is_some());
                    *counts.entry((write.router, write.set)).or_default() += count;
                }
                let enough = counts.values().filter(|count| **count >= each).count();
                if enough >= self.tasks.len() {
                    Ok(())
                } else {
                    Err(format!("{counts:?}"))
                }
            },
        )
        .await
    }

    /// By router, the first acknowledged write to a replica set by another instance than `not`, after `from`.
    #[must_use]
    pub fn firsts_after(&self, from: Instant, set: usize, not: &str) -> BTreeMap<usize, Instant> {
        let mut firsts = BTreeMap::new();
        for write in lock(&self.writes).iter().filter(|write| write.set == set) {
            if let Some((at, by)) = &write.accepted
                && *at > from
                && by != not
            {
                let first = firsts.entry(write.router).or_insert(*at);
                *first = (*first).min(*at);
            }
        }
        firsts
    }

    /// Stops them and hands over what they saw.
    ///
    /// # Errors
    /// When a writer has panicked.
    pub async fn stop(mut self) -> Result<Vec<RouterWrite>> {
        self.stop.send_replace(true);
        for task in std::mem::take(&mut self.tasks) {
            task.await
                .map_err(|error| Error::malformed(format!("a router writer's end ({error})")))?;
        }
        Ok(self.so_far())
    }
}

struct RouterWriter {
    router: usize,
    set: usize,
    addr: String,
    name: String,
    buckets: Vec<u64>,
    writes: Arc<Mutex<Vec<RouterWrite>>>,
    stopped: watch::Receiver<bool>,
    seq: u64,
}

impl RouterWriter {
    async fn run(mut self) {
        while !*self.stopped.borrow() {
            match Connection::open(&self.addr, &Instance::login(), CONNECT_TIMEOUT).await {
                // However the session ended, writes without an answer stay so.
                Ok(connection) => self.session(connection).await.unwrap_or_default(),
                Err(_) => sleep(RECONNECT_PAUSE).await,
            }
        }
    }

    /// Writes at its pace, whatever has become of the writes before: a call that was on its way to a master that died
    /// waits inside the router, and other clients do not wait for it.
    async fn session(&mut self, connection: Connection) -> Result<()> {
        let Connection {
            mut requests,
            mut replies,
        } = connection;
        let mut unanswered: HashMap<u64, usize> = HashMap::new();
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut stopped = self.stopped.clone();
        loop {
            tokio::select! {
                reply = replies.next() => self.record(&reply?, &mut unanswered),
                sent = requests.send_some(), if requests.has_unsent() => sent?,
                _ = ticks.tick(), if unanswered.len() < WINDOW => {
                    self.queue(&mut requests, &mut unanswered);
                }
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
        }
        let drain = async {
            while !unanswered.is_empty() {
                tokio::select! {
                    reply = replies.next() => self.record(&reply?, &mut unanswered),
                    sent = requests.send_some(), if requests.has_unsent() => sent?,
                }
            }
            Ok(())
        };
        timeout(DRAIN_TIMEOUT, drain).await.unwrap_or(Ok(()))
    }

    fn queue(&mut self, requests: &mut Requests, unanswered: &mut HashMap<u64, usize>) {
        self.seq += 1;
        let bucket = self.buckets[self.seq as usize % self.buckets.len()];
        let args = [
            Value::from(self.name.as_str()),
            Value::from(self.seq),
            Value::from(bucket),
            Value::from(WRITE_TIMEOUT.as_secs_f64()),
        ];
        let mut writes = lock(&self.writes);
        writes.push(RouterWrite {
            router: self.router,
            set: self.set,
            key: format!("{}/{}", self.name, self.seq),
            sent: Instant::now(),
            accepted: None,
        });
        let sync = requests.queue(Request::Call("router_write", &args));
        unanswered.insert(sync, writes.len() - 1);
    }

    fn record(&self, reply: &Reply, unanswered: &mut HashMap<u64, usize>) {
        let Some(place) = unanswered.remove(&reply.sync) else {
            return;
        };
        let values = reply.outcome.as_deref().unwrap_or_default();
        let by = values.first().and_then(|value| value["instance"].as_str());
        if let (Some(by), Some(write)) = (by, lock(&self.writes).get_mut(place)) {
            write.accepted = Some((Instant::now(), by.to_owned()));
        }
    }
}
