//! How the guard's word is kept fresh.

use super::planner::Planner;
use crate::plan::{Action, GuardCommand};
use crate::state::slots::Place;
use crate::words::timing::Reading;

impl Planner<'_> {
    /// The last reading, if it is fresh enough to rest a lease on; else asks for one.
    pub(super) fn fresh_reading(&mut self) -> Option<Reading> {
        let limit = self.state.settings.timing.refresh_interval() / 10;
        let reading = self.state.live_probe().and(self.state.instance.reading);
        match reading {
            Some(reading)
                if self.now.since(reading.reply_at) <= limit && !self.state.may_be_superseded() =>
            {
                Some(reading)
            }
            Some(_) | None => {
                if self.may_command_guard() {
                    self.tell_guard(GuardCommand::Probe);
                }
                None
            }
        }
    }

    /// Whether the lock is just being taken: the guard is to be free for the promotion.
    fn is_gaining(&self) -> bool {
        let under_way = self.state.pending.is_busy(Place::Lock)
            && self
                .state
                .hold
                .attempted
                .as_ref()
                .is_some_and(|sent| sent.attempt.gain.is_some());
        under_way
            || self
                .actions
                .iter()
                .any(|action| matches!(action, Action::Acquire { .. } | Action::TakeOver { .. }))
    }

    /// Probes as often as the operator asked for, and the timers that every plan needs.
    pub(crate) fn keep_up_to_date(&mut self) {
        if self.state.live_probe().is_some() {
            let due_at = self.state.instance.probed_at.map_or(self.now, |at| {
                at + self.state.settings.timing.healthcheck_interval()
            });
            if due_at > self.now {
                self.wake(due_at);
            } else if !self.is_gaining() && self.may_command_guard() {
                self.tell_guard(GuardCommand::Probe);
            }
        }
    }
}
