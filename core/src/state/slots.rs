//! What is under way outside: at most one call in each place, and no next one before its time.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::event::GuardCommandKind;
use crate::plan::Action;
use crate::words::timing::Tick;

/// Where a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The guard, for all but what has a place of its own: what hangs there must not keep a fence from it.
    Guard,
    /// The guard, for a fence.
    Fence,
    /// The instance's replication.
    Replication,
    /// The instance's process.
    Process,
    /// Our session.
    Session,
    /// The lock key.
    Lock,
    /// Consul's catalog.
    Catalog,
    /// Our member key.
    Member,
    /// The board as a whole.
    Board,
    /// The ballots.
    Ballot,
    /// The switchover key.
    Switchover,
    /// The history.
    History,
    /// The other members' guards (R6).
    Promises,
}

/// One place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Slot {
    /// A call is under way.
    is_busy: bool,
    /// It, or the last one, was begun then.
    begun_at: Tick,
    /// The next one is made no earlier than then.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<Tick>,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Slots {
    #[serde(flatten)]
    slots: BTreeMap<Place, Slot>,
    /// What the guard is asked in its own place.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<GuardCommandKind>,
}

impl Slots {
    /// Whether a call is under way.
    #[must_use]
    pub fn is_busy(&self, place: Place) -> bool {
        self.slot(place).is_busy
    }

    /// When the call that is under way was begun, or else the last one.
    #[must_use]
    pub fn begun_at(&self, place: Place) -> Tick {
        self.slot(place).begun_at
    }

    /// No call before then.
    #[must_use]
    pub fn retry_at(&self, place: Place) -> Option<Tick> {
        self.slot(place).retry_at
    }

    /// The command that the guard has not answered yet, other than a fence or a change of replication.
    #[must_use]
    pub fn command(&self) -> Option<GuardCommandKind> {
        self.command
    }

    fn slot(&self, place: Place) -> Slot {
        self.slots.get(&place).copied().unwrap_or_default()
    }

    pub(crate) fn begins(&mut self, action: &Action, now: Tick) {
        let Some(place) = action.place() else { return };
        let slot = self.slots.entry(place).or_default();
        slot.is_busy = true;
        slot.begun_at = now;
        if place == Place::Guard {
            self.command = action.guard_command_kind();
        }
    }

    /// Frees the place and says when the call was begun that is over now.
    pub(crate) fn ends(&mut self, place: Place) -> Tick {
        let slot = self.slots.entry(place).or_default();
        slot.is_busy = false;
        if place == Place::Guard {
            self.command = None;
        }
        slot.begun_at
    }

    /// `None`: the next call is made as soon as there is a reason.
    pub(crate) fn retries(&mut self, place: Place, at: Option<Tick>) {
        self.slots.entry(place).or_default().retry_at = at;
    }
}

impl Action {
    /// `None`: it ends the agent, or goes to vshard, which keeps its own accounts.
    pub(crate) fn place(&self) -> Option<Place> {
        Some(match self {
            Self::Guard(command) => command.kind().place(),
            Self::Kill => Place::Process,
            Self::CreateSession | Self::RenewSession { .. } | Self::DestroySession { .. } => {
                Place::Session
            }
            Self::ReadLock
            | Self::Acquire { .. }
            | Self::TakeOver { .. }
            | Self::Refresh { .. }
            | Self::Release { .. } => Place::Lock,
            Self::Tell { .. } | Self::Deregister => Place::Catalog,
            Self::ReadBoard => Place::Board,
            Self::WriteMember { .. } => Place::Member,
            Self::WriteBallot { .. } | Self::ReadBallots { .. } => Place::Ballot,
            Self::WriteSwitchover { .. } => Place::Switchover,
            Self::ReadHistory | Self::WriteHistory { .. } => Place::History,
            Self::AskPromises { .. } => Place::Promises,
            Self::Vshard(_) | Self::Exit { .. } => return None,
        })
    }
}

impl GuardCommandKind {
    /// Where its answer frees.
    pub(crate) fn place(self) -> Place {
        match self {
            Self::Fence => Place::Fence,
            Self::Follow => Place::Replication,
            Self::Probe
            | Self::Remember
            | Self::Promote
            | Self::Grant
            | Self::Observe
            | Self::StandDown => Place::Guard,
        }
    }
}
