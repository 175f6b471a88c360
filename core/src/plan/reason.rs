//! Why a plan is as it is: the same value feeds the log, the check, the dumps and the tests.

use std::fmt;

use serde::Serialize;

use crate::words::timing::Tick;

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
