//! Asked to stop: read-only first, then the lock, then the catalog, then the end.

use std::time::Duration;

use super::planner::Planner;
use crate::plan::{Action, Ending, GuardCommand, Reason};
use crate::state::Link;
use crate::state::slots::Place;
use crate::words::timing::{Tick, Timing};

/// How long a stopping master waits, read-only, for a replica to have its last rows.
const CATCH_UP: Duration = Duration::from_secs(2);

/// How often it looks.
const CATCH_UP_POLL: Duration = Duration::from_millis(10);

/// How long it waits for Consul once nothing but Consul is in the way.
const FAREWELL: Duration = Duration::from_secs(5);

impl Planner<'_> {
    pub(crate) fn stop(&mut self) -> Reason {
        let Some((_, since)) = self.state.stopping else {
            return Reason::Stopping {
                waiting_for: "nothing",
            };
        };
        if let Some(reason) = self.leaves_as_it_is() {
            return reason;
        }
        let lease = self.state.settings.timing.lease();
        let give_up_at = since + Timing::lease_and_margin(lease) + FAREWELL;
        if self.now >= give_up_at {
            self.act(Action::Exit {
                how: Ending::Stopped,
            });
            return Reason::Stopping {
                waiting_for: "nothing any more: Consul or the instance took too long",
            };
        }
        self.wake(give_up_at);
        if let Some(reason) = self.end_hung_instance() {
            return reason;
        }
        if self.state.lock.outdated
            && self.state.hold.record.is_some()
            && self.may_call(Place::Lock)
        {
            self.act(Action::ReadLock);
        }
        let leased = self
            .state
            .live_probe()
            .is_some_and(|probe| probe.guard.leased || !probe.ro);
        if leased || (self.state.holds_lock() && self.state.may_be_writable(self.now)) {
            let _ = self.fence("its agent was asked to stop");
            if let Some(lease) = self.state.instance.lease {
                self.wake(lease.over_at);
            }
            return Reason::Stopping {
                waiting_for: "the instance to be read-only",
            };
        }
        if self.state.holds_lock() {
            if self.must_wait_for_replica(since) {
                return Reason::Stopping {
                    waiting_for: "a replica to have the last rows",
                };
            }
            self.release("the agent was asked to stop");
            return Reason::Stopping {
                waiting_for: "the lock to be released",
            };
        }
        self.say_farewell()
    }

    fn must_wait_for_replica(&mut self, since: Tick) -> bool {
        if matches!(self.state.instance.link, Link::Dead { .. }) || self.now >= since + CATCH_UP {
            return false;
        }
        let behind = self
            .state
            .live_probe()
            .is_some_and(|probe| probe.has_replica() && !probe.has_caught_up_replica());
        if behind {
            self.wake(since + CATCH_UP);
            let look_at = self
                .state
                .instance
                .probed_at
                .map_or(self.now, |at| at + CATCH_UP_POLL);
            if look_at > self.now {
                self.wake(look_at);
            } else if self.may_command_guard() {
                self.tell_guard(GuardCommand::Probe);
            }
        }
        behind
    }

    fn say_farewell(&mut self) -> Reason {
        self.tell_past_terms();
        let catalog = &self.state.catalog;
        if (catalog.told.is_some() || self.state.pending.is_busy(Place::Catalog))
            && !catalog.removed
        {
            if self.may_call(Place::Catalog) {
                self.act(Action::Deregister);
            }
            return Reason::Stopping {
                waiting_for: "the service to be deregistered",
            };
        }
        if self.state.session.id.is_some() || self.state.pending.is_busy(Place::Session) {
            self.forget_session();
            return Reason::Stopping {
                waiting_for: "the session to be removed",
            };
        }
        if !self.state.past.untold.is_empty() && !self.state.past.denied {
            return Reason::Stopping {
                waiting_for: "its last term to be written into the history",
            };
        }
        self.act(Action::Exit {
            how: Ending::Stopped,
        });
        Reason::Stopping {
            waiting_for: "nothing",
        }
    }
}
