//! What Tarantool 3's declarative configuration says of an instance, as far as it matters to who is master.

use serde::{Deserialize, Serialize};

use super::Planner;
use super::observed::Probe;
use super::state::{Link, State};

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
    fn section(&self) -> String {
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

impl Probe {
    /// Its configuration cuts it off from everybody: connections are dropped, its own agent's too, as soon as the guard
    /// has told that agent.
    #[must_use]
    pub fn is_isolated(&self) -> bool {
        self.declared
            .as_ref()
            .is_some_and(|declared| declared.isolated)
    }
}

impl State {
    fn declared(&self) -> Option<&Declared> {
        self.instance.probe.as_ref()?.declared.as_ref()
    }

    /// What operators know the instance by: its own name where it has one, else the address that it announces.
    #[must_use]
    pub fn name(&self) -> &str {
        let probe = self.instance.probe.as_ref();
        let own = probe.and_then(|probe| probe.name.as_deref());
        own.unwrap_or(&self.settings.announce)
    }

    /// `PRIORITY`, or what the cluster's configuration says in its place.
    pub(super) fn own_priority(&self) -> i64 {
        let declared = || match self.declared() {
            Some(Declared { learner: true, .. }) => -1,
            Some(declared) => declared.priority.unwrap_or(0),
            None => 0,
        };
        self.settings.priority.unwrap_or_else(declared)
    }

    /// Why this instance never becomes master, if it does not: who says so, and where.
    pub(super) fn never_master(&self) -> Option<String> {
        let own = self.own_priority();
        if sound!(own >= 0; NeverMasterMayBe => true) {
            return None;
        }
        let section = self.declared().map(Declared::section).unwrap_or_default();
        Some(match (self.settings.priority, self.declared()) {
            (None, Some(Declared { learner: true, .. })) => {
                format!("the configuration has it among {section}.learners")
            }
            (None, Some(_)) => format!("its priority in {section}.priority is {own}"),
            (Some(_), _) | (None, None) => format!("PRIORITY is {own}"),
        })
    }
}

impl Planner<'_> {
    /// A failover mode of Tarantool's own would fight us for `read_only`.
    pub(super) fn unsuitable(&self) -> Option<String> {
        if let Link::Unsuitable { why } = &self.state.instance.link {
            return Some(why.clone());
        }
        let probe = self.state.live_probe()?;
        let why = own_rule(probe.election_mode.as_deref(), probe.declared.as_ref())?;
        Some(format!(
            "{why}; until then its guard keeps it read-only, unless it is started again without an agent"
        ))
    }

    /// Nobody can write to an isolated instance, nor replicate from it.
    pub(super) fn isolation(&self) -> Option<String> {
        let probe = self
            .state
            .live_probe()
            .filter(|probe| probe.is_isolated())?;
        let name = probe.name.as_deref().unwrap_or("this instance");
        Some(format!(
            "the configuration isolates it (`isolated: true` at {name})"
        ))
    }
}
