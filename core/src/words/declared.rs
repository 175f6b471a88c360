//! What Tarantool 3's declarative configuration says of an instance, as far as it matters to who is master.

use serde::{Deserialize, Serialize};

/// An instance's part of the cluster's configuration; there is none where `box.cfg{}` was called by hand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// `replication.failover`.
    pub failover: String,
    /// Its replica set's name, once the instance has been told.
    #[serde(default)]
    pub replicaset: Option<String>,
    /// `isolated`.
    #[serde(default)]
    pub isolated: bool,
    /// `failover.replicasets.<name>.synchro_mode`.
    #[serde(default)]
    pub synchro_mode: bool,
    /// `failover.replicasets.<name>.priority.<instance>`, rounded down.
    #[serde(default)]
    pub priority: Option<i64>,
    /// It is among `failover.replicasets.<name>.learners`.
    #[serde(default)]
    pub learner: bool,
}

impl Declared {
    /// Where the configuration speaks of the replica set's failover.
    pub(crate) fn section(&self) -> String {
        let name = self.replicaset.as_deref();
        format!("failover.replicasets.{}", name.unwrap_or("<name>"))
    }
}

/// Why `read_only` is not ours to decide in an instance with these settings, and what to change, if it is not. Where the
/// configuration is declarative that is a line of it: `box.cfg` follows from it.
#[must_use]
pub fn own_rule(election_mode: Option<&str>, declared: Option<&Declared>) -> Option<String> {
    let besides = match declared.map(|declared| &*declared.failover) {
        None | Some("supervised") => return own_elections(election_mode?, declared),
        Some("manual") => ", take `leader` out of the replica set",
        Some("off") => ", take `database.mode` out where it stands",
        Some("election") => ", take `replication.election_mode` out where it stands",
        Some(_) => "",
    };
    Some(format!(
        "replication.failover is '{}' in the instance's configuration, so Tarantool decides who is writable; change that \
         line to `failover: supervised`{besides}, and reload the configuration",
        declared.map_or("", |declared| &declared.failover)
    ))
}

fn own_elections(mode: &str, declared: Option<&Declared>) -> Option<String> {
    if !matches!(mode, "candidate" | "manual") {
        return None;
    }
    let what = format!(
        "so election_mode is '{mode}' and Tarantool's own elections decide who is writable"
    );
    Some(match declared.filter(|declared| declared.synchro_mode) {
        Some(declared) => format!(
            "{}.synchro_mode is true in the instance's configuration, {what}; change that line to `synchro_mode: \
             false`, and reload the configuration",
            declared.section()
        ),
        None => format!(
            "box.cfg.election_mode is '{mode}', so Tarantool's own elections decide who is writable; set it to 'off' or 'voter'"
        ),
    })
}
