//! R6: without Consul a master goes on for as long as every member's guard promises, asked by its agent, not to be
//! promoted for another lease and its margin.

use std::time::Duration;

use super::planner::Planner;
use crate::plan::{Action, Reason};
use crate::state::slots::Place;
use crate::words::record::Record;
use crate::words::term::Term;
use crate::words::timing::Timing;

impl Planner<'_> {
    /// We serve and Consul cannot be written: ask the members, and say what the lease rests on. `None`: nothing is
    /// wrong with Consul, as far as we know.
    pub(super) fn go_on_without_consul(&mut self, record: &Record) -> Option<Reason> {
        let state = self.state;
        let timing = &state.settings.timing;
        let until = state.instance.lease?.over_at;
        let patience = match &state.hold.unwritten {
            Some(_) => timing.refresh_interval(),
            // A step that hangs must not cost more than half of the lease.
            None if state.pending.is_busy(Place::Lock) => timing.lease() / 2,
            None => return None,
        };
        let base = state.lease_base();
        let ask_at = base.map_or(self.now, |base| base.reply_at + patience);
        if self.may_ask(record) {
            if ask_at > self.now {
                self.wake(ask_at);
            } else {
                self.ask_promises(record);
            }
        }
        state.hold.unwritten.as_ref()?;
        let on_promises = state.hold.promised.is_some() && state.hold.promised == base;
        Some(match &state.hold.unpromised {
            None if on_promises => Reason::ServingOnPromises { until },
            why => Reason::ServingWithoutConsul {
                until,
                why: why.clone().unwrap_or_default(),
            },
        })
    }

    /// The lock was lost and cannot be taken again for want of Consul: promises carry that, too, for nobody who gave
    /// one is promoted, whatever has become of the lock.
    pub(super) fn serve_without_lock(&mut self) -> Option<Reason> {
        let record = self.state.hold.record.as_ref()?;
        if !self.state.is_serving() {
            return None;
        }
        self.grant();
        self.go_on_without_consul(record)
    }

    /// Whether the last accepted record lets its successors know that promises may run, and whom they come from. An older
    /// agent of the same instance may release over a record of its own, and make the promises void with it.
    fn may_ask(&self, record: &Record) -> bool {
        let own = self.state.live_probe().map(|probe| &probe.uuid);
        self.state.settings.failsafe
            && record.failsafe
            && sound!(record.agent == self.state.settings.agent; PromisesOnAnothersRecord => true)
            && !record.paused
            && record.members.iter().any(|uuid| Some(uuid) == own)
    }

    fn ask_promises(&mut self, record: &Record) {
        let state = self.state;
        let Some(reading) = self.fresh_reading() else {
            return;
        };
        if self.may_call(Place::Promises) {
            let lease = state.settings.timing.lease();
            self.act(Action::AskPromises {
                term: record.term,
                instance: record.instance.clone(),
                lasting: sound!(Timing::lease_and_margin(lease); PromisesEndEarly => lease / 2),
                members: state.members_to_ask(record),
                reading,
                for_all: None,
            });
        }
    }

    /// Whether our guard would refuse to be promoted in `term` because somebody may be master on its promise; then we
    /// do not run for the lock. Where promotion waits for a full lease after the lock was gained (`waits_later`), the
    /// guard's age is no matter of now.
    pub(super) fn wait_for_promise(&mut self, term: Term, waits_later: bool) -> Option<Reason> {
        let mut before = self.state.before(term);
        if waits_later {
            before.guard_age = Duration::ZERO;
        }
        let until = self.state.promised_until(before, self.now)?;
        self.wake(until);
        Some(Reason::WaitingForPromise { until })
    }
}
