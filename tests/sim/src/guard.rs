//! The guard inside an instance, line by line what `src/tarantool/guard.lua` does, with the process and the disk under
//! it. Nothing here knows of agents' decisions or of Consul.

use crate::decide::observed::{GuardClock, GuardState, Promise};
use crate::decide::plan::Before;
use crate::decide::record::Vclock;
use crate::decide::term::Term;
use crate::decide::timing::InstanceTime;
use crate::time::{MS, SEC, Time, ns};

/// No lease is longer: a deadline beyond that comes from another clock.
const LEASE_MAX_NS: u64 = 61 * SEC;
/// No promise is longer.
const PROMISE_MAX_NS: u64 = 64 * SEC;
/// The longest a promotion waits for the synchronous queue.
pub(crate) const QUEUE_PATIENCE: Time = 500 * MS;
/// The longest a fence waits for its barrier.
pub(crate) const BARRIER_PATIENCE: Time = 5 * SEC;

/// Which agent owns the guard: its number, and which attach of it.
pub(crate) type Owner = (usize, u32);

/// A promise not to be promoted (R6).
#[derive(Debug, Clone)]
pub(crate) struct Promised {
    pub(crate) to: String,
    pub(crate) term: Term,
    pub(crate) until_ns: u64,
}

/// What a guard keeps.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    pub(crate) owner: Owner,
    pub(crate) session: Option<String>,
    pub(crate) term: Term,
    pub(crate) deadline_ns: u64,
    pub(crate) leased: bool,
    pub(crate) epoch: u64,
    pub(crate) promoting: u32,
    /// The epoch in which the last one began, and the lease that it is to begin.
    pub(crate) promoting_for: (u64, u64),
    /// The queue is being taken, perhaps for a promotion that has been given up.
    pub(crate) taking: bool,
    /// The epoch whose last commits are known to have landed.
    pub(crate) barrier_epoch: Option<u64>,
    pub(crate) passing: bool,
    /// The epoch in which the last barrier came back before it had reached the WAL.
    pub(crate) failed_epoch: Option<u64>,
    pub(crate) fences: u64,
    pub(crate) unleased: u64,
    pub(crate) last_fence: Option<&'static str>,
    pub(crate) promise: Option<Promised>,
    pub(crate) promised_at_ns: u64,
    pub(crate) born_ns: u64,
    pub(crate) stood_down: bool,
    pub(crate) base: Option<(Term, Vclock)>,
    pub(crate) follows: Option<String>,
}

/// A promotion that may go on to the switch.
#[derive(Debug, Clone)]
pub(crate) struct Promotion {
    pub(crate) term: Term,
    pub(crate) deadline: InstanceTime,
    /// What the deadline rests on.
    pub(crate) t0: InstanceTime,
    pub(crate) owner: Owner,
    /// As it was before the queue was taken; `None`: it was leased already and takes nothing.
    pub(crate) epoch: Option<u64>,
}

impl Guard {
    pub(crate) fn new(now_ns: u64) -> Self {
        Self {
            owner: (0, 0),
            session: None,
            term: Term::NONE,
            deadline_ns: 0,
            leased: false,
            epoch: 0,
            promoting: 0,
            promoting_for: (0, 0),
            taking: false,
            barrier_epoch: None,
            passing: false,
            failed_epoch: None,
            fences: 0,
            unleased: 0,
            last_fence: None,
            promise: None,
            promised_at_ns: 0,
            born_ns: now_ns,
            stood_down: false,
            base: None,
            follows: None,
        }
    }

    fn promise_left_ns(&self, now_ns: u64) -> Option<u64> {
        let promise = self.promise.as_ref()?;
        promise
            .until_ns
            .checked_sub(now_ns)
            .filter(|left| *left > 0)
    }

    fn useless_deadline(deadline: InstanceTime, now_ns: u64) -> Option<String> {
        if now_ns >= deadline.monotonic_ns {
            return Some("that lease ended before word of it arrived".to_owned());
        }
        (deadline.monotonic_ns > now_ns + LEASE_MAX_NS)
            .then(|| "no lease is that long: its deadline comes from another clock".to_owned())
    }

    fn bound_by_promise(&self, own: &str, before: Before, now_ns: u64) -> Option<String> {
        if self.promise_left_ns(now_ns).is_some()
            && let Some(promise) = &self.promise
            && promise.to != own
            && promise.term > before.fenced_term
        {
            return Some(format!(
                "it has promised {}, master of term {}",
                promise.to, promise.term
            ));
        }
        (now_ns - self.born_ns < ns(before.guard_age))
            .then(|| "its guard is too young to know of all its promises".to_owned())
    }

    fn rests_on_old_reading(&self, t0: InstanceTime) -> Option<String> {
        (t0.monotonic_ns < self.promised_at_ns).then(|| {
            "its lease rests on a reading from before this guard promised another".to_owned()
        })
    }

    /// The first half of a promotion. `Err` is a refusal.
    pub(crate) fn may_promote(
        &self,
        own: &str,
        promotion: &Promotion,
        before: Before,
        now_ns: u64,
    ) -> Result<(), String> {
        if promotion.term < self.term {
            return Err("that term is over".to_owned());
        }
        if let Some(why) = self
            .bound_by_promise(own, before, now_ns)
            .or_else(|| self.rests_on_old_reading(promotion.t0))
            .or_else(|| Self::useless_deadline(promotion.deadline, now_ns))
        {
            return Err(why);
        }
        if promotion.epoch.is_some() && self.taking {
            return Err("the synchronous queue is still being taken".to_owned());
        }
        Ok(())
    }

    /// A promotion that has yielded will go on, if it is not too late then: it looks at epoch and deadline first.
    pub(crate) fn may_turn_writable(&self, now_ns: u64) -> bool {
        let (epoch, deadline_ns) = self.promoting_for;
        self.promoting > 0 && epoch == self.epoch && now_ns < deadline_ns
    }

    /// The second half, from which on nothing yields. The caller switches `read_only` off.
    pub(crate) fn promote(
        &mut self,
        promotion: &Promotion,
        vclock: &Vclock,
        now_ns: u64,
    ) -> Result<(), String> {
        if let Some(epoch) = promotion.epoch {
            if self.owner != promotion.owner || promotion.term < self.term || self.epoch != epoch {
                return Err("another word came while the synchronous queue was taken".to_owned());
            }
            if now_ns >= promotion.deadline.monotonic_ns {
                return Err("the lease ended while the synchronous queue was taken".to_owned());
            }
            self.epoch += 1;
        }
        if self
            .base
            .as_ref()
            .is_none_or(|(term, _)| *term != promotion.term)
        {
            self.base = Some((promotion.term, vclock.clone()));
        }
        self.term = promotion.term;
        self.deadline_ns = promotion.deadline.monotonic_ns;
        self.leased = true;
        self.promise = None;
        Ok(())
    }

    pub(crate) fn grant(
        &mut self,
        term: Term,
        deadline: InstanceTime,
        now_ns: u64,
    ) -> Result<(), String> {
        if term != self.term {
            return Err("the lease is for another term".to_owned());
        }
        if !self.leased {
            return Err("no lease is running here".to_owned());
        }
        if let Some(why) = Self::useless_deadline(deadline, now_ns) {
            return Err(why);
        }
        self.deadline_ns = self.deadline_ns.max(deadline.monotonic_ns);
        Ok(())
    }

    /// The caller switches `read_only` on; `was_read_only` is what it was.
    pub(crate) fn fence(&mut self, was_read_only: bool, why: &'static str) {
        self.leased = false;
        self.stood_down = false;
        self.deadline_ns = 0;
        self.epoch += 1;
        if was_read_only {
            if self.barrier_epoch == Some(self.epoch - 1) {
                self.barrier_epoch = Some(self.epoch);
            }
        } else {
            self.fences += 1;
            self.last_fence = Some(why);
        }
    }

    pub(crate) fn needs_barrier(&self) -> bool {
        !self.leased && self.barrier_epoch != Some(self.epoch)
    }

    /// What the fencing fiber finds when it wakes. The caller fences, for this reason.
    pub(crate) fn must_fence(&mut self, read_only: bool, now_ns: u64) -> Option<&'static str> {
        if self.stood_down {
            None
        } else if self.leased && now_ns >= self.deadline_ns {
            Some("its lease ended")
        } else if !self.leased && !read_only {
            self.unleased += 1;
            Some("somebody made it writable without a lease")
        } else {
            None
        }
    }

    /// A pause, and its end. `Ok` with a reason: the caller fences at once.
    pub(crate) fn stand_down(
        &mut self,
        down: bool,
        now_ns: u64,
    ) -> Result<Option<&'static str>, String> {
        if down && !self.leased {
            return Err("it is not master here".to_owned());
        }
        let outlived = !down && self.stood_down && self.deadline_ns <= now_ns;
        self.stood_down = down;
        Ok(outlived.then_some("its lease ended during a pause"))
    }

    /// No barrier is under way, because the last one of this epoch could not be written.
    pub(crate) fn has_failed_barrier(&self) -> bool {
        let failed = self.failed_epoch == Some(self.epoch);
        !self.passing && failed && self.needs_barrier()
    }

    /// Why there can be no barrier now.
    fn barrier_failure(&self) -> Option<String> {
        if self.leased || self.passing || self.barrier_epoch == Some(self.epoch) {
            return None;
        }
        let fails = self.failed_epoch == Some(self.epoch);
        fails.then(|| "the barrier cannot be written".to_owned())
    }

    /// The barrier has passed that was begun in `epoch`.
    pub(crate) fn passed(&mut self, epoch: u64, read_only: bool) {
        self.failed_epoch = None;
        if read_only && !self.leased && self.epoch == epoch {
            self.barrier_epoch = Some(epoch);
        }
    }

    fn cannot_promise(
        &self,
        own: &str,
        read_only: bool,
        asked: &Promised,
        lasting_ns: u64,
        now_ns: u64,
    ) -> Option<&'static str> {
        if asked.to == own {
            return Some("it is the one that asks");
        }
        if self.leased || self.promoting > 0 || !read_only {
            return Some("it is writable itself, or about to be");
        }
        if asked.term < self.term {
            return Some("that term is over");
        }
        if self.promise_left_ns(now_ns).is_some()
            && let Some(known) = &self.promise
            && known.to != asked.to
            && known.term >= asked.term
        {
            return Some("it has promised that to another");
        }
        if !asked.term.is_within_reach_of(self.term) {
            return Some("nobody can have counted to that term");
        }
        (lasting_ns > PROMISE_MAX_NS).then_some("no lease is that long")
    }

    /// `for_all`: what [`Guard::stand_for_all`] says, where that was asked besides.
    pub(crate) fn promise(
        &mut self,
        own: &str,
        read_only: bool,
        (to, term, lasting_ns): (&str, Term, u64),
        now_ns: u64,
        for_all: Result<(), String>,
    ) -> Result<(), String> {
        let mut asked = Promised {
            to: to.to_owned(),
            term,
            until_ns: now_ns + lasting_ns,
        };
        if let Some(why) = self.cannot_promise(own, read_only, &asked, lasting_ns, now_ns) {
            return Err(why.to_owned());
        }
        for_all?;
        if let Some(known) = self.promise.as_ref().filter(|known| known.to == to) {
            asked.until_ns = asked.until_ns.max(known.until_ns);
        }
        self.promise = Some(asked);
        self.promised_at_ns = now_ns;
        self.term = term;
        Ok(())
    }

    /// R3: whether it can say that nobody is master, for all that it knows: not if it knows somebody that was not asked
    /// (`knows_more`), or if its last commits may still land.
    pub(crate) fn stand_for_all(&self, knows_more: bool) -> Result<(), String> {
        if !self.has_landed() {
            return Err("its last commits may still land".to_owned());
        }
        if knows_more {
            return Err("it knows a member that was not asked".to_owned());
        }
        Ok(())
    }

    fn has_landed(&self) -> bool {
        let passed = self.barrier_epoch == Some(self.epoch);
        !self.leased && passed
    }

    pub(crate) fn observe(&mut self, term: Term) {
        if term > self.term && !self.leased {
            self.term = term;
        }
    }

    pub(crate) fn state(&self, now_ns: u64) -> GuardState {
        let promise = self.promise_left_ns(now_ns).and_then(|left_ns| {
            let promise = self.promise.as_ref()?;
            Some(Promise {
                to: promise.to.clone(),
                term: promise.term,
                left_ns,
            })
        });
        let base = self.base.as_ref().filter(|(term, _)| *term == self.term);
        GuardState {
            session: self.session.clone(),
            term: self.term,
            deadline: InstanceTime {
                monotonic_ns: self.deadline_ns,
            },
            clock: GuardClock::Boottime,
            leased: self.leased,
            landed: self.has_landed(),
            promoting: self.promoting > 0,
            barrier: true,
            barrier_failure: self.barrier_failure(),
            follows: self.follows.clone(),
            fences: self.fences,
            unleased: self.unleased,
            last_fence: self.last_fence.map(str::to_owned),
            fenced_ago_ns: None,
            writable_ago_ns: None,
            promise,
            age_ns: now_ns - self.born_ns,
            stood_down: self.stood_down,
            base: base.map(|(_, vclock)| vclock.clone()),
        }
    }
}
