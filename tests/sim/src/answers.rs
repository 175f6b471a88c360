//! What an agent hears when an answer never comes, and which actions are whose.

use crate::decide::event::{Event, GuardCommandKind, KillResult, LockStepKind};
use crate::decide::plan::Action;
use crate::decide::sight::ConsulFault;
use crate::decide::timing::Tick;

/// A call without a usable answer.
pub(crate) fn fault(denied: bool) -> ConsulFault {
    ConsulFault {
        why: if denied {
            "permission denied"
        } else {
            "no answer"
        }
        .to_owned(),
        denied,
    }
}

/// What the agent hears when the answer to `action` never comes, or says that it is denied.
pub(crate) fn lost(action: &Action, asked_at: Tick, denied: bool) -> Option<Event> {
    let fault = fault(denied);
    let step = |step| Event::LockStepEnded {
        step,
        result: Err(fault.clone()),
    };
    Some(match action {
        Action::CreateSession => Event::SessionCreated { result: Err(fault) },
        Action::RenewSession { session } => Event::SessionRenewed {
            session: session.clone(),
            result: Err(fault),
        },
        Action::DestroySession { .. } => Event::SessionDestroyed,
        Action::ReadLock => Event::LockRead {
            asked_at,
            by_watch: false,
            result: Err(fault),
        },
        Action::ReadBoard => Event::BoardRead { result: Err(fault) },
        Action::WriteBallot { ballot } => Event::BallotWritten {
            index: ballot.index,
            result: Err(fault),
        },
        Action::ReadBallots { .. } => Event::BallotsRead { result: Err(fault) },
        Action::WriteSwitchover { .. } => Event::SwitchoverWritten { result: Err(fault) },
        Action::ReadHistory => Event::HistoryRead { result: Err(fault) },
        Action::WriteHistory { line, .. } => Event::HistoryWritten {
            term: line.term,
            result: Err(fault),
        },
        Action::Acquire { .. } => step(LockStepKind::Acquire),
        Action::TakeOver { .. } => step(LockStepKind::TakeOver),
        Action::Refresh { .. } => step(LockStepKind::Refresh),
        Action::Release { .. } => step(LockStepKind::Release),
        Action::Tell { .. } | Action::Deregister => Event::CatalogEnded { result: Err(fault) },
        Action::WriteMember { .. } => Event::MemberEnded { result: Err(fault) },
        Action::Kill => Event::KillEnded {
            result: KillResult::Failed("no answer".to_owned()),
        },
        Action::AskPromises { .. } | Action::Vshard(_) | Action::Exit { .. } => return None,
        Action::Guard(_) => failed(action.guard_command_kind()?),
    })
}

/// A command to the guard without an answer.
pub(crate) fn failed(command: GuardCommandKind) -> Event {
    Event::GuardFailed {
        command,
        why: "no answer".to_owned(),
    }
}
