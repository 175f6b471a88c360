//! Rows: how they are written, how they land, and how they get to the other instances.

use crate::attach::kind;
use crate::decide::event::GuardCommandKind;
use crate::decide::plan::{Action, GuardCommand};
use crate::guard::{BARRIER_PATIENCE, Promotion, QUEUE_PATIENCE};
use crate::instance::Lsns;
use crate::requests::Command;
use crate::time::{MS, SEC, Time};
use crate::world::{Due, World};

/// The fencing fiber sleeps at most that long while nothing can happen.
const IDLE: Time = 500 * MS;

impl World {
    /// Carries out a command. `None`: its answer has to wait.
    pub(crate) fn obey(&mut self, at: usize, command: &mut Command) -> Option<Option<String>> {
        let now_ns = self.instances[at].clock.instance(self.now).monotonic_ns;
        let guard = self.instances[at].guard.as_mut()?;
        let Action::Guard(told) = &command.action else {
            return Some(None);
        };
        let result = match told {
            GuardCommand::Promote { .. } => return self.begin_promotion(at, command),
            GuardCommand::Grant { term, deadline, .. } => {
                let result = guard.grant(*term, *deadline, now_ns);
                if result.is_ok() {
                    self.check_leased(at, deadline.monotonic_ns);
                }
                result
            }
            GuardCommand::Remember { session } => {
                guard.session = Some(session.as_str().to_owned());
                Ok(())
            }
            GuardCommand::Observe { term } => {
                guard.observe(*term);
                Ok(())
            }
            // The toy's passwords never change.
            GuardCommand::Probe | GuardCommand::Follow { again: true, .. } => Ok(()),
            GuardCommand::Follow { uri, .. } => {
                guard.follows = Some(uri.clone().unwrap_or_default());
                self.follow(at, uri.as_deref());
                Ok(())
            }
            GuardCommand::StandDown { down } => self.stand_down(at, *down, now_ns),
            GuardCommand::Fence { .. } => {
                self.fence(at, "its agent said so");
                if self.needs_barrier(at) && !self.has_failed_barrier(at) {
                    return None;
                }
                Ok(())
            }
        };
        Some(result.err())
    }

    fn stand_down(&mut self, at: usize, down: bool, now_ns: u64) -> Result<(), String> {
        let Some(guard) = &mut self.instances[at].guard else {
            return Ok(());
        };
        if let Some(why) = guard.stand_down(down, now_ns)? {
            self.fence(at, why);
        }
        if down {
            self.check_stands_down(at);
        } else {
            // Its word wakes the fencing fiber, which has slept through leases' ends until now.
            let pid = self.instances[at].pid;
            self.fiber_wakes(at, pid);
        }
        Ok(())
    }

    fn follow(&mut self, at: usize, uri: Option<&str>) {
        let set = self.instances[at].set;
        self.instances[at].sources = Some(uri.and_then(|name| self.find(set, name)));
        self.replicate_anew(at);
    }

    /// A command whose answer waits.
    pub(crate) fn parked(&mut self, at: usize, mut command: Box<Command>) {
        if kind(&command) == GuardCommandKind::Fence {
            self.instances[at].fences.push(*command);
            return;
        }
        let slow = self.now < self.instances[at].slow_queue_until;
        let takes = if slow {
            self.rng.below(900) * MS
        } else {
            self.rng.below(5) * MS
        };
        if takes > QUEUE_PATIENCE {
            command.too_late = true;
            self.answer_later(at, &command, takes);
        }
        self.schedule(takes.min(QUEUE_PATIENCE), Due::QueueTaken(command));
    }

    /// The taking goes on behind a promotion that has given up.
    fn answer_later(&mut self, at: usize, command: &Command, takes: Time) {
        let pid = command.pid;
        self.checks.taking.push((self.now + takes, at, pid));
    }

    /// The first half: refused, or the queue is to be taken, or done where there is nothing to take.
    fn begin_promotion(&mut self, at: usize, command: &mut Command) -> Option<Option<String>> {
        let Action::Guard(GuardCommand::Promote {
            term,
            deadline,
            before,
            reading,
        }) = &command.action
        else {
            return Some(None);
        };
        self.end_taking(at);
        let now_ns = self.instances[at].clock.instance(self.now).monotonic_ns;
        let it = &mut self.instances[at];
        let leased = it.guard.as_ref().is_some_and(|guard| guard.leased) && !it.read_only;
        let guard = it.guard.as_mut()?;
        command.epoch = (!leased).then_some(guard.epoch);
        let promotion = Promotion {
            term: *term,
            deadline: *deadline,
            t0: reading.t0,
            owner: (command.agent, command.attach),
            epoch: command.epoch,
        };
        if let Err(why) = guard.may_promote(&it.name, &promotion, *before, now_ns) {
            return Some(Some(why));
        }
        if leased {
            return Some(self.finish_promotion(at, &promotion));
        }
        guard.promoting += 1;
        guard.promoting_for = (guard.epoch, deadline.monotonic_ns);
        guard.taking = true;
        None
    }

    fn end_taking(&mut self, at: usize) {
        let (now, pid) = (self.now, self.instances[at].pid);
        self.checks.taking.retain(|(until, _, _)| *until > now);
        let still = self
            .checks
            .taking
            .iter()
            .any(|(_, place, owner)| *place == at && *owner == pid);
        if let Some(guard) = &mut self.instances[at].guard
            && guard.promoting == 0
        {
            guard.taking = still;
        }
    }

    pub(crate) fn queue_taken(&mut self, command: Box<Command>) {
        let at = self.agents[command.agent].at;
        let it = &self.instances[at];
        if !it.alive || it.pid != command.pid {
            return;
        }
        if it.frozen {
            let until = it.frozen_until + self.rng.between(10_000, 3 * MS);
            self.schedule_at(until, Due::QueueTaken(command));
            return;
        }
        let Action::Guard(GuardCommand::Promote {
            term,
            deadline,
            reading,
            ..
        }) = &command.action
        else {
            return;
        };
        let promotion = Promotion {
            term: *term,
            deadline: *deadline,
            t0: reading.t0,
            owner: (command.agent, command.attach),
            epoch: command.epoch,
        };
        let quorum = self.has_quorum(at);
        if let Some(guard) = &mut self.instances[at].guard {
            guard.promoting -= 1;
            guard.taking = command.too_late;
        }
        let refused = if command.too_late || !quorum {
            Some("could not take the synchronous queue".to_owned())
        } else {
            self.finish_promotion(at, &promotion)
        };
        self.answer(at, &command, refused);
        self.look_with_fiber(at);
    }

    fn has_quorum(&self, at: usize) -> bool {
        let set = self.instances[at].set;
        if !self.params.sets[set].queue_needs_quorum || self.params.sets[set].sync_share == 0 {
            return true;
        }
        let members = self.sets[set].members.clone();
        let size = members.len();
        let there = members.filter(|peer| {
            *peer == at
                || (self.instances[*peer].answers()
                    && self.cuts[*peer][at].is_none()
                    && self.cuts[at][*peer].is_none())
        });
        there.count() > size / 2
    }

    fn finish_promotion(&mut self, at: usize, promotion: &Promotion) -> Option<String> {
        let it = &mut self.instances[at];
        let now_ns = it.clock.instance(self.now).monotonic_ns;
        let vclock = it.vclock();
        let guard = it.guard.as_mut()?;
        if let Err(why) = guard.promote(promotion, &vclock, now_ns) {
            return Some(why);
        }
        let was_read_only = it.read_only;
        it.read_only = false;
        self.note(|_| format!("instance {at} is promoted for term {}", promotion.term));
        self.check_promoted(at, promotion, was_read_only);
        self.start_writers(at);
        None
    }

    pub(crate) fn start_writers(&mut self, at: usize) {
        let it = &mut self.instances[at];
        if !it.writes {
            it.writes = true;
            let pid = it.pid;
            self.schedule(0, Due::Write { instance: at, pid });
        }
    }

    pub(crate) fn fence(&mut self, at: usize, why: &'static str) {
        self.check_answer_to_fence(at, why);
        let it = &mut self.instances[at];
        let was_read_only = it.read_only;
        if let Some(guard) = &mut it.guard {
            guard.fence(was_read_only, why);
        }
        it.read_only = true;
        if !was_read_only {
            self.note(|_| format!("instance {at} is fenced: {why}"));
        }
        self.check_fenced(at);
        self.start_barrier(at);
    }

    fn needs_barrier(&self, at: usize) -> bool {
        let it = &self.instances[at];
        it.guard.as_ref().is_some_and(|guard| guard.needs_barrier())
    }

    fn has_failed_barrier(&self, at: usize) -> bool {
        let it = &self.instances[at];
        it.guard
            .as_ref()
            .is_some_and(|guard| guard.has_failed_barrier())
    }

    fn start_barrier(&mut self, at: usize) {
        let needed = self.needs_barrier(at);
        let now = self.now;
        let it = &mut self.instances[at];
        let pid = it.pid;
        let unwritable = now < it.unwritable_until;
        let Some(guard) = it.guard.as_mut().filter(|guard| needed && !guard.passing) else {
            return;
        };
        if unwritable {
            guard.failed_epoch = Some(guard.epoch);
            self.look_with_fiber(at);
            return;
        }
        guard.passing = true;
        let epoch = guard.epoch;
        let lands_at = self.wal_write(at);
        self.schedule_at(
            lands_at,
            Due::Barrier {
                instance: at,
                pid,
                epoch,
            },
        );
    }

    /// The WAL is one queue: when what is written now lands.
    fn wal_write(&mut self, at: usize) -> Time {
        let takes = 30_000 + self.rng.below(self.params.weather.wal_max);
        let it = &mut self.instances[at];
        it.wal_free_at = it.wal_free_at.max(self.now).max(it.slow_disk_until) + takes;
        it.wal_free_at
    }

    pub(crate) fn barrier_passed(&mut self, at: usize, pid: u32, epoch: u64) {
        let it = &mut self.instances[at];
        if it.pid != pid || !it.alive {
            return;
        }
        if it.frozen {
            let until = it.frozen_until + 20_000;
            self.schedule_at(
                until,
                Due::Barrier {
                    instance: at,
                    pid,
                    epoch,
                },
            );
            return;
        }
        let read_only = it.read_only;
        if let Some(guard) = &mut it.guard {
            guard.passing = false;
            guard.passed(epoch, read_only);
        }
        if self.needs_barrier(at) {
            self.start_barrier(at);
        }
        let patience = BARRIER_PATIENCE;
        let waiting = std::mem::take(&mut self.instances[at].fences);
        for command in waiting {
            let waits = self.needs_barrier(at) && !self.has_failed_barrier(at);
            if waits && self.now < command.sent_at + patience {
                self.instances[at].fences.push(command);
            } else {
                self.answer(at, &command, None);
            }
        }
    }

    /// Sees to it that the fencing fiber wakes when it has something to do.
    pub(crate) fn look_with_fiber(&mut self, at: usize) {
        let it = &self.instances[at];
        let Some(guard) = it.guard.as_ref().filter(|_| it.alive && !it.fiber_due) else {
            return;
        };
        let late_max = if self.calm {
            0
        } else {
            self.params.weather.fiber_late_max
        };
        let when = if guard.stood_down {
            self.now + IDLE
        } else if guard.leased {
            it.clock.when(guard.deadline_ns)
        } else if guard.has_failed_barrier() && it.read_only {
            self.now + IDLE
        } else if !it.read_only || (!guard.passing && guard.needs_barrier()) {
            self.now
        } else {
            return;
        };
        let pid = it.pid;
        let late = 10_000 + self.rng.below(late_max);
        self.instances[at].fiber_due = true;
        self.schedule_at(when + late, Due::Fiber { instance: at, pid });
    }

    pub(crate) fn fiber_wakes(&mut self, at: usize, pid: u32) {
        let it = &mut self.instances[at];
        if it.pid != pid || !it.alive {
            return;
        }
        if it.frozen {
            let until = it.frozen_until + 10_000 + self.rng.below(3 * MS);
            self.schedule_at(until, Due::Fiber { instance: at, pid });
            return;
        }
        it.fiber_due = false;
        let now_ns = it.clock.instance(self.now).monotonic_ns;
        let read_only = it.read_only;
        let why = it
            .guard
            .as_mut()
            .and_then(|guard| guard.must_fence(read_only, now_ns));
        match why {
            Some(why) => self.fence(at, why),
            None => self.start_barrier(at),
        }
        self.look_with_fiber(at);
    }

    /// A client's write begins, if it may.
    pub(crate) fn write(&mut self, at: usize, pid: u32) {
        let it = &self.instances[at];
        if it.pid != pid || !it.alive {
            return;
        }
        if it.frozen {
            let until = it.frozen_until + 5_000;
            self.schedule_at(until, Due::Write { instance: at, pid });
            return;
        }
        if it.read_only {
            self.instances[at].writes = false;
            return;
        }
        self.check_write(at);
        let set = self.instances[at].set;
        let (share, gap) = (
            self.params.sets[set].sync_share,
            self.params.sets[set].write_gap,
        );
        let sync = self.rng.percent(share);
        let lands_at = self.wal_write(at);
        self.instances[at].in_flight += 1;
        self.schedule_at(
            lands_at,
            Due::Landed {
                instance: at,
                pid,
                sync,
            },
        );
        let after = gap / 2 + self.rng.below(gap);
        self.schedule(after, Due::Write { instance: at, pid });
    }

    pub(crate) fn landed(&mut self, at: usize, pid: u32, sync: bool) {
        let it = &mut self.instances[at];
        if it.pid != pid || !it.alive {
            return;
        }
        if it.frozen {
            let until = it.frozen_until;
            self.schedule_at(
                until,
                Due::Landed {
                    instance: at,
                    pid,
                    sync,
                },
            );
            return;
        }
        it.in_flight -= 1;
        let n = it.n;
        it.has[n] += 1;
        if sync {
            let lsn = it.has[n];
            it.waiting.push(lsn);
            self.acknowledge(at);
        }
        self.replicate(at);
    }

    /// Synchronous rows that a quorum has are acknowledged, while the lease runs.
    fn acknowledge(&mut self, at: usize) {
        let set = self.instances[at].set;
        let size = self.sets[set].members.len();
        let it = &mut self.instances[at];
        if it.waiting.is_empty() || it.read_only {
            return;
        }
        let n = it.n;
        let mut lsns: Vec<u64> = (0..size)
            .map(|peer| {
                if peer == n {
                    it.has[n]
                } else {
                    it.confirmed[peer][n]
                }
            })
            .collect();
        lsns.sort_unstable_by(|a, b| b.cmp(a));
        let quorum = lsns[size / 2];
        if let Some(last) = it.waiting.iter().rev().find(|lsn| **lsn <= quorum).copied() {
            it.waiting.retain(|lsn| *lsn > last);
            self.checks.acknowledged(at, last);
        }
    }

    /// Whether `dst` replicates from `src`.
    pub(crate) fn pulls(&self, dst: usize, src: usize) -> bool {
        match self.instances[dst].sources {
            None => true,
            Some(only) => only == Some(src),
        }
    }

    fn replicate(&mut self, src: usize) {
        let set = self.instances[src].set;
        for dst in self.sets[set].members.clone() {
            let there = &self.instances[dst];
            let here = &self.instances[src];
            let news = here.has.iter().zip(&there.has).any(|(a, b)| a > b);
            let confirmed = here.confirmed[there.n] == there.has;
            if dst == src
                || (!news && confirmed)
                || here.sending[there.n].is_some()
                || self.cuts[src][dst].is_some()
                || !here.answers()
                || !there.answers()
                || !self.pulls(dst, src)
            {
                continue;
            }
            let (n, has) = (there.n, here.has);
            self.instances[src].sending[n] = Some(has);
            let after = 50_000 + self.rng.below(self.params.weather.lag_max);
            self.schedule(after, Due::Sync { src, dst });
        }
    }

    /// Whatever kept rows from coming or going is over.
    pub(crate) fn replicate_anew(&mut self, at: usize) {
        let set = self.instances[at].set;
        for peer in self.sets[set].members.clone() {
            if peer != at {
                self.replicate(peer);
            }
        }
        self.replicate(at);
    }

    pub(crate) fn rows_arrive(&mut self, src: usize, dst: usize) {
        let n = self.instances[dst].n;
        let sent = self.instances[src].sending[n].take();
        // What a source that is gone had sent is still on its way.
        let from = &self.instances[src];
        let rows = if from.answers() { Some(from.has) } else { sent };
        let Some(rows) = rows else {
            return;
        };
        if self.cuts[src][dst].is_some() || !self.instances[dst].answers() || !self.pulls(dst, src)
        {
            return;
        }
        let it = &mut self.instances[dst];
        let before = it.has;
        for (own, theirs) in it.has.iter_mut().zip(&rows) {
            *own = (*own).max(*theirs);
        }
        let has = it.has;
        let after = self.delay();
        self.schedule(after, Due::Confirm { src, dst, has });
        if has != before {
            self.replicate(dst);
        }
    }

    pub(crate) fn confirmed(&mut self, src: usize, dst: usize, has: Lsns) {
        if self.cuts[dst][src].is_some() || !self.instances[src].answers() {
            return;
        }
        let n = self.instances[dst].n;
        for (known, new) in self.instances[src].confirmed[n].iter_mut().zip(&has) {
            *known = (*known).max(*new);
        }
        self.acknowledge(src);
        self.replicate(src);
    }
}

const _: () = assert!(IDLE < SEC);
