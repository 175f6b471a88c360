//! A lock without a record: who is to be asked, and who may be writable without a guard.

use std::collections::BTreeMap;

use crate::state::State;
use crate::words::addresses::Whereabouts;
use crate::words::board::Board;
use crate::words::observed::Probe;
use crate::words::record::{Cause, Record};
use crate::words::timing::Tick;
use crate::words::unguarded::Unguarded;

impl State {
    /// Since when we hold the lock, where there was no key before and we have never seen a record.
    pub(crate) fn holds_unrecorded_since(&self) -> Option<Tick> {
        let record = self.hold.record.as_ref()?;
        let gained = self.hold.gained.as_ref()?;
        let is_first = record.cause == Cause::First && gained.unrecorded;
        (is_first && self.holds_lock()).then_some(gained.acquired_at)
    }

    /// Whom our instance knows, whom the record names, and whose agent has a key; and where they are reached.
    pub(crate) fn everybody(
        &self,
        record: &Record,
        probe: &Probe,
        board: &Board,
    ) -> BTreeMap<String, Whereabouts> {
        let mut members = self.members_to_ask(record);
        let named = self.hold.unguarded.iter().flat_map(Unguarded::names);
        let others = board.members.keys().chain(named);
        for uuid in others.filter(|uuid| **uuid != probe.uuid) {
            members
                .entry(uuid.clone())
                .or_insert_with(|| self.address(probe, uuid));
        }
        members
    }

    /// Who stays writable whatever becomes of the lock, and what to do about it.
    pub(crate) fn unguarded_words(&self) -> Option<String> {
        let unguarded = self.hold.unguarded.as_ref()?;
        let probe = self.instance.probe.as_ref()?;
        let named = |uuid: &String| match self.address(probe, uuid) {
            Ok(address) => format!("{uuid} ({address})"),
            Err(_) => uuid.clone(),
        };
        let named: Vec<String> = unguarded.names().map(named).collect();
        (!named.is_empty()).then(|| {
            format!(
                "nobody is promoted while {} is writable and has no agent: start its agent, or make it read-only; if it is \
                 gone for good, stop the agent of {} and start it again",
                named.join(", "),
                self.name()
            )
        })
    }
}
