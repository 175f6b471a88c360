//! Event + state → state. Here facts are written down; nothing is decided.

use std::time::Duration;

use super::board::SwitchoverState;
use super::event::{ConsulFault, Event, GuardCommandKind, KillResult, LockStepKind};
use super::hold::Sent;
use super::ids::SessionId;
use super::observed::{Heard, Probe};
use super::plan::{Action, Before, CatalogEntry, GuardCommand};
use super::record::Record;
use super::slots::Place;
use super::state::{Attempt, Gained, Granted, Link, Reading, Session, State};
use super::term::{SaidBy, Term};
use super::timing::{Tick, Timing};

/// After a failed call to Consul: long enough not to add to its trouble, short against any lease.
pub(super) const CONSUL_RETRY: Duration = Duration::from_millis(200);
/// After Consul denied a session or a first hold: a person has to act.
pub(super) const DENIED_RETRY: Duration = Duration::from_secs(1);
/// After a failed catalog or member write: nobody's safety depends on it.
const CATALOG_RETRY: Duration = Duration::from_secs(1);
/// A call without an answer may be carried out later, but hardly that late: whatever held it up has held up others.
const LOST_CALL: Duration = Duration::from_secs(30);
/// After the guard refused or did not answer.
const GUARD_RETRY: Duration = Duration::from_millis(50);
/// After a change of replication that failed: each try may wait long inside the instance.
const FOLLOW_RETRY: Duration = Duration::from_secs(1);
/// After a kill that could not be done, or was not needed.
const KILL_RETRY: Duration = Duration::from_millis(100);

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
            Event::Died { proof } => {
                self.instance.link = Link::Dead {
                    proof,
                    since: now,
                    newest: None,
                }
            }
            Event::Unsuitable { why } => self.instance.link = Link::Unsuitable { why },
            Event::Superseded { by } => {
                self.pending.ends(Place::Process);
                self.superseded = Some(by);
            }
            Event::GuardAnswered {
                command,
                probe,
                refused,
            } => self.guard_answered(command, *probe, refused, now),
            Event::GuardFailed { command, why } => self.guard_failed(command, why, now),
            Event::KillEnded { result } => self.kill_ended(result, now),
            Event::SessionCreated { result } => self.session_created(result, now),
            Event::SessionRenewed { session, result } => {
                self.session_renewed(&session, result, now)
            }
            Event::SessionDestroyed => {
                self.pending.ends(Place::Session);
                self.session = Session::default();
            }
            Event::LockRead {
                asked_at,
                by_watch,
                result,
            } => self.lock_read(asked_at, by_watch, result, now),
            Event::LockStepEnded { step, result } => self.lock_step_ended(step, result, now),
            Event::CatalogEnded { result } => self.catalog_ended(result, now),
            Event::MemberEnded { result } => self.member_ended(result, now),
            Event::BoardRead { result } => self.board_read(result, now),
            Event::BoardSeen { asked_at, result } => self.board_seen_beside(asked_at, result),
            Event::BallotWritten { index, result } => self.ballot_written(index, result, now),
            Event::BallotsRead { result } => self.ballots_read(result, now),
            Event::SwitchoverSeen { index, switchover } => {
                self.switchover_seen(Some((index, switchover)), now);
            }
            Event::SwitchoverWritten { result } => self.switchover_written(result, now),
            Event::HistoryRead { result } => self.history_read(result, now),
            Event::HistoryWritten { term, result } => self.history_written(term, result, now),
            Event::PromisesAnswered {
                reading,
                answers,
                unguarded,
            } => self.promises_answered(reading, &answers, unguarded, now),
            Event::Vshard(event) => self.vshard_happened(event, now),
            Event::StopRequested { signal } => {
                self.stopping = self.stopping.or(Some((signal, now)))
            }
            Event::NeighboursSeen(seen) => self.catalog.neighbours = Some(seen),
            Event::MembersSeen(announced) => self.announced = announced,
            Event::Woke => {}
            Event::Overslept { ran_until } => self.overslept(ran_until, now),
        }
    }

    /// Whether a term can have been reached by counting, for all that is known here.
    pub(super) fn believes(&self, term: Term, said_by: SaidBy) -> bool {
        term.is_believable_after(self.highest_term, said_by)
    }

    /// Takes note of what is being begun, before it is: a call whose answer is lost may still have been carried out.
    pub fn begin(&mut self, action: &Action, now: Tick) {
        self.pending.begins(action, now);
        match action {
            Action::Guard(command) => self.begin_command(command, now),
            Action::Acquire { attempt, .. }
            | Action::TakeOver { attempt, .. }
            | Action::Refresh { attempt, .. } => {
                let step = match attempt.gain {
                    Some(_) => LockStepKind::Acquire,
                    None => LockStepKind::Refresh,
                };
                let gaining = self.gaining(action, now);
                self.begin_step(step, attempt, gaining);
            }
            Action::Release { record, .. } => self.begin_release(record),
            Action::Tell { entry, register } => {
                self.catalog.telling = Some(entry.clone());
                self.catalog.told_at = now;
                if *register {
                    self.catalog.registered_at = now;
                }
            }
            Action::Deregister => self.catalog.telling = None,
            Action::WriteMember { member } => {
                if !member.stands_down {
                    self.catalog.stands_down_since = None;
                }
                self.catalog.member_writing = Some((**member).clone());
                self.catalog.member_written_at = now;
            }
            Action::WriteBallot { ballot } => self.begin_ballot(ballot, now),
            Action::WriteSwitchover { switchover, to, .. } => {
                if switchover.state == SwitchoverState::Requested {
                    self.vshard.asked_at = Some(now);
                }
                self.begin_switchover(switchover, to.clone())
            }
            Action::WriteHistory { line, .. } => self.begin_history(line),
            Action::AskPromises {
                term,
                members,
                reading,
                for_all,
                ..
            } => self.begin_promises(*term, members, *reading, for_all.is_some()),
            Action::Vshard(action) => self.begin_vshard(action),
            Action::Kill
            | Action::CreateSession
            | Action::RenewSession { .. }
            | Action::DestroySession { .. }
            | Action::ReadLock
            | Action::ReadBoard
            | Action::ReadBallots { .. }
            | Action::ReadHistory
            | Action::Exit { .. } => {}
        }
    }

    fn begin_command(&mut self, command: &GuardCommand, now: Tick) {
        match command {
            GuardCommand::Promote {
                deadline, reading, ..
            }
            | GuardCommand::Grant {
                deadline, reading, ..
            } => sound!(self.lease_handed_over(*deadline, *reading, now); GrantNotNoted =>
            if matches!(command, GuardCommand::Promote { .. }) {
                self.lease_handed_over(*deadline, *reading, now);
            }),
            GuardCommand::Fence { .. } => {
                if let Some(handover) = &mut self.hold.handover {
                    handover.fencing_since = handover.fencing_since.or(Some(now));
                }
            }
            GuardCommand::StandDown { down } => {
                if *down {
                    self.instance.stood_down_at = Some(now);
                }
            }
            GuardCommand::Probe
            | GuardCommand::Follow { .. }
            | GuardCommand::Remember { .. }
            | GuardCommand::Observe { .. } => {}
        }
    }

    fn begin_step(&mut self, step: LockStepKind, attempt: &Attempt, gaining: Option<Gained>) {
        self.hold.refresh_sent = attempt.record.refresh;
        self.hold.attempted = Some(Sent {
            attempt: attempt.clone(),
            step,
            after: self.before(attempt.record.term),
            gaining,
        });
    }

    fn begin_release(&mut self, record: &Record) {
        self.hold.refresh_sent = record.refresh;
        // Should the lock stay ours after all, a promotion must have a new refresh behind it.
        sound!(self.hold.forgets_readings(); ReleaseLeavesReading => ());
        self.hold.asked = None;
        self.hold.attempted = None;
        if let Some(reading) = self.instance.reading {
            let attempt = Attempt {
                record: record.clone(),
                reading,
                gain: None,
            };
            self.begin_step(LockStepKind::Release, &attempt, None);
        }
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
        let whole = (reading.reply_at + Timing::lease_and_margin(lease)).max(earlier_over_at);
        self.instance.lease = Some(Granted {
            deadline,
            over_at: sound!(whole; LeaseOverAtHalf => reading.reply_at + lease / 2),
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
            sound!(self.hold.forgets_readings(); ReadingOutlivesProcess => ());
            self.comes_back();
        }
        self.instance.link = Link::Up;
        self.instance.attached_at = now;
        self.vshard.attached();
        self.instance.process = process;
        self.instance.silent_since = None;
        self.instance.killed = false;
        self.instance.killed_at = None;
        self.instance.kill_failed = None;
        self.pending.retries(Place::Guard, None);
        self.pending.retries(Place::Fence, None);
        if self.session.id.is_none() && !self.pending.is_busy(Place::Session) {
            // An agent before us may hold the lock with it.
            if let Some(session) = &probe.guard.session {
                self.session = Session::found_in_guard(SessionId::new(session.clone()), now);
            }
        }
        self.session.remembered = self
            .session
            .id
            .as_ref()
            .is_some_and(|id| probe.guard.session.as_deref() == Some(id.as_str()));
        // What is under way may have reached the guard after it answered.
        let begun_at = match self.pending.command() {
            Some(_) => self.instance.answered_begun_at.unwrap_or_default(),
            None => now,
        };
        self.probed(probe, begun_at, now);
        self.adopt_hold(now);
    }

    fn kill_ended(&mut self, result: KillResult, now: Tick) {
        let begun_at = self.pending.ends(Place::Process);
        self.pending.retries(Place::Process, Some(now + KILL_RETRY));
        match result {
            KillResult::Killed => {
                self.instance.killed = true;
                self.instance.killed_at = self.instance.killed_at.or(Some(now));
                self.instance.kill_failed = None;
            }
            KillResult::Spared(probe) => {
                self.instance.kill_failed = None;
                self.probed(*probe, begun_at, now);
            }
            KillResult::Failed(why) => self.instance.kill_failed = Some(why),
        }
    }

    /// Takes the guard's word, in answer to a question that was asked at `begun_at`. Words may overtake each other;
    /// the answer to an older question is no news.
    fn probed(&mut self, probe: Probe, begun_at: Tick, now: Tick) {
        if self
            .instance
            .answered_begun_at
            .is_some_and(|known| known > begun_at)
        {
            return;
        }
        self.instance.answered_begun_at = Some(begun_at);
        self.instance.reading = Some(Reading {
            t0: probe.now,
            reply_at: now,
        });
        self.instance.probed_at = Some(now);
        if self.believes(probe.guard.term, SaidBy::Guard) {
            self.highest_term = self.highest_term.max(probe.guard.term);
        }
        self.note_promotion(&probe, begun_at, now);
        self.note_interruption(&probe, now);
        self.instance.heard = Heard::after(&self.instance.heard, &probe, now);
        self.note_peers(&probe);
        self.note_promise(&probe, now);
        self.note_feed(&probe, begun_at, now);
        self.note_followers(&probe, now);
        self.instance.probe = Some(probe);
        if self.is_serving() {
            // No promise to another runs in a guard that was promoted, and none before this term bounds it.
            self.hold.before = Before::default();
            // A promotion whose reply was lost was none that was refused.
            self.hold.refused_since = None;
            self.note_base();
        }
    }

    /// Whatever becomes of the instance and of the next refresh: our last word is to say that it was promoted.
    pub(super) fn note_base(&mut self) {
        let (Some(record), Some(probe)) = (&mut self.hold.record, &self.instance.probe) else {
            return;
        };
        if record.base.is_empty() {
            let noted = probe.guard.base.as_ref();
            record.base = noted.unwrap_or(&probe.vclock).clone();
        }
    }

    fn unreachable(&mut self, why: String, now: Tick) {
        let isolated = self.instance.probe.as_ref().is_some_and(Probe::is_isolated);
        let why = if isolated {
            format!("its configuration isolates it (`isolated: true`): {why}")
        } else {
            why
        };
        match &mut self.instance.link {
            // The proof stands until another process was attached, and does not hide why none was.
            Link::Dead { newest, .. } => *newest = Some(why),
            Link::Down { why: known, .. } => *known = why,
            Link::Unknown | Link::Up | Link::Unsuitable { .. } => {
                self.instance.link = Link::Down { why, since: now };
            }
        }
    }

    fn guard_answered(
        &mut self,
        command: GuardCommandKind,
        probe: Probe,
        refused: Option<String>,
        now: Tick,
    ) {
        let begun_at = self.pending.ends(command.place());
        if begun_at < self.instance.attached_at {
            return;
        }
        let retry_at = refused.is_some().then(|| now + GUARD_RETRY);
        match command {
            GuardCommandKind::Fence => {
                let done = probe.is_fenced() && refused.is_none();
                self.pending
                    .retries(Place::Fence, (!done).then(|| now + GUARD_RETRY));
                self.instance.fence_tried_at = Some(begun_at);
            }
            GuardCommandKind::Follow => {
                let retry_at = refused.is_some().then(|| now + FOLLOW_RETRY);
                self.pending.retries(Place::Replication, retry_at);
                self.instance.follow_fault = refused;
            }
            GuardCommandKind::Promote => {
                self.pending.retries(Place::Guard, retry_at);
                let since = self.hold.refused_since.unwrap_or(now);
                self.hold.refused_since = refused.is_some().then_some(since);
                self.instance.guard_refused = refused;
            }
            GuardCommandKind::Remember => {
                let session = self.session.id.as_ref().map(SessionId::as_str);
                self.session.remembered =
                    session.is_some() && probe.guard.session.as_deref() == session;
            }
            GuardCommandKind::Probe
            | GuardCommandKind::Grant
            | GuardCommandKind::Observe
            | GuardCommandKind::StandDown => {
                self.pending.retries(Place::Guard, retry_at);
            }
        }
        self.probed(probe, begun_at, now);
        if self.promised_until(self.hold.before, now).is_some() {
            // It says when it can; that is no fault of its.
            self.hold.refused_since = None;
        }
    }

    fn guard_failed(&mut self, command: GuardCommandKind, why: String, now: Tick) {
        let begun_at = self.pending.ends(command.place());
        // What this agent did not stay awake for is no silence of the guard's.
        let unheard = (!self.slept_through(begun_at)).then_some(begun_at);
        match command {
            GuardCommandKind::Fence => {
                self.pending.retries(Place::Fence, Some(now + GUARD_RETRY));
                self.instance.fence_tried_at = unheard.or(self.instance.fence_tried_at);
            }
            GuardCommandKind::Follow => {
                self.pending
                    .retries(Place::Replication, Some(now + FOLLOW_RETRY));
                self.instance.follow_fault = Some(why);
            }
            GuardCommandKind::Promote => {
                self.pending.retries(Place::Guard, Some(now + GUARD_RETRY));
                self.instance.unanswered_at = unheard.or(self.instance.unanswered_at);
                self.hold.refused_since = self.hold.refused_since.or(Some(now));
                self.hold.promotion_unheard = true;
                self.instance.guard_refused = Some(why);
            }
            GuardCommandKind::Probe
            | GuardCommandKind::Remember
            | GuardCommandKind::Grant
            | GuardCommandKind::Observe
            | GuardCommandKind::StandDown => {
                self.pending.retries(Place::Guard, Some(now + GUARD_RETRY));
                self.instance.unanswered_at = unheard.or(self.instance.unanswered_at);
            }
        }
    }

    fn member_ended(&mut self, result: Result<(), ConsulFault>, now: Tick) {
        self.pending.ends(Place::Member);
        let catalog = &mut self.catalog;
        let written = catalog.member_writing.take();
        match result {
            Ok(()) => {
                let says_so = written.as_ref().is_some_and(|member| member.stands_down);
                let since = catalog.stands_down_since.unwrap_or(now);
                catalog.stands_down_since =
                    sound!(says_so.then_some(since); StandsDownUnsaid => Some(since));
                catalog.member = written;
                catalog.member_fault = None;
                self.pending.retries(Place::Member, None);
            }
            Err(fault) => {
                // Either may stand there now: the next write is not spared, whatever it says.
                catalog.forgets_member();
                self.pending
                    .retries(Place::Member, Some(now + CATALOG_RETRY));
                catalog.member_fault = Some(fault.why);
            }
        }
    }

    fn catalog_ended(&mut self, result: Result<bool, ConsulFault>, now: Tick) {
        self.pending.ends(Place::Catalog);
        let telling: Option<CatalogEntry> = self.catalog.telling.take();
        match (result, telling) {
            (Ok(true), Some(entry)) => {
                self.catalog.told = Some(entry);
                self.catalog.lost = false;
                self.pending.retries(Place::Catalog, None);
                self.catalog.fault = None;
            }
            (Ok(_), None) => self.catalog.removed = true,
            (Ok(false), Some(_)) => self.catalog.lost = true,
            (Err(fault), _) => {
                self.pending
                    .retries(Place::Catalog, Some(now + CATALOG_RETRY));
                self.catalog.doubted_until = Some(now + LOST_CALL);
                self.catalog.fault = Some(fault.why);
            }
        }
    }
}
