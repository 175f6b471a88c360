//! What an agent is told at its start.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::addresses::PeerAddrs;
use super::timing::Timing;

/// The settings that decisions depend on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The lease and what fits into it.
    pub timing: Timing,
    /// `PRIORITY`; negative: never master; `None`: the cluster's configuration may say.
    pub priority: Option<i64>,
    /// `HUNG_INSTANCE_ACTION=kill`.
    pub kill_hung: bool,
    /// `REPLICATION=follow`.
    pub follow: bool,
    /// `ELECTION`.
    pub elector: Elector,
    /// `ELECTION_WINDOW`.
    pub election_window: Duration,
    /// `SYNC_LOSS`.
    pub sync_loss: SyncLoss,
    /// `MAX_LAG_ROWS`; 0: any.
    pub max_lag_rows: u64,
    /// `MAX_IDLE`; zero: any.
    pub max_idle: Duration,
    /// `REPLICA_MAX_IDLE`; zero: any.
    pub replica_max_idle: Duration,
    /// `FAILOVER_COOLDOWN`; zero: none.
    pub failover_cooldown: Duration,
    /// `MEMBER_INTERVAL`.
    pub member_interval: Duration,
    /// `FAILSAFE=on`.
    pub failsafe: bool,
    /// `PEER_ADDRS`.
    pub peer_addrs: PeerAddrs,
    /// Settings that every member of the replica set is to have alike, by variable.
    pub shared: BTreeMap<String, String>,
    /// The name and the address that the record carries.
    pub announce: String,
    /// This run of the agent.
    pub agent: String,
}

/// Who is to have a lock that is up for grabs (`ELECTION`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Elector {
    /// The same vshard configuration as the last master's, was following it, most of its rows, followed, priority, least
    /// idle.
    Smart,
    /// Followed, least idle.
    Idle,
    /// Whoever is first.
    First,
}

/// What is done where nobody can tell whether every acknowledged synchronous row is here (`SYNC_LOSS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncLoss {
    /// Nobody becomes master before that is known.
    Refuse,
    /// A candidate waits for a time, and then goes on.
    Accept,
}
