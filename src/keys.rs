//! Where each key in Consul is, and how a value is written there: no other file knows how a key is spelled. What stands in
//! the keys and who writes them is in `docs/PROTOCOL.md`.

use crate::decide::term::Term;

const LOCK: &str = "leader";
const MEMBERS: &str = "members";
const BALLOTS: &str = "ballots";
const SWITCHOVER: &str = "switchover";
const PAUSE: &str = "pause";
const HISTORY: &str = "history";
const MASTERS: &str = "masters";
const ROUTERS: &str = "routers";
const WAITING: &str = "waiting";
const BIRTHS: &str = "births";
/// Beside the masters' keys, so that there is one always: a watch on a prefix without keys wakes with every write anywhere in
/// the store.
const WATCHED: &str = "watched";

/// The keys of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterKeys {
    cluster: String,
    prefix: String,
    lock_key: Option<String>,
}

/// What a key of a cluster is, as the operator's commands look for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClusterKey<'k> {
    /// The cluster's own pause.
    Pause,
    /// An agent's that has not seen its instance yet.
    Waiting,
    /// A vshard router's.
    Router,
    /// One of the replica set with this UUID.
    OfReplicaSet(&'k str, ReplicaSetKey<'k>),
}

/// What a key of a replica set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplicaSetKey<'k> {
    /// The lock, where `CONSUL_LOCK_KEY` does not say that it is elsewhere.
    Lock,
    /// What the agent of the instance with this UUID says.
    Member(&'k str),
    /// The ballot of the instance with this UUID.
    Ballot(&'k str),
    /// What an operator asks for.
    Switchover,
    /// Present: nothing changes hands by itself.
    Pause,
    /// A change of hands.
    History,
}

impl ClusterKeys {
    /// The keys of the cluster with this `CLUSTER_NAME` under `CONSUL_KV_PREFIX`; `lock_key` is `CONSUL_LOCK_KEY`.
    pub(crate) fn new(kv_prefix: &str, cluster: &str, lock_key: Option<&str>) -> Self {
        Self {
            cluster: cluster.to_owned(),
            prefix: format!("{kv_prefix}/{cluster}/"),
            lock_key: lock_key.map(str::to_owned),
        }
    }

    /// `CLUSTER_NAME`.
    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// What all of them begin with but for `CONSUL_LOCK_KEY`, with its slash.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `CONSUL_LOCK_KEY`: where one replica set's lock is instead.
    pub(crate) fn lock_elsewhere(&self) -> Option<&str> {
        self.lock_key.as_deref()
    }

    /// The keys of the replica set with this UUID.
    pub(crate) fn replicaset(&self, uuid: &str) -> ReplicaSetKeys {
        ReplicaSetKeys {
            cluster: self.clone(),
            uuid: uuid.to_owned(),
        }
    }

    /// Present: nothing changes hands by itself in the whole cluster.
    pub(crate) fn pause(&self) -> String {
        self.at(PAUSE)
    }

    /// What the masters' keys begin with, with its slash.
    pub(crate) fn masters(&self) -> String {
        self.at(&format!("{MASTERS}/"))
    }

    /// Who is master of the replica set with this UUID, for vshard.
    pub(crate) fn master(&self, replicaset: &str) -> String {
        self.at(&format!("{MASTERS}/{replicaset}"))
    }

    /// The key that keeps the masters' prefix from being without any.
    pub(crate) fn masters_watched(&self) -> String {
        self.master(WATCHED)
    }

    /// Whose master this key names: a replica set's UUID.
    pub(crate) fn master_of<'k>(&self, key: &'k str) -> Option<&'k str> {
        let path = key.strip_prefix(&self.prefix)?;
        let replicaset = path.strip_prefix(MASTERS)?.strip_prefix('/')?;
        (replicaset != WATCHED).then_some(replicaset)
    }

    /// What the agent of the router with this UUID says.
    pub(crate) fn router(&self, instance: &str) -> String {
        self.at(&format!("{ROUTERS}/{instance}"))
    }

    /// What this agent waits for, which has not seen its instance yet.
    pub(crate) fn waiting(&self, agent: &str) -> String {
        self.at(&format!("{WAITING}/{agent}"))
    }

    /// Where the replica set of this name is born.
    pub(crate) fn birth(&self, replicaset_name: &str) -> String {
        self.at(&format!("{BIRTHS}/{replicaset_name}"))
    }

    /// What this key is; `None`: none that the operator's commands look for.
    pub(crate) fn read<'k>(&self, key: &'k str) -> Option<ClusterKey<'k>> {
        let path = key.strip_prefix(&self.prefix)?;
        let Some((first, rest)) = path.split_once('/') else {
            return (path == PAUSE).then_some(ClusterKey::Pause);
        };
        match first {
            WAITING => Some(ClusterKey::Waiting),
            ROUTERS => Some(ClusterKey::Router),
            BIRTHS => None,
            // Under `masters/` stand UUIDs, which no key of a replica set is called by.
            uuid => Some(ClusterKey::OfReplicaSet(uuid, ReplicaSetKey::read(rest)?)),
        }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

impl<'k> ReplicaSetKey<'k> {
    fn read(path: &'k str) -> Option<Self> {
        match path.split_once('/') {
            None => match path {
                LOCK => Some(Self::Lock),
                SWITCHOVER => Some(Self::Switchover),
                PAUSE => Some(Self::Pause),
                _ => None,
            },
            Some((kind, name)) => match kind {
                MEMBERS => Some(Self::Member(name)),
                BALLOTS => Some(Self::Ballot(name)),
                HISTORY => Some(Self::History),
                _ => None,
            },
        }
    }
}

/// The keys of a replica set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplicaSetKeys {
    cluster: ClusterKeys,
    uuid: String,
}

impl ReplicaSetKeys {
    /// The replica set's UUID.
    pub(crate) fn uuid(&self) -> &str {
        &self.uuid
    }

    /// What its keys begin with, without a slash: what people call the replica set by.
    pub(crate) fn base(&self) -> String {
        self.cluster.at(&self.uuid)
    }

    /// The lock.
    pub(crate) fn lock(&self) -> String {
        let elsewhere = self.cluster.lock_key.clone();
        elsewhere.unwrap_or_else(|| self.own_lock())
    }

    /// Where the lock is unless `CONSUL_LOCK_KEY` says otherwise.
    pub(crate) fn own_lock(&self) -> String {
        self.at(LOCK)
    }

    /// What the members' keys begin with, with its slash.
    pub(crate) fn members(&self) -> String {
        self.at(&format!("{MEMBERS}/"))
    }

    /// What the agent of the instance with this UUID says.
    pub(crate) fn member(&self, instance: &str) -> String {
        self.at(&format!("{MEMBERS}/{instance}"))
    }

    /// What the ballots' keys begin with, with its slash.
    pub(crate) fn ballots(&self) -> String {
        self.at(&format!("{BALLOTS}/"))
    }

    /// The ballot of the instance with this UUID.
    pub(crate) fn ballot(&self, instance: &str) -> String {
        self.at(&format!("{BALLOTS}/{instance}"))
    }

    /// What an operator asks for.
    pub(crate) fn switchover(&self) -> String {
        self.at(SWITCHOVER)
    }

    /// Present: nothing changes hands by itself.
    pub(crate) fn pause(&self) -> String {
        self.at(PAUSE)
    }

    /// The same for the whole cluster.
    pub(crate) fn cluster_pause(&self) -> String {
        self.cluster.pause()
    }

    /// What the history's keys begin with, with its slash.
    pub(crate) fn history(&self) -> String {
        self.at(&format!("{HISTORY}/"))
    }

    /// The change of hands that began this term.
    pub(crate) fn term(&self, term: Term) -> String {
        self.at(&format!("{HISTORY}/{term}"))
    }

    /// What this key is to this replica set; `None`: nothing.
    pub(crate) fn read<'k>(&self, key: &'k str) -> Option<ClusterKey<'k>> {
        self.cluster.read(key).filter(|found| match found {
            ClusterKey::Pause => true,
            ClusterKey::Waiting | ClusterKey::Router => false,
            ClusterKey::OfReplicaSet(uuid, _) => *uuid == self.uuid,
        })
    }

    fn at(&self, path: &str) -> String {
        format!("{}{}/{path}", self.cluster.prefix, self.uuid)
    }
}

/// Whether this can be an instance's UUID, as Tarantool spells it: other names are no member's.
pub(crate) fn is_uuid(name: &str) -> bool {
    let is_fit = |(at, c): (usize, char)| match at {
        8 | 13 | 18 | 23 => c == '-',
        _ => c.is_ascii_hexdigit(),
    };
    name.len() == 36 && name.chars().enumerate().all(is_fit)
}

/// A value as it is written to a key. Structs of strings, numbers and maps with string keys always serialise.
pub(crate) fn json_bytes(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "5f6a";

    fn cluster() -> ClusterKeys {
        ClusterKeys::new("tarsec", "shop", None)
    }

    fn replicaset() -> ReplicaSetKeys {
        cluster().replicaset(UUID)
    }

    #[test]
    fn keys_are_spelled_as_the_protocol_has_them() {
        let (cluster, set) = (cluster(), replicaset());
        for (key, spelled) in [
            (set.lock(), "5f6a/leader"),
            (set.members(), "5f6a/members/"),
            (set.member("a1"), "5f6a/members/a1"),
            (set.ballots(), "5f6a/ballots/"),
            (set.ballot("a1"), "5f6a/ballots/a1"),
            (set.switchover(), "5f6a/switchover"),
            (set.pause(), "5f6a/pause"),
            (set.cluster_pause(), "pause"),
            (set.history(), "5f6a/history/"),
            (set.term(Term::from(7)), "5f6a/history/7"),
            (set.base(), "5f6a"),
            (cluster.pause(), "pause"),
            (cluster.masters(), "masters/"),
            (cluster.master(UUID), "masters/5f6a"),
            (cluster.masters_watched(), "masters/watched"),
            (cluster.router("r1"), "routers/r1"),
            (cluster.waiting("agent"), "waiting/agent"),
            (cluster.birth("storage"), "births/storage"),
        ] {
            assert_eq!(key, format!("tarsec/shop/{spelled}"));
        }
    }

    #[test]
    fn a_lock_elsewhere_is_the_only_key_that_stands_elsewhere() {
        let cluster = ClusterKeys::new("tarsec", "shop", Some("here/it/is"));
        let set = cluster.replicaset(UUID);
        assert_eq!(set.lock(), "here/it/is");
        assert_eq!(set.own_lock(), replicaset().lock());
        assert_eq!(set.members(), replicaset().members());
        assert_eq!(cluster.lock_elsewhere(), Some("here/it/is"));
    }

    #[test]
    fn what_was_spelled_is_read_again() {
        use ReplicaSetKey::{Ballot, History, Lock, Member, Pause, Switchover};
        let (cluster, set) = (cluster(), replicaset());
        for (key, kind) in [
            (set.lock(), Lock),
            (set.member("a1"), Member("a1")),
            (set.ballot("a1"), Ballot("a1")),
            (set.switchover(), Switchover),
            (set.pause(), Pause),
            (set.term(Term::from(7)), History),
        ] {
            let known = Some(ClusterKey::OfReplicaSet(UUID, kind));
            assert_eq!(cluster.read(&key), known);
            assert_eq!(set.read(&key), known);
            assert_eq!(cluster.replicaset("other").read(&key), None);
        }
        let pause = cluster.pause();
        assert_eq!(cluster.read(&pause), Some(ClusterKey::Pause));
        assert_eq!(set.read(&pause), Some(ClusterKey::Pause));
        let waiting = cluster.waiting("agent");
        assert_eq!(cluster.read(&waiting), Some(ClusterKey::Waiting));
        assert_eq!(set.read(&waiting), None);
        let router = cluster.router("r1");
        assert_eq!(cluster.read(&router), Some(ClusterKey::Router));
        assert_eq!(cluster.master_of(&cluster.master(UUID)), Some(UUID));
        assert_eq!(cluster.master_of(&cluster.masters_watched()), None);
    }

    #[test]
    fn other_keys_are_nobodys() {
        let cluster = cluster();
        for path in [
            "",
            "x",
            "leader",
            "5f6a/",
            "5f6a/leader/",
            "5f6a/members",
            "5f6a/x",
            "5f6a/x/y",
            "masters/5f6a",
            "births/storage",
        ] {
            assert_eq!(cluster.read(&format!("tarsec/shop/{path}")), None, "{path}");
        }
        assert_eq!(cluster.read("tarsec/shopping/pause"), None);
        assert_eq!(cluster.master_of("tarsec/shop/mastersx/5f6a"), None);
        assert_eq!(cluster.master_of("tarsec/shop/masters"), None);
    }
}
