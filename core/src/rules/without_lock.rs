//! An agent that does not hold the lock: it follows, runs for the lock, or takes it back.

use super::planner::Planner;
use crate::plan::{Action, Reason};
use crate::state::slots::Place;
use crate::words::sight::KeySight;

impl Planner<'_> {
    /// Without the lock: follow, run for it, or take it back.
    pub(crate) fn do_without_lock(&mut self) -> Reason {
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
    pub(super) fn unless_denied(&self, reason: Reason) -> Reason {
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
}
