//! The lock is up for grabs: free, missing, or held by somebody who has not been heard of for a lease. Whose turn is
//! it, and when (R3, R4).

use std::time::Duration;

use super::contest::{Contest, handover};
use super::planner::Planner;
use crate::plan::{Action, Gain, GuardCommand, Reason};
use crate::state::slots::Place;
use crate::words::board::Member;
use crate::words::ids::SessionId;
use crate::words::record::{Cause, Record, RecordError, Status};
use crate::words::sight::{ConsulFault, KeySight, LockSight};
use crate::words::term::Term;
use crate::words::timing::{Tick, Timing};

/// How often the board is looked at again during a pause.
const PAUSE_POLL: Duration = Duration::from_secs(1);

/// How a lock that is up for grabs may be taken.
struct Claim<'a> {
    term: Term,
    /// No earlier than then.
    from: Option<Tick>,
    gain: Gain,
    reason: &'a str,
    cause: Cause,
    /// Whoever was master before, where a record says so.
    record: Option<&'a Record>,
    /// Our own term goes on: nothing changes hands, so nobody is asked.
    own: bool,
}

/// The lock key as it is to be taken.
struct Seat<'a> {
    /// Its `ModifyIndex`; `None`: there is no key.
    index: Option<u64>,
    /// Who holds it, and has not been heard of for a lease.
    holder: Option<&'a SessionId>,
}

impl Planner<'_> {
    pub(super) fn consider_free_lock(&mut self, sight: &LockSight) -> Reason {
        let seat = Seat {
            index: sight.key.as_ref().map(|key| key.modify_index),
            holder: None,
        };
        let record = sight.key.as_ref().and_then(|key| key.record.as_ref().ok());
        if self.state.live_probe().is_none() {
            let why = self.instance_words();
            let contest = Contest {
                index: seat.index.unwrap_or(0),
                term: self.state.highest_term.next(),
                record: record.filter(|record| record.term >= self.state.highest_term),
                since: self.state.lock.stood_since,
                is_offered: false,
            };
            self.decline(&contest, &why);
            return Reason::WaitingForInstance { why };
        }
        let leased = self.state.live_probe().filter(|probe| probe.guard.leased);
        if leased.is_some_and(|probe| probe.guard.term > self.state.highest_term) {
            return self.fence("its lease is for a term that nobody can have counted to");
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
        self.make_claim(&seat, &claim)
    }

    /// R4: the holder has not been heard of for its lease and margin, seen as in R3. `None`: it still may be heard of.
    ///
    /// A record that says `fenced` in a held lock was put there by hand, since our release frees the lock in the same
    /// step: its holder is a stranger, who gets the same time as anybody. So does one who holds the lock without a
    /// record, counted from when that was first seen; and since nobody knows who was master before, promotion then
    /// waits like after a free lock without a record. A record of another version is not ours to judge.
    pub(super) fn consider_take_over(&mut self, key: &KeySight) -> Option<Reason> {
        if self.state.lock.unreadable {
            // Whether the count goes on is to be seen when Consul can be read again.
            return None;
        }
        let claim = match &key.record {
            Err(RecordError::UnknownVersion { .. }) => return None,
            Ok(record) if record.term >= self.state.highest_term => Claim {
                from: Some(sound!(self.outlived_at(record);
                    LiveHolderTakenOver => self.state.lock.stood_since)),
                reason: "the master before had not been heard of for a lease",
                cause: Cause::TakenOver,
                ..self.claim_after(record)
            },
            Ok(_) | Err(RecordError::Garbage { .. } | RecordError::TooLong { .. }) => {
                let claim = self.claim_without_record();
                let stood = claim.gain.wait.unwrap_or_default();
                let from = Some(self.state.lock.stood_since + stood).max(claim.from);
                Claim { from, ..claim }
            }
        };
        let due_at = claim.from?;
        if sound!(due_at > self.now; GoneHolderStays => true) {
            self.wake(due_at);
            return None;
        }
        // One look before anything is done: a Consul that has fallen silent is noticed, and the sight is fresh.
        let confirmed_at = self.state.lock.confirmed_at;
        if sound!(confirmed_at.is_none_or(|at| at < due_at); TakeOverUnread => false) {
            return Some(self.look_again());
        }
        let seat = Seat {
            index: Some(key.modify_index),
            holder: key.session.as_ref(),
        };
        Some(self.make_claim(&seat, &claim))
    }

    /// Written by this instance, in the term that its guard still knows, and not given up. A term whose last commits may
    /// still land is over: taken again, it would be given up for them at once, over and over.
    fn is_own_term(&self, record: &Record) -> bool {
        record.status != Status::Fenced
            && record.term >= self.state.highest_term
            && self.state.live_probe().is_some_and(|probe| {
                let own = sound!(record.instance == probe.uuid; AnothersTermIsOwn => true);
                own && record.term == probe.guard.term && !probe.is_landing()
            })
    }

    /// A predecessor that is ourselves needs no waiting; whoever was before it may, if it was never promoted.
    fn claim_own_term<'a>(&self, record: &'a Record) -> Claim<'a> {
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
            // The term is the same, and so is why it began.
            reason: &record.reason,
            cause: record.cause,
            record: Some(record),
            own: true,
        }
    }

    fn claim_after<'a>(&self, record: &'a Record) -> Claim<'a> {
        let claim = Claim {
            term: self.state.highest_term.next(),
            from: None,
            gain: Gain { wait: None },
            reason: "the master before gave the lock up",
            cause: match record.handover_to {
                Some(_) if !record.tried.contains(&record.instance) => Cause::Switchover,
                Some(_) | None => Cause::Released,
            },
            record: Some(record),
            own: false,
        };
        if record.status == Status::Fenced {
            return claim;
        }
        // Until then the last holder may still be writable, or come back and go on.
        Claim {
            from: sound!(Some(self.outlived_at(record)); FreeWithoutWait => None),
            reason: "the lease of the master before ended",
            cause: Cause::TakenOver,
            ..claim
        }
    }

    /// When the lease that may rest on this record is certainly over, if nothing is written any more (R3).
    pub(super) fn outlived_at(&self, record: &Record) -> Tick {
        let known = self.state.lock.unchanged.as_ref();
        let known = known.filter(|known| known.stamp == record.stamp());
        let since = known.map_or(self.now, |known| known.since);
        since
            + sound!(Timing::lease_and_margin(record.lease()); OutlivedAtHalf => record.lease() / 2)
    }

    /// Nobody says who was master: a full lease has to pass after the lock is ours, the longest that we know of.
    fn claim_without_record(&self) -> Claim<'static> {
        let known = self.state.lock.unchanged.as_ref();
        let longest = self.state.longest_lease();
        let serving = self.state.serving_term();
        // A master whose record was deleted or overwritten is still there, and is to have its lock again.
        let from = known
            .filter(|known| serving.is_none() && known.record.status != Status::Fenced)
            .map(|known| known.since + Timing::lease_and_margin(known.record.lease()));
        Claim {
            term: serving.unwrap_or(self.state.highest_term.next()),
            from,
            gain: Gain {
                wait: sound!(Some(Timing::lease_and_margin(longest));
                    UnrecordedWithoutWait => None),
            },
            reason: match serving {
                Some(_) => "its record was removed or overwritten while it was master",
                None => "there was no record",
            },
            cause: Cause::First,
            record: None,
            own: serving.is_some(),
        }
    }

    fn make_claim(&mut self, seat: &Seat<'_>, claim: &Claim<'_>) -> Reason {
        if self.left_alone.is_some() {
            // It would give the lock up at once, over and over.
            return Reason::NotACandidate {
                why: "it is not known to be read-only".to_owned(),
            };
        }
        if self.state.serving_term().is_some() {
            self.run_for_lock(seat, claim, claim.reason);
            return self.serve_without_lock().unwrap_or(Reason::TakingLockAgain);
        }
        let contest = Contest {
            index: seat.index.unwrap_or(0),
            term: claim.term,
            record: claim.record,
            since: self
                .state
                .lock
                .stood_since
                .max(claim.from.unwrap_or_default()),
            is_offered: false,
        };
        if let Some(reason) = self.wait_before_election(claim, &contest) {
            return reason;
        }
        // Where our own term goes on nothing changes hands.
        let turn = match claim.own {
            true => Ok(None),
            false => self.wait_in_line(seat, claim, &contest),
        };
        let loss = match turn {
            Ok(loss) => loss,
            Err(reason) => return reason,
        };
        if self.is_due(self.state.hold.acquire_retry_at) {
            let may_be_lost = "synchronous rows may be lost";
            let reason = loss.map(|loss| format!("{}; {may_be_lost}: {loss}", claim.reason));
            self.run_for_lock(seat, claim, reason.as_deref().unwrap_or(claim.reason));
        }
        self.unless_denied(running(seat, claim))
    }

    /// What a candidate waits for before it may take part, in the order of the table in PROTOCOL.md.
    fn wait_before_election(&mut self, claim: &Claim<'_>, contest: &Contest<'_>) -> Option<Reason> {
        let paused_by =
            sound!(self.paused_by_record(claim, contest.since); PausedSucceeded => None);
        if let Some(by) = paused_by {
            if !claim.record.is_some_and(|record| record.paused) {
                self.look_at_board(PAUSE_POLL);
            }
            return Some(Reason::Paused { by });
        }
        let excluded = if claim.own {
            self.unfit(Duration::ZERO)
        } else {
            self.excluded(claim.record, Duration::ZERO)
        };
        if let Some(why) = excluded {
            // A moment of silence keeps it from acting, and is no reason to give others the lead.
            let patience = self.state.settings.timing.healthcheck_timeout();
            if self.excluded(claim.record, patience).is_some() {
                self.decline(contest, &why);
            }
            return Some(Reason::NotACandidate { why });
        }
        if let Some(until) = self.too_early(claim.from) {
            return Some(Reason::WaitingForPredecessorLease { until });
        }
        if claim.from.is_some() && self.has_not_looked_for_long() {
            return Some(self.look_again());
        }
        if let Some(until) = self.too_early(self.holds_back_until(claim)) {
            let first = "others".to_owned();
            self.decline(contest, "it has just given the lock up");
            return Some(Reason::HoldingBack { first, until });
        }
        if let Some(reason) = self.wait_for_promise(claim.term, claim.gain.wait.is_some()) {
            return Some(reason);
        }
        let cools_until = if claim.own {
            None
        } else {
            self.cooled_down_at(claim)
        };
        let until = self.too_early(cools_until)?;
        Some(Reason::CoolingDown { until })
    }

    /// An agent that slept, or whose Consul did: the next answer may start the count anew, so nothing is taken before it.
    fn has_not_looked_for_long(&self) -> bool {
        let unread_for = self.now.since(self.state.lock.readable_at);
        unread_for > self.state.settings.timing.unread_limit()
    }

    fn look_again(&mut self) -> Reason {
        if self.may_call(Place::Lock) {
            self.act(Action::ReadLock);
        }
        Reason::LookingAgain
    }

    /// Whoever has just given the lock up lets others go first. Not so once one of them had it, since what that one
    /// acknowledged may be here alone; nor if it was for somebody, who goes first anyway.
    fn holds_back_until(&self, claim: &Claim<'_>) -> Option<Tick> {
        let own = self.state.live_probe().map(|probe| &probe.uuid);
        let ours = |last: &Record| Some(&last.instance) == own && handover(last).is_none();
        let until = self.state.hold.hold_back_until.filter(|_| !claim.own);
        until.filter(|_| claim.record.is_none_or(ours))
    }

    /// Board, ballots, and the session while we wait for them. `Ok`: it is our turn, and what may be lost by it.
    fn wait_in_line(
        &mut self,
        seat: &Seat<'_>,
        claim: &Claim<'_>,
        contest: &Contest<'_>,
    ) -> Result<Option<String>, Reason> {
        let own = self.state.live_probe().map(|probe| probe.uuid.as_str());
        if own.is_some() && claim.record.and_then(handover) == own {
            // The order that the last master followed; nobody else's rank or wish is newer, and it has all its rows.
            return Ok(None);
        }
        let board = self.state.board_since(contest.since);
        // An operator may have paused everything since. Two calls that take their time fit in between.
        let lasting = match board.and_then(|(board, _)| board.pause.as_ref()) {
            Some(_) => PAUSE_POLL,
            None => self.state.settings.timing.healthcheck_timeout() * 2,
        };
        let too_old_at = board.map_or(self.now, |(_, asked_at)| *asked_at + lasting);
        if too_old_at <= self.now
            || (claim.gain.wait.is_some() && self.state.member_terms.is_none())
        {
            self.read_board();
            // What the rest needs is begun meanwhile, unless we have just seen a pause.
            match board.and_then(|(board, _)| board.pause.as_ref()) {
                Some(pause) => {
                    return Err(Reason::Paused {
                        by: pause.by.clone(),
                    });
                }
                None => {
                    let _ = self.prepared_session();
                    self.prepare_ballot(contest);
                    let reason = match self.has_cast(contest) {
                        true => self.wait_for_turn(contest).err(),
                        false => None,
                    };
                    let reason = reason.unwrap_or_else(|| self.unless_denied(running(seat, claim)));
                    return Err(unless(self.state.unread.board.as_ref(), reason));
                }
            }
        }
        if let Some(pause) = board.and_then(|(board, _)| board.pause.as_ref()) {
            self.wake(too_old_at);
            return Err(Reason::Paused {
                by: pause.by.clone(),
            });
        }
        let turn = sound!(self.wait_for_turn(contest); NobodyWaitsForTurn => Ok(None));
        if turn.is_err() {
            let _ = self.prepared_session();
        }
        turn.map_err(|reason| unless(self.state.unread.ballots.as_ref(), reason))
    }

    /// The last master's guard stands down, so no time bounds how long it may be writable: only its own agent or an
    /// operator can end that. An instance's own record is no obstacle to it: a process of it is no other's rival.
    /// Whoever deletes the record or writes over it has not made that guard stand up, so the last one seen counts.
    fn paused_by_record(&self, claim: &Claim<'_>, since: Tick) -> Option<String> {
        let own = self
            .state
            .live_probe()
            .map_or("", |probe| probe.uuid.as_str());
        let known = self.state.lock.unchanged.as_ref();
        // Who has just come, or has missed the last records, is told by the members' keys: of anybody if no record says
        // who served last, else of its writer, whose late word may have come after a deletion.
        let counts = |it: &Member| match claim.record {
            Some(record) => match record.status {
                Status::Fenced => false,
                Status::Active => record.instance == it.instance,
                Status::Promoting => true,
            },
            None => true,
        };
        let is_anybodys = claim
            .record
            .is_none_or(|record| record.status == Status::Promoting);
        let unread = || {
            self.who_may_stand_down_unread(since)
                .filter(|_| is_anybodys)
        };
        if let Some(by) = self.who_stands_down(since, counts).or_else(unread) {
            return Some(by);
        }
        let record = claim.record.or(known.map(|known| &known.record))?;
        (record.paused && record.status != Status::Fenced && record.instance != own)
            .then(|| format!("{}, whose guard stands down", record.name))
    }

    /// `FAILOVER_COOLDOWN` after the last failover, unless the master proved itself dead or fenced. The record's wall
    /// clock is another machine's, so it counts for no more than what we have seen ourselves, and is compared with ours
    /// once, when the term was first seen: a clock that is set later changes nothing.
    fn cooled_down_at(&self, claim: &Claim<'_>) -> Option<Tick> {
        let record = claim.record?;
        let cooldown = self.state.settings.failover_cooldown;
        let failover = matches!(record.cause, Cause::Released | Cause::TakenOver);
        if cooldown.is_zero() || !failover || record.status == Status::Fenced {
            return None;
        }
        let lock = &self.state.lock;
        let seen = lock.term_seen.filter(|(term, _)| *term == record.term);
        let left = cooldown.saturating_sub(seen.map_or(Duration::ZERO, |_| lock.term_age));
        Some(seen.map_or(self.now, |(_, at)| at) + left)
    }

    /// A session that is alive for certain and written down in the guard; else sees to it that there will be one.
    pub(super) fn prepared_session(&mut self) -> Option<SessionId> {
        let Some(session) = self.state.session.id.clone() else {
            if self.may_call(Place::Session) {
                self.act(Action::CreateSession);
            }
            return None;
        };
        if self.state.pending.is_busy(Place::Session) {
            return None;
        }
        let usable_until =
            self.state.session.renewed_at + self.state.settings.timing.session_renew_interval();
        if self.state.session.doubted || usable_until <= self.now {
            if self.may_call(Place::Session) {
                self.act(Action::RenewSession { session });
            }
            return None;
        }
        if !self.state.session.remembered {
            if self.may_command_guard() {
                self.tell_guard(GuardCommand::Remember { session });
            }
            return None;
        }
        Some(session)
    }

    /// A session, written down in the guard, then the lock.
    fn run_for_lock(&mut self, seat: &Seat<'_>, claim: &Claim<'_>, reason: &str) {
        let Some(session) = self.prepared_session() else {
            return;
        };
        let Some(reading) = self.fresh_reading() else {
            return;
        };
        if !self.may_call(Place::Lock) {
            return;
        }
        let gain = Some(claim.gain);
        let attempt = self.next_record(reading, claim.term, reason, claim.cause, gain);
        let attempt = Box::new(attempt);
        self.act(match (seat.holder, seat.index) {
            (Some(holder), Some(index)) => Action::TakeOver {
                session,
                holder: holder.clone(),
                index,
                attempt,
            },
            (Some(_) | None, index) => Action::Acquire {
                session,
                index,
                attempt,
            },
        });
    }
}

/// What is being waited for, unless this is why it cannot be seen.
fn unless(unread: Option<&ConsulFault>, reason: Reason) -> Reason {
    match unread {
        Some(fault) => Reason::WaitingForConsul {
            why: fault.why.clone(),
        },
        None => reason,
    }
}

fn running(seat: &Seat<'_>, claim: &Claim<'_>) -> Reason {
    match seat.holder {
        Some(_) => Reason::TakingOver {
            name: claim.record.map_or_else(
                || "an unknown holder".to_owned(),
                |record| record.name.clone(),
            ),
        },
        None => Reason::RunningForLock,
    }
}
