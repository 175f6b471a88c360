//! We hold the lock, and no record says who was master before: whether we have to wait for a lease (R3).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::board::{Board, Cause};
use super::observed::Probe;
use super::plan::{Action, Reason};
use super::record::Record;
use super::state::State;
use super::timing::{Tick, Timing};
use super::{Place, Planner};

/// Members that gave no promise, by instance UUID, as far as it matters to who may be writable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unguarded {
    /// They are writable, and have no guard that could fence them.
    pub writable: BTreeSet<String>,
    /// They have not been heard.
    pub silent: BTreeSet<String>,
}

impl State {
    /// Since when we hold the lock, where there was no key before and we have never seen a record.
    pub(super) fn holds_unrecorded_since(&self) -> Option<Tick> {
        let record = self.hold.record.as_ref()?;
        let gained = self.hold.gained.as_ref()?;
        let is_first = record.cause == Cause::First && gained.unrecorded;
        (is_first && self.holds_lock()).then_some(gained.acquired_at)
    }

    /// Whom our instance knows, whom the record names, and whose agent has a key; and where they are reached.
    fn everybody(&self, record: &Record, probe: &Probe, board: &Board) -> BTreeMap<String, String> {
        let mut members = self.members_to_ask(record);
        for uuid in board.members.keys().filter(|uuid| **uuid != probe.uuid) {
            members
                .entry(uuid.clone())
                .or_insert_with(|| self.address(probe, uuid));
        }
        members
    }

    /// Every instance that anybody knows said, when we had the lock already, that it is read-only, with its commits landed;
    /// and each refuses from then on whatever rests on an earlier word. So nobody is master, and on nobody's promise.
    pub(super) fn all_are_read_only(&mut self) {
        if self.holds_unrecorded_since().is_some() {
            self.hold.predecessor_over_at = None;
            self.hold.before.guard_age = Duration::ZERO;
        }
    }
}

impl State {
    /// One that was writable without a guard stays so for us until it says otherwise; and from the moment in which it does,
    /// its last commits may land for as long as a lease would have run, unless everybody promises.
    pub(super) fn note_unguarded(&mut self, said: Unguarded, all_promised: bool, now: Tick) {
        let known = self.hold.unguarded.take().unwrap_or_default();
        let mut unguarded = said.writable;
        unguarded.extend(known.intersection(&said.silent).cloned());
        if !unguarded.is_empty() {
            let lease = Timing::lease_and_margin(self.settings.timing.lease());
            self.hold.unguarded_until = Some(now + lease);
        } else if all_promised {
            self.hold.unguarded_until = None;
        }
        self.hold.unguarded = Some(unguarded);
    }

    /// Whom a holder before us heard to be writable without a guard is so for us, too.
    pub(super) fn begin_with_unguarded(&mut self, heard: Option<&BTreeSet<String>>, now: Tick) {
        let lease = Timing::lease_and_margin(self.settings.timing.lease());
        self.hold.unguarded = heard.filter(|heard| !heard.is_empty()).cloned();
        self.hold.unguarded_until = self.hold.unguarded.is_some().then_some(now + lease);
    }

    /// Who stays writable whatever becomes of the lock, and what to do about it.
    pub(super) fn unguarded_words(&self) -> Option<String> {
        let unguarded = self.hold.unguarded.as_ref()?;
        let probe = self.instance.probe.as_ref()?;
        let named = |uuid: &String| format!("{uuid} ({})", self.address(probe, uuid));
        let named: Vec<String> = unguarded.iter().map(named).collect();
        (!named.is_empty()).then(|| {
            format!(
                "nobody is promoted while {} is writable and has no agent: start its agent, or make it read-only; if it is \
                 gone for good, start the agent of {} again",
                named.join(", "),
                self.name()
            )
        })
    }
}

impl Planner<'_> {
    /// What the record says of members without a guard, so that whoever follows us asks as well, and knows of one that it
    /// does not hear. An agent that an operator stops names nobody: one that is gone for good is forgotten like that.
    pub(super) fn unguarded_word(
        &self,
        own: Option<&Record>,
        cause: Cause,
    ) -> Option<BTreeSet<String>> {
        let hold = &self.state.hold;
        let Some(own) = own.or(hold.record.as_ref()) else {
            let before = self.state.seen_record().filter(|_| cause != Cause::First);
            return before.map_or_else(|| Some(BTreeSet::new()), Record::unguarded_before);
        };
        let over_at = hold.unguarded_until.max(hold.predecessor_over_at);
        let is_over = over_at.is_none_or(|at| at <= self.now);
        match &hold.unguarded {
            Some(heard) if heard.is_empty() && is_over => None,
            Some(heard) => Some(heard.clone()),
            None => own.unguarded.clone(),
        }
        .map(|heard| match self.state.stopping {
            Some(_) => BTreeSet::new(),
            None => heard,
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
        let Some((board, _)) = state.board_since(since) else {
            self.read_board();
            return true;
        };
        if self.may_call(Place::Promises) {
            self.act(Action::AskPromises {
                term: record.term,
                instance: record.instance.clone(),
                lasting: Timing::lease_and_margin(state.settings.timing.lease()),
                members: state.everybody(record, probe, board),
                reading,
                for_all: Some(probe.vclock.clone()),
            });
        }
        true
    }

    /// Before anybody was promoted: whoever was writable before, without tarsec, may have no agent yet, so that no lease ends
    /// there and nothing makes it read-only. A member that was never heard is not waited for.
    pub(super) fn waits_for_unguarded(&mut self, record: &Record, probe: &Probe) -> Option<Reason> {
        let state = self.state;
        record.unguarded_before()?;
        let until = state.hold.unguarded_until.filter(|at| *at > self.now);
        let known = state.hold.unguarded.as_ref();
        if known.is_some_and(BTreeSet::is_empty) && until.is_none() {
            return None;
        }
        if !self.asks_everybody(record, probe) {
            return None;
        }
        if let Some(why) = state.unguarded_words() {
            return Some(Reason::WritableWithoutGuard { why });
        }
        Some(until.map_or(Reason::Promoting, |until| {
            self.wake(until);
            Reason::WaitingForPredecessor { until }
        }))
    }
}
