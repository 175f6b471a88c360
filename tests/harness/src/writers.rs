//! Writers against every instance at once, so that each instance that accepts a write is seen doing it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::error::{Error, Result, chain};
use crate::moment::Moment;
use crate::oracle::{Accepted, History, Outcome, Verdict, Write};
use crate::process::lock;
use crate::tarantool::{Connection, Instance, ReplicaSet, Reply, Request, Requests};
use crate::wait::eventually;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const RECONNECT_INTERVAL: Duration = Duration::from_millis(20);
/// How long answers to the last writes are waited for.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Tells apart the writers of one process, so that no two write the same key.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// Writers that are yet to be started.
#[derive(Debug)]
pub struct WritersBuilder {
    targets: Vec<(String, String)>,
    handle: Handle,
    pace: Pace,
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    per_second: u32,
    window: usize,
    probe_interval: Duration,
}

/// Running writers, one per instance.
#[derive(Debug)]
pub struct Writers {
    names: Vec<String>,
    keys: Vec<String>,
    tasks: Vec<JoinHandle<()>>,
    writes: Vec<Arc<Mutex<Vec<Write>>>>,
    accepted: Vec<Arc<AtomicU64>>,
    stop: watch::Sender<bool>,
    quiet: Arc<AtomicBool>,
    epoch: Epoch,
}

/// One moment on two clocks: ours, and the host's `CLOCK_BOOTTIME`, which instances read.
#[derive(Debug, Clone, Copy)]
struct Epoch {
    instant: Instant,
    host_ns: u64,
    wall: Moment,
}

impl WritersBuilder {
    pub(crate) fn new(set: &ReplicaSet) -> Self {
        let target = |instance: &Instance| (instance.name().to_owned(), instance.addr().to_owned());
        let pace = Pace {
            per_second: 200,
            window: 256,
            probe_interval: Duration::from_millis(5),
        };
        Self {
            targets: set.iter().map(target).collect(),
            handle: set.handle.clone(),
            pace,
        }
    }

    /// Writes per second and instance; 200 unless told otherwise.
    #[must_use]
    pub fn rate(mut self, per_second: u32) -> Self {
        self.pace.per_second = per_second.max(1);
        self
    }

    /// How many writes may wait for an answer on a connection; 256 unless told otherwise. This is
    /// how many stand in the queue of an instance that is frozen.
    #[must_use]
    pub fn window(mut self, writes: usize) -> Self {
        self.pace.window = writes.max(1);
        self
    }

    /// How often an instance that refuses is tried again; 5 ms unless told otherwise.
    #[must_use]
    pub fn probe_interval(mut self, interval: Duration) -> Self {
        self.pace.probe_interval = interval;
        self
    }

    /// Starts them.
    #[must_use]
    pub fn start(self) -> Writers {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let (stop, stopped) = watch::channel(false);
        let quiet = Arc::<AtomicBool>::default();
        let epoch = Epoch::now();
        let mut writers = Writers {
            names: Vec::new(),
            keys: Vec::new(),
            tasks: Vec::new(),
            writes: Vec::new(),
            accepted: Vec::new(),
            stop,
            quiet: quiet.clone(),
            epoch,
        };
        for (instance, (name, addr)) in self.targets.into_iter().enumerate() {
            let accepted = Arc::<AtomicU64>::default();
            let writer = Writer {
                instance,
                name: format!("w{run}-{name}"),
                addr,
                pace: self.pace,
                epoch,
                stopped: stopped.clone(),
                quiet: quiet.clone(),
                accepted: accepted.clone(),
                writes: Arc::default(),
                unanswered: HashMap::new(),
            };
            writers.writes.push(writer.writes.clone());
            writers.keys.push(writer.name.clone());
            writers.names.push(name);
            writers.accepted.push(accepted);
            writers.tasks.push(self.handle.spawn(writer.run()));
        }
        writers
    }
}

impl Writers {
    /// When they were started: the begin of their history.
    #[must_use]
    pub fn began_at(&self) -> Moment {
        self.epoch.wall
    }

    /// What they have seen so far. Writes under way have no answer in it.
    #[must_use]
    pub fn so_far(&self) -> History {
        let length = self.epoch.instant.elapsed();
        let mut writes: Vec<Write> = Vec::new();
        for seen in &self.writes {
            writes.extend(lock(seen).iter().cloned());
        }
        writes.sort_by_key(|write| write.sent);
        History {
            instances: self.names.clone(),
            writers: self.keys.clone(),
            writes,
            length,
        }
    }

    /// How many writes each instance has accepted so far.
    #[must_use]
    pub fn accepted(&self) -> Vec<u64> {
        self.accepted
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect()
    }

    /// Keeps the writers from sending anything new, or lets them go on. What is under way is not waited for.
    pub fn keep_quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::Relaxed);
    }

    /// Waits until so many more writes have been accepted, by any instance.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub async fn wait_for_writes(&self, more: u64, deadline: Duration) -> Result<()> {
        let before: u64 = self.accepted().iter().sum();
        eventually(
            deadline,
            &format!("{more} more accepted writes"),
            async || {
                let now = self.accepted();
                if now.iter().sum::<u64>() >= before + more {
                    Ok(())
                } else {
                    Err(format!("{now:?} in all"))
                }
            },
        )
        .await
    }

    /// Stops them and hands over what they saw.
    ///
    /// # Errors
    /// When a writer has panicked.
    pub async fn stop(mut self) -> Result<History> {
        self.stop.send_replace(true);
        let length = self.epoch.instant.elapsed();
        for task in std::mem::take(&mut self.tasks) {
            task.await
                .map_err(|error| Error::malformed(format!("a writer's end ({error})")))?;
        }
        Ok(History {
            length,
            ..self.so_far()
        })
    }

    /// Stops them and asks the oracle.
    ///
    /// # Errors
    /// As [`Writers::stop`].
    pub async fn verdict(self) -> Result<Verdict> {
        Ok(self.stop().await?.judge())
    }
}

impl Epoch {
    fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let host_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        Self {
            instant: Instant::now(),
            host_ns,
            wall: Moment::now(),
        }
    }

    fn since(&self, host_ns: u64) -> Duration {
        Duration::from_nanos(host_ns.saturating_sub(self.host_ns))
    }
}

/// One writer's task.
struct Writer {
    instance: usize,
    name: String,
    addr: String,
    pace: Pace,
    epoch: Epoch,
    stopped: watch::Receiver<bool>,
    quiet: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
    /// Shared with callers that ask for the history meanwhile.
    writes: Arc<Mutex<Vec<Write>>>,
    /// From a request's number to its write's place in `writes`.
    unanswered: HashMap<u64, usize>,
}

/// How much a writer may send.
#[derive(Clone, Copy)]
enum Mood {
    /// At its rate.
    Welcome,
    /// One write at a time, not before this moment.
    Refused { again_at: Instant },
}

impl Writer {
    async fn run(mut self) {
        while !*self.stopped.borrow() {
            if let Ok(connection) =
                Connection::open(&self.addr, &Instance::login(), CONNECT_TIMEOUT).await
            {
                // However the session ended, writes without an answer stay so.
                self.session(connection).await.ok();
                self.unanswered.clear();
            } else {
                sleep(RECONNECT_INTERVAL).await;
            }
        }
    }

    /// Writes until the connection ends or the writers are stopped.
    async fn session(&mut self, connection: Connection) -> Result<()> {
        let Connection {
            mut requests,
            mut replies,
        } = connection;
        let tick = Duration::from_secs(1) / self.pace.per_second;
        let mut ticks = interval(
            tick.max(Duration::from_millis(1))
                .min(self.pace.probe_interval),
        );
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut stopped = self.stopped.clone();
        let mut mood = Mood::Refused {
            again_at: Instant::now(),
        };
        let mut earned = Earned::new(self.pace.per_second);
        loop {
            tokio::select! {
                reply = replies.next() => mood = self.record(reply?),
                sent = requests.send_some(), if requests.has_unsent() => sent?,
                _ = ticks.tick() => self.queue(&mut requests, &mut mood, &mut earned),
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
        }
        let drain = async {
            while !self.unanswered.is_empty() {
                tokio::select! {
                    reply = replies.next() => { self.record(reply?); }
                    sent = requests.send_some(), if requests.has_unsent() => sent?,
                }
            }
            Ok(())
        };
        timeout(DRAIN_TIMEOUT, drain).await.unwrap_or(Ok(()))
    }

    fn queue(&mut self, requests: &mut Requests, mood: &mut Mood, earned: &mut Earned) {
        let now = Instant::now();
        let room = self.pace.window.saturating_sub(self.unanswered.len());
        let wanted = earned.take(now);
        if self.quiet.load(Ordering::Relaxed) {
            return;
        }
        let count = match *mood {
            Mood::Welcome => wanted,
            Mood::Refused { again_at } if again_at > now => 0,
            Mood::Refused { .. } => {
                *mood = Mood::Refused {
                    again_at: now + self.pace.probe_interval,
                };
                1
            }
        };
        let mut writes = lock(&self.writes);
        for _ in 0..count.min(room) {
            let seq = writes.len() as u64;
            let args = [Value::from(self.name.as_str()), Value::from(seq)];
            let sent = self.epoch.instant.elapsed();
            let sync = requests.queue(Request::Call("journal_write", &args));
            self.unanswered.insert(sync, writes.len());
            let (instance, outcome) = (self.instance, Outcome::NoReply);
            writes.push(Write {
                instance,
                seq,
                sent,
                answered: None,
                outcome,
            });
        }
    }

    fn record(&mut self, reply: Reply) -> Mood {
        let refused = Mood::Refused {
            again_at: Instant::now() + self.pace.probe_interval,
        };
        let place = self.unanswered.remove(&reply.sync);
        let mut writes = lock(&self.writes);
        let Some(write) = place.and_then(|place| writes.get_mut(place)) else {
            return refused;
        };
        write.answered = Some(self.epoch.instant.elapsed());
        let (outcome, mood) = match reply.outcome {
            Ok(values) => match parse(&values, self.epoch) {
                Some(accepted) => {
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                    (Outcome::Accepted(accepted), Mood::Welcome)
                }
                None => (Outcome::Failed(format!("odd answer {values:?}")), refused),
            },
            Err(error) if error.is_read_only() => (Outcome::ReadOnly, refused),
            Err(error) => (Outcome::Failed(chain(&error)), refused),
        };
        write.outcome = outcome;
        mood
    }
}

/// How many writes the pace allows by now.
struct Earned {
    per_second: f64,
    credit: f64,
    since: Instant,
}

impl Earned {
    fn new(per_second: u32) -> Self {
        Self {
            per_second: f64::from(per_second),
            credit: 0.0,
            since: Instant::now(),
        }
    }

    fn take(&mut self, now: Instant) -> usize {
        self.credit += self.per_second * now.duration_since(self.since).as_secs_f64();
        // Writes that a busy moment missed are caught up with for 50 ms and forgotten beyond that.
        self.credit = self.credit.min((self.per_second * 0.05).max(1.0));
        self.since = now;
        let whole = self.credit.floor();
        self.credit -= whole;
        whole as usize
    }
}

/// Reads what `journal_write` returns.
fn parse(values: &[Value], epoch: Epoch) -> Option<Accepted> {
    let [term, began, ended, lease_left, _lsn] = values else {
        return None;
    };
    Some(Accepted {
        term: term.as_f64().unwrap_or(0.0) as u64,
        began: epoch.since(began.as_u64()?),
        ended: epoch.since(ended.as_u64()?),
        lease_left_ns: lease_left.as_f64().map(|left| left as i64),
    })
}
