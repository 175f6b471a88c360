//! What is said of vshard: by an instance, by the central configuration, and by the masters' keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::board;
use super::sight::ConsulFault;
use super::term::Term;

/// What the instance says of vshard.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Look {
    /// It is a configured storage.
    pub storage: bool,
    /// vshard's version, as far as it says.
    #[serde(default)]
    pub version: Option<String>,
    /// Its routers, by name.
    #[serde(default)]
    pub routers: Vec<Routes>,
    /// What came of the last configuration that we applied.
    #[serde(default)]
    pub last: Option<Report>,
    /// Somebody else configured it since.
    #[serde(default)]
    pub foreign: bool,
    /// Its own configuration calls it master.
    #[serde(default)]
    pub flagged: bool,
    /// vshard finds its replica set's master by itself.
    #[serde(default)]
    pub auto: bool,
    /// The central configuration, as this instance took it.
    #[serde(default)]
    pub config: Option<Central>,
    /// Of the configuration; independent of the order of its maps, of masters and of passwords.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// Somebody whom the central configuration names refuses the login that is in it.
    #[serde(default)]
    pub locked_out: bool,
    /// Tarantool 3's name of the instance.
    #[serde(default)]
    pub instance_name: Option<String>,
    /// Tarantool 3's name of the replica set.
    #[serde(default)]
    pub replicaset_name: Option<String>,
}

/// One router's routes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Routes {
    /// `_static_router`, or what the application called it.
    pub name: String,
    /// Replica set → instance; empty: it knows of no master.
    #[serde(default)]
    pub masters: BTreeMap<String, String>,
    /// Replica sets whose master it is not connected to.
    #[serde(default)]
    pub unreachable: Vec<String>,
    /// Buckets that it knows the place of.
    #[serde(default)]
    pub known_buckets: Option<u64>,
    /// All there are.
    #[serde(default)]
    pub buckets: Option<u64>,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Which.
    #[serde(default)]
    pub sequence: u64,
    /// The storage was configured anew.
    #[serde(default)]
    pub storage: bool,
    /// So many routers were.
    #[serde(default)]
    pub routers: u64,
    /// How long that took.
    #[serde(default)]
    pub took_ms: u64,
    /// Why it failed.
    #[serde(default)]
    pub failed: Option<String>,
    /// vshard's code for that.
    #[serde(default)]
    pub code: Option<u64>,
    /// What could not be done, in words.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Replica sets whose master a router cannot reach, and was therefore not told of yet.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// The central configuration does not name this instance.
    #[serde(default)]
    pub absent: bool,
}

impl Report {
    /// Whether another `cfg` call was under way.
    #[must_use]
    pub fn was_busy(&self) -> bool {
        matches!(self.code, Some(37 | 38))
    }
}

/// The central configuration, as an instance took it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Central {
    /// The key's `ModifyIndex`.
    #[serde(default)]
    pub index: u64,
    /// Why it was not taken over.
    #[serde(default)]
    pub refused: Option<String>,
    /// `master_weight` of this instance.
    #[serde(default)]
    pub weight: Option<f64>,
    /// `switchover_delay` of this instance.
    #[serde(default)]
    pub delay_s: Option<f64>,
    /// `master_weight` of each member of its replica set that has one, by what the configuration calls it.
    #[serde(default)]
    pub weights: BTreeMap<String, f64>,
}

impl Central {
    /// The master's priority as this configuration has it; what the master's agent wrote may rest on the one before.
    pub(crate) fn priority_of(&self, master: &Master) -> i64 {
        let by_name = || self.weights.get(master.instance_name.as_ref()?);
        let weight = self.weights.get(&master.instance).or_else(by_name);
        match weight {
            Some(weight) if master.priority >= 0 => as_priority(*weight),
            Some(_) | None => master.priority,
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "a weight beyond i64 is as good as the greatest one"
)]
pub(crate) fn as_priority(weight: f64) -> i64 {
    weight as i64
}

/// `masters/<replica-set UUID>`: who is master, written once by whoever begins to serve. One watch on the prefix shows an
/// agent all masters of a cluster, and is not woken by each refresh of a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Master {
    /// The version of this layout.
    pub v: u64,
    /// In which it serves.
    pub term: Term,
    /// Instance UUID.
    pub instance: String,
    /// Replica-set UUID.
    pub replicaset: String,
    /// What operators know it by.
    pub name: String,
    /// Its priority, for whoever is preferred to it.
    #[serde(default)]
    pub priority: i64,
    /// Tarantool 3's name of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_name: Option<String>,
    /// Tarantool 3's name of the replica set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicaset_name: Option<String>,
}

impl Master {
    /// Of a key that holds no master: nobody, in no term, to be written over by whoever serves.
    #[must_use]
    pub fn nobody(replicaset: &str) -> Self {
        Self {
            v: board::VERSION,
            term: Term::NONE,
            instance: String::new(),
            replicaset: replicaset.to_owned(),
            name: String::new(),
            priority: 0,
            instance_name: None,
            replicaset_name: None,
        }
    }

    /// Whether the key named somebody.
    #[must_use]
    pub fn is_somebody(&self) -> bool {
        !self.instance.is_empty()
    }
}

/// By replica-set UUID: the key's `ModifyIndex`, and what stands there.
pub type Masters = BTreeMap<String, (u64, Master)>;

/// What an instance's configuration is to say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Wanted {
    /// By replica-set UUID.
    pub masters: BTreeMap<String, Named>,
    /// The central configuration's `ModifyIndex`, where there is one.
    pub config: Option<u64>,
}

/// A master by all its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Instance UUID.
    pub instance: String,
    /// Tarantool 3's name of the instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_name: Option<String>,
    /// Tarantool 3's name of the replica set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicaset_name: Option<String>,
}

impl From<&Master> for Named {
    fn from(master: &Master) -> Self {
        Self {
            instance: master.instance.clone(),
            instance_name: master.instance_name.clone(),
            replicaset_name: master.replicaset_name.clone(),
        }
    }
}

/// Something happened to vshard, or to what it follows.
#[derive(Debug, Clone, PartialEq)]
pub enum VshardEvent {
    /// The masters' keys were read.
    MastersSeen {
        /// All of them.
        masters: Masters,
    },
    /// The central configuration's key was read.
    ConfigSeen {
        /// Its `ModifyIndex`; `None`: there is no such key.
        index: Option<u64>,
    },
    /// There is another password for the users of the central configuration.
    LoginChanged,
    /// The instance was told what its configuration is to say.
    Applied {
        /// Which time.
        sequence: u64,
        /// Whether it is still at it, and what it says of vshard; or why there is no answer.
        result: Result<(bool, Box<Option<Look>>), String>,
    },
    /// Our key among the masters was written.
    MasterWritten {
        /// `Ok(None)`: somebody had changed it; `Ok(Some(index))`: its new `ModifyIndex`.
        result: Result<Option<u64>, ConsulFault>,
    },
    /// The instance is a router and no storage.
    RouterFound,
}

/// Something to do about vshard.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "vshard")]
pub enum VshardAction {
    /// Tell the instance what its configuration is to say.
    Apply {
        /// Tells its report from others.
        sequence: u64,
        /// What.
        wanted: Wanted,
    },
    /// Write our key among the masters.
    WriteMaster {
        /// Its `ModifyIndex` as last seen; 0: there is no such key.
        index: u64,
        /// What.
        master: Master,
    },
}
