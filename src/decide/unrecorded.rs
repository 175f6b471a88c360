//! We hold the lock, and no record says who was master before: whether we have to wait for a lease (R3).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Planner;
use super::board::{Board, Cause};
use super::observed::Probe;
use super::plan::{Action, Reason};
use super::record::Record;
use super::state::State;
use super::timing::{Tick, Timing};

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
    /// Who stays writable whatever becomes of the lock, and what to do about it.
    pub(super) fn unguarded_words(&self) -> Option<String> {
        let unguarded = self.hold.unguarded.as_ref()?;
        let probe = self.instance.probe.as_ref()?;
        let named = |uuid: &String| format!("{uuid} ({})", self.address(probe, uuid));
        let named: Vec<String> = unguarded.iter().map(named).collect();
        (!named.is_empty()).then(|| {
            format!(
                "nobody is promoted while {} is writable and has no agent: start its agent, or make it read-only",
                named.join(", ")
            )
        })
    }
}

impl Planner<'_> {
    /// R3 asks for a lease of waiting, unless every known member answers that it is read-only. Whom these know in turn they
    /// say themselves: each refuses if it knows somebody that was not asked.
    ///
    /// Returns whether there will be an answer.
    pub(super) fn asks_everybody(&mut self, record: &Record, probe: &Probe) -> bool {
        let state = self.state;
        let since = state.holds_unrecorded_since().unwrap_or_default();
        // One that is not registered may not know the others.
        let is_registered = probe.peer(&probe.uuid).is_some();
        let Some(reading) = state.hold.reading.filter(|_| is_registered) else {
            return false;
        };
        let Some((board, _)) = state.board_since(since) else {
            self.read_board();
            return true;
        };
        if self.may_call(state.pending.promises, state.pending.promises_retry_at) {
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

    /// Of a replica set's first master: whoever was writable before, without tarsec, may have no agent yet, so that no lease
    /// ends there and nothing makes it read-only. A member that cannot be asked is not waited for.
    pub(super) fn waits_for_unguarded(&mut self, record: &Record, probe: &Probe) -> Option<Reason> {
        let state = self.state;
        if record.cause != Cause::First
            || state
                .hold
                .unguarded
                .as_ref()
                .is_some_and(BTreeSet::is_empty)
        {
            return None;
        }
        if !self.asks_everybody(record, probe) {
            return None;
        }
        Some(match state.unguarded_words() {
            Some(why) => Reason::WritableWithoutGuard { why },
            None => Reason::Promoting,
        })
    }
}
