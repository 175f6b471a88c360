//! Promises (R6): who has to give one, which were given, and until when they bind.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::plan::Before;
use crate::state::State;
use crate::words::addresses::Whereabouts;
use crate::words::record::{Record, Status};
use crate::words::term::Term;
use crate::words::timing::{Reading, Tick, Timing};

impl State {
    /// Of those that whoever was master may have had, where no record says it.
    pub(crate) fn longest_lease(&self) -> Duration {
        let own = self.settings.timing.lease();
        let known = self.lock.unchanged.as_ref();
        let seen = known.map_or(own, |known| known.record.lease());
        own.max(seen)
            .max(self.member_terms.unwrap_or_default().lease)
    }

    /// What a promotion in `term` has to say of the terms before it, should the lock be gained now.
    pub(crate) fn before(&self, term: Term) -> Before {
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
    pub(crate) fn promised_until(&self, before: Before, now: Tick) -> Option<Tick> {
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

    /// Whether nobody is master any more on a promise that the hold's predecessor was given: its record said `fenced`,
    /// or we are among those who must have promised, and our promise is over.
    pub(crate) fn is_free_of_promises(&self, now: Tick) -> bool {
        let before = self.hold.before;
        before.guard_age.is_zero()
            || (self.live_probe().is_some() && self.promised_until(before, now).is_none())
    }

    /// What the running lease rests on: Consul's acceptance or every member's promise, whichever is newer.
    pub(crate) fn lease_base(&self) -> Option<Reading> {
        let (accepted, promised) = (self.hold.reading, self.hold.promised);
        accepted
            .into_iter()
            .chain(promised)
            .max_by_key(|reading| reading.t0)
    }

    /// Everybody who could be promoted while we serve, and where it is reached.
    /// Whom the last accepted record names, whom the record in the key may name, should a lost write have arrived, and
    /// whom the instance itself knows: who joins now is asked from its first moment on.
    pub(crate) fn members_to_ask(&self, record: &Record) -> BTreeMap<String, Whereabouts> {
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
}
