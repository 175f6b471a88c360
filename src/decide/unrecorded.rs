//! We hold the lock, and no record says who was master before: whether we have to wait for a lease (R3).

use std::collections::BTreeMap;
use std::time::Duration;

use super::Planner;
use super::board::{Board, Cause};
use super::observed::Probe;
use super::plan::Action;
use super::record::Record;
use super::state::State;
use super::timing::{Tick, Timing};

impl State {
    /// Since when we hold the lock, where there was no key before and we have never seen a record.
    fn holds_unrecorded_since(&self) -> Option<Tick> {
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

impl Planner<'_> {
    /// R3 asks for a lease of waiting, unless every known member answers that it is read-only. Whom these know in turn they
    /// say themselves: each refuses if it knows somebody that was not asked.
    pub(super) fn asks_everybody(&mut self, record: &Record, probe: &Probe) {
        let state = self.state;
        let Some(since) = state.holds_unrecorded_since() else {
            return;
        };
        // One that is not registered may not know the others.
        let is_registered = probe.replication.iter().any(|peer| peer.uuid == probe.uuid);
        let Some(reading) = state.hold.reading.filter(|_| is_registered) else {
            return;
        };
        let Some((board, _)) = state.board_since(since) else {
            self.read_board();
            return;
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
    }
}
