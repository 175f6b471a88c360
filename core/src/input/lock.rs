//! Event + state → state, for what happens at the lock key.

use std::time::Duration;

use super::retries::{CONSUL_RETRY, DENIED_RETRY};
use crate::event::LockStepKind;
use crate::plan::Before;
use crate::state::hold::{Hold, Sent};
use crate::state::slots::Place;
use crate::state::{LostHold, Session, State, Unchanged};
use crate::words::record::{Record, RecordError, Status};
use crate::words::sight::{ConsulFault, KeySight, LockSight};
use crate::words::term::{SaidBy, Term};
use crate::words::timing::{Tick, Timing};

/// After a step at the lock that was refused.
const REFUSED_RETRY: Duration = Duration::from_millis(20);

/// After an acquisition that was refused: should the lock be free all the same (another's lock-delay), do not hammer.
const ACQUIRE_RETRY: Duration = Duration::from_millis(250);

impl State {
    pub(super) fn lock_read(
        &mut self,
        asked_at: Tick,
        by_watch: bool,
        result: Result<LockSight, ConsulFault>,
        now: Tick,
    ) {
        if !by_watch {
            self.pending.ends(Place::Lock);
        }
        let sight = match result {
            Ok(sight) => sight,
            Err(fault) => {
                self.lock.unreadable = true;
                if !by_watch {
                    self.pending.retries(Place::Lock, Some(now + CONSUL_RETRY));
                }
                self.consul_failed(&fault.why);
                self.consul_fault = Some(fault);
                return;
            }
        };
        self.consul_fault = None;
        if !by_watch {
            self.lock.confirmed_at = Some(asked_at);
        }
        self.note_readable(asked_at, now);
        self.consul_answered();
        let news = match &self.lock.sight {
            None => true,
            // Asked after we learned what we know: the answer is newer even if its index went back.
            Some(_) if asked_at >= self.lock.learned_at && !self.pending.is_busy(Place::Lock) => {
                true
            }
            Some(known) => change_index(&sight) > change_index(known),
        };
        if news {
            self.lock.outdated = false;
            self.saw_lock(sight, now);
        }
    }

    /// R3 and R4 count only time in which Consul could be read, and answers alone tell that: a question without one may
    /// have been cut short by anything on its way. Where the last two that were answered lie further apart than the
    /// limit, Consul may have been away in between and the holder may have tried in vain: it gets a whole lease from now.
    fn note_readable(&mut self, asked_at: Tick, now: Tick) {
        let unread_for = asked_at.since(self.lock.readable_at);
        if sound!(unread_for > self.settings.timing.unread_limit(); UnreadTimeCounts => false) {
            self.lock.stood_since = now;
            if let Some(known) = &mut self.lock.unchanged {
                known.since = now;
            }
        }
        self.lock.readable_at = self.lock.readable_at.max(asked_at);
    }

    /// A record with a term that nobody can have counted to was written by a hand: it says nothing of who is master.
    fn doubts_term(&self, sight: &mut LockSight) {
        let Some(key) = &mut sight.key else { return };
        if let Ok(record) = &key.record
            && !self.believes(record.term, SaidBy::Lock)
        {
            let why = format!(
                "term is {}, the highest known is {}",
                record.term, self.highest_term
            );
            key.record = Err(RecordError::Garbage { why });
        }
    }

    fn saw_lock(&mut self, mut sight: LockSight, now: Tick) {
        self.doubts_term(&mut sight);
        let record = sight
            .key
            .as_ref()
            .and_then(|key| key.record.as_ref().ok())
            .cloned();
        self.sees(sight, now);
        if let Some(record) = record {
            let known = sound!(record.term; TermsNotRemembered => Term::NONE);
            self.highest_term = self.highest_term.max(known);
            self.note_rival(&record, now);
            self.saw_record(record, now);
            self.member_terms = None;
        }
        self.lock.unreadable = false;
        self.keep_session_of_key(now);
        if self.holds_lock() {
            self.yield_to_higher_term(now);
            self.accept_found_attempt(now);
            self.adopt_hold(now);
        } else if let Some(own) = &self.hold.record {
            self.hold.unwritten = None;
            self.session.doubted = self.session.id.is_some();
            let attempted = self.hold.attempted.as_ref();
            let releasing = attempted.filter(|sent| sent.step == LockStepKind::Release);
            let written = releasing.map(|sent| sent.attempt.record.stamp());
            if written.is_some() && written == self.seen_record().map(Record::stamp) {
                // The reply to our release was lost, and here is what it wrote.
                self.released(now);
            } else if self
                .seen_record()
                .is_some_and(|seen| seen.term > own.term || seen.instance != own.instance)
            {
                self.past.lost = Some(LostHold {
                    term: own.term,
                    refresh: own.refresh,
                    begun_at: self
                        .hold
                        .reading
                        .map_or(self.hold.accepted_at, |it| it.reply_at),
                    accepted_at: self.hold.accepted_at,
                });
                self.forget_hold(now);
                self.comes_back();
            }
        }
    }

    /// A Consul that has just become leader says of a session that it is gone before it has read its own log. A
    /// consistent read waits for that: whoever holds the lock by it is alive. The session is taken up again by the same
    /// rule as by an agent that has just started.
    fn keep_session_of_key(&mut self, now: Tick) {
        let Some(probe) = self.live_probe() else {
            return;
        };
        let named = self
            .seen_record()
            .is_some_and(|record| record.instance == probe.uuid);
        let holder = self
            .key_session()
            .filter(|holder| probe.guard.session.as_deref() == Some(holder.as_str()) && named);
        if let Some(holder) = holder.cloned()
            && self.session.id.is_none()
            && !self.pending.is_busy(Place::Session)
        {
            self.session = Session::found_in_guard(holder, now);
            self.pending
                .retries(Place::Session, Some(now + REFUSED_RETRY));
        }
    }

    fn sees(&mut self, sight: LockSight, now: Tick) {
        let place = |sight: &LockSight| {
            let key = sight.key.as_ref();
            key.map(|key| (key.modify_index, key.session.clone()))
        };
        let same = self
            .lock
            .sight
            .as_ref()
            .is_some_and(|known| place(known) == place(&sight));
        if !same {
            self.lock.stood_since = now;
        }
        self.lock.sight = Some(sight);
        self.lock.learned_at = now;
    }

    /// By the time that it writes it has attached, so a question that is asked from now on tells.
    fn note_rival(&mut self, record: &Record, now: Tick) {
        let own = self.instance.probe.as_ref().map(|probe| &probe.uuid);
        if own == Some(&record.instance) && record.agent != self.settings.agent {
            self.lock.rival_seen_at = Some(now);
        }
    }

    fn saw_record(&mut self, record: Record, now: Tick) {
        let stamp = record.stamp();
        let same = self
            .lock
            .unchanged
            .as_ref()
            .is_some_and(|known| known.stamp == stamp);
        let since = match &self.lock.unchanged {
            Some(known) if same => known.since,
            Some(_) | None => {
                // The count begins with this answer, however long ago it was asked for.
                self.lock.readable_at = now;
                now
            }
        };
        let spoke_at = match &self.lock.unchanged {
            Some(known) if same => known.spoke_at,
            Some(known)
                if record.status == Status::Fenced
                    && (record.term, &record.instance)
                        == (known.record.term, &known.record.instance) =>
            {
                known.spoke_at
            }
            Some(_) | None => now,
        };
        if self
            .lock
            .term_seen
            .is_none_or(|(term, _)| term != record.term)
        {
            self.lock.term_seen = Some((record.term, now));
            let age_ms = self.wall_ms.saturating_sub(record.began_ms());
            self.lock.term_age = Duration::from_millis(age_ms);
        }
        let known = self.lock.unchanged.as_ref();
        let seen_at = known.filter(|_| same).map_or(now, |known| known.seen_at);
        // What came while Consul could not be read may have come long ago.
        let witnessed = match known {
            Some(known) if same || spoke_at == known.spoke_at => known.witnessed,
            Some(known) => !self.lock.unreadable && known.since < now,
            None => false,
        };
        self.lock.unchanged = Some(Unchanged {
            record,
            stamp,
            seen_at,
            since,
            spoke_at,
            witnessed,
        });
    }

    /// The reply to our last step was lost, or the watch was quicker, and here is what it wrote.
    fn accept_found_attempt(&mut self, now: Tick) {
        let found = self.seen_record().map(Record::stamp);
        if let Some(sent) = self.hold.attempted.clone()
            && sent.step != LockStepKind::Release
            && found == Some(sent.attempt.record.stamp())
        {
            self.accepted(sent, now);
        }
    }

    /// It is over. What was written under it must not look like what is written later.
    fn forget_hold(&mut self, now: Tick) {
        self.keep_untold(now);
        self.hold = Hold {
            refresh_sent: self.hold.refresh_sent,
            ..Hold::default()
        };
    }

    /// Another agent of our instance has begun a higher term under our session. Ours is over, and is not written again.
    fn yield_to_higher_term(&mut self, now: Tick) {
        let (Some(own), Some(seen)) = (&self.hold.record, self.seen_record()) else {
            return;
        };
        if seen.term > own.term
            && seen.instance == own.instance
            && seen.agent != self.settings.agent
        {
            self.forget_hold(now);
        }
    }

    /// We hold the lock and do not know how it came to that: an agent before us took it.
    pub(super) fn adopt_hold(&mut self, now: Tick) {
        if !self.holds_lock() || self.hold.record.is_some() {
            return;
        }
        let (Some(probe), Some(key)) = (
            &self.instance.probe,
            self.lock.sight.as_ref().and_then(|s| s.key.as_ref()),
        ) else {
            return;
        };
        if let Ok(record) = &key.record
            && record.instance == probe.uuid
        {
            let waits = sound!(
                record.status == Status::Promoting && !probe.is_master(record.term);
                AdoptionForgetsWait => false);
            let wait = Timing::lease_and_margin(record.lease());
            let heard = record.unguarded_before().filter(|_| waits);
            self.hold = Hold {
                predecessor_over_at: waits.then(|| now + wait),
                before: Before {
                    fenced_term: Term::NONE,
                    guard_age: if waits { wait } else { Duration::ZERO },
                },
                reason: record.reason.clone(),
                record: Some(record.clone()),
                refresh_sent: self.hold.refresh_sent,
                ..Hold::default()
            };
            if let Some(heard) = heard {
                self.begin_with_unguarded(Some(heard), now);
            }
        }
    }

    fn accepted(&mut self, sent: Sent, now: Tick) {
        let attempt = &sent.attempt;
        self.hold.attempted = None;
        self.hold.accepted_at = now;
        self.hold.unwritten = None;
        self.hold.unpromised = None;
        self.hold.reason.clone_from(&attempt.record.reason);
        self.hold.reading = Some(attempt.reading).filter(|reading| {
            sound!(reading.reply_at >= self.instance.process_since;
                ReadingFromBeforeProcess => true)
        });
        if let Some(gain) = attempt.gain {
            self.hold.refused_since = None;
            self.hold.promotion_unheard = false;
            let unguarded = attempt.record.unguarded_before();
            let (wait, unguarded) = sound!((gain.wait, unguarded); WaitForgotten => (None, None));
            self.hold.predecessor_over_at = wait.map(|wait| now + wait);
            self.hold.before = sent.after;
            self.hold.promised = None;
            self.hold.asked = None;
            self.begin_with_unguarded(unguarded, now);
        }
        self.highest_term = self.highest_term.max(attempt.record.term);
        self.note_accepted(&sent, now);
        if attempt.record.was_promoted() {
            self.hold.unguarded = None;
            self.hold.unguarded_until = None;
        }
        self.hold.record = Some(sent.attempt.record);
        if self.is_serving() {
            // It may have been sent before the promotion was heard of.
            self.note_base();
        }
    }

    pub(super) fn lock_step_ended(
        &mut self,
        step: LockStepKind,
        result: Result<Result<u64, String>, ConsulFault>,
        now: Tick,
    ) {
        self.pending.ends(Place::Lock);
        match result {
            Ok(Ok(index)) => {
                self.consul_answered();
                self.consul_fault = None;
                self.denied = None;
                self.lock_step_done(step, index, now);
            }
            Ok(Err(_)) => {
                self.consul_answered();
                // It looks at rights before anything else.
                self.denied = None;
                self.hold.unwritten = None;
                self.hold.attempted = None;
                self.lock.outdated = true;
                self.pending.retries(Place::Lock, Some(now + REFUSED_RETRY));
                if matches!(step, LockStepKind::Acquire | LockStepKind::TakeOver) {
                    self.hold.acquire_retry_at = Some(now + ACQUIRE_RETRY);
                }
                self.session.doubted = self.session.id.is_some();
            }
            Err(fault) => {
                self.consul_failed(&fault.why);
                self.note_doubt();
                self.lock.outdated = true;
                let gains = matches!(step, LockStepKind::Acquire | LockStepKind::TakeOver);
                let pause = if fault.denied && gains {
                    DENIED_RETRY
                } else {
                    CONSUL_RETRY
                };
                self.denied = fault.denied.then(|| fault.why.clone());
                self.pending.retries(Place::Lock, Some(now + pause));
                self.consul_fault = Some(fault);
            }
        }
    }

    fn lock_step_done(&mut self, step: LockStepKind, index: u64, now: Tick) {
        let Some(sent) = self.hold.attempted.take() else {
            return;
        };
        let record = &sent.attempt.record;
        let session = match step {
            LockStepKind::Acquire | LockStepKind::TakeOver | LockStepKind::Refresh => {
                self.session.id.clone()
            }
            LockStepKind::Release => None,
        };
        if self
            .lock
            .sight
            .as_ref()
            .is_some_and(|known| change_index(known) > index)
        {
            // The watch has already shown what came after it.
            self.lock.outdated = true;
        } else {
            let key = KeySight {
                modify_index: index,
                session,
                record: Ok(record.clone()),
            };
            let sight = LockSight {
                index,
                key: Some(key),
            };
            self.sees(sight, now);
            self.lock.outdated = false;
            self.saw_record(record.clone(), now);
            self.lock.unreadable = false;
        }
        match step {
            LockStepKind::Acquire | LockStepKind::TakeOver | LockStepKind::Refresh => {
                self.accepted(sent, now);
            }
            LockStepKind::Release => self.released(now),
        }
    }

    fn released(&mut self, now: Tick) {
        let timing = &self.settings.timing;
        let hold_back_until = Some(now + timing.refresh_interval());
        self.forget_hold(now);
        self.hold.hold_back_until = hold_back_until;
        self.comes_back();
    }
}

pub(crate) fn change_index(sight: &LockSight) -> u64 {
    sight
        .key
        .as_ref()
        .map_or(sight.index, |key| key.modify_index)
}
