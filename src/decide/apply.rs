//! Event + state → state. Here facts are written down; nothing is decided.

use std::time::Duration;

use super::event::{ConsulFault, Event, GuardCommand, KeySight, LockSight, LockStepKind};
use super::ids::SessionId;
use super::observed::Probe;
use super::plan::{Action, CatalogEntry};
use super::record::{Record, Status};
use super::state::{Attempt, Granted, Hold, Link, Reading, Session, State, Unchanged};
use super::timing::{Tick, Timing};

/// After a failed call to Consul: long enough not to add to its trouble, short against any lease.
const CONSUL_RETRY: Duration = Duration::from_millis(200);
/// After Consul denied a session or a first hold: a person has to act.
const DENIED_RETRY: Duration = Duration::from_secs(1);
/// After a failed catalog or member write: nobody's safety depends on it.
const CATALOG_RETRY: Duration = Duration::from_secs(1);
/// After the guard refused or did not answer.
const GUARD_RETRY: Duration = Duration::from_millis(50);
/// After a kill that could not be done.
const KILL_RETRY: Duration = Duration::from_secs(1);

impl State {
    /// Takes note of what happened.
    pub fn apply(&mut self, event: Event, now: Tick) {
        match event {
            Event::Attached { probe, process } => self.attached(*probe, process.err(), now),
            Event::Unreachable { why } => self.unreachable(why, now),
            Event::FellSilent => {
                self.instance.silent_since = self.instance.silent_since.or(Some(now))
            }
            Event::SpokeAgain => self.instance.silent_since = None,
            Event::Died { proof } => self.instance.link = Link::Dead { proof, since: now },
            Event::Unsuitable { why } => self.instance.link = Link::Unsuitable { why },
            Event::Superseded { by } => self.superseded = Some(by),
            Event::GuardAnswered {
                command,
                probe,
                refused,
            } => self.guard_answered(command, *probe, refused, now),
            Event::GuardFailed { command, why } => self.guard_failed(command, why, now),
            Event::KillEnded { result } => {
                self.pending.kill = false;
                self.pending.kill_retry_at = Some(now + KILL_RETRY);
                self.instance.kill_failed = result.err();
            }
            Event::SessionCreated { result } => self.session_created(result, now),
            Event::SessionRenewed { session, result } => {
                self.session_renewed(&session, result, now)
            }
            Event::SessionDestroyed => {
                self.pending.session = false;
                self.session = Session::default();
            }
            Event::LockRead {
                asked_at,
                by_watch,
                result,
            } => self.lock_read(asked_at, by_watch, result, now),
            Event::LockStepEnded { step, result } => self.lock_step_ended(step, result, now),
            Event::CatalogEnded { result } => self.catalog_ended(result, now),
            Event::MemberEnded { result } => {
                self.pending.member = false;
                let written = self.catalog.member_writing.take();
                match result {
                    Ok(()) => {
                        self.catalog.member = written;
                        self.catalog.member_fault = None;
                    }
                    Err(fault) => {
                        self.catalog.member_retry_at = Some(now + CATALOG_RETRY);
                        self.catalog.member_fault = Some(fault.why);
                    }
                }
            }
            Event::TermsRead { result } => {
                self.pending.member = false;
                match result {
                    Ok(term) => {
                        self.terms_read = true;
                        self.highest_term = self.highest_term.max(term);
                    }
                    Err(fault) => {
                        self.catalog.member_retry_at = Some(now + CONSUL_RETRY);
                        self.consul_fault = Some(fault);
                    }
                }
            }
            Event::StopRequested { signal } => {
                self.stopping = self.stopping.or(Some((signal, now)))
            }
            Event::Woke => {}
        }
    }

    /// Takes note of what is being begun, before it is: a call whose answer is lost may still have been carried out.
    pub fn begin(&mut self, action: &Action, now: Tick) {
        match action {
            Action::Probe => self.begin_guard(GuardCommand::Probe, now),
            Action::Remember { .. } => self.begin_guard(GuardCommand::Remember, now),
            Action::Observe { .. } => self.begin_guard(GuardCommand::Observe, now),
            Action::Follow { .. } => self.begin_guard(GuardCommand::Follow, now),
            Action::Promote {
                deadline, reading, ..
            } => {
                self.begin_guard(GuardCommand::Promote, now);
                self.lease_handed_over(*deadline, *reading, now);
            }
            Action::Grant {
                deadline, reading, ..
            } => {
                self.begin_guard(GuardCommand::Grant, now);
                self.lease_handed_over(*deadline, *reading, now);
            }
            Action::Fence { .. } => self.pending.fence = true,
            Action::Kill { .. } => self.pending.kill = true,
            Action::CreateSession | Action::RenewSession { .. } | Action::DestroySession { .. } => {
                self.pending.session = true;
            }
            Action::ReadLock => self.pending.lock = true,
            Action::Acquire { attempt, .. } | Action::Refresh { attempt, .. } => {
                self.pending.lock = true;
                self.hold.refresh_sent = attempt.record.refresh;
                self.hold.attempted = Some((**attempt).clone());
            }
            Action::Release { record, .. } => {
                self.pending.lock = true;
                self.hold.refresh_sent = record.refresh;
                self.hold.attempted = self.instance.reading.map(|reading| Attempt {
                    record: (**record).clone(),
                    reading,
                    gain: None,
                });
            }
            Action::Tell { entry, .. } => {
                self.pending.catalog = true;
                self.catalog.telling = Some(entry.clone());
                self.catalog.told_at = now;
            }
            Action::Deregister => {
                self.pending.catalog = true;
                self.catalog.telling = None;
            }
            Action::WriteMember { member } => {
                self.pending.member = true;
                self.catalog.member_writing = Some(member.clone());
            }
            Action::ReadTerms => self.pending.member = true,
            Action::Exit { .. } => {}
        }
    }

    fn begin_guard(&mut self, command: GuardCommand, now: Tick) {
        self.pending.guard = Some(command);
        self.pending.guard_since = now;
    }

    fn lease_handed_over(
        &mut self,
        deadline: super::timing::InstanceTime,
        reading: Reading,
        now: Tick,
    ) {
        let lease = self.settings.timing.lease();
        let earlier_over_at = self
            .instance
            .lease
            .map_or(Tick::default(), |earlier| earlier.over_at);
        self.instance.lease = Some(Granted {
            deadline,
            over_at: (reading.reply_at + Timing::lease_and_margin(lease)).max(earlier_over_at),
            due_at: reading.reply_at + lease,
            handed_at: now,
        });
    }

    fn attached(&mut self, probe: Probe, process: Option<String>, now: Tick) {
        // What a guard of an earlier agent granted, or commits of a time without a guard: a lease bounds both.
        let left_ns = if probe.guard.leased {
            probe
                .guard
                .deadline
                .monotonic_ns
                .saturating_sub(probe.now.monotonic_ns)
        } else {
            0
        };
        let left = Duration::from_nanos(left_ns);
        let lease = self.settings.timing.lease().max(left);
        let earlier_over_at = self
            .instance
            .lease
            .map_or(Tick::default(), |earlier| earlier.over_at);
        self.instance.lease = Some(Granted {
            deadline: probe.guard.deadline,
            over_at: (now + Timing::lease_and_margin(lease)).max(earlier_over_at),
            due_at: now + left,
            handed_at: self
                .instance
                .lease
                .map_or(Tick::default(), |earlier| earlier.handed_at),
        });
        let same_process = self.instance.probe.as_ref().is_some_and(|old| {
            old.pid == probe.pid
                && old.pid_namespace == probe.pid_namespace
                && old.boot_id == probe.boot_id
        });
        if !same_process {
            self.instance.process_since = now;
            self.hold.reading = None;
        }
        self.instance.link = Link::Up;
        self.instance.process = process;
        self.instance.silent_since = None;
        self.instance.kill_failed = None;
        self.pending.guard_retry_at = None;
        self.pending.fence_retry_at = None;
        if self.session.id.is_none() && !self.pending.session {
            // An agent before us may hold the lock with it.
            if let Some(session) = &probe.guard.session {
                self.session = Session {
                    id: Some(SessionId::new(session.clone())),
                    remembered: true,
                    renewed_at: now,
                    doubted: true,
                };
            }
        }
        self.session.remembered = self
            .session
            .id
            .as_ref()
            .is_some_and(|id| probe.guard.session.as_deref() == Some(id.as_str()));
        self.probed(probe, now);
        self.adopt_hold(now);
    }

    fn probed(&mut self, probe: Probe, now: Tick) {
        self.instance.reading = Some(Reading {
            t0: probe.now,
            reply_at: now,
        });
        self.instance.probed_at = Some(now);
        self.highest_term = self.highest_term.max(probe.guard.term);
        self.instance.probe = Some(probe);
    }

    fn unreachable(&mut self, why: String, now: Tick) {
        match &mut self.instance.link {
            Link::Dead { .. } => {}
            Link::Down { why: known, .. } => *known = why,
            Link::Unknown | Link::Up | Link::Unsuitable { .. } => {
                self.instance.link = Link::Down { why, since: now };
            }
        }
    }

    fn guard_answered(
        &mut self,
        command: GuardCommand,
        probe: Probe,
        refused: Option<String>,
        now: Tick,
    ) {
        self.guard_call_over(command);
        let retry_at = refused.is_some().then(|| now + GUARD_RETRY);
        match command {
            GuardCommand::Fence => self.pending.fence_retry_at = retry_at,
            GuardCommand::Remember => {
                let session = self.session.id.as_ref().map(SessionId::as_str);
                self.session.remembered =
                    session.is_some() && probe.guard.session.as_deref() == session;
            }
            GuardCommand::Probe
            | GuardCommand::Promote
            | GuardCommand::Grant
            | GuardCommand::Follow
            | GuardCommand::Observe => self.pending.guard_retry_at = retry_at,
        }
        match command {
            GuardCommand::Promote | GuardCommand::Fence => self.instance.guard_refused = refused,
            GuardCommand::Probe
            | GuardCommand::Remember
            | GuardCommand::Grant
            | GuardCommand::Follow
            | GuardCommand::Observe => {}
        }
        self.probed(probe, now);
    }

    fn guard_failed(&mut self, command: GuardCommand, why: String, now: Tick) {
        self.guard_call_over(command);
        match command {
            GuardCommand::Fence => self.pending.fence_retry_at = Some(now + GUARD_RETRY),
            GuardCommand::Probe
            | GuardCommand::Remember
            | GuardCommand::Promote
            | GuardCommand::Grant
            | GuardCommand::Follow
            | GuardCommand::Observe => self.pending.guard_retry_at = Some(now + GUARD_RETRY),
        }
        if command != GuardCommand::Fence {
            self.instance.unanswered_at = Some(self.pending.guard_since);
        }
        self.instance.guard_refused = Some(why);
    }

    fn guard_call_over(&mut self, command: GuardCommand) {
        match command {
            GuardCommand::Fence => self.pending.fence = false,
            GuardCommand::Probe
            | GuardCommand::Remember
            | GuardCommand::Promote
            | GuardCommand::Grant
            | GuardCommand::Follow
            | GuardCommand::Observe => self.pending.guard = None,
        }
    }

    fn session_created(&mut self, result: Result<SessionId, ConsulFault>, now: Tick) {
        self.pending.session = false;
        match result {
            Ok(id) => {
                self.denied = None;
                self.session = Session {
                    id: Some(id),
                    remembered: false,
                    renewed_at: now,
                    doubted: false,
                };
            }
            Err(fault) => self.session_call_failed(fault, now),
        }
    }

    fn session_renewed(
        &mut self,
        session: &SessionId,
        result: Result<bool, ConsulFault>,
        now: Tick,
    ) {
        self.pending.session = false;
        if self.session.id.as_ref() != Some(session) {
            return;
        }
        match result {
            Ok(true) => {
                self.session.renewed_at = now;
                self.session.doubted = false;
            }
            Ok(false) => {
                self.session = Session::default();
                self.lock.outdated = true;
            }
            Err(fault) => self.session_call_failed(fault, now),
        }
    }

    fn session_call_failed(&mut self, fault: ConsulFault, now: Tick) {
        let pause = if fault.denied {
            self.denied = Some(fault.why.clone());
            DENIED_RETRY
        } else {
            CONSUL_RETRY
        };
        self.pending.session_retry_at = Some(now + pause);
        self.consul_fault = Some(fault);
    }

    fn lock_read(
        &mut self,
        asked_at: Tick,
        by_watch: bool,
        result: Result<LockSight, ConsulFault>,
        now: Tick,
    ) {
        if !by_watch {
            self.pending.lock = false;
        }
        let sight = match result {
            Ok(sight) => sight,
            Err(fault) => {
                self.lock.unreadable = true;
                if !by_watch {
                    self.pending.lock_retry_at = Some(now + CONSUL_RETRY);
                }
                self.consul_fault = Some(fault);
                return;
            }
        };
        self.consul_fault = None;
        let news = match &self.lock.sight {
            None => true,
            // Asked after we learned what we know: the answer is newer even if its index went back.
            Some(_) if asked_at >= self.lock.learned_at && !self.pending.lock => true,
            Some(known) => change_index(&sight) > change_index(known),
        };
        if news {
            self.saw_lock(sight, now);
            if !by_watch || asked_at >= self.lock.learned_at {
                self.lock.outdated = false;
            }
        }
    }

    fn saw_lock(&mut self, sight: LockSight, now: Tick) {
        let key_missing = sight.key.is_none();
        let record = sight
            .key
            .as_ref()
            .and_then(|key| key.record.as_ref().ok())
            .cloned();
        self.lock.sight = Some(sight);
        self.lock.learned_at = now;
        if let Some(record) = record {
            self.highest_term = self.highest_term.max(record.term);
            self.saw_record(record, now);
        }
        if !key_missing {
            self.terms_read = false;
        }
        self.lock.unreadable = false;
        if self.holds_lock() {
            self.accept_found_attempt(now);
            self.adopt_hold(now);
        } else if let Some(own) = &self.hold.record {
            self.session.doubted = self.session.id.is_some();
            if self
                .seen_record()
                .is_some_and(|seen| seen.term > own.term || seen.instance != own.instance)
            {
                self.hold = Hold {
                    refresh_sent: self.hold.refresh_sent,
                    ..Hold::default()
                };
            }
        }
    }

    fn saw_record(&mut self, record: Record, now: Tick) {
        let stamp = record.stamp();
        let same = self
            .lock
            .unchanged
            .as_ref()
            .is_some_and(|known| known.stamp == stamp);
        // Time without Consul is no time in which the record stood unchanged: its writer may have tried in vain.
        let since = match &self.lock.unchanged {
            Some(known) if same && !self.lock.unreadable => known.since,
            Some(_) | None => now,
        };
        self.lock.unchanged = Some(Unchanged {
            record,
            stamp,
            since,
        });
    }

    /// The reply to our last step was lost, and here is what it wrote.
    fn accept_found_attempt(&mut self, now: Tick) {
        let found = self.seen_record().map(Record::stamp);
        if let Some(attempt) = self.hold.attempted.clone()
            && !self.pending.lock
            && found == Some(attempt.record.stamp())
        {
            self.accepted(attempt, now);
        }
    }

    /// We hold the lock and do not know how it came to that: an agent before us took it.
    fn adopt_hold(&mut self, now: Tick) {
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
            let waits = record.status == Status::Promoting && !probe.guard.leased;
            self.hold = Hold {
                predecessor_over_at: waits.then(|| now + Timing::lease_and_margin(record.lease())),
                reason: record.reason.clone(),
                record: Some(record.clone()),
                // Whoever wrote it may have one more write under way.
                refresh_sent: record.refresh + 16,
                ..Hold::default()
            };
        }
    }

    fn accepted(&mut self, attempt: Attempt, now: Tick) {
        self.hold.attempted = None;
        self.hold.accepted_at = now;
        self.hold.reason.clone_from(&attempt.record.reason);
        self.hold.reading =
            Some(attempt.reading).filter(|reading| reading.reply_at >= self.instance.process_since);
        if let Some(gain) = attempt.gain {
            self.hold.predecessor_over_at = gain.wait.map(|wait| now + wait);
        }
        self.highest_term = self.highest_term.max(attempt.record.term);
        self.hold.record = Some(attempt.record);
    }

    fn lock_step_ended(
        &mut self,
        step: LockStepKind,
        result: Result<Result<u64, String>, ConsulFault>,
        now: Tick,
    ) {
        self.pending.lock = false;
        match result {
            Ok(Ok(index)) => {
                self.consul_fault = None;
                self.denied = None;
                self.lock_step_done(step, index, now);
            }
            Ok(Err(_)) => {
                self.hold.attempted = None;
                self.lock.outdated = true;
                self.session.doubted = self.session.id.is_some();
            }
            Err(fault) => {
                self.lock.outdated = true;
                let mut pause = CONSUL_RETRY;
                if fault.denied {
                    self.denied = Some(fault.why.clone());
                    if step == LockStepKind::Acquire {
                        pause = DENIED_RETRY;
                    }
                }
                self.pending.lock_retry_at = Some(now + pause);
                self.consul_fault = Some(fault);
            }
        }
    }

    fn lock_step_done(&mut self, step: LockStepKind, index: u64, now: Tick) {
        let Some(attempt) = self.hold.attempted.take() else {
            return;
        };
        let session = match step {
            LockStepKind::Acquire | LockStepKind::Refresh => self.session.id.clone(),
            LockStepKind::Release => None,
        };
        let key = KeySight {
            modify_index: index,
            session,
            record: Ok(attempt.record.clone()),
        };
        self.lock.sight = Some(LockSight {
            index,
            key: Some(key),
        });
        self.lock.learned_at = now;
        self.lock.outdated = false;
        self.saw_record(attempt.record.clone(), now);
        self.lock.unreadable = false;
        match step {
            LockStepKind::Acquire | LockStepKind::Refresh => self.accepted(attempt, now),
            LockStepKind::Release => {
                self.hold = Hold {
                    hold_back_until: Some(now + self.settings.timing.refresh_interval()),
                    refresh_sent: self.hold.refresh_sent,
                    ..Hold::default()
                };
            }
        }
    }

    fn catalog_ended(&mut self, result: Result<bool, ConsulFault>, now: Tick) {
        self.pending.catalog = false;
        let telling: Option<CatalogEntry> = self.catalog.telling.take();
        match (result, telling) {
            (Ok(true), Some(entry)) => {
                self.catalog.told = Some(entry);
                self.catalog.lost = false;
                self.catalog.retry_at = None;
                self.catalog.fault = None;
            }
            (Ok(_), None) => self.catalog.removed = true,
            (Ok(false), Some(_)) => self.catalog.lost = true,
            (Err(fault), _) => {
                self.catalog.retry_at = Some(now + CATALOG_RETRY);
                self.catalog.fault = Some(fault.why);
            }
        }
    }
}

fn change_index(sight: &LockSight) -> u64 {
    sight
        .key
        .as_ref()
        .map_or(sight.index, |key| key.modify_index)
}
