//! What stands in Consul, as an operator wants to know it. Pure: the same keys give the same view.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::agents::AgentState;
use super::notes;
use super::past::{RowsAtRisk, rows_at_risk};
use super::role;
pub(crate) use super::role::MemberRole;
use super::sorted::Sorted;
pub(crate) use super::sorted::Space;
use crate::consul::Found;
use crate::decide::board::{
    Ballot, Cause, HistoryLine, Member, Party, Pause, ServiceRef, Switchover, WaitingKey, moment_ms,
};
use crate::decide::ending::{How, Outage};
use crate::decide::ids::SessionId;
use crate::decide::lag::{Arrival, Behind};
use crate::decide::problems;
use crate::decide::record::{Record, RecordError, Status};
use crate::decide::router::RouterKey;

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
    pub(crate) term: Option<u64>,
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
    pub(crate) term: u64,
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

/// All that stands under the cluster's prefix, and its lock keys wherever they are.
pub(crate) fn cluster(space: &Space, found: &[Found], signs: &Signs, at_ms: u64) -> ClusterView {
    let sorted = Sorted::of(space, found);
    let sets: Vec<SetView> = sorted
        .sets
        .iter()
        .map(|(uuid, keys)| {
            let lock = lock(keys.lock, &keys.lock_key);
            let sign = signs.get(&keys.lock_key).copied().unwrap_or_default();
            let own_pause = keys.pause.is_some();
            let pause = keys.pause.clone().or_else(|| sorted.pause.clone());
            Set {
                lock,
                sign,
                members: &keys.members,
                ballots: &keys.ballots,
            }
            .view(SetView {
                pause,
                own_pause,
                switchover_index: keys.switchover_index,
                switchover: keys.switchover.clone(),
                rows_at_risk: rows_at_risk(&keys.history),
                history: keys.history.clone(),
                ..SetView::empty(uuid)
            })
        })
        .collect();
    let mut view = ClusterView {
        v: JSON_VERSION,
        cluster: space.cluster.clone(),
        at: at_ms / 1000,
        at_ms,
        verdict: worst(&sets),
        pause: sorted.pause,
        notes: Vec::new(),
        replicasets: sets,
        routers: sorted.routers,
        waiting: sorted.waiting,
    };
    view.notes = notes::about_vshard(&view);
    view.judge();
    view
}

fn worst(sets: &[SetView]) -> Verdict {
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

type Lock = (LockSight, Option<RecordError>);

fn lock(found: Option<&Found>, key: &str) -> Lock {
    let mut sight = LockSight {
        key: key.to_owned(),
        ..LockSight::default()
    };
    let Some(found) = found else {
        return (sight, None);
    };
    sight.index = found.modify_index;
    sight.session.clone_from(&found.session);
    match Record::parse(&found.value) {
        Ok(record) => {
            sight.record = Some(record);
            (sight, None)
        }
        Err(error) => (sight, Some(error)),
    }
}

impl SetView {
    fn empty(uuid: &str) -> Self {
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

/// What its agent says of how far behind this holder it is.
fn behind_holder<'a>(record: &Record, member: &'a Member) -> Option<&'a Behind> {
    let behind = member.behind.as_ref();
    behind.filter(|behind| behind.of == record.instance)
}

/// Its health as the catalog shows it but for a pause.
fn health(member: &Member) -> &str {
    match member.cut_off {
        Some(_) => "critical",
        None => &member.health,
    }
}

/// What a view of a replica set is made of.
struct Set<'a> {
    lock: Lock,
    sign: Sign,
    members: &'a BTreeMap<String, Option<Member>>,
    ballots: &'a BTreeMap<String, Ballot>,
}

impl Set<'_> {
    fn view(self, mut view: SetView) -> SetView {
        let (sight, error) = &self.lock;
        if let Some(record) = &sight.record {
            view.holder = Some(Party {
                instance: record.instance.clone(),
                name: record.name.clone(),
            });
            view.term = Some(record.term);
            view.since = Some(record.since);
            view.since_ms = Some(record.began_ms());
            view.cause = Some(record.cause);
            view.reason = Some(record.reason.clone());
            if let Some(line) = view.history.iter().find(|line| line.term == record.term) {
                view.ended = line.ended;
                view.by.clone_from(&line.by);
                view.outage = line.outage;
            }
            view.failsafe = record.failsafe;
            view.paused = record.paused;
            view.lease = sight.session.as_ref().map(|_| self.lease(record));
        }
        view.state = self.state(&view);
        view.members = self.member_views();
        view.lock = sight.clone();
        let mut view = view.told_apart();
        let members = self.members.values().flatten();
        let problems = problems::of(members, sight.record.as_ref());
        view.notes = notes::of(&view, error.as_ref(), problems);
        view.verdict = view.judge();
        view
    }

    fn lease(&self, record: &Record) -> LeaseView {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let refreshed_ms_ago = self.sign.changed_ago.map(ms);
        LeaseView {
            lease_ms: record.lease_ms,
            watched_ms: ms(self.sign.watched),
            refreshed_ms_ago,
            left_ms: refreshed_ms_ago.map(|ago| record.lease_ms.saturating_sub(ago)),
        }
    }

    fn state(&self, view: &SetView) -> SetState {
        let (sight, error) = &self.lock;
        match (&sight.record, &sight.session) {
            (None, _) if error.is_some() => SetState::Unreadable,
            (None, _) | (Some(_), None) => SetState::None,
            (Some(record), Some(_)) => match record.status {
                Status::Active if view.silent_for() > patience(record.lease()) => SetState::Silent,
                Status::Active => SetState::Master,
                Status::Promoting => SetState::Promoting,
                Status::Fenced => SetState::None,
            },
        }
    }

    fn member_views(&self) -> Vec<MemberView> {
        let record = self.lock.0.record.as_ref();
        let named = record
            .into_iter()
            .flat_map(|record| record.members.iter().chain([&record.instance]));
        let mut all: BTreeMap<&str, Option<&Member>> =
            named.map(|uuid| (uuid.as_str(), None)).collect();
        for (uuid, member) in self.members {
            all.insert(uuid, member.as_ref());
        }
        let mut views: Vec<MemberView> = all
            .into_iter()
            .map(|(uuid, member)| self.member(uuid, member))
            .collect();
        views.sort_by(|one, two| {
            let key = |view: &MemberView| (view.role, view.name.clone(), view.instance.clone());
            key(one).cmp(&key(two))
        });
        views
    }

    fn member(&self, uuid: &str, member: Option<&Member>) -> MemberView {
        let record = self.lock.0.record.as_ref();
        let role = role::of(&self.lock.0, uuid, member);
        let is_holder = record.is_some_and(|record| record.instance == uuid);
        let holder_name = record.filter(|_| is_holder).map(|record| &record.name);
        let name = member.map(|member| &member.name).or(holder_name);
        let others = record.filter(|_| !is_holder);
        let behind = others.zip(member);
        let behind = behind.and_then(|(record, member)| behind_holder(record, member));
        MemberView {
            instance: uuid.to_owned(),
            name: name.map_or(uuid, String::as_str).to_owned(),
            uri: member.map_or("", |member| &member.uri).to_owned(),
            role,
            health: member.map_or("unknown", health).to_owned(),
            reason: member.map_or("", |member| &member.reason).to_owned(),
            dead: member.is_some_and(|member| member.dead),
            term: member.map_or(0, |member| member.term),
            behind_rows: behind.map(|behind| behind.rows),
            behind_ms: behind.map(|behind| behind.ms),
            arrival: behind.map(|behind| behind.arrival),
            following: others.and_then(|record| match member {
                Some(member) if member.anonymous => role::follows(member, record),
                _ => self.following(record, uuid),
            }),
            excluded: self.excluded(uuid),
            priority: member.map(|member| member.priority),
            written: member.map(|member| member.written),
            written_ms: member.map(|member| moment_ms(member.written_ms, member.written)),
            left: false,
            paused: member.is_some_and(|member| member.paused),
            stands_down: member.is_some_and(|member| member.stands_down),
            agent: None,
            service: member.and_then(|member| member.service.clone()),
            fingerprint: member.and_then(|member| member.fingerprint.clone()),
            vshard: member.and_then(|member| member.vshard.clone()),
            tarantool_version: member.map_or("", |m| &m.tarantool_version).to_owned(),
            tarsec_version: member.map_or("", |m| &m.tarsec_version).to_owned(),
        }
    }

    /// The holder's word is renewed with every refresh; a member's own would stand there when it is long gone.
    fn following(&self, record: &Record, uuid: &str) -> Option<bool> {
        self.lock.0.session.as_ref()?;
        Some(record.following.iter().any(|known| known == uuid))
    }

    /// Ballots of other elections do not count; any change of the lock key ends one.
    fn excluded(&self, uuid: &str) -> Option<String> {
        let ballot = self.ballots.get(uuid)?;
        let is_on = ballot.index == self.lock.0.index;
        ballot.excluded.clone().filter(|_| is_on)
    }
}
