//! Promises that were given, written down (R6).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::state::State;
use crate::state::hold::Asked;
use crate::state::slots::Place;
use crate::words::addresses::Whereabouts;
use crate::words::observed::Probe;
use crate::words::term::Term;
use crate::words::timing::{Reading, Tick};
use crate::words::unguarded::Unguarded;

/// After members that did not all promise: one of them may be restarting.
const PROMISES_RETRY: Duration = Duration::from_millis(200);

impl State {
    pub(super) fn note_promise(&mut self, probe: &Probe, now: Tick) {
        if let Some(promise) = probe.promise_to_another().filter(|it| it.left_ns > 0) {
            let until = now + Duration::from_nanos(promise.left_ns);
            self.instance.bound_until = self.instance.bound_until.max(until);
        }
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
