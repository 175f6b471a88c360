//! What to do, and why. The executor is left no meaningful choice.

mod reason;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::event::GuardCommandKind;
use crate::words::addresses::Whereabouts;
use crate::words::board::{Ballot, HistoryLine, Member, Party, Switchover};
use crate::words::ids::SessionId;
use crate::words::record::Record;
use crate::words::term::Term;
use crate::words::timing::{InstanceTime, Reading, Tick};
use crate::words::vclock::Vclock;
use crate::words::vshard::VshardAction;

pub use reason::Reason;

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
        attempt: Box<Attempt>,
    },
    /// Write a newer record.
    Refresh {
        /// With this.
        session: SessionId,
        /// As last seen.
        index: u64,
        /// To be written.
        attempt: Box<Attempt>,
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
        attempt: Box<Attempt>,
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

/// A record sent to Consul.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// What was sent.
    pub record: Record,
    /// The reading it rests on.
    pub reading: Reading,
    /// It begins a hold, rather than lengthening one.
    pub gain: Option<Gain>,
}

/// What is new about a hold that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Gain {
    /// How long after it promotion has to wait for whoever was master before (R3).
    pub wait: Option<Duration>,
}
