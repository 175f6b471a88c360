//! What must hold. One file for each, which cites its rule; here is what they need to remember.

mod answered;
mod at_most_one;
mod catalog;
mod election;
mod lease;
mod liveness;
mod patience;
mod pause;
mod release;
mod succession;
mod switchover;
mod sync;
mod terms;

use crate::decide::term::Term;
use crate::decide::timing::InstanceTime;
use crate::time::Time;
use crate::world::World;

/// An invariant that did not hold.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Which.
    pub invariant: &'static str,
    /// In words, with what was found.
    pub words: String,
    /// In simulated time, in nanoseconds.
    pub at_ns: u64,
}

/// What is remembered of one instance.
#[derive(Debug, Clone, Default)]
struct Place {
    /// No fault has touched it since then.
    disturbed_until: Time,
    /// Readings of its present process under a write that Consul accepted, with their terms.
    accepted: Vec<(Term, InstanceTime)>,
    /// The same under which all members promised.
    promised: Vec<InstanceTime>,
    /// When the last of either came.
    based_at: Option<Time>,
    /// Its newest synchronous row that was acknowledged.
    acknowledged: u64,
    /// The last lease's end in true time, at most.
    leased_until: Time,
    /// Its member's key has said since then that its guard may stand down.
    told_since: Option<Time>,
    /// An agent wrote that key that the guard does not obey.
    disputed: bool,
    /// As the catalog shows it.
    service: Option<catalog::Service>,
}

/// What is remembered of one replica set.
#[derive(Debug, Clone, Default)]
struct Memory {
    /// The highest term of a record that was accepted, and that was ever served, and by whom.
    written: Term,
    served: Option<(Term, usize)>,
    /// When the last record was accepted.
    written_at: Time,
    /// A pause was in force until then at least.
    paused_until: Time,
    /// The key was deleted or overwritten: whoever comes next may wait a minute.
    key_lost: bool,
    /// The last change of hands: when the lock was up for grabs, and for whom it was released.
    handed_to: Option<String>,
    /// The one master since then, once all is well.
    steady: Option<(usize, Time)>,
    two_masters_since: Option<Time>,
    late_word_until: Time,
}

/// What the invariants remember.
#[derive(Debug)]
pub(crate) struct Checks {
    places: Vec<Place>,
    sets: Vec<Memory>,
    pub(crate) promotions: u64,
    pub(crate) calm_since: Option<Time>,
    /// For numbering requests.
    pub(crate) ids: u64,
    /// Queues that are being taken behind promotions that were given up: until when, instance, process.
    pub(crate) taking: Vec<(Time, usize, u32)>,
}

impl Checks {
    pub(crate) fn new(sets: usize, instances: usize) -> Self {
        Self {
            places: vec![Place::default(); instances],
            sets: vec![Memory::default(); sets],
            promotions: 0,
            calm_since: None,
            ids: 0,
            taking: Vec::new(),
        }
    }

    /// Something goes wrong there until then.
    pub(crate) fn disturbed(&mut self, at: usize, until: Time) {
        let place = &mut self.places[at];
        place.disturbed_until = place.disturbed_until.max(until);
    }

    /// The process is gone, and its clock with it.
    pub(crate) fn died(&mut self, at: usize) {
        let place = &mut self.places[at];
        place.accepted.clear();
        place.promised.clear();
        place.based_at = None;
        place.leased_until = 0;
    }

    pub(crate) fn killed(&mut self, _at: usize) {}

    pub(crate) fn promised(&mut self, at: usize, t0: InstanceTime, now: Time) {
        let place = &mut self.places[at];
        place.promised.push(t0);
        place.based_at = Some(now);
    }

    pub(crate) fn acknowledged(&mut self, at: usize, lsn: u64) {
        self.places[at].acknowledged = lsn;
    }

    pub(crate) fn lock_changed_at(&self, set: usize) -> Time {
        self.sets[set].written_at
    }

    pub(crate) fn key_lost(&mut self, set: usize) {
        self.sets[set].key_lost = true;
    }

    pub(crate) fn paused(&mut self, set: usize, cluster: bool, until: Time) {
        for (number, memory) in self.sets.iter_mut().enumerate() {
            if cluster || number == set {
                memory.paused_until = memory.paused_until.max(until);
            }
        }
    }
}

impl World {
    /// The first thing that fails is what counts.
    pub(crate) fn fail(&mut self, invariant: &'static str, words: String) {
        self.note(|_| format!("VIOLATED {invariant}: {words}"));
        if self.failure.is_none() {
            self.failure = Some(Failure {
                invariant,
                words,
                at_ns: self.now,
            });
        }
    }
}
