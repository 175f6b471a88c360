//! vshard: whose master flags this instance's own configuration is to carry, and when that is seen to.
//!
//! Nothing here is about safety: flags say who is asked, the lease says who answers. The order is kept all the same:
//! promotion first and flags second at the new master, fence first and flags second at the old one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::board::{self, Switchover, SwitchoverState};
use super::event::{ConsulFault, GuardCommandKind};
use super::observed::Probe;
use super::plan::{Action, GuardCommand};
use super::record::Status;
use super::state::State;
use super::term::Term;
use super::timing::Tick;
use super::{Place, Planner};

/// vshard is being configured by somebody else at the moment: codes 37 (storage) and 38 (router).
pub(super) const BUSY_RETRY: Duration = Duration::from_millis(20);
/// After a configuration that vshard did not take.
pub(super) const FAILED_RETRY: Duration = Duration::from_secs(1);
/// Until a master that a router could not reach is looked at again; the look costs a comparison where it still cannot.
pub(super) const LEFT_OUT_RETRY: Duration = Duration::from_millis(500);

/// After a switchover that was asked for because of `master_weight`, until it is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// No `switchover_delay` is longer.
const DELAY_MAX: Duration = Duration::from_secs(86_400);

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
    fn priority_of(&self, master: &Master) -> i64 {
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
fn as_priority(weight: f64) -> i64 {
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

/// What an agent knows of vshard.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Vshard {
    /// `None`: not read yet.
    pub masters: Option<Masters>,
    /// The central configuration's `ModifyIndex`.
    pub config: Option<u64>,
    /// What the instance's configuration says since the last time it was told.
    pub applied: Option<Wanted>,
    /// What it is being told.
    #[serde(skip)]
    pub applying: Option<Wanted>,
    /// How often it was told.
    pub sequence: u64,
    /// A router could not reach a master, and is told of it again.
    pub left_out: Vec<String>,
    /// Why the last try failed.
    pub fault: Option<String>,
    /// Not before then.
    pub retry_at: Option<Tick>,
    /// The same not again before then, whoever configures it again and again.
    pub again_at: Option<Tick>,
    /// What is being written.
    #[serde(skip)]
    pub writing: Option<Master>,
    /// Not before then.
    pub write_retry_at: Option<Tick>,
    /// A switchover to ourselves was asked for then.
    pub asked_at: Option<Tick>,
}

/// Whether an instance is to be told what its configuration is to say.
pub(super) enum Due {
    /// It has been.
    Never,
    /// As soon as that is past.
    At(Option<Tick>),
}

impl Vshard {
    /// What the masters' keys say of that replica set.
    #[must_use]
    pub fn master_of(&self, replicaset: &str) -> Option<&(u64, Master)> {
        self.masters.as_ref()?.get(replicaset)
    }

    /// When the instance is to be told that, if it is.
    pub(super) fn due(&self, look: Option<&Look>, wanted: &Wanted) -> Due {
        let is_stale = look.is_some_and(|look| look.foreign);
        let told = self.applied.as_ref() == Some(wanted);
        if told && !is_stale && self.left_out.is_empty() {
            return Due::Never;
        }
        let again_at = self.again_at.filter(|_| told);
        Due::At(self.retry_at.max(again_at))
    }

    /// Everything that is not as it should be, in words.
    #[must_use]
    pub fn problem(&self, look: Option<&Look>) -> Option<String> {
        let mut words: Vec<String> = Vec::new();
        let refused = look
            .and_then(|look| look.config.as_ref())
            .and_then(|config| config.refused.as_ref());
        words.extend(refused.map(|why| format!("the central configuration is refused: {why}")));
        words.extend(self.fault.clone());
        let report = look.and_then(|look| look.last.as_ref());
        words.extend(report.into_iter().flat_map(|last| last.problems.clone()));
        (!words.is_empty()).then(|| words.join("; "))
    }
}

impl State {
    /// `PRIORITY` or what the configuration says in its place, or the `master_weight` that the central configuration
    /// gives this instance.
    #[must_use]
    pub fn priority(&self) -> i64 {
        let own = self.own_priority();
        let look = self.instance.probe.as_ref().and_then(|p| p.vshard.as_ref());
        let weight = look
            .and_then(|look| look.config.as_ref())
            .and_then(|config| config.weight);
        match weight {
            Some(weight) if own >= 0 => as_priority(weight),
            Some(_) | None => own,
        }
    }
}

impl Planner<'_> {
    /// Whatever is to be done about vshard; nothing where there is none.
    pub(super) fn keep_vshard(&mut self) {
        let state = self.state;
        let Some(probe) = state.live_probe() else {
            return;
        };
        let has_vshard = probe.vshard.is_some() || state.vshard.config.is_some();
        if !has_vshard || state.superseded.is_some() || state.stopping.is_some() {
            return;
        }
        self.write_master(probe);
        self.apply_vshard(probe);
        self.prefer_itself(probe);
    }

    /// The term in which we serve, or are being promoted at this moment: whoever was before is over by then, and what
    /// routers and other storages do with our name takes longer than the promotion.
    fn term_to_name(&self) -> Option<Term> {
        let state = self.state;
        let record = state.hold.record.as_ref().filter(|_| state.holds_lock())?;
        let promotes =
            |action: &Action| matches!(action, Action::Guard(GuardCommand::Promote { .. }));
        let is_promoted = state.pending.command() == Some(GuardCommandKind::Promote)
            || self.actions.iter().any(promotes);
        (state.is_serving() || is_promoted).then_some(record.term)
    }

    /// Once in each term.
    fn write_master(&mut self, probe: &Probe) {
        let vshard = &self.state.vshard;
        let (Some(look), Some(_)) = (&probe.vshard, &vshard.masters) else {
            return;
        };
        let Some(term) = self.term_to_name().filter(|_| look.storage) else {
            return;
        };
        let master = Master {
            v: board::VERSION,
            term,
            instance: probe.uuid.clone(),
            replicaset: probe.replicaset_uuid.clone(),
            name: self.state.name().to_owned(),
            priority: self.state.priority(),
            instance_name: look.instance_name.clone(),
            replicaset_name: look.replicaset_name.clone(),
        };
        let known = vshard.master_of(&probe.replicaset_uuid);
        let index = match known {
            Some((_, known)) if *known == master || known.term > master.term => return,
            Some((index, _)) => *index,
            None => 0,
        };
        if vshard.writing.is_none() && self.is_due(vshard.write_retry_at) {
            self.act(Action::Vshard(VshardAction::WriteMaster { index, master }));
        }
    }

    /// Whoever else is master as the keys say it; we ourselves while we serve, and only then.
    fn wanted(&self, probe: &Probe) -> Option<Wanted> {
        let vshard = &self.state.vshard;
        let mut masters: BTreeMap<String, Named> = vshard
            .masters
            .as_ref()?
            .iter()
            .filter(|(_, (_, master))| master.is_somebody())
            .map(|(replicaset, (_, master))| (replicaset.clone(), Named::from(master)))
            .collect();
        let own = &probe.replicaset_uuid;
        if self.state.is_serving() {
            let look = probe.vshard.clone().unwrap_or_default();
            let named = Named {
                instance: probe.uuid.clone(),
                instance_name: look.instance_name,
                replicaset_name: look.replicaset_name,
            };
            masters.insert(own.clone(), named);
        } else if masters
            .get(own)
            .is_some_and(|named| named.instance == probe.uuid)
        {
            // We are not it any more, or not yet again; flags stay what they are until somebody is.
            masters.remove(own);
        }
        Some(Wanted {
            masters,
            config: vshard.config,
        })
    }

    fn apply_vshard(&mut self, probe: &Probe) {
        let state = self.state;
        let vshard = &state.vshard;
        // Between gaining the lock and serving, and between a fence and the release, the instance has better things to
        // do: vshard may wait for others.
        let between =
            (state.holds_lock() && !state.is_serving()) || state.pending.is_busy(Place::Fence);
        if between || state.hold.handover.is_some() {
            return;
        }
        let Some(wanted) = self.wanted(probe) else {
            return;
        };
        let look = probe.vshard.as_ref();
        let others = wanted.masters.get(&probe.replicaset_uuid);
        let is_other = others.is_some_and(|named| named.instance != probe.uuid);
        if is_other && look.is_some_and(|look| look.flagged) && !state.is_fenced() {
            return;
        }
        match vshard.due(look, &wanted) {
            Due::Never => {}
            Due::At(at) => {
                if vshard.applying.is_none() && self.is_due(at) {
                    let sequence = vshard.sequence + 1;
                    self.act(Action::Vshard(VshardAction::Apply { sequence, wanted }));
                }
            }
        }
    }

    /// `master_weight` and `switchover_delay` of the central configuration: asks for a switchover to itself once it has
    /// been there long enough beside a master that is preferred less.
    fn prefer_itself(&mut self, probe: &Probe) {
        let state = self.state;
        let config = probe.vshard.as_ref().and_then(|look| look.config.as_ref());
        let Some(config) = config.filter(|config| config.weight.is_some()) else {
            return;
        };
        let Some((_, master)) = state.vshard.master_of(&probe.replicaset_uuid) else {
            return;
        };
        let is_active = state.seen_record().is_some_and(|record| {
            record.instance == master.instance && record.status == Status::Active
        });
        let follows = probe.replication.iter().any(|peer| {
            let upstream = peer.upstream.as_ref();
            peer.uuid == master.instance && upstream.is_some_and(|up| up.status == "follow")
        });
        let patience = state.settings.timing.healthcheck_timeout();
        let is_behind =
            config.priority_of(master) >= state.priority() || master.instance == probe.uuid;
        if is_behind || !is_active || !follows || self.unfit(patience).is_some() {
            return;
        }
        let delay = Duration::try_from_secs_f64(config.delay_s.unwrap_or(0.0));
        let delay = delay.unwrap_or(ASK_AGAIN).min(DELAY_MAX);
        let began = state.lock.term_seen.map_or(Tick::default(), |(_, at)| at);
        let mut ready_at = state.instance.attached_at.max(began) + delay;
        if let Some(asked_at) = state.vshard.asked_at {
            ready_at = ready_at.max(asked_at + ASK_AGAIN);
        }
        if ready_at > self.now {
            self.wake(ready_at);
            return;
        }
        let Some((index, order)) = &state.orders.switchover else {
            return;
        };
        let is_open = matches!(
            order.state,
            SwitchoverState::Requested | SwitchoverState::Running
        );
        if !is_open && self.may_call(Place::Switchover) {
            let at_ms = state.wall_ms;
            let switchover = Switchover {
                id: format!("{}-{}-{at_ms}", state.settings.agent, master.term),
                target: Some(probe.uuid.clone()),
                by: "master_weight".to_owned(),
                at: at_ms / 1000,
                at_ms,
                state: SwitchoverState::Requested,
                ..Switchover::nothing()
            };
            self.act(Action::WriteSwitchover {
                index: *index,
                switchover: Box::new(switchover),
                to: None,
            });
        }
    }
}
