//! The keys of a cluster, sorted out. A value that is not what its key says counts as absent.

use std::collections::BTreeMap;

use crate::consul::Found;
use crate::decide::board::{
    self, Ballot, HistoryLine, Member, Pause, Switchover, SwitchoverState, WaitingKey,
};
use crate::decide::record::Record;
use crate::decide::router::RouterKey;

/// Where a cluster's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Space {
    /// `CLUSTER_NAME`.
    pub(crate) cluster: String,
    /// What its keys begin with, with its slash.
    pub(crate) prefix: String,
    /// `CONSUL_LOCK_KEY`.
    pub(crate) lock_key: Option<String>,
}

/// A cluster's keys.
#[derive(Default)]
pub(super) struct Sorted<'a> {
    pub(super) pause: Option<Pause>,
    /// vshard's routers, by name.
    pub(super) routers: Vec<RouterKey>,
    /// Agents that have not seen their instances yet, by name.
    pub(super) waiting: Vec<WaitingKey>,
    /// By replica set UUID.
    pub(super) sets: BTreeMap<String, SetKeys<'a>>,
}

#[derive(Default)]
pub(super) struct SetKeys<'a> {
    pub(super) lock_key: String,
    pub(super) lock: Option<&'a Found>,
    /// By instance UUID; `None` where the value is no member.
    pub(super) members: BTreeMap<String, Option<Member>>,
    /// By instance UUID.
    pub(super) ballots: BTreeMap<String, Ballot>,
    pub(super) switchover: Option<Switchover>,
    pub(super) switchover_index: u64,
    pub(super) pause: Option<Pause>,
    /// The newest first.
    pub(super) history: Vec<HistoryLine>,
}

impl<'a> Sorted<'a> {
    pub(super) fn of(space: &Space, found: &'a [Found]) -> Self {
        let mut sorted = Self::default();
        for entry in found {
            if let Some(path) = entry.key.strip_prefix(&space.prefix) {
                sorted.put(space, path, entry);
            }
        }
        if let Some(key) = &space.lock_key {
            let lock = found.iter().find(|entry| entry.key == *key);
            sorted.put_lock(key, lock);
        }
        sorted.waiting.sort_by(|one, two| one.name.cmp(&two.name));
        sorted.routers.sort_by(|one, two| one.name.cmp(&two.name));
        for set in sorted.sets.values_mut() {
            set.history.sort_by_key(|line| std::cmp::Reverse(line.term));
        }
        sorted
    }

    fn put(&mut self, space: &Space, path: &str, entry: &'a Found) {
        let Some((uuid, name)) = path.split_once('/') else {
            if path == "pause" {
                self.pause = Some(pause(entry, true));
            }
            return;
        };
        let (kind, rest) = name
            .split_once('/')
            .map_or((name, None), |(kind, rest)| (kind, Some(rest)));
        if uuid == "waiting" {
            self.waiting
                .extend(board::parse::<WaitingKey>(&entry.value));
            return;
        }
        if uuid == "births" {
            return;
        }
        if uuid == "routers" {
            self.routers.extend(board::parse::<RouterKey>(&entry.value));
            return;
        }
        let known = matches!(
            (kind, rest),
            ("leader" | "switchover" | "pause", None)
                | ("members" | "history" | "ballots", Some(_))
        );
        if !known {
            return;
        }
        let set = self.sets.entry(uuid.to_owned()).or_insert_with(|| SetKeys {
            lock_key: format!("{}{uuid}/leader", space.prefix),
            ..SetKeys::default()
        });
        match (kind, rest) {
            ("leader", None) if space.lock_key.is_none() => set.lock = Some(entry),
            ("switchover", None) => {
                set.switchover_index = entry.modify_index;
                set.switchover = board::parse(&entry.value)
                    .filter(|order: &Switchover| order.state != SwitchoverState::None);
            }
            ("pause", None) => set.pause = Some(pause(entry, false)),
            ("members", Some(instance)) => {
                let member = board::parse(&entry.value);
                set.members.insert(instance.to_owned(), member);
            }
            ("ballots", Some(instance)) => {
                let ballot = board::parse(&entry.value);
                let named = ballot.map(|ballot| (instance.to_owned(), ballot));
                set.ballots.extend(named);
            }
            ("history", Some(_)) => set
                .history
                .extend(board::parse::<HistoryLine>(&entry.value)),
            _ => {}
        }
    }

    /// `CONSUL_LOCK_KEY` belongs to one replica set: the one in its record, or else the only one.
    fn put_lock(&mut self, key: &str, lock: Option<&'a Found>) {
        let record = lock.and_then(|entry| Record::parse(&entry.value).ok());
        let named = record.map(|record| record.replicaset);
        let owner = match (named, self.sets.len()) {
            (Some(uuid), _) => Some(uuid),
            (None, 1) => self.sets.keys().next().cloned(),
            (None, _) => None,
        };
        if let Some(uuid) = owner {
            let set = self.sets.entry(uuid).or_default();
            key.clone_into(&mut set.lock_key);
            set.lock = lock;
        }
    }
}

/// The key counts, whatever somebody wrote into it.
fn pause(entry: &Found, cluster: bool) -> Pause {
    let mut pause: Pause = serde_json::from_slice(&entry.value).unwrap_or_default();
    pause.cluster = cluster;
    pause
}
