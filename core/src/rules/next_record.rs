//! The record that a lock step writes.

use std::time::Duration;

use super::planner::Planner;
use crate::plan::{Attempt, Before, Gain};
use crate::words::observed::Probe;
use crate::words::record::{Cause, Record, Status};
use crate::words::term::Term;
use crate::words::timing::Reading;

impl Planner<'_> {
    /// The record to write next, resting on `reading`. `gain` says that it begins a hold, after which promotion has
    /// to wait for a predecessor or not.
    pub(super) fn next_record(
        &self,
        reading: Reading,
        term: Term,
        reason: &str,
        cause: Cause,
        gain: Option<Gain>,
    ) -> Attempt {
        let settings = &self.state.settings;
        let probe = self.state.instance.probe.as_ref();
        let uuid = probe.map_or("", |probe| &probe.uuid);
        // An agent that has just started finds its own term in the key alone.
        let known = self.state.hold.record.as_ref();
        let known = known.or(self.state.seen_record());
        let own = known.filter(|record| record.term == term && record.instance == uuid);
        let before = match &gain {
            Some(_) => self.state.before(term),
            None => self.state.hold.before,
        };
        let mut record = Record {
            v: Record::VERSION,
            term,
            instance: uuid.to_owned(),
            replicaset: of(probe, |probe| probe.replicaset_uuid.clone()),
            name: self.state.name().to_owned(),
            uri: settings.announce.clone(),
            agent: settings.agent.clone(),
            status: if probe.is_some_and(|probe| self.reigns(term, probe)) {
                Status::Active
            } else {
                Status::Promoting
            },
            lease_ms: ceil_ms(self.lease_to_say(gain, before)).min(Record::MAX_LEASE_MS),
            refresh: self.next_refresh(),
            vclock: of(probe, |probe| probe.vclock.clone()),
            members: of(probe, |probe| {
                let peers = probe.replication.iter();
                peers.map(|peer| peer.uuid.clone()).collect()
            }),
            since: own.map_or(self.state.wall_ms / 1000, |record| record.since),
            since_ms: own.map_or(self.state.wall_ms, |record| record.since_ms),
            reason: reason.to_owned(),
            cause: own.map_or(cause, |record| record.cause),
            base: self.base(own, term),
            following: of(probe, Probe::followers),
            split_off: self.state.split_off(own),
            failsafe: settings.failsafe || self.may_promises_run(before),
            paused: self.says_paused(),
            refused: false,
            last_master: self.last_master(own, term),
            unguarded: None,
            rate_rows_per_s: self.write_rate(reading.reply_at, probe.map(|probe| &probe.vclock)),
            quorum: self.quorum(own, term, probe),
            tried: self.tried(own, term),
            offered: gain.is_none() && self.is_not_promoted_since().is_some(),
            end: self.end_so_far(own, cause, gain.is_some()),
            handover_to: self.hands_over_to(term),
            problems: self.state.problems(),
        };
        record.says_unguarded(self.unguarded_word(own, cause));
        Attempt {
            record,
            reading,
            gain,
        }
    }

    /// Promises to whoever was before us may be running as long as we are not promoted.
    fn may_promises_run(&self, before: Before) -> bool {
        let seen = self.state.seen_record();
        !before.guard_age.is_zero() && seen.is_some_and(|seen| seen.failsafe)
    }

    /// How long whoever comes after us has to wait for us, and, should we fall before we are promoted, for our predecessor.
    fn lease_to_say(&self, gain: Option<Gain>, before: Before) -> Duration {
        // A guard may still hold an agent's longer lease from before a change of settings.
        let running = self.state.instance.lease;
        let running = running.map(|lease| lease.due_at.since(self.now));
        let lease = self.state.settings.timing.lease();
        let lease = lease.max(running.unwrap_or_default());
        let waits = match &gain {
            Some(gain) => gain.wait.is_some(),
            None => self
                .state
                .hold
                .predecessor_over_at
                .is_some_and(|at| at > self.now),
        };
        let predecessor = self.state.lock.unchanged.as_ref();
        let predecessor = predecessor.filter(|_| waits || !before.guard_age.is_zero());
        predecessor.map_or(lease, |seen| lease.max(seen.record.lease()))
    }

    /// Higher than any write before it, of ours or of whoever wrote what we see. A number that nobody can have counted to was
    /// written by a hand: it needs not be exceeded, since our write bears our agent's name.
    pub(super) fn next_refresh(&self) -> u64 {
        let hold = &self.state.hold;
        let records = hold.record.iter().chain(self.state.seen_record());
        let counted = records.map(|record| record.refresh);
        let known = counted
            .filter(|refresh| *refresh < Record::MAX_REFRESH)
            .max();
        known.unwrap_or(0).max(hold.refresh_sent) + 1
    }
}

/// What an instance that has not been seen yet has nothing of.
fn of<T: Default>(probe: Option<&Probe>, what: impl FnOnce(&Probe) -> T) -> T {
    probe.map(what).unwrap_or_default()
}

/// Rounded up: a record must not promise an earlier end than there is.
fn ceil_ms(lease: Duration) -> u64 {
    u64::try_from(lease.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
