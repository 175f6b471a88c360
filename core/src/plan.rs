//! What to do, and why. The executor is left no meaningful choice.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::addresses::Whereabouts;
use super::board::{Ballot, HistoryLine, Member, Party, Switchover};
use super::event::GuardCommandKind;
use super::ids::SessionId;
use super::record::{Record, Vclock};
use super::state::Reading;
use super::term::Term;
use super::timing::{InstanceTime, Tick};
use super::vshard::VshardAction;

/// What to do now, why, and when to look again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// To be started in this order; each ends in an event.
    pub actions: Vec<Action>,
    /// Why these, or why none.
    pub reason: Reason,
    /// When to decide again if nothing happens before.
    pub wake_at: Option<Tick>,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Action {
    /// Tell the guard something.
    Guard(GuardCommand),
    /// End the instance's process (R5), unless its guard says at the last moment that it is read-only.
    Kill,
    /// Create a session.
    CreateSession,
    /// Renew it.
    RenewSession {
        /// Which.
        session: SessionId,
    },
    /// Remove it.
    DestroySession {
        /// Which.
        session: SessionId,
    },
    /// Read the lock key, consistently.
    ReadLock,
    /// Read members, ballots and an operator's orders.
    ReadBoard,
    /// Write our ballot.
    WriteBallot {
        /// What.
        ballot: Box<Ballot>,
    },
    /// Read the ballots when they have changed since `after`, or when `wait` is over.
    ReadBallots {
        /// The index that the last answer gave; 0: at once.
        after: u64,
        /// At most that long.
        wait: Duration,
    },
    /// Write down what became of a switchover, if nobody has changed the key since.
    WriteSwitchover {
        /// The key's `ModifyIndex` as last seen.
        index: u64,
        /// What.
        switchover: Box<Switchover>,
        /// To whom the master begins to hand over with it.
        to: Option<Party>,
    },
    /// Read the history.
    ReadHistory,
    /// Write a line of history, and remove the one that is one too many.
    WriteHistory {
        /// What.
        line: Box<HistoryLine>,
        /// The term's master is none any more.
        over: bool,
    },
    /// Ask the guards of these members to promise our instance another lease (R6).
    AskPromises {
        /// In which we serve.
        term: Term,
        /// Our instance UUID.
        instance: String,
        /// How long each promise is to last, on the member's clock.
        lasting: Duration,
        /// Instance UUID → where its guard is asked, or why it is not.
        members: BTreeMap<String, Whereabouts>,
        /// The reading that the lease will rest on, taken before.
        reading: Reading,
        /// R3: no record says who was master. Each is to say besides that it knows nobody else, that its last commits have
        /// landed, and that it has no row which this vclock, ours, lacks.
        for_all: Option<Vclock>,
    },
    /// Take the lock.
    Acquire {
        /// With this.
        session: SessionId,
        /// As last seen; `None`: there is no key.
        index: Option<u64>,
        /// To be written.
        attempt: Box<super::state::Attempt>,
    },
    /// Write a newer record.
    Refresh {
        /// With this.
        session: SessionId,
        /// As last seen.
        index: u64,
        /// To be written.
        attempt: Box<super::state::Attempt>,
    },
    /// Take the lock from a holder that has not been heard of for a lease (R4).
    TakeOver {
        /// With this.
        session: SessionId,
        /// The holder's, as last seen.
        holder: SessionId,
        /// As last seen.
        index: u64,
        /// To be written.
        attempt: Box<super::state::Attempt>,
    },
    /// Give the lock up.
    Release {
        /// With this.
        session: SessionId,
        /// As last seen.
        index: u64,
        /// The last word.
        record: Box<Record>,
    },
    /// Tell the catalog.
    Tell {
        /// What.
        entry: CatalogEntry,
        /// Register anew, rather than update the check.
        register: bool,
    },
    /// Remove the service.
    Deregister,
    /// Write the member key.
    WriteMember {
        /// What.
        member: Box<Member>,
    },
    /// Something about vshard.
    Vshard(VshardAction),
    /// End the agent.
    Exit {
        /// How.
        how: Ending,
    },
}

impl Action {
    /// `None`: not for the guard.
    #[must_use]
    pub fn guard_command_kind(&self) -> Option<GuardCommandKind> {
        if let Self::Guard(command) = self {
            Some(command.kind())
        } else {
            None
        }
    }
}

/// What the guard is told, with what it needs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "tell")]
pub enum GuardCommand {
    /// Say everything.
    Probe,
    /// Write our session down.
    Remember {
        /// Which.
        session: SessionId,
    },
    /// Make the instance writable until `deadline`.
    Promote {
        /// For this term.
        term: Term,
        /// On the instance's clock.
        deadline: InstanceTime,
        /// The reading that the deadline rests on.
        reading: Reading,
        /// What the guard needs to know of the term before (R6).
        before: Before,
    },
    /// Let it stay writable until `deadline`.
    Grant {
        /// For this term.
        term: Term,
        /// On the instance's clock.
        deadline: InstanceTime,
        /// The reading that the deadline rests on.
        reading: Reading,
    },
    /// Make it read-only and let its commits land.
    Fence {
        /// For the instance's log.
        why: String,
    },
    /// There is a higher term.
    Observe {
        /// Which.
        term: Term,
    },
    /// Replicate from this master alone, or from nobody.
    Follow {
        /// `host:port`; `None`: nobody.
        uri: Option<String>,
        /// It is pointed there, maybe with a password of yesterday.
        again: bool,
    },
    /// Stand down for a pause, or stand up again.
    StandDown {
        /// Whether down or up.
        down: bool,
    },
}

impl GuardCommand {
    /// Which command it is.
    #[must_use]
    pub fn kind(&self) -> GuardCommandKind {
        match self {
            Self::Probe => GuardCommandKind::Probe,
            Self::Remember { .. } => GuardCommandKind::Remember,
            Self::Promote { .. } => GuardCommandKind::Promote,
            Self::Grant { .. } => GuardCommandKind::Grant,
            Self::Fence { .. } => GuardCommandKind::Fence,
            Self::Observe { .. } => GuardCommandKind::Observe,
            Self::StandDown { .. } => GuardCommandKind::StandDown,
            Self::Follow { .. } => GuardCommandKind::Follow,
        }
    }
}

/// What a promotion says of the term before it, for the promises that its guard may have made (R6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Before {
    /// Promises to holders of terms up to this one are void: their record says `fenced`.
    pub fenced_term: Term,
    /// The guard must have been there for so long, for it forgets its promises when the instance restarts; zero where
    /// no promise to another can be running.
    pub guard_age: Duration,
}

/// How the agent ends by its own decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Asked to, and done.
    Stopped,
    /// Another agent owns the guard.
    Superseded,
    /// Waiting cannot mend the instance.
    Unsuitable,
}

/// The service as the catalog is to show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CatalogEntry {
    /// What does not change without a new registration.
    pub registered: Registered,
    /// The check's status.
    pub health: Health,
    /// The check's words.
    pub output: String,
}

/// The part of an entry that needs a new registration when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Registered {
    /// In the catalog's eyes.
    pub role: Role,
    /// Instance UUID.
    pub instance: String,
    /// Replica-set UUID.
    pub replicaset: String,
    /// The highest term known.
    pub term: Term,
    /// Tarantool's version.
    pub version: String,
    /// Without a word for that long, Consul calls the service critical.
    pub ttl: Duration,
}

/// The role in the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Writable under a lease.
    Master,
    /// Anything else that stores.
    Replica,
    /// A vshard router.
    Router,
}

impl Role {
    /// As it is written to Consul.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Replica => "replica",
            Self::Router => "router",
        }
    }
}

/// The status of the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Use it.
    Passing,
    /// Use it, and look.
    Warning,
    /// Do not use it.
    Critical,
}

impl Health {
    /// As Consul names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Why a plan is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Reason {
    /// No word from the instance yet.
    WaitingForInstance {
        /// What is known.
        why: String,
    },
    /// No word from Consul yet.
    WaitingForConsul {
        /// What is known.
        why: String,
    },
    /// Writable, lease running.
    Serving,
    /// Holding the lock, about to be writable.
    Promoting,
    /// Holding the lock while the one before may still be writable (R3).
    WaitingForPredecessor {
        /// Until then.
        until: Tick,
    },
    /// The lock is free, its last holder may still be writable or come back (R3).
    WaitingForPredecessorLease {
        /// Until then.
        until: Tick,
    },
    /// A step at the lock was refused, or its reply was lost: the lock is read again.
    LookingAgain,
    /// Running for a free lock.
    RunningForLock,
    /// Somebody who holds the lock has not been heard of for a lease: taking it over (R4).
    TakingOver {
        /// From whom.
        name: String,
    },
    /// The lock is up for grabs, and others have still to say how far they are.
    WaitingForBallots {
        /// At most until then.
        until: Tick,
    },
    /// The lock is up for grabs, and acknowledged synchronous rows may be missing here (R7, `SYNC_LOSS=refuse`).
    WaitingForRows {
        /// Whose votes or rows are missing.
        why: String,
    },
    /// Holding the lock, and the guard has refused for a lease to make the instance writable.
    NotPromoted,
    /// The lock is up for grabs, and somebody else goes first.
    HoldingBack {
        /// Who.
        first: String,
        /// At most until then.
        until: Tick,
    },
    /// The last change of hands is too recent for another one (`FAILOVER_COOLDOWN`).
    CoolingDown {
        /// Until then.
        until: Tick,
    },
    /// The lock is up for grabs, and operators want nothing to change hands.
    Paused {
        /// Who, and why.
        by: String,
    },
    /// The lock is free and we may not have it.
    NotACandidate {
        /// Why.
        why: String,
    },
    /// Somebody else is master.
    FollowingMaster {
        /// Who.
        name: String,
    },
    /// Somebody holds the lock without a record that we can read.
    LockHeldByUnknown {
        /// What is there.
        why: String,
    },
    /// The lock key is not ours to judge.
    UnknownRecordVersion {
        /// What is there.
        why: String,
    },
    /// Our instance is dead: the lock is given up.
    InstanceDied {
        /// How we know.
        proof: String,
    },
    /// The instance does not answer; its lease runs until then.
    WaitingForSilentInstance {
        /// Until then.
        until: Tick,
    },
    /// It did not answer and its lease is over (R5).
    KillingHungInstance,
    /// It did not answer, its lease is over, and it cannot be or is not to be killed.
    HungInstanceLeftAlone {
        /// Why.
        why: String,
    },
    /// Writable without right to it.
    Fencing {
        /// Why.
        why: String,
    },
    /// Giving the lock up.
    Releasing {
        /// Why.
        why: String,
    },
    /// The lock was lost; the lease still runs and the lock is being taken again.
    TakingLockAgain,
    /// Consul cannot be written; the lease runs until then at the latest.
    ServingWithoutConsul {
        /// Until then.
        until: Tick,
        /// Why the members did not promise another one; empty: they have not been asked, or have not answered yet.
        why: String,
    },
    /// Consul cannot be written; every member promised another lease (R6).
    ServingOnPromises {
        /// It runs until then.
        until: Tick,
    },
    /// The guard has promised another master not to be promoted, or may have before its instance restarted (R6).
    WaitingForPromise {
        /// Until then.
        until: Tick,
    },
    /// The first master of a replica set, beside a member that is writable and has no agent.
    WritableWithoutGuard {
        /// Who, and what to do.
        why: String,
    },
    /// An operator wished another master.
    SwitchingOver {
        /// Whom.
        to: String,
    },
    /// Holding the lock while an operator has paused what goes by itself.
    MasterPaused {
        /// By whom and why.
        words: String,
        /// What keeps the instance from serving; it is left as it is.
        lacking: Option<String>,
    },
    /// Asked to stop.
    Stopping {
        /// What is being waited for.
        waiting_for: &'static str,
    },
    /// Another agent owns the guard.
    Superseded {
        /// Who.
        by: String,
    },
    /// Waiting cannot mend the instance.
    InstanceUnsuitable {
        /// What to change.
        why: String,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaitingForInstance { why } => write!(f, "waiting for the instance: {why}"),
            Self::WaitingForConsul { why } => write!(f, "waiting for Consul: {why}"),
            Self::Serving => f.write_str("master: writable, the lease is running"),
            Self::Promoting => f.write_str("holds the lock, is being promoted"),
            Self::WaitingForPredecessor { .. } => f.write_str("holds the lock, waits until the lease of whoever was master before is certainly over"),
            Self::WaitingForPredecessorLease { .. } => f.write_str("the lock is free, waits until the lease of its last holder is certainly over"),
            Self::LookingAgain => f.write_str("looks at the lock again"),
            Self::RunningForLock => f.write_str("runs for the free lock"),
            Self::TakingOver { name } => write!(f, "takes the lock over from {name}, who has not been heard of for a lease"),
            Self::WaitingForBallots { .. } => f.write_str("there is no master, waits for ballots: its own and the other members'"),
            Self::WaitingForRows { why } => write!(
                f,
                "there is no master, waits until no acknowledged synchronous row can be missing here (SYNC_LOSS is refuse): {why}"
            ),
            Self::NotPromoted => f.write_str("holds the lock, its guard does not promote it, and no member with its rows is there to try"),
            Self::HoldingBack { first, .. } => write!(f, "there is no master, lets {first} go first"),
            Self::CoolingDown { .. } => f.write_str(
                "there is no master, waits because the last failover was less than FAILOVER_COOLDOWN ago",
            ),
            Self::Paused { by } => write!(f, "there is no master and nothing is done about it: paused by {by}"),
            Self::NotACandidate { why } => write!(f, "there is no master and this instance cannot be it: {why}"),
            Self::FollowingMaster { name } => write!(f, "replica: the master is {name}"),
            Self::LockHeldByUnknown { why } => write!(f, "somebody holds the lock: {why}"),
            Self::UnknownRecordVersion { why } => write!(f, "does nothing about the lock: {why}"),
            Self::InstanceDied { proof } => write!(f, "the instance died: {proof}"),
            Self::WaitingForSilentInstance { .. } => f.write_str("the instance does not answer, its lease still runs"),
            Self::KillingHungInstance => f.write_str("the instance is not known to be read-only and its lease is over: killing it"),
            Self::HungInstanceLeftAlone { why } => write!(
                f,
                "the instance is not known to be read-only and its lease is over; IT IS NOT KILLED and may acknowledge late writes when it wakes: {why}"
            ),
            Self::Fencing { why } => write!(f, "making the instance read-only: {why}"),
            Self::Releasing { why } => write!(f, "giving the lock up: {why}"),
            Self::TakingLockAgain => f.write_str("lost the lock, its lease still runs: taking the lock again"),
            Self::ServingWithoutConsul { why, .. } => {
                f.write_str("master: writable until its lease ends, which Consul's silence keeps from being refreshed")?;
                if why.is_empty() {
                    return Ok(());
                }
                write!(f, "; not every member promises another lease: {why}")
            }
            Self::ServingOnPromises { .. } => f.write_str(
                "master: Consul cannot be written, writable for as long as every member promises another lease",
            ),
            Self::WaitingForPromise { .. } => f.write_str(
                "waits until every promise is certainly over that keeps another instance master without Consul",
            ),
            Self::WritableWithoutGuard { why } => write!(f, "holds the lock; {why}"),
            Self::SwitchingOver { to } => write!(f, "switches over to {to}"),
            Self::MasterPaused { words, lacking: None } => {
                write!(f, "master, {words}: its guard stands down, nothing fences it")
            }
            Self::MasterPaused { words, lacking: Some(lacking) } => {
                write!(f, "keeps the lock, {words}: {lacking}; IT IS LEFT AS IT IS, nobody takes over")
            }
            Self::Stopping { waiting_for } => write!(f, "stopping: waiting for {waiting_for}"),
            Self::Superseded { by } => write!(f, "another agent ({by}) attached to this instance and owns it now"),
            Self::InstanceUnsuitable { why } => write!(f, "cannot run this instance: {why}"),
        }
    }
}
