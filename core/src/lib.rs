//! The pure core: state and event in, plan out. No I/O, no clock, no randomness, no logging.
//!
//! [`State::apply`] writes facts down, [`decide`] says what to do about them and why, [`State::begin`] notes what
//! is being started. The loop of `tarsec`, `src/agent.rs`, calls the three in turn and owns the clock.
#![warn(clippy::too_many_lines)]

#[macro_use]
mod sound;

pub mod addresses;
mod apply;
mod apply_board;
mod apply_lock;
mod apply_session;
mod apply_vshard;
mod ballot;
pub mod birth;
pub mod board;
mod candidate;
mod catalog;
pub mod check;
pub mod declared;
pub mod election;
pub mod ending;
pub mod event;
mod failsafe;
mod feed;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
mod follow;
mod history;
pub mod hold;
mod holder;
pub mod ids;
pub mod interruption;
pub mod lag;
mod limits;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod neighbours;
mod next_record;
pub mod observed;
mod offer;
mod pause;
pub mod plan;
pub mod problems;
pub mod ranking;
pub mod record;
pub mod router;
mod silence;
pub mod slots;
pub mod state;
mod stop;
mod switchover;
pub mod term;
#[cfg(test)]
#[allow(clippy::too_many_lines, reason = "a story is told in one piece")]
mod tests;
pub mod timing;
pub mod unrecorded;
mod votes;
mod vouch;
pub mod vshard;

use std::time::Duration;

use event::KeySight;
use plan::{Action, Ending, GuardCommand, Plan, Reason};
use slots::Place;
use state::{Reading, State};
use timing::Tick;

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

/// One decision in the making.
struct Planner<'a> {
    state: &'a State,
    now: Tick,
    actions: Vec<Action>,
    wake_at: Option<Tick>,
    /// The instance hangs past its lease and is not killed for this reason: to be said whatever else is done.
    left_alone: Option<String>,
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

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn tell_guard(&mut self, command: GuardCommand) {
        self.act(Action::Guard(command));
    }

    fn wake(&mut self, at: Tick) {
        if at > self.now {
            self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    fn too_early(&mut self, from: Option<Tick>) -> Option<Tick> {
        let until = from.filter(|at| *at > self.now)?;
        self.wake(until);
        Some(until)
    }

    fn is_due(&mut self, at: Option<Tick>) -> bool {
        self.too_early(at).is_none()
    }

    /// Whether a call may be made there; if it is only too early, sees to it that it will be.
    fn may_call(&mut self, place: Place) -> bool {
        let under_way = self.state.pending.is_busy(place) || self.planned(place);
        !under_way && self.is_due(self.state.pending.retry_at(place))
    }

    /// Whether the last call there failed.
    fn fails(&self, place: Place) -> bool {
        self.state.pending.retry_at(place).is_some()
    }

    fn may_command_guard(&mut self) -> bool {
        self.state.live_probe().is_some() && self.may_call(Place::Guard)
    }

    fn planned(&self, place: Place) -> bool {
        self.actions
            .iter()
            .any(|action| action.place() == Some(place))
    }

    fn fence(&mut self, why: &str) -> Reason {
        if self.state.live_probe().is_some() && self.may_call(Place::Fence) {
            self.tell_guard(GuardCommand::Fence {
                why: why.to_owned(),
            });
        }
        Reason::Fencing {
            why: why.to_owned(),
        }
    }

    /// The last reading, if it is fresh enough to rest a lease on; else asks for one.
    fn fresh_reading(&mut self) -> Option<Reading> {
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

    /// Why this instance cannot be promoted, if it cannot. Silence counts from `patience` on.
    fn unfit(&self, patience: Duration) -> Option<String> {
        let Some(probe) = self.state.live_probe() else {
            return Some(self.instance_words());
        };
        if let Some(why) = self.state.never_master().or_else(|| self.isolation()) {
            return Some(why);
        }
        // A word from its guard that came in since then is an answer, however late the pings' own are.
        let heard_at = self.state.instance.reading.map(|reading| reading.reply_at);
        let silent_for = self
            .state
            .silent_since()
            .filter(|since| heard_at.is_none_or(|at| at <= *since))
            .map(|since| self.now.since(since));
        if silent_for.is_some_and(|silent_for| silent_for >= patience) {
            return Some("the instance does not answer".to_owned());
        }
        let instance = &self.state.instance;
        let interval = self.state.settings.timing.healthcheck_interval();
        if instance.unanswered_at > instance.answered_begun_at
            && instance
                .probed_at
                .max(instance.overslept_at)
                .is_some_and(|at| self.now.since(at) >= patience.max(interval * 2))
        {
            return Some("its guard does not answer".to_owned());
        }
        if probe.is_anonymous() {
            return Some("it is an anonymous replica".to_owned());
        }
        let halted =
            (probe.status != "running").then(|| format!("its status is '{}'", probe.status));
        halted.or_else(|| self.state.split_off_words())
    }

    fn instance_words(&self) -> String {
        self.state.instance.link.to_string()
    }

    /// A session is renewed while it holds or is to take the lock, asked after when in doubt, and removed otherwise.
    fn keep_session(&mut self) {
        let Some(id) = self.state.session.id.clone() else {
            return;
        };
        let renew_at =
            self.state.session.renewed_at + self.state.settings.timing.session_renew_interval();
        if self.state.session.doubted || (self.state.holds_lock() && renew_at <= self.now) {
            if self.may_call(Place::Session) {
                self.act(Action::RenewSession { session: id });
            }
        } else if self.state.holds_lock() {
            self.wake(renew_at);
        }
    }

    /// Without the lock: follow, run for it, or take it back.
    fn do_without_lock(&mut self) -> Reason {
        let state = self.state;
        // Nothing is taken while the last read failed; a look is the next thing.
        let free = state.lock.sight.is_some() && state.key_session().is_none();
        let doubtful = state.lock.outdated || (state.lock.unreadable && free);
        if doubtful && self.may_call(Place::Lock) {
            self.act(Action::ReadLock);
        }
        let Some(sight) = &state.lock.sight else {
            return self.wait_for_consul();
        };
        if doubtful {
            return self.while_lock_is_doubtful();
        }
        match &sight.key {
            Some(key) if key.session.is_some() => self.follow_holder(key),
            Some(_) | None => self.consider_free_lock(sight),
        }
    }

    fn wait_for_consul(&mut self) -> Reason {
        let why = match &self.state.consul_fault {
            Some(fault) => fault.why.clone(),
            None => "it has not answered yet".to_owned(),
        };
        if self.state.live_probe().is_none() {
            return Reason::WaitingForInstance {
                why: self.instance_words(),
            };
        }
        Reason::WaitingForConsul { why }
    }

    /// The lease runs on until somebody is known to have the lock or it ends; nobody else is writable before.
    fn while_lock_is_doubtful(&mut self) -> Reason {
        match self.state.instance.lease {
            Some(lease) if self.state.is_serving() => {
                self.serve_without_lock()
                    .unwrap_or(Reason::ServingWithoutConsul {
                        until: lease.over_at,
                        why: String::new(),
                    })
            }
            Some(_) | None if self.state.consul_fault.is_none() => {
                self.unless_denied(Reason::LookingAgain)
            }
            Some(_) | None => self.wait_for_consul(),
        }
    }

    /// What is being tried, or why Consul did not let us the last time.
    fn unless_denied(&self, reason: Reason) -> Reason {
        match &self.state.denied {
            Some(why) => Reason::WaitingForConsul { why: why.clone() },
            None => reason,
        }
    }

    fn follow_holder(&mut self, key: &KeySight) -> Reason {
        if let Some(probe) = self.state.live_probe()
            && (!probe.ro || probe.guard.leased)
        {
            self.forget_session();
            return self.fence("somebody else holds the lock");
        }
        if self.state.live_probe().is_some()
            && let Some(reason) = self.consider_take_over(key)
        {
            return reason;
        }
        if !self.gets_ready_for_handover(key) && !self.answers_offer(key) {
            self.forget_session();
        }
        match &key.record {
            Ok(record) => {
                self.follow_master(record);
                if self.state.live_probe().is_none() {
                    return Reason::WaitingForInstance {
                        why: self.instance_words(),
                    };
                }
                Reason::FollowingMaster {
                    name: record.name.clone(),
                }
            }
            Err(error) => Reason::LockHeldByUnknown {
                why: error.to_string(),
            },
        }
    }

    /// A session that does not hold the lock and is not about to take it.
    fn forget_session(&mut self) {
        if let Some(id) = self.state.session.id.clone()
            && !self.state.pending.is_busy(Place::Lock)
            && !self.stays_quiet()
            && self.may_call(Place::Session)
        {
            self.act(Action::DestroySession { session: id });
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
    fn keep_up_to_date(&mut self) {
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
