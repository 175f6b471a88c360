//! What can happen to an agent. Past tense: adapters report, they never decide.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::words::addresses::Announced;
use crate::words::board::{Ballot, Board, HistoryLine, Switchover};
use crate::words::ids::SessionId;
use crate::words::neighbours::Neighbours;
use crate::words::observed::Probe;
use crate::words::sight::{ConsulFault, LockSight};
use crate::words::term::Term;
use crate::words::timing::{Reading, Tick};
use crate::words::unguarded::Unguarded;
use crate::words::vshard::VshardEvent;

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "a handful exist at a time, each for microseconds"
)]
pub enum Event {
    /// A connection to the instance stands, the guard is installed and we own it.
    Attached {
        /// What it said.
        probe: Box<Probe>,
        /// Whether its process can be seen and killed from here; `Err` says why not.
        process: Result<(), String>,
    },
    /// The connection ended or could not be made, and nothing proves that the process is dead.
    Unreachable {
        /// In words.
        why: String,
    },
    /// A ping has gone unanswered for longer than a liveness interval.
    FellSilent,
    /// A ping was answered after `FellSilent`.
    SpokeAgain,
    /// The instance's process is dead or beyond return.
    Died {
        /// How we know.
        proof: String,
    },
    /// Waiting cannot mend this instance.
    Unsuitable {
        /// What to change.
        why: String,
    },
    /// Another agent attached to our instance after us.
    Superseded {
        /// Its id.
        by: String,
    },
    /// The guard answered a command.
    GuardAnswered {
        /// Which.
        command: GuardCommandKind,
        /// The instance's state afterwards.
        probe: Box<Probe>,
        /// Why the guard would not do it.
        refused: Option<String>,
    },
    /// The guard did not answer a command; it may or may not have been carried out.
    GuardFailed {
        /// Which.
        command: GuardCommandKind,
        /// In words.
        why: String,
    },
    /// The kill was sent, or was not needed, or could not be done.
    KillEnded {
        /// Which of these.
        result: KillResult,
    },
    /// Consul was asked for a session.
    SessionCreated {
        /// The new session, or why there is none.
        result: Result<SessionId, ConsulFault>,
    },
    /// Consul was asked to renew a session: `Ok(false)` means it is gone.
    SessionRenewed {
        /// Which.
        session: SessionId,
        /// Whether it still exists.
        result: Result<bool, ConsulFault>,
    },
    /// A session that is of no use was removed, or will expire by itself.
    SessionDestroyed,
    /// The lock key was read, by watch or by question.
    LockRead {
        /// When the question was sent.
        asked_at: Tick,
        /// Whether the watch asked, or a single read.
        by_watch: bool,
        /// What there is.
        result: Result<LockSight, ConsulFault>,
    },
    /// A step at the lock ended.
    LockStepEnded {
        /// Which.
        step: LockStepKind,
        /// `Ok(Ok(index))`: done. `Ok(Err(why))`: refused, nothing changed. `Err`: nobody knows.
        result: Result<Result<u64, String>, ConsulFault>,
    },
    /// The service was registered, or its check updated, or it was deregistered.
    CatalogEnded {
        /// `Ok(false)`: Consul does not know the service (any more).
        result: Result<bool, ConsulFault>,
    },
    /// The member key was written.
    MemberEnded {
        /// Whether.
        result: Result<(), ConsulFault>,
    },
    /// The board was read because we asked for it.
    BoardRead {
        /// What stands there.
        result: Result<Box<Board>, ConsulFault>,
    },
    /// The board was read beside a refresh.
    BoardSeen {
        /// When it was asked for.
        asked_at: Tick,
        /// What stands there.
        result: Result<Box<Board>, ConsulFault>,
    },
    /// Our ballot was written.
    BallotWritten {
        /// The ballot's `index`.
        index: u64,
        /// All that stand there now, with the index to go on from.
        result: Result<(u64, BTreeMap<String, Ballot>), ConsulFault>,
    },
    /// The ballots were read, after they had changed or the wait was over.
    BallotsRead {
        /// The index to go on from, and the ballots by instance UUID.
        result: Result<(u64, BTreeMap<String, Ballot>), ConsulFault>,
    },
    /// The switchover key was seen by its watch.
    SwitchoverSeen {
        /// The key's `ModifyIndex`.
        index: u64,
        /// What stands there.
        switchover: Switchover,
    },
    /// What became of a switchover was written down.
    SwitchoverWritten {
        /// `Ok(None)`: somebody had changed the key; `Ok(Some(index))`: its new `ModifyIndex`.
        result: Result<Option<u64>, ConsulFault>,
    },
    /// The history was read.
    HistoryRead {
        /// Its lines, in the terms' order.
        result: Result<Vec<HistoryLine>, ConsulFault>,
    },
    /// A line of history was written.
    HistoryWritten {
        /// Its term.
        term: Term,
        /// Whether.
        result: Result<(), ConsulFault>,
    },
    /// The other members' guards were asked for their promises (R6).
    PromisesAnswered {
        /// The reading that was taken before they were asked.
        reading: Reading,
        /// By instance UUID: whether it promised, and if not why.
        answers: BTreeMap<String, Result<(), String>>,
        /// What those without an answer are known to be.
        unguarded: Unguarded,
    },
    /// Others are found under our service's name, or are found there no more.
    NeighboursSeen(Neighbours),
    /// What the members' agents say of them in Consul.
    MembersSeen(BTreeMap<String, Announced>),
    /// Something about vshard.
    Vshard(VshardEvent),
    /// Somebody asked us to stop.
    StopRequested {
        /// The signal's name.
        signal: &'static str,
    },
    /// A timer that the last plan asked for.
    Woke,
    /// This agent did not run at a time at which it was to: it, or the whole machine, had stopped.
    Overslept {
        /// It is known to have run until then.
        ran_until: Tick,
    },
}

impl From<Neighbours> for Event {
    fn from(seen: Neighbours) -> Self {
        Self::NeighboursSeen(seen)
    }
}

impl From<VshardEvent> for Event {
    fn from(event: VshardEvent) -> Self {
        Self::Vshard(event)
    }
}

/// What came of a kill.
#[derive(Debug, Clone, PartialEq)]
pub enum KillResult {
    /// SIGKILL was sent: no code of the process runs any more.
    Killed,
    /// Asked one last time, the guard answered that the instance is read-only: an agent that was itself asleep must
    /// not judge by what it missed.
    Spared(Box<Probe>),
    /// It could not be done, and why.
    Failed(String),
}

/// Which step at the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LockStepKind {
    /// Take a key that does not exist, or a free one.
    Acquire,
    /// Write a newer record.
    Refresh,
    /// Give it up.
    Release,
    /// Take it from a holder that has not been heard of for a lease (R4).
    TakeOver,
}

/// Which command to the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardCommandKind {
    /// Only look.
    Probe,
    /// Write the session down.
    Remember,
    /// Make the instance writable under a lease.
    Promote,
    /// Lengthen the lease.
    Grant,
    /// Make it read-only and let its commits land.
    Fence,
    /// Re-point replication.
    Follow,
    /// Tell it of a higher term.
    Observe,
    /// Let it stand down for a pause, or stand up again.
    StandDown,
}
