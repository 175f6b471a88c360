//! What the guard says of its instance. The guard is ours, so its reply has the core's own shape.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::declared::Declared;
use super::term::Term;
use super::timing::{InstanceTime, Tick};
use super::vclock::{Vclock, rows_missing};
use super::vshard::Look;

/// Everything one word from the guard tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The instance's clock when it answered.
    pub now: InstanceTime,
    /// Instance UUID.
    pub uuid: String,
    /// Replica-set UUID.
    pub replicaset_uuid: String,
    /// `box.info.ro`: whether writes are refused now.
    pub ro: bool,
    /// Why, where Tarantool says (2.10 and later).
    #[serde(default)]
    pub ro_reason: Option<String>,
    /// `box.cfg.read_only`: what it was told to be.
    pub read_only: bool,
    /// `box.info.status`.
    pub status: String,
    /// `box.info.vclock` without component 0.
    #[serde(default)]
    pub vclock: Vclock,
    /// `box.info.id`: its own component of the vclock.
    #[serde(default)]
    pub id: u64,
    /// Its peers, itself among them.
    #[serde(default)]
    pub replication: Vec<Peer>,
    /// Where others are by its own configuration, without logins and without what its agent put there: `host:port`, or
    /// `unix/:` and a path.
    #[serde(default)]
    pub configured: Vec<String>,
    /// `box.cfg.election_mode` (2.6 and later).
    #[serde(default)]
    pub election_mode: Option<String>,
    /// Its process id, in its own PID namespace.
    pub pid: u32,
    /// That namespace, as `/proc/self/ns/pid` names it.
    #[serde(default)]
    pub pid_namespace: Option<String>,
    /// The machine's boot id: a PID namespace's name is unique within one boot only.
    #[serde(default)]
    pub boot_id: Option<String>,
    /// Tarantool's version.
    #[serde(default)]
    pub version: String,
    /// How many members must have a synchronous row before its client is told that it is safe, as its configuration has it; 0:
    /// it has no synchronous spaces. `None`: an older guard, which does not say.
    #[serde(default)]
    pub quorum: Option<u64>,
    /// What Tarantool 3's declarative configuration says of it, where there is one.
    #[serde(default)]
    pub declared: Option<Declared>,
    /// `box.info.name` (3.0 and later), where it was given one.
    #[serde(default)]
    pub name: Option<String>,
    /// What it says of vshard, where it has that.
    #[serde(default)]
    pub vshard: Option<Look>,
    /// The guard's own state.
    pub guard: GuardState,
}

/// One row of `box.info.replication`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its component of the vclock.
    #[serde(default)]
    pub id: u64,
    /// Instance UUID.
    pub uuid: String,
    /// How we follow it; `None` for ourselves and for those we do not follow.
    #[serde(default)]
    pub upstream: Option<Upstream>,
    /// How it follows us.
    #[serde(default)]
    pub downstream_status: Option<String>,
    /// How far it has confirmed our rows.
    #[serde(default)]
    pub downstream_vclock: Option<Vclock>,
}

/// `box.info.replication[n].upstream`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Upstream {
    /// `follow`, `disconnected`, `stopped`, …
    pub status: String,
    /// Its URI, without the password.
    #[serde(default)]
    pub peer: Option<String>,
    /// Seconds between a row's birth there and its arrival here.
    #[serde(default)]
    pub lag_s: Option<f64>,
    /// Seconds since it was last heard.
    #[serde(default)]
    pub idle_s: Option<f64>,
    /// Why it is not followed.
    #[serde(default)]
    pub message: Option<String>,
    /// That is because it refuses the login.
    #[serde(default)]
    pub locked_out: bool,
}

/// The guard inside the instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardState {
    /// The session that an agent of this instance last created to take the lock.
    #[serde(default)]
    pub session: Option<String>,
    /// The highest term it has seen.
    pub term: Term,
    /// Until when it lets the instance be writable.
    pub deadline: InstanceTime,
    /// The clock of that, and of its promises.
    #[serde(default)]
    pub clock: GuardClock,
    /// Promoted and not fenced since.
    pub leased: bool,
    /// Read-only, and the barrier behind its last commits has passed.
    pub landed: bool,
    /// A promotion works inside, and may still make it writable.
    #[serde(default)]
    pub promoting: bool,
    /// There is a space that a barrier can be written to.
    #[serde(default)]
    pub barrier: bool,
    /// Why the barrier cannot be written now, before it reaches the WAL. Then the guard does not know when the last
    /// commits have landed; none while a barrier is under way, which may hang.
    #[serde(default)]
    pub barrier_failure: Option<String>,
    /// The master it was told to follow (`REPLICATION=follow`).
    #[serde(default)]
    pub follows: Option<String>,
    /// How often the guard itself made the instance read-only.
    #[serde(default)]
    pub fences: u64,
    /// How often somebody made it writable without a lease.
    #[serde(default)]
    pub unleased: u64,
    /// Why it last fenced.
    #[serde(default)]
    pub last_fence: Option<String>,
    /// How long ago it last turned read-only by that; `None`: never under a guard of this process.
    #[serde(default)]
    pub fenced_ago_ns: Option<u64>,
    /// For how long it has been writable, by the promotion whose lease runs.
    #[serde(default)]
    pub writable_ago_ns: Option<u64>,
    /// The promise that runs, if one does (R6).
    #[serde(default)]
    pub promise: Option<Promise>,
    /// How long it has been there: it knows of no promise that an earlier process of the instance made.
    #[serde(default)]
    pub age_ns: u64,
    /// It stands down for a pause: nothing in there fences the instance, whatever becomes of its lease.
    #[serde(default)]
    pub stood_down: bool,
    /// The instance's vclock in the moment of its first promotion in its term.
    #[serde(default)]
    pub base: Option<Vclock>,
}

/// Which clock a guard reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardClock {
    /// `CLOCK_BOOTTIME`: it goes on while the machine is suspended.
    Boottime,
    /// `CLOCK_MONOTONIC`: it stands still meanwhile. So does the clock of a guard that does not say which it reads.
    #[default]
    Monotonic,
}

/// Not to be promoted for a while, for another instance is master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// Instance UUID of that master.
    pub to: String,
    /// Its term.
    pub term: Term,
    /// How long the promise still ran when the guard answered.
    pub left_ns: u64,
}

impl Probe {
    /// What its guard has promised whoever else is master (R6).
    #[must_use]
    pub fn promise_to_another(&self) -> Option<&Promise> {
        let promise = self.guard.promise.as_ref();
        promise.filter(|promise| promise.to != self.uuid)
    }

    /// Read-only for certain: refused now, meant to be, no lease, and no commit still in flight.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        let guard = &self.guard;
        let landed = sound!(guard.landed; CommitsKeepNoLock => true);
        self.ro && self.read_only && !guard.leased && !guard.promoting && landed
    }

    /// Read-only for new writes, with a barrier under way behind its last commits: a disk that hangs. An instance
    /// whose barrier comes back unwritten does not hang.
    #[must_use]
    pub fn is_landing(&self) -> bool {
        let under_way = self.guard.barrier && self.guard.barrier_failure.is_none();
        self.ro && !self.guard.leased && under_way && !self.guard.landed
    }

    /// Writable under a lease of `term`.
    #[must_use]
    pub fn is_master(&self, term: Term) -> bool {
        !self.ro && self.guard.leased && self.guard.term == term
    }

    /// Whether it runs with `replication_anon`: it has all rows, no component in a vclock, and no place in `_cluster`.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.id == 0 && self.status == "running"
    }

    /// That member, as this instance sees it.
    #[must_use]
    pub fn peer(&self, uuid: &str) -> Option<&Peer> {
        self.replication.iter().find(|peer| peer.uuid == uuid)
    }

    /// How this instance replicates from that one, if it is to.
    #[must_use]
    pub fn upstream(&self, uuid: &str) -> Option<&Upstream> {
        self.peer(uuid)?.upstream.as_ref()
    }

    /// How far that peer has confirmed our rows, while it follows us.
    #[must_use]
    pub fn confirmed_by(&self, instance: &str) -> Option<&Vclock> {
        let peer = self.peer(instance)?;
        peer.downstream_vclock
            .as_ref()
            .filter(|_| peer.downstream_status.as_deref() == Some("follow"))
    }

    /// Whether some replica that is connected has every row that this instance wrote itself.
    #[must_use]
    pub fn has_caught_up_replica(&self) -> bool {
        let own = self.id.to_string();
        let written = self.vclock.get(&own).copied().unwrap_or(0);
        self.replication
            .iter()
            .filter(|peer| peer.uuid != self.uuid)
            .any(|peer| {
                peer.downstream_status.as_deref() == Some("follow")
                    && peer
                        .downstream_vclock
                        .as_ref()
                        .is_some_and(|seen| seen.get(&own).copied().unwrap_or(0) >= written)
            })
    }

    /// Who replicates from this instance, by instance UUID.
    #[must_use]
    pub fn followers(&self) -> Vec<String> {
        let peers = self.replication.iter().filter(|peer| {
            peer.uuid != self.uuid && peer.downstream_status.as_deref() == Some("follow")
        });
        peers.map(|peer| peer.uuid.clone()).collect()
    }

    /// Those whose rows this instance receives. The words are those of `enum applier_state` in Tarantool's
    /// `src/box/applier.h`.
    pub fn followed(&self) -> impl Iterator<Item = &Peer> {
        self.replication.iter().filter(|peer| {
            let status = peer.upstream.as_ref().map(|upstream| &*upstream.status);
            peer.uuid != self.uuid && matches!(status, Some("follow" | "sync"))
        })
    }

    /// Those whose rows this instance refuses for good: written by an ex-master that did not know of a promotion of the
    /// synchronous queue (`ER_SPLIT_BRAIN` in Tarantool's `src/box/errcode.h`, from 2.11 on).
    pub fn split_off(&self) -> impl Iterator<Item = &Peer> {
        self.replication.iter().filter(|peer| {
            let upstream = peer.upstream.as_ref().filter(|it| it.status == "stopped");
            let words = upstream.and_then(|upstream| upstream.message.as_deref());
            words.is_some_and(|words| words.starts_with("Split-Brain discovered"))
        })
    }

    /// Whether this instance receives that one's rows.
    #[must_use]
    pub fn follows(&self, uuid: &str) -> bool {
        self.followed().any(|peer| peer.uuid == uuid)
    }

    /// Whether this instance is to replicate from that one and is refused there, or has not come so far that it would say
    /// anything about it: a login that is refused at the first connection shows nowhere.
    #[must_use]
    pub fn may_be_locked_out_by(&self, uuid: &str) -> bool {
        self.upstream(uuid)
            .is_none_or(|upstream| upstream.locked_out)
    }

    /// Whether this instance lacks rows of that vclock.
    #[must_use]
    pub fn lacks_rows_of(&self, vclock: &Vclock) -> bool {
        rows_missing(vclock, &self.vclock) > 0
    }

    /// Whether this instance is to replicate from that one and does not reach it. The words are those of `enum
    /// applier_state` in Tarantool's `src/box/applier.h`.
    #[must_use]
    pub fn misses(&self, uuid: &str) -> bool {
        let status = self.upstream(uuid).map(|upstream| &*upstream.status);
        matches!(status, Some("disconnected" | "connect"))
    }

    /// Whether anyone replicates from this instance at all.
    #[must_use]
    pub fn has_replica(&self) -> bool {
        self.replication.iter().any(|peer| {
            peer.uuid != self.uuid && peer.downstream_status.as_deref() == Some("follow")
        })
    }
}

/// When an instance heard one of its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Heard {
    /// The last row or heartbeat came then.
    pub at: Tick,
    /// It was last seen following then.
    pub followed_at: Option<Tick>,
}

impl Heard {
    /// What `known` becomes with one more word from the guard, which came in at `now`.
    pub(crate) fn after(
        known: &BTreeMap<String, Self>,
        probe: &Probe,
        now: Tick,
    ) -> BTreeMap<String, Self> {
        let peers = probe.replication.iter().filter_map(|peer| {
            let before = known.get(&peer.uuid);
            let Some(upstream) = &peer.upstream else {
                return before.map(|before| (peer.uuid.clone(), *before));
            };
            let idle = upstream
                .idle_s
                .and_then(|s| Duration::try_from_secs_f64(s).ok());
            let at = idle.map(|idle| now.before(idle));
            let at = at.max(before.map(|before| before.at))?;
            let follows = (upstream.status == "follow").then_some(now);
            let followed_at = follows.or(before.and_then(|before| before.followed_at));
            Some((peer.uuid.clone(), Self { at, followed_at }))
        });
        peers.collect()
    }
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
