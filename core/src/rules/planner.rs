//! One decision in the making, and what every rule does with it.

use crate::plan::{Action, GuardCommand, Reason};
use crate::state::State;
use crate::state::slots::Place;
use crate::words::timing::Tick;

/// One decision in the making.
pub(crate) struct Planner<'a> {
    pub(crate) state: &'a State,
    pub(crate) now: Tick,
    pub(crate) actions: Vec<Action>,
    pub(crate) wake_at: Option<Tick>,
    /// The instance hangs past its lease and is not killed for this reason: to be said whatever else is done.
    pub(crate) left_alone: Option<String>,
}

impl Planner<'_> {
    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn tell_guard(&mut self, command: GuardCommand) {
        self.act(Action::Guard(command));
    }

    pub(super) fn wake(&mut self, at: Tick) {
        if at > self.now {
            self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    pub(super) fn too_early(&mut self, from: Option<Tick>) -> Option<Tick> {
        let until = from.filter(|at| *at > self.now)?;
        self.wake(until);
        Some(until)
    }

    pub(super) fn is_due(&mut self, at: Option<Tick>) -> bool {
        self.too_early(at).is_none()
    }

    /// Whether a call may be made there; if it is only too early, sees to it that it will be.
    pub(super) fn may_call(&mut self, place: Place) -> bool {
        let under_way = self.state.pending.is_busy(place) || self.planned(place);
        !under_way && self.is_due(self.state.pending.retry_at(place))
    }

    /// Whether the last call there failed.
    pub(super) fn fails(&self, place: Place) -> bool {
        self.state.pending.retry_at(place).is_some()
    }

    pub(super) fn may_command_guard(&mut self) -> bool {
        self.state.live_probe().is_some() && self.may_call(Place::Guard)
    }

    pub(super) fn planned(&self, place: Place) -> bool {
        self.actions
            .iter()
            .any(|action| action.place() == Some(place))
    }

    pub(super) fn fence(&mut self, why: &str) -> Reason {
        if self.state.live_probe().is_some() && self.may_call(Place::Fence) {
            self.tell_guard(GuardCommand::Fence {
                why: why.to_owned(),
            });
        }
        Reason::Fencing {
            why: why.to_owned(),
        }
    }
}
