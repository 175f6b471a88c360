//! Until when an agent vouches for its master, for checks that are asked at any moment.
//!
//! **A master's check says yes only while the instance's lease runs.** What the agent goes by is the last word of the
//! guard: `deadline`, the end of the lease, and `now`, the same clock when the guard answered. The agent asked for that
//! word at `begun_at` on its own clock (noted before the question was sent), so the guard read its clock no earlier. Two
//! clocks run at rates that differ by less than 2 % (A1); so while the agent's clock has not gone on from `begun_at` by
//! 98 % of `deadline - now`, the guard's has not reached `deadline`. Where R2 needs the latest end of a lease, counted from
//! the reply, with the margin, a check needs the earliest: it counts from the question, without one.
//!
//! A later grant only moves `deadline` on. What ends a lease before its time is a fence, ordered by this agent, whose
//! check says no from the turn in which it orders one; the instance's death, which another instance's promotion rests on
//! only once this agent has seen it; or another agent of the same instance, which this one hears of at its next word to
//! the guard. Another instance is promoted only behind one of these, so no two agents say yes at the same time.
//!
//! **In a pause** no lease bounds the master: its guard stands down. Nobody succeeds it by time either, so the check goes
//! by the guard's last word, which says that the instance is writable and that the guard stands down, for as long as that
//! word is younger than a lease. From the moment in which the agent may have told the guard to stand up again, the lease
//! counts: a guard that is up fences at its end.

use std::time::Duration;

use crate::event::GuardCommandKind;
use crate::plan::{Action, GuardCommand};
use crate::state::State;
use crate::state::slots::Place;
use crate::words::timing::{Tick, Timing};

/// By how much the rates of two clocks may differ, in percent (A1).
const DRIFT: u32 = 2;

/// What an agent has told its guard that the guard's last word may not show yet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trail {
    /// The guard was last told to stand up then.
    stood_up_at: Option<Tick>,
}

impl Trail {
    /// Takes note of what is begun at `now`.
    pub fn note(&mut self, action: &Action, now: Tick) {
        if matches!(
            action,
            Action::Guard(GuardCommand::StandDown { down: false })
        ) {
            self.stood_up_at = Some(now);
        }
    }
}

impl State {
    /// Until when the agent vouches that the instance is master, by what it has heard and begun up to now: see the top
    /// of this file. A silent instance counts as long as its silence does not.
    pub(crate) fn vouched_until(&self, trail: &Trail) -> Result<Tick, String> {
        let no = |why: &str| Err(why.to_owned());
        let instance = &self.instance;
        let Some(probe) = self.live_probe() else {
            return no("the instance does not answer");
        };
        if self.serving_term().is_none() {
            return no("the instance is read-only");
        }
        // The word that came with a connection was asked for before, nobody noted when.
        let Some(begun_at) = instance
            .answered_begun_at
            .filter(|at| *at > instance.attached_at)
        else {
            return no("its guard has said nothing since its agent connected");
        };
        if self.superseded.is_some() || self.may_be_superseded() {
            return no("another agent may have its guard by now");
        }
        let fenced_at = self.pending.begun_at(Place::Fence);
        let fences = self.pending.is_busy(Place::Fence) || fenced_at > begun_at;
        if sound!(fences; AnswerDespiteFence => false) || instance.killed {
            return no("its agent is making it read-only");
        }
        let left = probe
            .guard
            .deadline
            .monotonic_ns
            .saturating_sub(probe.now.monotonic_ns);
        // No lease is longer, whatever a guard says.
        let left = Duration::from_nanos(left).min(Timing::LEASE_MAX);
        let since = sound!(begun_at; AnswerFromReply => instance.probed_at.unwrap_or_default());
        let mut until = since + sound!(left / 100 * (100 - DRIFT); AnswerWithoutDrift => left);
        let may_be_up = self.pending.command() == Some(GuardCommandKind::StandDown)
            || trail.stood_up_at >= Some(begun_at);
        if probe.guard.stood_down && !may_be_up {
            until = until.max(begun_at + self.settings.timing.lease());
        }
        Ok(until)
    }
}
