//! `REPLICATION=follow`, and what a guard is told of terms that others serve.

use std::time::Duration;

use super::planner::Planner;
use crate::plan::GuardCommand;
use crate::state::slots::Place;
use crate::words::record::{Record, Status};

/// How often a replica is pointed at the same master again while that may refuse its login. A first connection takes
/// moments, and a changed password is read no more often.
const LOCKED_OUT_RETRY: Duration = Duration::from_secs(3);

impl Planner<'_> {
    pub(super) fn follow_master(&mut self, record: &Record) {
        let Some(probe) = self.state.live_probe() else {
            return;
        };
        let is_own = record.instance == probe.uuid;
        if self.state.highest_term > probe.guard.term
            && !probe.guard.leased
            && !is_own
            && self.may_command_guard()
        {
            self.tell_guard(GuardCommand::Observe {
                term: self.state.highest_term,
            });
            return;
        }
        // A holder that is not promoted may need its members to have its rows.
        let leads = record.status == Status::Active || record.offered;
        if self.state.settings.follow && leads {
            self.point_at(&record.instance, &record.uri);
        }
    }

    /// Replicates from that member alone; from none, if it is our own instance. Where nobody vouches for any address of
    /// it, the instance stays with its present upstream (`unvouched` says so).
    pub(super) fn point_at(&mut self, instance: &str, named: &str) {
        let Some(probe) = self.state.live_probe() else {
            return;
        };
        let is_own = instance == probe.uuid;
        let wanted = if is_own {
            String::new()
        } else {
            match self.state.address_to_follow(probe, instance, named) {
                Some(address) => address,
                None => return,
            }
        };
        let again = probe.guard.follows.as_ref() == Some(&wanted);
        if again && (is_own || !probe.may_be_locked_out_by(instance)) {
            return;
        }
        let begun_at = self.state.pending.begun_at(Place::Replication);
        let again_at = again.then(|| begun_at + LOCKED_OUT_RETRY);
        if self.may_call(Place::Replication) && self.is_due(again_at) {
            self.tell_guard(GuardCommand::Follow {
                uri: (!is_own).then_some(wanted),
                again,
            });
        }
    }
}
