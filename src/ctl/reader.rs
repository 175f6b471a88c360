//! Consul → views. A lock that is looked at for a while shows whether its holder still refreshes it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;

use super::build;
use super::outcome::{Ended, Outcome};
use super::view::{ClusterView, SetState, SetView, Sign, Signs, patience};
use crate::clock::{self, Clock};
use crate::config::OperatorConfig;
use crate::consul::{Consul, ConsulError, Found};
use crate::decide::timing::Tick;
use crate::keys::{ClusterKey, ClusterKeys, ReplicaSetKey};

/// How long a read waits for a change at most, so that ages on a screen go on.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// The same where the lock's key is elsewhere, so that the watch on the cluster's keys does not see it.
const BEAT_ELSEWHERE: Duration = Duration::from_millis(250);
/// A watch on a prefix without keys wakes with every write anywhere in the store.
const NOTHING_THERE_PAUSE: Duration = Duration::from_millis(250);

/// Reads a cluster again and again.
pub(super) struct Reader {
    consul: Consul,
    keys: ClusterKeys,
    clock: Clock,
    after: u64,
    looks: BTreeMap<String, Look>,
}

/// A lock key over time.
struct Look {
    since: Tick,
    index: u64,
    changed_at: Option<Tick>,
}

impl Reader {
    pub(super) fn new(consul: Consul, config: &OperatorConfig) -> Self {
        Self {
            consul,
            keys: config.keys(),
            clock: Clock::start(),
            after: 0,
            looks: BTreeMap::new(),
        }
    }

    pub(super) fn now(&self) -> Tick {
        self.clock.now()
    }

    /// The cluster as it is.
    pub(super) async fn look(&mut self) -> Result<ClusterView, ConsulError> {
        self.after = 0;
        self.next().await
    }

    /// The cluster as soon as it has changed since the last look, or after a beat.
    pub(super) async fn next(&mut self) -> Result<ClusterView, ConsulError> {
        match self.read().await {
            Ok(found) => {
                self.note(&found);
                let signs = self.signs();
                let at_ms = clock::wall_ms();
                Ok(build::cluster(&self.keys, &found, &signs, at_ms))
            }
            Err(error) => {
                self.after = 0;
                Err(error)
            }
        }
    }

    async fn read(&mut self) -> Result<Vec<Found>, ConsulError> {
        let beat = match self.keys.lock_elsewhere() {
            Some(_) => BEAT_ELSEWHERE,
            None => BEAT,
        };
        let prefix = self.keys.prefix();
        let read = self.consul.watch_cluster(prefix, self.after, beat);
        let (index, mut found) = read.await?;
        if found.is_empty() && self.after > 0 {
            sleep(NOTHING_THERE_PAUSE).await;
        }
        // An index that went backwards is of another store.
        self.after = if index < self.after { 0 } else { index };
        if let Some(key) = self.keys.lock_elsewhere() {
            let lock = self.consul.read_lock(key).await?.key;
            found.extend(lock.map(|lock| Found {
                key: key.to_owned(),
                modify_index: lock.modify_index,
                session: lock.session,
                value: lock.value,
            }));
        }
        Ok(found)
    }

    fn note(&mut self, found: &[Found]) {
        let now = self.clock.now();
        for entry in found {
            let is_lock = matches!(
                self.keys.read(&entry.key),
                Some(ClusterKey::OfReplicaSet(_, ReplicaSetKey::Lock))
            );
            if !is_lock && self.keys.lock_elsewhere() != Some(&*entry.key) {
                continue;
            }
            let look = self.looks.entry(entry.key.clone()).or_insert(Look {
                since: now,
                index: entry.modify_index,
                changed_at: None,
            });
            if look.index != entry.modify_index {
                look.index = entry.modify_index;
                look.changed_at = Some(now);
            }
        }
    }

    fn signs(&self) -> Signs {
        let now = self.clock.now();
        let sign = |look: &Look| Sign {
            watched: now.since(look.since),
            changed_ago: look.changed_at.map(|at| now.since(at)),
        };
        let looks = self.looks.iter();
        looks.map(|(key, look)| (key.clone(), sign(look))).collect()
    }

    /// Looks until each holder among these replica sets was seen to refresh its lock, or should have been.
    pub(super) async fn wait_for_signs(
        &mut self,
        mut view: ClusterView,
        concerns: impl Fn(&str) -> bool,
    ) -> Result<ClusterView, ConsulError> {
        while view
            .replicasets
            .iter()
            .any(|set| concerns(&set.replicaset) && is_unsure(set))
        {
            view = self.next().await?;
        }
        Ok(view)
    }

    /// Looks until `done` says so; `None` where that does not come in time. Consul may be away for a while.
    pub(super) async fn wait_until<T>(
        &mut self,
        deadline: Duration,
        mut done: impl FnMut(&ClusterView) -> Option<T>,
    ) -> Result<Option<T>, Ended> {
        let give_up_at = self.now() + deadline;
        loop {
            let failed = match self.next().await {
                Ok(view) => match done(&view) {
                    Some(found) => return Ok(Some(found)),
                    None => None,
                },
                Err(error) if error.is_denied() => return Err(error.into()),
                Err(error) => Some(error),
            };
            match (failed, self.now() >= give_up_at) {
                (None, true) => return Ok(None),
                (Some(error), true) => {
                    let Ended { why, .. } = error.into();
                    let why = format!("{why}; whether it is done is unknown");
                    return Err(Ended::new(Outcome::Failed, why));
                }
                (Some(_), false) => sleep(BEAT).await,
                (None, false) => {}
            }
        }
    }
}

/// It has a holder that was not seen to live, and has not been looked at for long enough to be silent.
fn is_unsure(set: &SetView) -> bool {
    set.state == SetState::Master
        && set.lease.is_some_and(|lease| {
            let watched = Duration::from_millis(lease.watched_ms);
            let bound = patience(Duration::from_millis(lease.lease_ms));
            lease.refreshed_ms_ago.is_none() && watched <= bound
        })
}
