//! The first start of a replica set by Tarantool 3's configuration where `replication.bootstrap_strategy` is `supervised` or
//! `native`: nobody is born before somebody names the leader.
//!
//! Two leaders would be two replica sets, each with a lock of its own, so one key in Consul decides, and only once. An
//! agent creates it for its own instance; whose instance it names is born first, and when the replica set is there the key
//! has its UUID. From then on nobody is named any more: an instance with an empty disk joins. The key is not bound to a
//! session, for an instance that was named may be born at any later moment.

use serde::{Deserialize, Serialize};

/// `births/<replica set's name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BirthKey {
    /// The version of this layout.
    pub v: u64,
    /// The name of the instance on which the replica set is born.
    pub instance: String,
    /// The replica set's UUID, once it is born.
    #[serde(default)]
    pub replicaset: Option<String>,
    /// Wall-clock milliseconds since the epoch when this was written, for people.
    #[serde(default)]
    pub written_ms: u64,
}

/// How far an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// It recovers, joins, or must not be born first.
    Loading,
    /// Its disk is empty, and it waits for the leader to be named.
    Unborn,
    /// The replica set is born here, nobody has joined, and there is no guard. The configuration's users, the agent's among
    /// them, come with its first writable moment.
    Closed,
    /// It is a member.
    Born {
        /// Of the replica set with this UUID.
        replicaset: String,
    },
}

/// What is to be done at the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Nothing.
    None,
    /// Name it the leader, unless it finds another.
    Lead,
    /// Make it writable, if it is not, while it is [`Sight::Closed`]: its replica set has no other member that could be
    /// master. Without a guard it is read-only again soon: see `tarantool/console.rs`.
    Open,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing, for now.
    Wait,
    /// Create the key for this instance.
    Claim,
    /// Carry that out at the instance.
    Do(Order),
    /// Another instance was named.
    LeaveTo(String),
    /// Write the replica set's UUID into the key.
    Record {
        /// That one.
        replicaset: String,
    },
    /// All is said and done.
    End,
}

/// What to do, with an instance of this name that is so far, and what Consul says; `None`: there is no key for certain.
#[must_use]
pub fn next(sight: &Sight, key: Option<&BirthKey>, own: &str) -> Step {
    match (sight, key) {
        (Sight::Loading, _) => Step::Wait,
        (Sight::Born { replicaset }, None) => Step::Record {
            replicaset: replicaset.clone(),
        },
        (Sight::Born { replicaset }, Some(key)) if key.replicaset.is_none() => Step::Record {
            replicaset: replicaset.clone(),
        },
        (Sight::Born { .. }, Some(_)) => Step::End,
        (Sight::Unborn | Sight::Closed, None) => Step::Claim,
        // It joins, or had others that left.
        (Sight::Unborn, Some(key)) if key.replicaset.is_some() => Step::Wait,
        (Sight::Closed, Some(key)) if key.replicaset.is_some() => Step::End,
        (Sight::Unborn | Sight::Closed, Some(key)) if key.instance != own => {
            Step::LeaveTo(key.instance.clone())
        }
        (Sight::Unborn, Some(_)) => Step::Do(Order::Lead),
        (Sight::Closed, Some(_)) => Step::Do(Order::Open),
    }
}

#[cfg(test)]
mod tests {
    use super::{BirthKey, Order, Sight, Step, next};

    fn key(instance: &str, born: bool) -> BirthKey {
        BirthKey {
            v: 1,
            instance: instance.to_owned(),
            replicaset: born.then(|| "uuid".to_owned()),
            written_ms: 0,
        }
    }

    /// Of several agents that see the same key at most one names its instance, and none once a replica set was born.
    #[test]
    fn one_instance_is_named_and_none_once_the_replica_set_is_born() {
        let (mine, others) = (key("a0", false), key("a1", false));
        let (born, born_elsewhere) = (key("a0", true), key("a1", true));
        let replicaset = "uuid".to_owned();
        let member = Sight::Born {
            replicaset: replicaset.clone(),
        };
        for (sight, key, step) in [
            (Sight::Unborn, None, Step::Claim),
            (Sight::Unborn, Some(&mine), Step::Do(Order::Lead)),
            (Sight::Unborn, Some(&others), Step::LeaveTo("a1".to_owned())),
            // Its disk was lost since.
            (Sight::Unborn, Some(&born), Step::Wait),
            (Sight::Unborn, Some(&born_elsewhere), Step::Wait),
            (Sight::Closed, None, Step::Claim),
            (Sight::Closed, Some(&mine), Step::Do(Order::Open)),
            (Sight::Closed, Some(&others), Step::LeaveTo("a1".to_owned())),
            (Sight::Closed, Some(&born), Step::End),
            (Sight::Loading, Some(&mine), Step::Wait),
            (
                member.clone(),
                None,
                Step::Record {
                    replicaset: replicaset.clone(),
                },
            ),
            (member.clone(), Some(&others), Step::Record { replicaset }),
            (member, Some(&born), Step::End),
        ] {
            assert_eq!(next(&sight, key, "a0"), step, "{sight:?} {key:?}");
        }
    }
}
