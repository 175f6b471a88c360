//! The watches that vshard needs: on the masters' keys, on the central configuration and on the password of its users.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use crate::config::VshardConfig;
use crate::consul::{Consul, Found};
use crate::decide::board;
use crate::decide::vshard::{Look, Master, Masters, VshardEvent};
use crate::keys::ClusterKeys;
use crate::tarantool::vshard::Text;

/// How long a watch on the masters' keys or on the central configuration is held. Nothing but a change, the end of the
/// connection or Consul's return ends it sooner, so that it costs next to nothing while all is quiet.
const LONG_WAIT: Duration = Duration::from_secs(23);
/// Between two looks at a central configuration that is not there: a watch on a missing key wakes with every write
/// anywhere in the store.
const MISSING_CONFIG_PAUSE: Duration = Duration::from_secs(10);
/// Between failed watches, at first and later.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// The central configuration as last read. It may hold passwords, so no state, plan or dump ever has it.
#[derive(Clone, Default)]
pub(crate) struct ConfigText(Arc<Mutex<Option<Arc<Text>>>>);

impl ConfigText {
    fn cell(&self) -> MutexGuard<'_, Option<Arc<Text>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self) -> Option<Arc<Text>> {
        self.cell().clone()
    }

    pub(crate) fn set(&self, text: Text) {
        *self.cell() = Some(Arc::new(text));
    }
}

/// Reads the password of the central configuration's users again where somebody refuses it to vshard in the instance, which
/// alone uses it.
pub(crate) fn note_refusal(config: &VshardConfig, look: Option<&Look>) {
    if let Some((_, password)) = &config.login
        && look.is_some_and(|look| look.locked_out)
    {
        password.refused();
    }
}

/// Tells of each new login, for as long as somebody listens.
pub(crate) async fn watch_login<E: From<VshardEvent>>(
    config: VshardConfig,
    events: mpsc::Sender<E>,
) {
    let Some((_, password)) = config.login else {
        return;
    };
    let mut changes = password.changes();
    while changes.changed().await.is_ok() {
        if events.send(VshardEvent::LoginChanged.into()).await.is_err() {
            return;
        }
    }
}

/// The masters as their keys name them. A value that is no master names nobody.
fn masters(keys: &ClusterKeys, found: &[Found]) -> Masters {
    let entries = found.iter().filter_map(|entry| {
        let replicaset = keys.master_of(&entry.key)?;
        let master = board::parse(&entry.value);
        let master = master.filter(|master: &Master| master.replicaset == replicaset);
        let master = master.unwrap_or_else(|| Master::nobody(replicaset));
        Some((replicaset.to_owned(), (entry.modify_index, master)))
    });
    entries.collect()
}

/// What a watch needs.
#[derive(Clone)]
pub(crate) struct Watcher {
    pub(crate) consul: Consul,
    pub(crate) consul_back: Arc<Notify>,
}

impl Watcher {
    /// `None`: Consul is back from an absence, in which an answer may have been lost.
    async fn unless_back<T>(&self, question: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            answer = question => Some(answer),
            () = self.consul_back.notified() => None,
        }
    }
}

/// Watches the masters of a cluster until nobody listens any more.
pub(crate) async fn watch_masters<E: From<VshardEvent>>(
    watcher: &Watcher,
    keys: &ClusterKeys,
    events: mpsc::Sender<E>,
) {
    let consul = &watcher.consul;
    let prefix = keys.masters();
    let mut after = 0;
    let mut failures = 0_usize;
    loop {
        let question = consul.watch_prefix(&prefix, after, LONG_WAIT);
        let Some(answer) = watcher.unless_back(question).await else {
            after = 0;
            continue;
        };
        match answer {
            Ok((_, found)) if found.is_empty() => {
                let key = keys.masters_watched();
                if consul.put_key_if(&key, 0, b"{}").await.is_err() {
                    sleep(RETRY_PAUSES[1]).await;
                }
                after = 0;
            }
            Ok((index, found)) => {
                failures = 0;
                after = if index < after { 0 } else { index };
                let masters = masters(keys, &found);
                let event = VshardEvent::MastersSeen { masters };
                if events.send(event.into()).await.is_err() {
                    return;
                }
            }
            Err(_) => {
                // An index of a store that is gone says nothing.
                after = 0;
                sleep(RETRY_PAUSES[failures.min(1)]).await;
                failures += 1;
            }
        }
    }
}

/// Watches the central configuration.
pub(crate) async fn watch_config<E: From<VshardEvent>>(
    watcher: &Watcher,
    key: &str,
    cell: &ConfigText,
    events: mpsc::Sender<E>,
) {
    let mut after = 0;
    let mut failures = 0_usize;
    loop {
        let question = watcher.consul.watch_key(key, after, LONG_WAIT);
        let Some(answer) = watcher.unless_back(question).await else {
            after = 0;
            continue;
        };
        let index = match answer {
            Ok(view) => {
                failures = 0;
                after = if view.index < after { 0 } else { view.index };
                view.key.map(|found| {
                    cell.set(Text {
                        index: found.modify_index,
                        text: String::from_utf8_lossy(&found.value).into_owned(),
                    });
                    found.modify_index
                })
            }
            Err(_) => {
                after = 0;
                sleep(RETRY_PAUSES[failures.min(1)]).await;
                failures += 1;
                continue;
            }
        };
        let event = VshardEvent::ConfigSeen { index };
        if events.send(event.into()).await.is_err() {
            return;
        }
        if index.is_none() {
            after = 0;
            sleep(MISSING_CONFIG_PAUSE).await;
        }
    }
}
