//! The lock is free or missing: whose turn is it, and when (R3).

use std::time::Duration;

use super::event::{KeySight, LockSight};
use super::plan::{Action, Reason};
use super::record::{Record, RecordError, Status};
use super::state::Gain;
use super::timing::Timing;
use super::{Planner, Tick};

/// How a free lock may be taken.
struct Claim {
    term: u64,
    /// No earlier than then.
    from: Option<Tick>,
    gain: Gain,
    reason: &'static str,
}

impl Planner<'_> {
    pub(super) fn consider_free_lock(&mut self, sight: &LockSight) -> Reason {
        if self.state.live_probe().is_none() {
            return Reason::WaitingForInstance {
                why: self.instance_words(),
            };
        }
        let serving = self.state.serving_term();
        if serving.is_some_and(|term| term < self.state.highest_term) {
            return self.fence("a higher term than its own has been served");
        }
        let claim = match sight.key.as_ref().map(|key| (key, &key.record)) {
            Some((_, Err(error @ RecordError::UnknownVersion { .. }))) => {
                return Reason::UnknownRecordVersion {
                    why: error.to_string(),
                };
            }
            Some((_, Ok(record))) if self.is_own_term(record) => self.claim_own_term(record),
            // Brought back from a backup: whoever was master since is not in it.
            Some((_, Ok(record))) if record.term < self.state.highest_term => {
                self.claim_without_record()
            }
            Some((_, Ok(record))) => {
                if serving.is_some() {
                    return self.fence("somebody else held the lock last");
                }
                self.claim_after(record)
            }
            Some((_, Err(RecordError::Garbage { .. } | RecordError::TooLong { .. }))) | None => {
                self.claim_without_record()
            }
        };
        self.make_claim(sight.key.as_ref(), claim)
    }

    /// Written by this instance, in the term that its guard still knows, and not given up.
    fn is_own_term(&self, record: &Record) -> bool {
        record.status != Status::Fenced
            && record.term >= self.state.highest_term
            && self.state.live_probe().is_some_and(|probe| {
                record.instance == probe.uuid && record.term == probe.guard.term
            })
    }

    /// A predecessor that is ourselves needs no waiting; whoever was before it may, if it was never promoted.
    fn claim_own_term(&self, record: &Record) -> Claim {
        let wait = match record.status {
            Status::Promoting if self.state.serving_term() != Some(record.term) => {
                Some(Timing::lease_and_margin(record.lease()))
            }
            Status::Promoting | Status::Active | Status::Fenced => None,
        };
        Claim {
            term: record.term,
            from: None,
            gain: Gain { wait },
            reason: "took its lock again",
        }
    }

    fn claim_after(&self, record: &Record) -> Claim {
        let term = self.state.highest_term + 1;
        if record.status == Status::Fenced {
            return Claim {
                term,
                from: None,
                gain: Gain { wait: None },
                reason: "the master before gave the lock up",
            };
        }
        // Until then the last holder may still be writable, or come back and go on.
        let seen = self
            .state
            .lock
            .unchanged
            .as_ref()
            .filter(|known| known.stamp == record.stamp());
        let since = seen.map_or(self.now, |known| known.since);
        let from = Some(since + Timing::lease_and_margin(record.lease()));
        Claim {
            term,
            from,
            gain: Gain { wait: None },
            reason: "the lease of the master before ended",
        }
    }

    /// Nobody says who was master: a full lease has to pass after the lock is ours, the longest that we know of.
    fn claim_without_record(&self) -> Claim {
        let own = self.state.settings.timing.lease();
        let known = self.state.lock.unchanged.as_ref();
        let seen = known.map_or(own, |known| known.record.lease());
        let members = self.state.member_terms.unwrap_or_default().lease;
        let longest = own.max(seen).max(members);
        let gain = Gain {
            wait: Some(Timing::lease_and_margin(longest)),
        };
        match self.state.serving_term() {
            Some(term) => Claim {
                term,
                from: None,
                gain,
                reason: "took its lock again",
            },
            None => Claim {
                term: self.state.highest_term + 1,
                // A master whose record was deleted or overwritten is still there, and is to have its lock again.
                from: known
                    .filter(|known| known.record.status != Status::Fenced)
                    .map(|known| known.since + Timing::lease_and_margin(known.record.lease())),
                gain,
                reason: "there was no record",
            },
        }
    }

    fn make_claim(&mut self, key: Option<&KeySight>, claim: Claim) -> Reason {
        let serving = self.state.serving_term().is_some();
        if !serving {
            if let Some(why) = self.unfit(Duration::ZERO) {
                return Reason::NotACandidate { why };
            }
            if let Some(at) = claim
                .from
                .max(self.state.hold.hold_back_until)
                .filter(|at| *at > self.now)
            {
                self.wake(at);
                return Reason::WaitingForPredecessorLease { until: at };
            }
            if let Some(reason) = self.wait_for_promise(claim.term, claim.gain.wait.is_some()) {
                return reason;
            }
            if claim.gain.wait.is_some() && self.state.member_terms.is_none() {
                self.read_terms();
                return Reason::RunningForLock;
            }
        }
        self.run_for_lock(key.map(|key| key.modify_index), &claim);
        if serving {
            self.serve_without_lock().unwrap_or(Reason::TakingLockAgain)
        } else {
            self.unless_denied(Reason::RunningForLock)
        }
    }

    fn read_terms(&mut self) {
        if self.may_call(self.state.pending.board, self.state.pending.board_retry_at) {
            self.act(Action::ReadBoard);
        }
    }

    /// A session, written down in the guard, then the lock.
    fn run_for_lock(&mut self, index: Option<u64>, claim: &Claim) {
        let Some(session) = self.state.session.id.clone() else {
            if self.may_call_session() {
                self.act(Action::CreateSession);
            }
            return;
        };
        if self.state.pending.session {
            return;
        }
        let usable_until =
            self.state.session.renewed_at + self.state.settings.timing.session_renew_interval();
        if self.state.session.doubted || usable_until <= self.now {
            if self.may_call_session() {
                self.act(Action::RenewSession { session });
            }
            return;
        }
        if !self.state.session.remembered {
            if self.may_command_guard() {
                self.act(Action::Remember { session });
            }
            return;
        }
        if let Some(reading) = self.fresh_reading()
            && self.may_call_lock()
        {
            let attempt = self.next_record(reading, claim.term, claim.reason, Some(claim.gain));
            self.act(Action::Acquire {
                session,
                index,
                attempt: Box::new(attempt),
            });
        }
    }
}
