//! What an operator wants to know of a cluster, and what it says of itself.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::decide::board::{
    HistoryLine, Party, Pause, Returned, ServiceRef, Switchover, WaitingKey,
};
use crate::decide::ending::{How, Known, Outage};
use crate::decide::ids::SessionId;
use crate::decide::lag::Arrival;
use crate::decide::record::{Cause, Record};
use crate::decide::router::RouterKey;
use crate::decide::term::Term;

/// The version of `--json`. Fields may be added under the same one.
pub(crate) const JSON_VERSION: u64 = 1;

/// A cluster at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ClusterView {
    /// [`JSON_VERSION`].
    pub(crate) v: u64,
    /// `CLUSTER_NAME`.
    pub(crate) cluster: String,
    /// Wall-clock seconds since the epoch when it was read.
    pub(crate) at: u64,
    /// The same in milliseconds.
    pub(crate) at_ms: u64,
    /// Of the replica set that is worst off; of a cluster without any, `no_master`.
    pub(crate) verdict: Verdict,
    /// Of the whole cluster.
    pub(crate) pause: Option<Pause>,
    /// What is not as it should be between replica sets and routers, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
    /// By UUID.
    pub(crate) replicasets: Vec<SetView>,
    /// vshard's, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) routers: Vec<RouterKey>,
    /// Agents that have not seen their instances yet, so they are of no replica set; by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) waiting: Vec<WaitingKey>,
}

/// Whether an operator has to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// There is a master, and nothing is wrong.
    Well,
    /// There is a master, and something is not as it should be.
    Unwell,
    /// There is no master of which anybody can be sure.
    NoMaster,
}

/// A replica set at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct SetView {
    pub(crate) replicaset: String,
    /// Whether an operator has to look.
    pub(crate) verdict: Verdict,
    /// Whether it has a master.
    pub(crate) state: SetState,
    /// What is not as it should be, in words.
    pub(crate) notes: Vec<String>,
    /// The agent that holds the lock, or held it last, by its instance.
    pub(crate) holder: Option<Party>,
    /// The record's term.
    pub(crate) term: Option<Term>,
    /// Wall-clock seconds since the epoch when the term began.
    pub(crate) since: Option<u64>,
    /// The same in milliseconds.
    pub(crate) since_ms: Option<u64>,
    /// Why the lock changed hands, for programs.
    pub(crate) cause: Option<Cause>,
    /// Why the lock changed hands, in words.
    pub(crate) reason: Option<String>,
    /// How the last master's time ended, in a word; `None`: the history does not say.
    pub(crate) ended: Option<How>,
    /// The operator who wished it, where one did.
    pub(crate) by: Option<String>,
    /// For how long nothing could be written before the term.
    pub(crate) outage: Option<Outage>,
    /// What the holder's hold rests on; `None` where nobody holds the lock.
    pub(crate) lease: Option<LeaseView>,
    /// The holder may go on without Consul while every member promises.
    pub(crate) failsafe: bool,
    /// The holder's guard stands down for a pause.
    pub(crate) paused: bool,
    /// The pause in force: the replica set's own, or the cluster's.
    pub(crate) pause: Option<Pause>,
    /// The operator's last order and what became of it.
    pub(crate) switchover: Option<Switchover>,
    /// The master first, then by name.
    pub(crate) members: Vec<MemberView>,
    /// Changes of hands that may have cost rows, the newest first.
    pub(crate) rows_at_risk: Vec<RowsAtRisk>,
    /// For orders: the lock key as it was found.
    #[serde(skip)]
    pub(crate) lock: LockSight,
    /// For orders: the index of the switchover key; 0: there is none.
    #[serde(skip)]
    pub(crate) switchover_index: u64,
    /// For orders: the replica set has a pause of its own.
    #[serde(skip)]
    pub(crate) own_pause: bool,
    /// The newest first.
    #[serde(skip)]
    pub(crate) history: Vec<HistoryLine>,
    /// What else stands there and is not shown.
    #[serde(skip)]
    pub(crate) history_left_out: usize,
}

/// Whether there is a master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SetState {
    /// The lock is held, and its holder is active.
    Master,
    /// The same, but the holder has not refreshed the lock for longer than it should.
    Silent,
    /// The lock is held, and its holder is not writable yet.
    Promoting,
    /// The lock is free, or held for an instance that is read-only.
    None,
    /// What stands in the lock key is no record of this version.
    Unreadable,
}

/// The lock key as it was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct LockSight {
    pub(crate) key: String,
    /// 0: there is no such key.
    pub(crate) index: u64,
    /// The session that holds it.
    pub(crate) session: Option<SessionId>,
    /// The record in it, where that can be read.
    pub(crate) record: Option<Record>,
}

/// What a hold rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct LeaseView {
    /// The longest lease that may rest on the record.
    pub(crate) lease_ms: u64,
    /// How long the lock has been looked at; 0: just once.
    pub(crate) watched_ms: u64,
    /// Since it was last seen to be refreshed; `None`: not while it was looked at.
    pub(crate) refreshed_ms_ago: Option<u64>,
    /// At most so much of the lease is left; `None`: unknown.
    pub(crate) left_ms: Option<u64>,
}

/// What was seen of a lock while it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sign {
    /// Since the first look.
    pub(crate) watched: Duration,
    /// Since it was last seen to change.
    pub(crate) changed_ago: Option<Duration>,
}

/// By the lock's key.
pub(crate) type Signs = BTreeMap<String, Sign>;

/// A member at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct MemberView {
    /// Instance UUID.
    pub(crate) instance: String,
    /// The name by which operators know it; the UUID where nothing else is known.
    pub(crate) name: String,
    /// Where it accepts iproto connections; empty where no agent has said.
    pub(crate) uri: String,
    /// Its role, as the lock has it.
    pub(crate) role: MemberRole,
    /// As its agent wrote it; `unknown` where no agent did.
    pub(crate) health: String,
    /// Its agent's words.
    pub(crate) reason: String,
    /// Its process is proven dead.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) dead: bool,
    /// The highest term that it knows of.
    pub(crate) term: Term,
    /// Rows that the holder had at its last word before the member's agent wrote this, and that the member lacked when it was
    /// looked at after that word; `None`: unknown.
    pub(crate) behind_rows: Option<u64>,
    /// For how long it has lacked rows, or how late the last ones came; where they do not arrive, for how long.
    pub(crate) behind_ms: Option<u64>,
    /// Whether the holder's rows arrive, as of the same moment.
    pub(crate) arrival: Option<Arrival>,
    /// Whether it replicates from the holder, as the holder has it.
    pub(crate) following: Option<bool>,
    /// Why it does not run in the election that is on.
    pub(crate) excluded: Option<String>,
    /// Its `PRIORITY`.
    pub(crate) priority: Option<i64>,
    /// Wall-clock seconds since the epoch when its agent last wrote.
    pub(crate) written: Option<u64>,
    /// The same in milliseconds.
    pub(crate) written_ms: Option<u64>,
    /// The master does not know it, and its agent is gone or looks after another instance: all that is left is its key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) left: bool,
    /// Its agent does not act because of a pause.
    pub(crate) paused: bool,
    /// Its agent's word that its guard may stand down for a pause.
    #[serde(skip)]
    pub(crate) stands_down: bool,
    /// Whether its agent lives; `None`: unknown, or nobody looked.
    pub(crate) agent: Option<AgentState>,
    /// The service by which that is seen.
    #[serde(skip)]
    pub(crate) service: Option<ServiceRef>,
    /// The fingerprint of its vshard configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    /// What is not as it should be about vshard, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vshard: Option<String>,
    pub(crate) tarantool_version: String,
    pub(crate) tarsec_version: String,
}

/// What the lock makes of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MemberRole {
    /// It holds the lock and is active.
    Master,
    /// It holds the lock and is not writable yet.
    Promoting,
    /// It held the lock last.
    Former,
    /// None of these.
    Replica,
    /// The same, and the others do not know it: it never becomes master.
    Anonymous,
}

/// What is known of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AgentState {
    /// It was heard of within its check's TTL.
    Alive,
    /// It was not.
    Silent,
    /// Nor is the Consul agent that it speaks with.
    MachineSilent,
    /// It was stopped, or was silent for so long that Consul took it out of the catalog.
    Unregistered,
}

/// Rows that a change of hands may have cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RowsAtRisk {
    /// The term that began.
    pub(crate) term: Term,
    /// Wall-clock seconds since the epoch.
    pub(crate) at: u64,
    /// The same in milliseconds.
    pub(crate) at_ms: u64,
    /// Who was master before.
    pub(crate) from: Option<Party>,
    /// Rows of the one before that its successor lacked, by its last word.
    pub(crate) rows: u64,
    /// Whether that word was its very last (`exact`), or it may have written since (`at_least`).
    pub(crate) known: Option<Known>,
    /// How many rows it may have written since, by its rate.
    pub(crate) estimate_rows: Option<u64>,
    /// What it brought back.
    pub(crate) returned: Option<Returned>,
    /// The one before is master again itself: it came back without these rows.
    pub(crate) same_master: bool,
}

/// Of the replica set that is worst off; of none, that there is no master.
pub(super) fn worst(sets: &[SetView]) -> Verdict {
    let verdicts = sets.iter().map(|set| set.verdict);
    verdicts.max().unwrap_or(Verdict::NoMaster)
}

impl ClusterView {
    pub(super) fn judge(&mut self) {
        self.verdict = worst(&self.replicasets);
        if !self.notes.is_empty() || !self.waiting.is_empty() {
            self.verdict = self.verdict.max(Verdict::Unwell);
        }
    }

    /// The same with one replica set alone.
    pub(crate) fn only(mut self, replicaset: &str) -> Self {
        self.replicasets.retain(|set| set.replicaset == replicaset);
        self.routers.clear();
        self.waiting.clear();
        self.notes.clear();
        self.verdict = worst(&self.replicasets);
        self
    }

    /// The replica set of this UUID.
    pub(crate) fn set(&self, replicaset: &str) -> Option<&SetView> {
        let mut sets = self.replicasets.iter();
        sets.find(|set| set.replicaset == replicaset)
    }
}

/// How long a holder may take to refresh its lock, which it does every quarter of its lease, before that is strange.
pub(crate) fn patience(lease: Duration) -> Duration {
    lease / 4 + lease / 8 + Duration::from_millis(500)
}

impl SetView {
    /// One of which nothing is known but its UUID.
    pub(super) fn empty(uuid: &str) -> Self {
        Self {
            replicaset: uuid.to_owned(),
            verdict: Verdict::Well,
            state: SetState::None,
            notes: Vec::new(),
            holder: None,
            term: None,
            since: None,
            since_ms: None,
            cause: None,
            reason: None,
            ended: None,
            by: None,
            outage: None,
            lease: None,
            failsafe: false,
            paused: false,
            pause: None,
            switchover: None,
            members: Vec::new(),
            rows_at_risk: Vec::new(),
            lock: LockSight::default(),
            switchover_index: 0,
            own_pause: false,
            history: Vec::new(),
            history_left_out: 0,
        }
    }

    /// The longest lease that may run, if anybody holds the lock.
    pub(crate) fn lease(&self) -> Option<Duration> {
        let held = self.lease?;
        Some(Duration::from_millis(held.lease_ms))
    }

    /// For how long the holder has been silent at least; zero where it was seen, or nobody looked.
    pub(crate) fn silent_for(&self) -> Duration {
        let lease = self.lease.unwrap_or(LeaseView {
            lease_ms: 0,
            watched_ms: 0,
            refreshed_ms_ago: None,
            left_ms: None,
        });
        Duration::from_millis(lease.refreshed_ms_ago.unwrap_or(lease.watched_ms))
    }

    /// No lease can run any more, whichever agent has it. It is no word about a failsafe or a pause.
    pub(crate) fn is_over(&self) -> bool {
        self.lease().is_some_and(|lease| {
            self.silent_for() > lease + lease / 50 + Duration::from_millis(250)
        })
    }

    /// The holder, where its own agent has proof that its process is dead.
    pub(super) fn dead_master(&self) -> Option<&MemberView> {
        let mut members = self.members.iter();
        members.find(|member| member.role == MemberRole::Master && member.dead)
    }

    /// Whether a master that serves does not have this replica among its members.
    pub(super) fn is_unnamed(&self, member: &MemberView) -> bool {
        let record = self.lock.record.as_ref();
        let named = |record: &Record| record.members.contains(&member.instance);
        matches!(self.state, SetState::Master | SetState::Silent)
            && member.role == MemberRole::Replica
            && record.is_some_and(|record| !record.members.is_empty() && !named(record))
    }

    pub(super) fn judge(&self) -> Verdict {
        let bounded = !self.failsafe && !self.paused;
        match self.state {
            SetState::None | SetState::Promoting | SetState::Unreadable => Verdict::NoMaster,
            // Outside a pause its lock is given up at once.
            SetState::Master | SetState::Silent if self.dead_master().is_some() => {
                Verdict::NoMaster
            }
            SetState::Silent if self.is_over() && bounded => Verdict::NoMaster,
            SetState::Silent => Verdict::Unwell,
            SetState::Master if self.notes.is_empty() && self.pause.is_none() => Verdict::Well,
            SetState::Master => Verdict::Unwell,
        }
    }
}

impl MemberView {
    /// Its agent lives, as far as anybody can tell.
    pub(super) fn is_looked_after(&self) -> bool {
        self.agent.is_none_or(|agent| agent == AgentState::Alive)
    }
}
