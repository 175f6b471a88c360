//! R6: without Consul a master goes on for as long as every member's guard promises, asked by its agent, not to be
//! promoted for another lease and its margin.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::addresses::Whereabouts;
use super::observed::Probe;
use super::plan::{Action, Before, Reason};
use super::record::{Record, Status};
use super::state::{Asked, Reading, State};
use super::term::Term;
use super::timing::{Tick, Timing};
use super::unrecorded::Unguarded;
use super::{Place, Planner};

/// After members that did not all promise: one of them may be restarting.
const PROMISES_RETRY: Duration = Duration::from_millis(200);

impl State {
    /// Of those that whoever was master may have had, where no record says it.
    pub(super) fn longest_lease(&self) -> Duration {
        let own = self.settings.timing.lease();
        let known = self.lock.unchanged.as_ref();
        let seen = known.map_or(own, |known| known.record.lease());
        own.max(seen)
            .max(self.member_terms.unwrap_or_default().lease)
    }

    /// What a promotion in `term` has to say of the terms before it, should the lock be gained now.
    pub(super) fn before(&self, term: Term) -> Before {
        let own = self.settings.timing.lease();
        // Nobody says who was master, and on whose promises it may still be.
        let unknown = Before {
            fenced_term: Term::NONE,
            guard_age: sound!(Timing::lease_and_margin(self.longest_lease());
                UnrecordedGuardTrusted => Duration::ZERO),
        };
        let uuid = self.instance.probe.as_ref().map(|probe| &probe.uuid);
        match self.seen_record().filter(|_| !self.holds_lock()) {
            Some(record) if record.term == term && Some(&record.instance) == uuid => {
                match &self.hold.record {
                    // Nobody has held the lock in between.
                    _ if record.status == Status::Active => Before::default(),
                    Some(known) if known.term == term => self.hold.before,
                    Some(_) | None => unknown,
                }
            }
            // Brought back from a backup: whoever was master since is not in it.
            Some(record) if record.term.next() != term => unknown,
            Some(record) if record.status == Status::Fenced => Before {
                fenced_term: record.term,
                guard_age: Duration::ZERO,
            },
            Some(record) if record.failsafe => Before {
                fenced_term: sound!(Term::NONE; PromiseBindsNobody => Term::MAX),
                guard_age: sound!(Timing::lease_and_margin(own.max(record.lease()));
                    RestartedGuardTrusted => Duration::ZERO),
            },
            Some(_) => Before::default(),
            None => unknown,
        }
    }

    /// Until when the guard refuses a promotion that says `before`, if it does.
    pub(super) fn promised_until(&self, before: Before, now: Tick) -> Option<Tick> {
        let probe = self.live_probe()?;
        let at = self.instance.probed_at?;
        let promised = probe
            .promise_to_another()
            .filter(|promise| promise.term > before.fenced_term)
            .map(|promise| at + Duration::from_nanos(promise.left_ns));
        let age = Duration::from_nanos(probe.guard.age_ns);
        let grown = (age < before.guard_age).then(|| at + (before.guard_age - age));
        promised.max(grown).filter(|until| *until > now)
    }

    pub(super) fn note_promise(&mut self, probe: &Probe, now: Tick) {
        if let Some(promise) = probe.promise_to_another().filter(|it| it.left_ns > 0) {
            let until = now + Duration::from_nanos(promise.left_ns);
            self.instance.bound_until = self.instance.bound_until.max(until);
        }
    }

    /// Whether nobody is master any more on a promise that the hold's predecessor was given: its record said `fenced`,
    /// or we are among those who must have promised, and our promise is over.
    pub(super) fn is_free_of_promises(&self, now: Tick) -> bool {
        let before = self.hold.before;
        before.guard_age.is_zero()
            || (self.live_probe().is_some() && self.promised_until(before, now).is_none())
    }

    /// What the running lease rests on: Consul's acceptance or every member's promise, whichever is newer.
    pub(super) fn lease_base(&self) -> Option<Reading> {
        let (accepted, promised) = (self.hold.reading, self.hold.promised);
        accepted
            .into_iter()
            .chain(promised)
            .max_by_key(|reading| reading.t0)
    }

    /// Where its peers are, for the time when it follows them no more.
    pub(super) fn note_peers(&mut self, probe: &Probe) {
        let known: BTreeSet<&String> = probe.replication.iter().map(|peer| &peer.uuid).collect();
        self.instance.peers.retain(|uuid, _| known.contains(uuid));
        for peer in &probe.replication {
            let upstream = peer.upstream.as_ref();
            if let Some(uri) = upstream.and_then(|upstream| upstream.peer.as_deref()) {
                let (_, address) = uri.rsplit_once('@').unwrap_or(("", uri));
                self.instance
                    .peers
                    .insert(peer.uuid.clone(), address.to_owned());
            }
        }
    }

    /// Everybody who could be promoted while we serve, and where it is reached.
    /// Whom the last accepted record names, whom the record in the key may name, should a lost write have arrived, and
    /// whom the instance itself knows: who joins now is asked from its first moment on.
    pub(super) fn members_to_ask(&self, record: &Record) -> BTreeMap<String, Whereabouts> {
        let Some(probe) = self.live_probe() else {
            return BTreeMap::new();
        };
        let attempted = self.hold.attempted.iter();
        let attempted = attempted.flat_map(|sent| &sent.attempt.record.members);
        record
            .members
            .iter()
            .chain(attempted)
            .chain(&self.hold.in_doubt)
            .chain(probe.replication.iter().map(|peer| &peer.uuid))
            .filter(|uuid| {
                sound!(**uuid != probe.uuid;
                    AbsentNotAsked => **uuid != probe.uuid && probe.followers().contains(uuid))
            })
            .map(|uuid| (uuid.clone(), self.address(probe, uuid)))
            .collect()
    }

    pub(super) fn begin_promises(
        &mut self,
        term: Term,
        members: &BTreeMap<String, Whereabouts>,
        reading: Reading,
        for_all: bool,
    ) {
        self.hold.asked = Some(Asked {
            term,
            reading,
            members: members.keys().cloned().collect(),
            for_all,
        });
    }

    /// Promises count for the term and the reading that they were asked for, and only while nothing has happened since
    /// that made the question void.
    pub(super) fn promises_answered(
        &mut self,
        reading: Reading,
        answers: &BTreeMap<String, Result<(), String>>,
        unguarded: Unguarded,
        now: Tick,
    ) {
        self.pending.ends(Place::Promises);
        let retry_at = Some(now + PROMISES_RETRY);
        self.pending.retries(Place::Promises, retry_at);
        let Some(asked) = self.hold.asked.take() else {
            return;
        };
        let term = self.hold.record.as_ref().map(|record| record.term);
        if asked.reading != reading
            || term != Some(asked.term)
            || reading.reply_at < self.instance.process_since
        {
            return;
        }
        let refusals: Vec<String> = asked
            .members
            .iter()
            .filter_map(|uuid| match answers.get(uuid) {
                Some(Ok(())) => None,
                Some(Err(why)) => Some(format!("{uuid}: {why}")),
                None => Some(format!("{uuid}: no answer")),
            })
            .collect();
        let all_promised = sound!(refusals.is_empty(); OnePromiseIsEnough =>
            refusals.len() < asked.members.len() || asked.members.is_empty());
        if asked.for_all && !self.is_serving() {
            self.note_unguarded(unguarded, all_promised, now);
        }
        if all_promised {
            if asked.for_all {
                self.all_are_read_only();
            } else {
                self.hold.promised =
                    sound!(Some(reading); PromisesForLaterReading => self.instance.reading);
            }
            self.hold.unpromised = None;
            self.pending.retries(Place::Promises, None);
        } else {
            self.hold.unpromised = Some(refusals.join("; "));
        }
    }

    /// A step at the lock, or a read of it, had no answer.
    pub(super) fn consul_failed(&mut self, why: &str) {
        if self.hold.record.is_some() {
            self.hold.unwritten = Some(why.to_owned());
        }
    }

    /// The write whose reply was lost may still be carried out, at any time.
    pub(super) fn note_doubt(&mut self) {
        let attempted = self.hold.attempted.iter();
        let named = attempted.flat_map(|sent| sent.attempt.record.members.iter().cloned());
        self.hold.in_doubt.extend(named);
    }

    /// Consul answered, whatever it said: what was asked of the members in its place is of no use.
    pub(super) fn consul_answered(&mut self) {
        self.hold.asked.take_if(|asked| !asked.for_all);
    }
}

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
