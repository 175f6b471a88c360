//! We hold the lock, and no record says who was master before: whether we have to wait for a lease (R3).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::addresses::Whereabouts;
use super::board::{Board, Cause};
use super::observed::Probe;
use super::plan::{Action, Reason};
use super::record::Record;
use super::state::State;
use super::timing::{Tick, Timing};
use super::{Place, Planner};

/// Members that gave no promise, by instance UUID, as far as it matters to who may be writable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Unguarded {
    /// They are writable, and have no guard that could fence them.
    pub writable: BTreeSet<String>,
    /// They have not been heard.
    pub silent: BTreeSet<String>,
}

impl Unguarded {
    fn is_empty(&self) -> bool {
        self.writable.is_empty() && self.silent.is_empty()
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.writable.union(&self.silent)
    }
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
    fn everybody(
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

    /// Every instance that anybody knows said, when we had the lock already, that it is read-only, with its commits landed;
    /// and each refuses from then on whatever rests on an earlier word. So nobody is master, and on nobody's promise. Not
    /// so where members' keys were not read: whose they are was not asked.
    pub(super) fn all_are_read_only(&mut self) {
        let misses = self.board.as_ref().is_some_and(|(it, _)| it.misses_members);
        if self.holds_unrecorded_since().is_some() && !misses {
            self.hold.predecessor_over_at = None;
            self.hold.before.guard_age = Duration::ZERO;
        }
    }
}

impl State {
    /// A member that was writable without a guard stays so for us until it says otherwise. From that moment its last commits
    /// may land for as long as a lease would have run, unless everybody promises.
    pub(super) fn note_unguarded(&mut self, said: Unguarded, all_promised: bool, now: Tick) {
        let known = self.hold.unguarded.take().unwrap_or_default();
        let unguarded = Unguarded {
            silent: known
                .names()
                .filter(|uuid| said.silent.contains(*uuid))
                .cloned()
                .collect(),
            writable: said.writable,
        };
        if all_promised {
            self.hold.unguarded_until = None;
        } else if !known.is_empty() || !unguarded.is_empty() {
            let lease = Timing::lease_and_margin(self.settings.timing.lease());
            self.hold.unguarded_until = Some(now + lease);
        }
        self.hold.unguarded = Some(unguarded);
    }

    /// A hold begins under a record that says whom a holder before us heard to be writable without a guard. They are so
    /// for us, too. Where the members have not all promised yet, they have a lease for it.
    pub(super) fn begin_with_unguarded(&mut self, heard: Option<BTreeSet<String>>, now: Tick) {
        let lease = Timing::lease_and_margin(self.settings.timing.lease());
        self.hold.unguarded_until = heard.as_ref().map(|_| now + lease);
        let named = heard.filter(|heard| !heard.is_empty());
        self.hold.unguarded = named.map(|writable| Unguarded {
            writable,
            ..Unguarded::default()
        });
    }

    /// Who stays writable whatever becomes of the lock, and what to do about it.
    pub(super) fn unguarded_words(&self) -> Option<String> {
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
                    UnrecordedAsksNobody => BTreeMap::new()),
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
