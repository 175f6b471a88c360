//! The pure core: state and event in, plan out. No I/O, no clock, no randomness, no logging.
//!
//! [`State::apply`] writes facts down, [`decide`] says what to do about them and why, [`State::begin`] notes what
//! is being started. The loop of `tarsec`, `src/agent.rs`, calls the three in turn and owns the clock.
//!
//! The rooms, in the order in which the data goes through them:
//!
//! ```text
//!  event ─▶ input ─▶ state ─▶ questions ─▶ rules ─▶ plan        words: what all of them speak in
//! ```
//!
//! Each imports from those below it alone, from the lowest on: `words`, `event`, `plan`, `state`, `questions`, `input`, `rules`
//! (`tests/purity.rs` checks it). `router` and `birth` are the cores of agents of their own.
#![warn(clippy::too_many_lines)]

#[macro_use]
mod sound;

pub mod birth;
pub mod check;
pub mod event;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
mod input;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod plan;
mod questions;
pub mod router;
mod rules;
pub mod state;
#[cfg(test)]
#[allow(clippy::too_many_lines, reason = "a story is told in one piece")]
mod tests;
mod words;

use plan::{Action, Ending, Plan, Reason};
use rules::planner::Planner;
use state::State;
use words::timing::Tick;

pub use questions::problems;
pub use rules::ranking;
pub use state::{election, hold, slots};
pub use words::{
    addresses, board, declared, ending, ids, interruption, lag, names, neighbours, observed,
    record, settings, sight, term, timing, unguarded, vclock, vshard,
};

/// Whether this core can be broken on purpose: the simulation's can.
pub const MUTANTS: bool = cfg!(feature = "mutants");

/// Says what to do about `state` at `now`.
#[must_use]
pub fn decide(state: &State, now: Tick) -> Plan {
    let mut planner = Planner {
        state,
        now,
        actions: Vec::new(),
        wake_at: None,
        left_alone: None,
    };
    let reason = planner.reason();
    planner.tell_catalog(&reason);
    planner.keep_vshard();
    planner.keep_up_to_date();
    Plan {
        actions: planner.actions,
        reason,
        wake_at: planner.wake_at,
    }
}

impl Planner<'_> {
    /// The rules, most urgent first.
    fn reason(&mut self) -> Reason {
        if let Some(by) = &self.state.superseded {
            self.act(Action::Exit {
                how: Ending::Superseded,
            });
            return Reason::Superseded { by: by.clone() };
        }
        if let Some(why) = self.unsuitable() {
            if self.state.holds_lock() {
                let _ = self.give_up(&why);
            } else if self.has_told_past_terms() && self.has_said_that_it_is_critical() {
                self.act(Action::Exit {
                    how: Ending::Unsuitable,
                });
            }
            return Reason::InstanceUnsuitable { why };
        }
        if self.state.stopping.is_some() {
            return self.stop();
        }
        self.keep_session();
        if let Some(reason) = self.end_hung_instance() {
            return reason;
        }
        let reason = if self.state.holds_lock() {
            self.hold()
        } else {
            self.tell_past_terms();
            self.count_rows_brought_back();
            self.do_without_lock()
        };
        match self.left_alone.take() {
            Some(why) => Reason::HungInstanceLeftAlone { why },
            None => reason,
        }
    }
}
