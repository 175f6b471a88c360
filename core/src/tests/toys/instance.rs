//! An instance with its guard, to play with.

use super::*;
use crate::declared::Declared;
use crate::plan::GuardCommand;
use crate::term::Term;
use crate::vshard::Look;

/// An instance with its guard. Its clock is its own.
#[derive(Debug, Clone)]
pub(in crate::tests) struct ToyInstance {
    pub(in crate::tests) uuid: String,
    pub(in crate::tests) pid: u32,
    pub(in crate::tests) alive: bool,
    pub(in crate::tests) frozen: bool,
    /// How far its clock is ahead of the agents', and how much faster it runs, in millionths.
    pub(in crate::tests) ahead: Duration,
    pub(in crate::tests) fast_ppm: i64,
    pub(in crate::tests) ro: bool,
    pub(in crate::tests) read_only: bool,
    pub(in crate::tests) status: String,
    pub(in crate::tests) election_mode: Option<String>,
    pub(in crate::tests) quorum: Option<u64>,
    pub(in crate::tests) declared: Option<Declared>,
    pub(in crate::tests) name: Option<String>,
    pub(in crate::tests) vclock: Vclock,
    pub(in crate::tests) replication: Vec<Peer>,
    /// Its configuration names these besides the UUIDs of `replication`, which are the toys' addresses.
    pub(in crate::tests) configured: Vec<String>,
    pub(in crate::tests) vshard: Option<Look>,
    pub(in crate::tests) guard: GuardState,
    /// When its guard was installed, on its own clock.
    pub(in crate::tests) born: InstanceTime,
    /// To whom, in which term, until when on its own clock.
    pub(in crate::tests) promise: Option<(String, Term, InstanceTime)>,
    /// When it promised last: no lease rests on a reading from before.
    pub(in crate::tests) promised_at: InstanceTime,
    /// No barrier that it begins comes back.
    pub(in crate::tests) wal_hangs: bool,
}

impl ToyInstance {
    pub(in crate::tests) fn new(uuid: &str) -> Self {
        Self {
            uuid: uuid.to_owned(),
            pid: 100,
            alive: true,
            frozen: false,
            ahead: Duration::from_secs(7_000),
            fast_ppm: 0,
            ro: true,
            read_only: true,
            status: "running".to_owned(),
            election_mode: None,
            quorum: None,
            declared: None,
            name: None,
            vclock: Vclock::from([("1".to_owned(), 10)]),
            replication: Vec::new(),
            configured: Vec::new(),
            vshard: None,
            guard: GuardState {
                session: None,
                term: Term::NONE,
                deadline: InstanceTime::default(),
                clock: GuardClock::Boottime,
                leased: false,
                landed: true,
                promoting: false,
                barrier: true,
                barrier_failure: None,
                follows: None,
                fences: 0,
                unleased: 0,
                last_fence: None,
                fenced_ago_ns: None,
                writable_ago_ns: None,
                promise: None,
                age_ns: 0,
                stood_down: false,
                base: None,
            },
            born: InstanceTime::default(),
            promise: None,
            promised_at: InstanceTime::default(),
            wal_hangs: false,
        }
    }

    /// What a guard that is asked before a kill answers to save its instance.
    pub(in crate::tests) fn last_word(&self, now: Tick) -> Option<Box<Probe>> {
        let probe = self.probe(now);
        let harmless = probe.ro && !probe.guard.leased && !probe.is_landing();
        (self.alive && !self.frozen && harmless).then(|| Box::new(probe))
    }

    pub(in crate::tests) fn clock(&self, now: Tick) -> InstanceTime {
        let ns = i128::try_from(now.elapsed().as_nanos()).unwrap_or(i128::MAX);
        let ns = ns + ns * i128::from(self.fast_ppm) / 1_000_000;
        InstanceTime {
            monotonic_ns: u64::try_from(ns).unwrap_or(0),
        } + self.ahead
    }

    /// Would a client's write succeed now.
    pub(in crate::tests) fn is_writable(&self) -> bool {
        self.alive && !self.frozen && !self.ro
    }

    /// How long its lease runs on, on the agents' clock; `None`: no lease.
    pub(in crate::tests) fn lease_left(&self, now: Tick) -> Option<Duration> {
        let left_ns = self
            .guard
            .deadline
            .monotonic_ns
            .saturating_sub(self.clock(now).monotonic_ns);
        let left_ns = u128::from(left_ns) * 1_000_000
            / u128::try_from(1_000_000 + self.fast_ppm).unwrap_or(1);
        self.guard
            .leased
            .then(|| Duration::from_nanos(u64::try_from(left_ns).unwrap_or(0)))
    }

    /// The guard's own fiber.
    pub(in crate::tests) fn guard_wakes(&mut self, now: Tick) {
        let over = self.guard.leased && self.clock(now) >= self.guard.deadline;
        if self.guard.stood_down {
            return;
        }
        if self.alive && !self.frozen && (over || (!self.guard.leased && !self.ro)) {
            self.fence("its lease ended");
        }
    }

    /// By its own guard, whatever its agent knows.
    pub(in crate::tests) fn is_fenced_by_guard(&mut self, why: &str) {
        self.fence(why);
    }

    fn fence(&mut self, why: &str) {
        if !self.ro {
            self.guard.fences += 1;
            self.guard.fenced_ago_ns = Some(0);
        }
        self.ro = true;
        self.read_only = true;
        self.guard.leased = false;
        self.guard.stood_down = false;
        self.guard.deadline = InstanceTime::default();
        self.guard.landed = !self.wal_hangs && self.guard.barrier_failure.is_none();
        self.guard.last_fence = Some(why.to_owned());
    }

    /// A new process: a new guard that knows nothing.
    pub(in crate::tests) fn restart(&mut self, now: Tick) {
        let fresh = Self::new(&self.uuid);
        *self = Self {
            pid: self.pid + 1,
            ahead: self.ahead,
            fast_ppm: self.fast_ppm,
            vclock: self.vclock.clone(),
            replication: self.replication.clone(),
            configured: self.configured.clone(),
            ..fresh
        };
        self.born = self.clock(now);
    }

    pub(in crate::tests) fn probe(&self, now: Tick) -> Probe {
        Probe {
            now: self.clock(now),
            uuid: self.uuid.clone(),
            replicaset_uuid: "replicaset".to_owned(),
            ro: self.ro,
            ro_reason: None,
            read_only: self.read_only,
            status: self.status.clone(),
            vclock: self.vclock.clone(),
            id: 1,
            replication: self.replication.clone(),
            configured: {
                let peers = self.replication.iter().map(|peer| peer.uuid.clone());
                self.configured.iter().cloned().chain(peers).collect()
            },
            election_mode: self.election_mode.clone(),
            quorum: self.quorum,
            pid: self.pid,
            pid_namespace: None,
            boot_id: None,
            version: "2.6.0".to_owned(),
            declared: self.declared.clone(),
            name: self.name.clone(),
            vshard: self.vshard.clone(),
            guard: GuardState {
                promise: self.promise(now),
                age_ns: self.age(now),
                ..self.guard.clone()
            },
        }
    }

    fn age(&self, now: Tick) -> u64 {
        self.clock(now)
            .monotonic_ns
            .saturating_sub(self.born.monotonic_ns)
    }

    fn promise(&self, now: Tick) -> Option<Promise> {
        let (to, term, until) = self.promise.clone()?;
        let left_ns = until
            .monotonic_ns
            .checked_sub(self.clock(now).monotonic_ns)
            .filter(|left_ns| *left_ns > 0)?;
        Some(Promise { to, term, left_ns })
    }

    /// What its guard answers to the agent of a master without Consul.
    pub(in crate::tests) fn promises(
        &mut self,
        to: &str,
        term: impl Into<Term>,
        lasting: Duration,
        now: Tick,
    ) -> Result<(), String> {
        let term = term.into();
        self.guard_wakes(now);
        if !self.alive || self.frozen {
            return Err("no answer".to_owned());
        }
        if to == self.uuid || self.guard.leased || !self.ro {
            return Err("it is writable itself".to_owned());
        }
        let other = self.promise(now).filter(|known| known.to != to);
        if term < self.guard.term || other.is_some_and(|known| known.term >= term) {
            return Err("that term is over".to_owned());
        }
        let until = self.clock(now) + lasting;
        let known = self.promise.as_ref().filter(|(known, ..)| known == to);
        let until = known.map_or(until, |(.., known)| until.max(*known));
        self.promise = Some((to.to_owned(), term, until));
        self.promised_at = self.clock(now);
        self.guard.term = term;
        Ok(())
    }

    fn bound_by_promise(&self, before: Before, now: Tick) -> Option<String> {
        let promise = self.promise(now);
        let bound =
            promise.is_some_and(|known| known.to != self.uuid && known.term > before.fenced_term);
        let young = Duration::from_nanos(self.age(now)) < before.guard_age;
        (bound || young).then(|| "it has promised not to be promoted".to_owned())
    }

    pub(in crate::tests) fn attached(&self, now: Tick) -> Event {
        Event::Attached {
            probe: Box::new(self.probe(now)),
            process: Ok(()),
        }
    }

    /// Carries out what is the guard's to carry out, and answers; `None`: not for the guard.
    pub(in crate::tests) fn obey(&mut self, action: &Action, now: Tick) -> Option<Event> {
        let command = action.guard_command_kind()?;
        let refused = self.carry_out(action, now);
        Some(Event::GuardAnswered {
            command,
            probe: Box::new(self.probe(now)),
            refused,
        })
    }

    fn useless(&self, deadline: InstanceTime, now: Tick) -> Option<String> {
        (self.clock(now) >= deadline).then(|| "that lease ended before".to_owned())
    }

    fn carry_out(&mut self, action: &Action, now: Tick) -> Option<String> {
        self.guard_wakes(now);
        if let Action::Guard(GuardCommand::Promote {
            term,
            deadline,
            before,
            reading,
        }) = action
        {
            if *term < self.guard.term {
                return Some("that term is over".to_owned());
            }
            if reading.t0 < self.promised_at {
                return Some("its lease rests on a reading from before a promise".to_owned());
            }
            let useless = self
                .bound_by_promise(*before, now)
                .or_else(|| self.useless(*deadline, now));
            if useless.is_none() {
                self.promise = None;
                if *term != self.guard.term || self.guard.base.is_none() {
                    self.guard.base = Some(self.vclock.clone());
                }
                self.guard.term = *term;
                self.guard.deadline = *deadline;
                self.guard.leased = true;
                self.guard.landed = false;
                self.ro = false;
                self.read_only = false;
                self.guard.writable_ago_ns = Some(0);
            }
            return useless;
        }
        if let Action::Guard(GuardCommand::Grant { term, deadline, .. }) = action {
            if *term != self.guard.term || !self.guard.leased {
                return Some("no such lease is running here".to_owned());
            }
            let useless = self.useless(*deadline, now);
            if useless.is_none() {
                self.guard.deadline = self.guard.deadline.max(*deadline);
            }
            return useless;
        }
        if let Action::Guard(GuardCommand::Fence { why }) = action {
            self.fence(why);
        }
        if let Action::Guard(GuardCommand::StandDown { down }) = action {
            if *down && !self.guard.leased {
                return Some("it is not master here".to_owned());
            }
            if !down && self.guard.stood_down && self.clock(now) >= self.guard.deadline {
                self.fence("its lease ended during a pause");
            }
            self.guard.stood_down = *down;
        }
        if let Action::Guard(GuardCommand::Remember { session }) = action {
            self.guard.session = Some(session.as_str().to_owned());
        }
        if let Action::Guard(GuardCommand::Observe { term }) = action
            && !self.guard.leased
        {
            self.guard.term = self.guard.term.max(*term);
        }
        if let Action::Guard(GuardCommand::Follow { uri, .. }) = action {
            self.guard.follows = Some(uri.clone().unwrap_or_default());
        }
        None
    }
}
