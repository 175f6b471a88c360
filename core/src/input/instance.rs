//! What the guard and the instance's process said, written down.

use std::time::Duration;

use crate::event::{GuardCommandKind, KillResult};
use crate::plan::Before;
use crate::state::slots::Place;
use crate::state::{Granted, Link, Session, State};
use crate::words::ids::SessionId;
use crate::words::observed::{Heard, Probe};
use crate::words::term::SaidBy;
use crate::words::timing::{Reading, Tick, Timing};

/// After the guard refused or did not answer.
const GUARD_RETRY: Duration = Duration::from_millis(50);

/// After a change of replication that failed: each try may wait long inside the instance.
const FOLLOW_RETRY: Duration = Duration::from_secs(1);

/// After a kill that could not be done, or was not needed.
const KILL_RETRY: Duration = Duration::from_millis(100);

impl State {
    pub(super) fn attached(&mut self, probe: Probe, process: Option<String>, now: Tick) {
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

    pub(super) fn kill_ended(&mut self, result: KillResult, now: Tick) {
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

    pub(super) fn unreachable(&mut self, why: String, now: Tick) {
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

    pub(super) fn guard_answered(
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

    pub(super) fn guard_failed(&mut self, command: GuardCommandKind, why: String, now: Tick) {
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
}
