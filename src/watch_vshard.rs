//! The watches that vshard needs: on the masters' keys, on the central configuration and on the password of its users.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use crate::config::VshardConfig;
use crate::consul::{Consul, ConsulError, NAMES_LIMIT_BYTES, VALUE_LIMIT_BYTES, Values};
use crate::decide::board;
use crate::decide::vshard::{Look, Master, Masters, VshardEvent};
use crate::errors::with_causes;
use crate::keys::{ClusterKeys, is_uuid};
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
fn masters(keys: &ClusterKeys, values: &Values) -> Masters {
    let read = values.found.iter();
    let read = read.map(|it| (&*it.key, it.modify_index, board::parse(&it.value)));
    let unread = values.too_long.iter();
    let unread = unread.map(|(key, index)| (&**key, *index, None));
    let entries = read.chain(unread).filter_map(|(key, index, master)| {
        let replicaset = keys.master_of(key)?;
        let master = master.filter(|master: &Master| master.replicaset == replicaset);
        let master = master.unwrap_or_else(|| Master::nobody(replicaset));
        Some((replicaset.to_owned(), (index, master)))
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

/// The masters of a cluster as they stand.
struct MastersSeen {
    /// Where the next look goes on.
    index: u64,
    masters: Masters,
    /// What was too much to be read, in words.
    unread: Option<String>,
}

impl Watcher {
    /// Names first, then the keys that can be a master's: what else is put there keeps nobody from seeing them. `None`:
    /// there is no key at all.
    async fn look_at_masters(
        &self,
        keys: &ClusterKeys,
        prefix: &str,
        after: u64,
    ) -> Result<Option<MastersSeen>, ConsulError> {
        let (index, names) = self.consul.watch_names(prefix, after, LONG_WAIT).await?;
        let Some(mut names) = names else {
            // Those that were seen before stay as they were seen.
            return Err(ConsulError::TooLong {
                what: format!("list keys {prefix}"),
                limit_bytes: NAMES_LIMIT_BYTES,
            });
        };
        if names.is_empty() {
            return Ok(None);
        }
        names.retain(|name| keys.master_of(name).is_some_and(is_uuid));
        let values = self.consul.read_keys("read masters", &names).await?;
        let too_long: Vec<&str> = values.too_long.iter().map(|(key, _)| &**key).collect();
        let unread = (!too_long.is_empty()).then(|| {
            format!(
                "{} has more than {VALUE_LIMIT_BYTES} bytes and is not read: remove it",
                too_long.join(", ")
            )
        });
        Ok(Some(MastersSeen {
            index,
            masters: masters(keys, &values),
            unread,
        }))
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
    let mut said = None;
    loop {
        let question = watcher.look_at_masters(keys, &prefix, after);
        let Some(answer) = watcher.unless_back(question).await else {
            after = 0;
            continue;
        };
        match answer {
            Ok(None) => {
                let key = keys.masters_watched();
                if consul.put_key_if(&key, 0, b"{}").await.is_err() {
                    sleep(RETRY_PAUSES[1]).await;
                }
                after = 0;
            }
            Ok(Some(seen)) => {
                failures = 0;
                after = if seen.index < after { 0 } else { seen.index };
                if said != seen.unread {
                    if let Some(why) = &seen.unread {
                        tracing::warn!(why, "not all masters of the cluster are seen");
                    }
                    said = seen.unread;
                }
                let masters = seen.masters;
                let event = VshardEvent::MastersSeen { masters };
                if events.send(event.into()).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let why = with_causes(&error);
                if matches!(error, ConsulError::TooLong { .. }) && said.as_ref() != Some(&why) {
                    tracing::warn!(why, "the masters of the cluster are not seen");
                    said = Some(why);
                }
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
