//! We hold the lock, and no record says who was master before: whether we have to wait for a lease (R3).

use std::collections::BTreeSet;

use super::planner::Planner;
use crate::plan::{Action, Reason};
use crate::state::slots::Place;
use crate::words::observed::Probe;
use crate::words::record::{Cause, Record};
use crate::words::timing::{Tick, Timing};
use crate::words::unguarded::Unguarded;

impl Planner<'_> {
    /// What the record says of members without a guard, so that the next holder asks as well, and knows of those that it
    /// does not hear. An agent that an operator stops leaves out those that it does not hear itself: a member that is gone
    /// for good is forgotten like that.
    pub(super) fn unguarded_word(
        &self,
        own: Option<&Record>,
        cause: Cause,
    ) -> Option<BTreeSet<String>> {
        let hold = &self.state.hold;
        let held = hold.record.as_ref().filter(|_| self.state.holds_lock());
        let Some(own) = own.or(held) else {
            let last = self.state.lock.unchanged.as_ref();
            let before = last.and_then(|last| last.record.unguarded_before());
            let is_first = sound!(cause == Cause::First; UnrecordedWithoutWait => false);
            return before.or_else(|| is_first.then(BTreeSet::new));
        };
        let Some(unguarded) = &hold.unguarded else {
            return own.unguarded.clone();
        };
        // `None`: everybody promised.
        hold.unguarded_until?;
        Some(match self.state.stopping {
            Some(_) => unguarded.writable.clone(),
            None => unguarded.names().cloned().collect(),
        })
    }

    /// R3 asks for a lease of waiting, unless every known member answers that it is read-only. Whom these know in turn they
    /// say themselves: each refuses if it knows somebody that was not asked.
    ///
    /// Returns whether there will be an answer.
    pub(super) fn asks_everybody(&mut self, record: &Record, probe: &Probe) -> bool {
        let state = self.state;
        let gained = state.hold.gained.as_ref();
        let since = gained.map_or(Tick::default(), |gained| gained.acquired_at);
        // One that is not registered may not know the others.
        let is_registered = probe.peer(&probe.uuid).is_some();
        let Some(reading) = state.hold.reading.filter(|_| is_registered) else {
            return false;
        };
        if state.lock.outdated {
            // Promises to a holder that may be none any more would keep others from the lock.
            return true;
        }
        let Some((board, _)) = state.board_since(since) else {
            self.read_board();
            return true;
        };
        if self.may_call(Place::Promises) {
            self.act(Action::AskPromises {
                term: record.term,
                instance: record.instance.clone(),
                lasting: Timing::lease_and_margin(state.settings.timing.lease()),
                members: sound!(state.everybody(record, probe, board);
                    UnrecordedAsksNobody => Default::default()),
                reading,
                for_all: Some(probe.vclock.clone()),
            });
        }
        true
    }

    /// While nobody has been promoted: a member that was writable before, without tarsec, may have no agent yet. No lease
    /// ends there and nothing makes it read-only. A member that is not heard for a lease, and never was, is not waited for.
    pub(super) fn waits_for_unguarded(&mut self, record: &Record, probe: &Probe) -> Option<Reason> {
        record.unguarded_before()?;
        let state = self.state;
        let until = state.hold.unguarded_until.filter(|at| *at > self.now);
        let known = state.hold.unguarded.as_ref();
        if known.is_some_and(Unguarded::is_empty) && until.is_none() {
            return None;
        }
        let will_answer = self.asks_everybody(record, probe);
        if let Some(why) = state.unguarded_words() {
            return Some(Reason::WritableWithoutGuard { why });
        }
        if !will_answer {
            return None;
        }
        Some(until.map_or(Reason::Promoting, |until| {
            self.wake(until);
            Reason::WaitingForPredecessor { until }
        }))
    }
}
