//! We hold the lock: be promoted, stay writable, or give it up.

use super::planner::Planner;
use crate::plan::{Action, Gain, GuardCommand, Reason};
use crate::state::Link;
use crate::state::slots::Place;
use crate::words::observed::Probe;
use crate::words::record::{Cause, Record, RecordError, Status};
use crate::words::term::Term;
use crate::words::timing::{Tick, Timing};

/// Whether an instance that answers pings has gone on past its lease.
enum Outlived {
    NotYet,
    /// The lease is over, and its guard has not been asked since.
    Asking,
    Yes,
}

impl Planner<'_> {
    pub(crate) fn hold(&mut self) -> Reason {
        let state = self.state;
        if state.lock.outdated && self.may_call(Place::Lock) {
            self.act(Action::ReadLock);
        }
        if let Link::Dead { proof, .. } = &state.instance.link {
            let proof = proof.clone();
            if let Some(reason) = self.waits_in_pause() {
                return reason;
            }
            self.release(&format!("the instance died: {proof}"));
            return Reason::InstanceDied { proof };
        }
        let Some(probe) = state.live_probe() else {
            return self.hold_without_instance();
        };
        let Some(record) = &state.hold.record else {
            return self.hold_without_record();
        };
        let reason = if let Some(handover) = &state.hold.handover {
            self.hand_over(record, probe, handover)
        } else if self.reigns(record.term, probe) {
            self.serve(record, probe)
        } else if probe.guard.leased && probe.guard.term != record.term {
            self.fence("its lease is for another term than the lock")
        } else if let Some(why) = self.unfit(state.settings.timing.healthcheck_timeout()) {
            match self.waits_in_pause() {
                Some(reason) => reason,
                None => self.give_up(&why),
            }
        } else {
            self.become_master(record, probe)
        };
        self.keep_session_remembered();
        reason
    }

    /// An instance that restarted under us has forgotten it; the agent after us would find a stranger's lock.
    fn keep_session_remembered(&mut self) {
        if let Some(session) = self.state.session.id.clone()
            && !self.state.session.remembered
            && self.may_command_guard()
        {
            self.tell_guard(GuardCommand::Remember { session });
        }
    }

    /// R5: it has not answered, and its lease has passed. Comes before anything else is done about the lock.
    pub(crate) fn end_hung_instance(&mut self) -> Option<Reason> {
        let state = self.state;
        let instance = &state.instance;
        let gone = match &instance.link {
            Link::Up => instance.silent_since.is_some(),
            Link::Down { .. } => true,
            Link::Unknown | Link::Unsuitable { .. } => false,
            // Whatever its guard does not answer any more: what is dead does not hang.
            Link::Dead { .. } => return None,
        };
        let lease = instance.lease.filter(|_| state.may_hold_lease())?;
        if self.spares_hung_instance(gone) {
            return None;
        }
        if !gone {
            match self.outlived_lease(lease.over_at) {
                Outlived::NotYet => return None,
                Outlived::Asking => {
                    return Some(Reason::Fencing {
                        why: "its lease is over".to_owned(),
                    });
                }
                Outlived::Yes => {}
            }
        }
        let due_at = lease.due_at.max(state.patience_ends_at());
        let too_early = sound!(self.now < due_at; HungNeverKilled => true;
            HungKilledLater => self.now < due_at + self.state.settings.timing.lease());
        if too_early {
            return self.wait_for_silent(due_at);
        }
        if let Some(why) = self.cannot_kill() {
            return self.leave_hung_alone(why, lease.over_at);
        }
        if instance.killed {
            // No code of it runs any more, whenever the kernel is done with it.
            self.wake(lease.over_at);
            if self.now >= lease.over_at && state.holds_lock() {
                self.release("the instance hung and was killed");
            }
        } else if self.may_call(Place::Process) {
            self.act(Action::Kill);
        }
        Some(Reason::KillingHungInstance)
    }

    /// A moment of silence is no news, and it may speak again: ask.
    fn wait_for_silent(&mut self, due_at: Tick) -> Option<Reason> {
        self.wake(due_at);
        let silent_since = self.state.silent_since();
        let patience = self.state.settings.timing.healthcheck_timeout();
        if let Some(since) = silent_since
            && self.now.since(since) < patience
        {
            self.wake(since + patience);
            return None;
        }
        let _ = self.fresh_reading();
        Some(Reason::WaitingForSilentInstance { until: due_at })
    }

    fn cannot_kill(&self) -> Option<String> {
        let instance = &self.state.instance;
        if self.state.settings.kill_hung {
            instance
                .process
                .clone()
                .or_else(|| instance.kill_failed.clone())
        } else {
            Some("HUNG_INSTANCE_ACTION is wait".to_owned())
        }
    }

    fn leave_hung_alone(&mut self, why: String, over_at: Tick) -> Option<Reason> {
        let state = self.state;
        if state.settings.kill_hung
            && state.instance.process.is_none()
            && self.may_call(Place::Process)
        {
            // It failed once; that may pass.
            self.act(Action::Kill);
        }
        if self.now < over_at {
            self.wake(over_at);
        } else if state.holds_lock() {
            self.release(&format!("the instance hangs and its lease is over: {why}"));
        } else {
            self.left_alone = Some(why);
            return None;
        }
        Some(Reason::HungInstanceLeftAlone { why })
    }

    /// It answers pings, and still its guard has not said, long after the lease's end, that it is read-only: asked
    /// after that end, it did not answer, or it answered that it is writable. Until it was asked nothing is done about
    /// the lock: a lease's end alone does not say that the last commits have landed.
    fn outlived_lease(&mut self, over_at: Tick) -> Outlived {
        if self.now < over_at {
            return Outlived::NotYet;
        }
        let instance = &self.state.instance;
        let asked = instance.answered_begun_at.is_some_and(|at| at > over_at);
        let unanswered = instance.unanswered_at.is_some_and(|at| at > over_at);
        let fence_tried = instance.fence_tried_at.is_some_and(|at| at > over_at);
        if !asked && self.may_command_guard() {
            self.tell_guard(GuardCommand::Probe);
        } else if asked && !fence_tried {
            let _ = self.fence("its lease is over");
        }
        if (asked && fence_tried) || unanswered {
            Outlived::Yes
        } else {
            Outlived::Asking
        }
    }

    /// No connection; what the guard said last is all we know.
    fn hold_without_instance(&mut self) -> Reason {
        let why = self.instance_words();
        match self.state.instance.lease {
            _ if matches!(self.state.instance.link, Link::Unknown) => {
                Reason::WaitingForInstance { why }
            }
            _ if self.state.orders.pause.is_some() => self
                .waits_in_pause()
                .unwrap_or(Reason::WaitingForInstance { why }),
            Some(lease) if self.state.may_be_writable(self.now) => {
                self.wake(lease.over_at);
                Reason::WaitingForSilentInstance {
                    until: lease.over_at,
                }
            }
            Some(_) | None => self.give_up(&format!("the instance cannot be reached: {why}")),
        }
    }

    /// The key was overwritten, and we do not know what was in it: write a record of our own.
    fn hold_without_record(&mut self) -> Reason {
        let found = self
            .state
            .lock
            .sight
            .as_ref()
            .and_then(|sight| sight.key.as_ref());
        if let Some(Err(error @ RecordError::UnknownVersion { .. })) = found.map(|key| &key.record)
        {
            return Reason::UnknownRecordVersion {
                why: error.to_string(),
            };
        }
        if self.state.member_terms.is_none() {
            self.read_board();
            return Reason::Promoting;
        }
        let wait = Some(Timing::lease_and_margin(self.state.longest_lease()));
        let term = self
            .state
            .serving_term()
            .unwrap_or(self.state.highest_term.next());
        self.refresh(term, "the lock key held no record", Some(Gain { wait }));
        Reason::Promoting
    }

    /// Lengthens the lease to what Consul's acceptance or the members' promises allow.
    pub(super) fn grant(&mut self) {
        let (Some(record), Some(probe), Some(reading)) = (
            &self.state.hold.record,
            self.state.live_probe(),
            sound!(self.state.lease_base(); LeaseOnAnyReading => self.state.instance.reading),
        ) else {
            return;
        };
        if !self.state.holds_lock() && self.state.hold.promised != Some(reading) {
            return;
        }
        let lease = self.state.settings.timing.lease();
        let deadline = reading.t0 + sound!(lease; LeaseTwiceAsLong => lease * 2);
        if deadline > probe.guard.deadline && self.may_command_guard() {
            self.tell_guard(GuardCommand::Grant {
                term: record.term,
                deadline,
                reading,
            });
        }
    }

    pub(super) fn serve(&mut self, record: &Record, probe: &Probe) -> Reason {
        self.grant();
        self.follow_master(record);
        // Not said yet that it is writable, or not by this agent, or somebody has written over it.
        let seen = self.state.seen_record().map(Record::stamp);
        let announce = record.status != Status::Active
            || record.agent != self.state.settings.agent
            || seen != Some(record.stamp())
            || record.paused != self.says_paused()
            || record.handover_to != self.hands_over_to(record.term)
            || self.wants_word_behind_member_key(record, probe);
        self.refresh_when_due(record.term, announce);
        self.mind_switchover(record, probe);
        self.tell_history(record, probe);
        self.tell_interruptions(record);
        if let Some(reason) = self.mind_pause(record, probe) {
            return reason;
        }
        let without_consul = self.go_on_without_consul(record);
        match self.state.instance.lease {
            Some(lease) if self.state.lock.outdated => {
                without_consul.unwrap_or(Reason::ServingWithoutConsul {
                    until: lease.over_at,
                    why: String::new(),
                })
            }
            Some(_) | None => without_consul.unwrap_or(Reason::Serving),
        }
    }

    /// The next record of a term that goes on; `at_once`: it has something new to say.
    fn refresh_when_due(&mut self, term: Term, at_once: bool) {
        let due_at = self.state.hold.accepted_at + self.state.settings.timing.refresh_interval();
        if due_at <= self.now || at_once {
            self.refresh(term, &self.state.hold.reason.clone(), None);
        } else {
            self.wake(due_at);
        }
    }

    /// While members are asked: what they say is written at once, for the next holder goes by it.
    fn keep_unguarded_word(&mut self, record: &Record) {
        let news = self.unguarded_word(Some(record), record.cause) != record.unguarded;
        self.refresh_when_due(record.term, news);
    }

    pub(super) fn become_master(&mut self, record: &Record, probe: &Probe) -> Reason {
        let reason = self.state.hold.reason.clone();
        if self.state.highest_term > record.term {
            // The guard would refuse this term, and rightly: it has seen a higher one.
            let wait = Some(Timing::lease_and_margin(
                self.state.settings.timing.lease().max(record.lease()),
            ));
            self.refresh(self.state.highest_term.next(), &reason, Some(Gain { wait }));
            return Reason::Promoting;
        }
        if let Some(until) = self
            .state
            .hold
            .predecessor_over_at
            .filter(|at| *at > self.now)
        {
            self.wake(until);
            self.keep_unguarded_word(record);
            if self.state.holds_unrecorded_since().is_some() {
                self.asks_everybody(record, probe);
            }
            return Reason::WaitingForPredecessor { until };
        }
        if let Some(until) = self.state.promised_until(self.state.hold.before, self.now) {
            self.wake(until);
            self.refresh_when_due(record.term, false);
            return Reason::WaitingForPromise { until };
        }
        let lease = self.state.settings.timing.lease();
        if let Some(over_at) = self.state.hold.predecessor_over_at {
            // No record said who served last.
            let since = over_at.before(lease);
            if let Some(reason) = self.looks_at_guards(since) {
                self.refresh_when_due(record.term, false);
                return reason;
            }
        }
        if let Some(reason) = self.waits_for_unguarded(record, probe) {
            self.keep_unguarded_word(record);
            return reason;
        }
        let refused_since = self.is_not_promoted_since();
        if let Some(since) = refused_since {
            if let Some(reason) = self.hand_on(record, probe, since) {
                return reason;
            }
            self.refresh_when_due(record.term, !record.offered);
        }
        match self.state.hold.reading {
            // What is left of the lease must be worth a promotion.
            Some(reading) if reading.t0 + lease / 2 > probe.now && !self.state.lock.outdated => {
                if self.may_command_guard() {
                    self.tell_guard(GuardCommand::Promote {
                        term: record.term,
                        deadline: reading.t0 + lease,
                        reading,
                        before: self.state.hold.before,
                    });
                }
            }
            Some(_) | None => self.refresh(record.term, &reason, None),
        }
        if refused_since.is_some() {
            Reason::NotPromoted
        } else {
            Reason::Promoting
        }
    }

    /// R1: a reading of the instance's clock, then a write that Consul accepts, then the grant.
    pub(super) fn refresh(&mut self, term: Term, reason: &str, gain: Option<Gain>) {
        let (Some(session), Some(index)) = (self.state.session.id.clone(), self.state.key_index())
        else {
            return;
        };
        if self.state.lock.outdated {
            return;
        }
        let Some(reading) = self.fresh_reading() else {
            return;
        };
        if self.may_call(Place::Lock) {
            let held = self.state.hold.record.as_ref();
            let cause = held.map_or(Cause::First, |record| record.cause);
            let attempt = Box::new(self.next_record(reading, term, reason, cause, gain));
            self.act(Action::Refresh {
                session,
                index,
                attempt,
            });
        }
    }

    pub(crate) fn give_up(&mut self, why: &str) -> Reason {
        if self.state.may_be_writable(self.now) {
            self.fence(why);
            if let Some(lease) = self.state.instance.lease {
                self.wake(lease.over_at);
            }
        } else {
            self.release(why);
        }
        Reason::Releasing {
            why: why.to_owned(),
        }
    }

    /// R2: only once the instance is known read-only, known dead, or its lease has passed. Says `fenced` only if
    /// whoever was before us is over too, and our guard knows, or is able to know, that our last commits have landed. Only over a record of this agent's own: another one of our instance may hold
    /// the lock by the same session, and what it handed to the guard, or of which process it speaks, we do not know.
    pub(super) fn release(&mut self, why: &str) {
        self.release_to(why, None);
    }

    /// Whether whoever was before us is over, and our last commits have landed for all that a guard can know.
    fn is_everybody_over(&self) -> bool {
        let hold = &self.state.hold;
        let is_past = |until: Option<Tick>| until.is_none_or(|at| at <= self.now);
        hold.record.is_some()
            && is_past(hold.predecessor_over_at)
            && is_past(hold.unguarded_until)
            && self.state.is_free_of_promises(self.now)
            && !self.has_no_barrier()
    }

    /// Whether the instance's guard cannot tell when its last commits have landed, since its barrier cannot be written.
    /// They have a lease and its margin before anybody succeeds, and a release does not say `fenced`.
    fn has_no_barrier(&self) -> bool {
        let is_over =
            matches!(self.state.instance.link, Link::Dead { .. }) || self.state.instance.killed;
        let probe = self.state.instance.probe.as_ref().filter(|_| !is_over);
        probe.is_some_and(|probe| probe.guard.barrier_failure.is_some())
    }

    /// The same; `target` is to go first.
    pub(super) fn release_to(&mut self, why: &str, target: Option<&str>) {
        let state = self.state;
        if state.may_be_writable(self.now) || state.lock.outdated {
            return;
        }
        if !state.wrote_last() {
            if let Some(held) = &state.hold.record {
                self.refresh(held.term, &held.reason, None);
            }
            return;
        }
        let (Some(session), Some(reading), Some(index)) = (
            state.session.id.clone(),
            state.instance.reading,
            state.key_index(),
        ) else {
            return;
        };
        let mut record = match &self.state.hold.record {
            Some(record) => record.clone(),
            // The key was overwritten: nobody knows who was before us.
            None => {
                let term = self.state.highest_term.max(Term::FIRST);
                self.next_record(reading, term, why, Cause::First, None)
                    .record
            }
        };
        record.refresh = self.next_refresh();
        record.agent.clone_from(&state.settings.agent);
        record.reason = why.to_owned();
        record.handover_to = target.map(str::to_owned);
        record.paused = false;
        let refused = state.hold.refused_since.is_some();
        let surely = self.was_surely_not_promoted(&record);
        record.refused = refused && surely && state.stopping.is_none();
        if refused {
            // All that are there were tried: they take turns from the start.
            if target.is_some_and(|target| record.tried.contains(target)) {
                record.tried.clear();
            }
            record.tried.insert(record.instance.clone());
        }
        record.status = if sound!(self.is_everybody_over(); ReleaseAlwaysFenced => true) {
            Status::Fenced
        } else {
            Status::Promoting
        };
        if let Some(probe) = &self.state.instance.probe {
            record.vclock = probe.vclock.clone();
            record.base = self.base(Some(&record), record.term);
            record.following = state.followers(self.now).unwrap_or_default();
        }
        record.says_unguarded(self.unguarded_word(Some(&record), record.cause));
        record.end = self.end(&record, target);
        if self.may_call(Place::Lock) {
            self.act(Action::Release {
                session,
                index,
                record: Box::new(record),
            });
        }
    }
}
