//! Names the leader of a first start where Tarantool's configuration leaves that to others: see
//! [`crate::decide::birth`]. It is a task of its own, because the agent's loop knows of an instance only once the
//! instance has users. The task stays when the replica set is there: should Consul lose its data, it writes down anew
//! that the replica set was born.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::clock::{self, Clock};
use crate::config::Config;
use crate::consul::{Consul, ConsulError};
use crate::decide::birth::{self, BirthKey, Order, Sight, Step};
use crate::decide::board;
use crate::decide::timing::Tick;
use crate::errors::with_causes;
use crate::keys::{ClusterKeys, json_bytes};
use crate::tarantool::console::{self, ConsoleError, Word};

/// Between two looks. A look costs the instance a line of Lua and Consul a read, for as long as a first start takes.
const PAUSE: Duration = Duration::from_millis(200);
/// The same once the replica set is there. A Consul that has lost its data is told anew that it was born.
const KEEP: Duration = Duration::from_secs(10);
/// A key is created only after none was seen for this long: by then every agent that knows of the replica set's birth
/// has written one.
const MISSING: Duration = Duration::from_secs(15);
/// An instance that is just being started has no console yet.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum BirthError {
    #[error("could not ask the instance by TARANTOOL_CONTROL")]
    Console(#[source] ConsoleError),
    #[error("could not learn from Consul who is to be born first")]
    Consul(#[source] ConsulError),
    #[error("what stands in key {0} is not ours")]
    Foreign(String),
}

/// Begins to look after the first start, where the settings say how.
pub(crate) fn start(config: &Config, consul: &Consul) {
    if let Some(socket) = &config.tarantool.control {
        let first_start = FirstStart {
            socket: socket.clone(),
            deadline: config.timing.healthcheck_timeout(),
            consul: consul.clone(),
            keys: config.keys(),
            clock: Clock::start(),
        };
        tokio::spawn(first_start.run());
    }
}

struct FirstStart {
    socket: PathBuf,
    deadline: Duration,
    consul: Consul,
    keys: ClusterKeys,
    clock: Clock,
}

impl FirstStart {
    async fn run(self) {
        let mut known = None;
        let mut missing_since = None;
        let mut failing: Option<(Tick, bool)> = None;
        loop {
            let mut pause = PAUSE;
            match self.turn(&mut missing_since).await {
                Ok((word, step)) => {
                    failing = None;
                    if step == Step::End {
                        pause = KEEP;
                    }
                    let now = Some((word.sight.clone(), step.clone()));
                    if now != known {
                        say(&word, &step);
                        known = now;
                    }
                }
                Err(error) => {
                    let now = self.clock.now();
                    let (since, said) = failing.unwrap_or((now, false));
                    let due = !said && now.since(since) >= GRACE;
                    if due {
                        warn!(
                            error = with_causes(&error),
                            "cannot look after a first start"
                        );
                    } else {
                        debug!(
                            error = with_causes(&error),
                            "cannot look after a first start"
                        );
                    }
                    failing = Some((since, said || due));
                }
            }
            sleep(pause).await;
        }
    }

    async fn turn(&self, missing_since: &mut Option<Tick>) -> Result<(Word, Step), BirthError> {
        let word = self.ask(Order::None).await?;
        let path = self.keys.birth(&word.replicaset);
        let view = self
            .consul
            .read_key(&path)
            .await
            .map_err(BirthError::Consul)?;
        let (index, key) = match &view.key {
            None => (0, None),
            Some(found) => {
                let key = board::parse::<BirthKey>(&found.value);
                let key = key.ok_or_else(|| BirthError::Foreign(path.clone()))?;
                (found.modify_index, Some(key))
            }
        };
        if view.key.is_some() {
            *missing_since = None;
        }
        let step = birth::next(&word.sight, key.as_ref(), &word.instance);
        match &step {
            Step::Wait | Step::LeaveTo(_) | Step::End => {}
            Step::Do(order) => drop(self.ask(*order).await?),
            // Another agent may have been first: the next look shows it.
            Step::Claim => {
                let now = self.clock.now();
                if now.since(*missing_since.get_or_insert(now)) >= MISSING {
                    self.write(&path, index, &word, key, None).await?;
                }
            }
            Step::Record { replicaset } => {
                self.write(&path, index, &word, key, Some(replicaset))
                    .await?;
            }
        }
        Ok((word, step))
    }

    async fn ask(&self, order: Order) -> Result<Word, BirthError> {
        let asked = console::ask(&self.socket, order, self.deadline).await;
        asked.map_err(BirthError::Console)
    }

    async fn write(
        &self,
        path: &str,
        index: u64,
        word: &Word,
        key: Option<BirthKey>,
        replicaset: Option<&String>,
    ) -> Result<(), BirthError> {
        let key = BirthKey {
            v: board::VERSION,
            instance: key.map_or_else(|| word.instance.clone(), |key| key.instance),
            replicaset: replicaset.cloned(),
            written_ms: clock::wall_ms(),
        };
        let written = self.consul.put_key_if(path, index, &json_bytes(&key)).await;
        written.map(drop).map_err(BirthError::Consul)
    }
}

fn say(word: &Word, step: &Step) {
    let (replicaset, instance) = (&*word.replicaset, &*word.instance);
    match step {
        Step::Do(Order::Lead) => info!(replicaset, instance, "the replica set is to be born here"),
        Step::Do(Order::Open) => info!(
            replicaset,
            instance, "born, writable until it has its users"
        ),
        Step::LeaveTo(leader) => info!(replicaset, leader, "the replica set is to be born there"),
        Step::Record { .. } => info!(replicaset, instance, "the replica set is born"),
        Step::Claim => info!(
            replicaset,
            instance, "Consul knows nothing of this replica set yet: it is born in some seconds"
        ),
        Step::Wait if word.sight == Sight::Unborn => info!(
            replicaset,
            instance,
            "the replica set was born before, says its key in births/: this instance waits to join"
        ),
        Step::Wait | Step::Do(Order::None) | Step::End => {}
    }
}
