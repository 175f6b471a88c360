//! The keys of a cluster, sorted out. A value that is not what its key says counts as absent.

use std::collections::BTreeMap;

use crate::consul::{Found, VALUE_LIMIT_BYTES};
use crate::decide::board::{
    self, Ballot, HISTORY_LINES, HistoryLine, Member, Pause, Switchover, SwitchoverState,
    WaitingKey,
};
use crate::decide::record::Record;
use crate::decide::router::RouterKey;
use crate::keys::{ClusterKey, ClusterKeys, ReplicaSetKey};

/// Lines of history of one replica set that are shown. Agents keep half as many, and a line too many for the moment between
/// writing one and removing another.
const LINES_MAX: usize = 2 * HISTORY_LINES as usize;

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
    /// Lines beyond those that agents keep, and values too long for a line.
    pub(super) history_left_out: usize,
}

impl<'a> Sorted<'a> {
    pub(super) fn of(keys: &ClusterKeys, found: &'a [Found]) -> Self {
        let mut sorted = Self::default();
        for entry in found {
            sorted.put(keys, entry);
        }
        if let Some(key) = keys.lock_elsewhere() {
            let lock = found.iter().find(|entry| entry.key == *key);
            sorted.put_lock(key, lock);
        }
        sorted.waiting.sort_by(|one, two| one.name.cmp(&two.name));
        sorted.routers.sort_by(|one, two| one.name.cmp(&two.name));
        for set in sorted.sets.values_mut() {
            set.history.sort_by_key(|line| std::cmp::Reverse(line.term));
            set.history_left_out += set.history.len().saturating_sub(LINES_MAX);
            set.history.truncate(LINES_MAX);
        }
        sorted
    }

    fn put(&mut self, keys: &ClusterKeys, entry: &'a Found) {
        match keys.read(&entry.key) {
            Some(ClusterKey::Pause) => self.pause = Some(pause(entry, true)),
            Some(ClusterKey::Waiting) => self
                .waiting
                .extend(board::parse::<WaitingKey>(&entry.value)),
            Some(ClusterKey::Router) => {
                self.routers.extend(board::parse::<RouterKey>(&entry.value));
            }
            Some(ClusterKey::OfReplicaSet(uuid, key)) => {
                let sets = self.sets.entry(uuid.to_owned());
                let set = sets.or_insert_with(|| SetKeys {
                    lock_key: keys.replicaset(uuid).own_lock(),
                    ..SetKeys::default()
                });
                // Where the lock is elsewhere, what stands here is none.
                if key != ReplicaSetKey::Lock || keys.lock_elsewhere().is_none() {
                    set.put(key, entry);
                }
            }
            None => {}
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

impl<'a> SetKeys<'a> {
    fn put(&mut self, key: ReplicaSetKey<'_>, entry: &'a Found) {
        match key {
            ReplicaSetKey::Lock => self.lock = Some(entry),
            ReplicaSetKey::Switchover => {
                self.switchover_index = entry.modify_index;
                self.switchover = board::parse(&entry.value)
                    .filter(|order: &Switchover| order.state != SwitchoverState::None);
            }
            ReplicaSetKey::Pause => self.pause = Some(pause(entry, false)),
            ReplicaSetKey::Member(instance) => {
                let member = board::parse(&entry.value);
                self.members.insert(instance.to_owned(), member);
            }
            ReplicaSetKey::Ballot(instance) => {
                let ballot = board::parse(&entry.value);
                let named = ballot.map(|ballot| (instance.to_owned(), ballot));
                self.ballots.extend(named);
            }
            ReplicaSetKey::History if entry.value.len() > VALUE_LIMIT_BYTES => {
                self.history_left_out += 1;
            }
            ReplicaSetKey::History => self
                .history
                .extend(board::parse::<HistoryLine>(&entry.value)),
        }
    }
}

/// Present is enough, whatever somebody wrote there.
fn pause(entry: &Found, cluster: bool) -> Pause {
    let mut pause: Pause = serde_json::from_slice(&entry.value).unwrap_or_default();
    pause.cluster = cluster;
    pause
}

#[cfg(test)]
mod tests {
    use super::super::paper::Paper;
    use super::super::screen::history;
    use super::super::toys::{Keys, line};
    use crate::decide::term::Term;

    #[test]
    fn a_history_is_shown_up_to_a_bound_and_what_is_left_out_is_said() {
        let mut keys = Keys::healthy();
        for term in 1_000_u32..1_200 {
            keys = keys.line(&line(Term::from(term)));
        }
        let mut endless = line(Term::from(5_000_u32));
        endless.reason = "for ever ".repeat(10_000);
        let view = keys.line(&endless).view();
        let set = &view.replicasets[0];
        assert_eq!(set.history.len(), super::LINES_MAX);
        assert_eq!(
            set.history[0].term,
            Term::from(1_199_u32),
            "the newest that is no monster"
        );
        let text = history(Paper::PLAIN, &view);
        let left_out = set.history_left_out;
        let words = format!(
            "  {left_out} more keys are left out: the newest 128 changes of hands are shown."
        );
        assert!(left_out >= 73 && text.contains(&words), "{words}\n{text}");
        assert!(!text.contains("for ever"));
        let none = Keys::healthy().view();
        assert_eq!(none.replicasets[0].history_left_out, 0);
        assert!(!history(Paper::PLAIN, &none).contains("left out"));
    }
}
