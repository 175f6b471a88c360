//! One agent with a toy instance and a toy lock, where the test says what is answered, when, and what gets lost.

use std::time::Duration;

use proptest::test_runner::{Config as ProptestConfig, RngSeed};

use super::toys::{ToyInstance, ToyLock, lost};
use crate::decide;
use crate::event::{Event, KillResult};
use crate::ids::SessionId;
use crate::input::lock::change_index;
use crate::observed::{Peer, Upstream};
use crate::plan::{Action, CatalogEntry, Plan};
use crate::record::{Record, Status};
use crate::settings::Settings;
use crate::sight::ConsulFault;
use crate::state::State;
use crate::term::Term;
use crate::timing::Tick;

/// Whether a plan has an action of this kind.
macro_rules! does {
    ($plan:expr, $pattern:pat) => {
        $plan
            .actions
            .iter()
            .any(|action| matches!(action, $pattern))
    };
}

/// The part of an action of this kind that a test wants to look at; `None`: the plan has no such action.
macro_rules! part {
    ($plan:expr, $pattern:pat => $value:expr) => {
        $plan.actions.iter().find_map(|action| {
            if let $pattern = action {
                Some($value)
            } else {
                None
            }
        })
    };
}

pub(super) use {does, part};

pub(super) use crate::fixtures::{LEASE, OTHER, record, settings, timing};

pub(super) const OWN: &str = "instance-own";

/// What R3 waits for: 10 s and the margin of 2 % and 250 ms.
pub(super) const LEASE_AND_MARGIN: Duration = Duration::from_millis(10_450);
/// The least step of a clock that a test takes.
pub(super) const MOMENT: Duration = Duration::from_micros(100);

pub(super) trait Span {
    fn secs(self) -> Duration;
    fn ms(self) -> Duration;
}

impl Span for u64 {
    fn secs(self) -> Duration {
        Duration::from_secs(self)
    }
    fn ms(self) -> Duration {
        Duration::from_millis(self)
    }
}

/// A row of `box.info.replication`; with an address it is followed there.
pub(super) fn peer_at(uuid: &str, address: Option<&str>) -> Peer {
    Peer {
        id: 0,
        uuid: uuid.to_owned(),
        upstream: address.map(|address| Upstream {
            status: "follow".to_owned(),
            peer: Some(address.to_owned()),
            lag_s: None,
            idle_s: None,
            message: None,
            locked_out: false,
        }),
        downstream_status: None,
        downstream_vclock: None,
    }
}

impl Record {
    pub(super) fn of(mut self, instance: &str) -> Self {
        instance.clone_into(&mut self.instance);
        self
    }
    pub(super) fn term(mut self, term: impl Into<Term>) -> Self {
        self.term = term.into();
        self
    }
    pub(super) fn refreshed(mut self, refresh: u64) -> Self {
        self.refresh = refresh;
        self
    }
    pub(super) fn says(mut self, status: Status) -> Self {
        self.status = status;
        self
    }
    pub(super) fn lease_of(mut self, lease: Duration) -> Self {
        self.lease_ms = u64::try_from(lease.as_millis()).unwrap();
        self
    }
}

/// One agent, its instance, and Consul.
pub(super) struct Node {
    pub(super) state: State,
    pub(super) now: Tick,
    pub(super) instance: ToyInstance,
    pub(super) lock: ToyLock,
    /// What the wall clock showed when the agent's own began.
    pub(super) wall_from_ms: u64,
}

/// An agent that has just started. The lock is free; its last holder was the other instance, fenced, in term 6.
pub(super) fn node() -> Node {
    let mut lock = ToyLock::default();
    lock.put_record(None, &record().says(Status::Fenced));
    Node {
        state: State::new(settings()),
        now: Tick::at(1_000.secs()),
        instance: ToyInstance::new(OWN),
        lock,
        wall_from_ms: 1_700_000_000_000,
    }
}

/// Attached, master in term 7, and nothing under way.
pub(super) fn master() -> Node {
    node().attached().seeing_lock().settled().serving()
}

/// Attached, read-only, and following the other instance, which holds the lock in term 6.
pub(super) fn replica() -> Node {
    node()
        .finding(|lock| {
            lock.put_record(Some(SessionId::new("theirs")), &record());
        })
        .attached()
        .seeing_lock()
        .settled()
}

/// Attached, and has the lock whose last holder left no record: it must wait before it is promoted.
pub(super) fn waiting_holder() -> Node {
    let node = node()
        .finding(|lock| lock.delete_key())
        .attached()
        .seeing_lock()
        .settled();
    assert!(node.state.holds_lock() && !node.instance.is_writable());
    node
}

impl Node {
    pub(super) fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.state.settings);
        self
    }

    /// What Consul holds, unknown to the agent.
    pub(super) fn finding(mut self, change: impl FnOnce(&mut ToyLock)) -> Self {
        change(&mut self.lock);
        self
    }

    pub(super) fn having(mut self, change: impl FnOnce(&mut ToyInstance)) -> Self {
        change(&mut self.instance);
        self
    }

    pub(super) fn attached(mut self) -> Self {
        self.attaches();
        self
    }

    pub(super) fn seeing_lock(mut self) -> Self {
        self.watch_shows_lock();
        self
    }

    pub(super) fn settled(mut self) -> Self {
        self.settles();
        self
    }

    pub(super) fn serving(self) -> Self {
        assert!(self.instance.is_writable(), "{:?}", self.plan().reason);
        assert!(self.state.is_serving() && self.state.holds_lock());
        self
    }

    /// Nothing was answered, by anyone, for that long.
    pub(super) fn later(mut self, time: Duration) -> Self {
        self.passes(time);
        self
    }

    pub(super) fn attaches(&mut self) {
        self.hears(self.instance.attached(self.now));
    }

    pub(super) fn hears(&mut self, event: Event) {
        self.now = self.now + MOMENT;
        self.reads_wall_clock();
        self.state.apply(event, self.now);
    }

    pub(super) fn passes(&mut self, time: Duration) {
        self.now = self.now + time;
        self.reads_wall_clock();
        self.instance.guard_wakes(self.now);
    }

    /// What the wall clock shows now, in milliseconds since the epoch.
    pub(super) fn wall_ms(&self) -> u64 {
        let elapsed_ms = u64::try_from(self.now.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.wall_from_ms + elapsed_ms
    }

    fn reads_wall_clock(&mut self) {
        let wall_ms = self.wall_ms();
        self.state.reads_wall_clock(wall_ms);
    }

    /// As `passes`, while pings and commands are answered and the watch has nothing to report but that.
    pub(super) fn lives_on(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.passes(250.ms());
            self.watch_shows_nothing_new();
            self.settles();
        }
    }

    /// As `passes`, while the watch alone is answered and has nothing to report but that.
    pub(super) fn is_watched(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.passes(250.ms().min(until.since(self.now)));
            self.watch_shows_nothing_new();
        }
    }

    /// The same.
    pub(super) fn watched(mut self, time: Duration) -> Self {
        self.is_watched(time);
        self
    }

    fn watch_shows_nothing_new(&mut self) {
        let known = self.state.lock.sight.as_ref().map(change_index);
        if known == Some(change_index(&self.lock.sight())) {
            self.watch_shows_lock();
        }
    }

    pub(super) fn watch_shows_lock(&mut self) {
        let asked_at = self.now;
        self.hears(Event::LockRead {
            asked_at,
            by_watch: true,
            result: Ok(self.lock.sight()),
        });
    }

    pub(super) fn watch_fails(&mut self) {
        let asked_at = self.now;
        self.hears(Event::LockRead {
            asked_at,
            by_watch: true,
            result: Err(fault()),
        });
    }

    pub(super) fn is_killed(&mut self) {
        self.instance.alive = false;
        self.hears(Event::Died {
            proof: "it is a zombie".to_owned(),
        });
    }

    /// The process goes on, the connection is gone.
    pub(super) fn is_cut_off(&mut self) {
        self.hears(Event::Unreachable {
            why: "timed out".to_owned(),
        });
    }

    /// Its agent stands still for so long, and goes on.
    pub(super) fn oversleeps(&mut self, time: Duration) {
        let ran_until = self.now;
        self.passes(time);
        self.hears(Event::Overslept { ran_until });
    }

    pub(super) fn freezes(&mut self) {
        self.instance.frozen = true;
        self.hears(Event::FellSilent);
    }

    /// It runs for the lock that is free, and has it.
    pub(super) fn takes_lock(&mut self) {
        let acquire = self.runs_until(|action| matches!(action, Action::Acquire { .. }));
        self.answers(&acquire);
    }

    pub(super) fn is_asked_to_stop(&mut self) {
        self.hears(Event::StopRequested { signal: "SIGTERM" });
    }

    pub(super) fn plan(&self) -> Plan {
        decide(&self.state, self.now)
    }

    /// Decides and begins, answers nothing.
    pub(super) fn turn(&mut self) -> Plan {
        let plan = self.plan();
        for action in &plan.actions {
            self.state.begin(action, self.now);
        }
        plan
    }

    /// Decides, begins, answers everything.
    pub(super) fn round(&mut self) -> Plan {
        self.round_losing(|_| false)
    }

    /// The same, but of some requests and their answers nothing arrives.
    pub(super) fn round_losing(&mut self, is_lost: impl Fn(&Action) -> bool) -> Plan {
        let plan = self.turn();
        for action in &plan.actions {
            if is_lost(action) {
                self.loses(action);
            } else {
                self.answers(action);
            }
        }
        plan
    }

    /// Carries out, says nothing: the answer, if the other side can give one.
    pub(super) fn carries_out(&mut self, action: &Action) -> Option<Event> {
        if matches!(action, Action::Kill) {
            let word = self.instance.last_word(self.now);
            self.instance.alive &= word.is_some();
            return Some(Event::KillEnded {
                result: word.map_or(KillResult::Killed, KillResult::Spared),
            });
        }
        let hears = self.instance.alive && !self.instance.frozen;
        if action.guard_command_kind().is_some() {
            return if hears {
                self.instance.obey(action, self.now)
            } else {
                lost(action, self.now)
            };
        }
        self.lock.obey(action, self.now, self.now)
    }

    pub(super) fn answers(&mut self, action: &Action) {
        if let Some(event) = self.carries_out(action) {
            if let Some(seen) = self.lock.seen_beside(&event, self.now) {
                self.hears(seen);
            }
            self.hears(event);
        }
    }

    /// The request never arrives, and the agent gets no answer.
    pub(super) fn loses(&mut self, action: &Action) {
        if let Some(event) = lost(action, self.now) {
            self.hears(event);
        }
    }

    /// It is carried out, and the agent gets no answer.
    pub(super) fn loses_reply(&mut self, action: &Action) {
        let _ = self.carries_out(action);
        self.loses(action);
    }

    /// Answers everything until there is nothing more to do.
    pub(super) fn settles(&mut self) -> Plan {
        for _ in 0..64 {
            let plan = self.round();
            if plan.actions.is_empty() || does!(plan, Action::Exit { .. }) {
                return plan;
            }
        }
        panic!("it finds no rest: {:?}", self.plan());
    }

    /// Answers everything until the plan has an action like this, which is begun and not answered.
    pub(super) fn runs_until(&mut self, wanted: impl Fn(&Action) -> bool) -> Action {
        self.comes_to_in(Duration::ZERO, wanted)
    }

    /// As `runs_until`, while time passes.
    pub(super) fn comes_to(&mut self, wanted: impl Fn(&Action) -> bool) -> Action {
        self.comes_to_in(50.ms(), wanted)
    }

    pub(super) fn comes_to_in(
        &mut self,
        pause: Duration,
        wanted: impl Fn(&Action) -> bool,
    ) -> Action {
        for _ in 0..64 {
            let plan = self.turn();
            let found = plan.actions.iter().position(&wanted);
            for (at, action) in plan.actions.iter().enumerate() {
                if found != Some(at) {
                    self.answers(action);
                }
            }
            if let Some(at) = found {
                return plan.actions[at].clone();
            }
            self.passes(pause);
        }
        panic!("it does not come to that: {:?}", self.plan());
    }

    /// What the catalog would show once told.
    pub(super) fn catalog(&self) -> CatalogEntry {
        part!(self.plan(), Action::Tell { entry, .. } => entry.clone())
            .or_else(|| self.state.catalog.told.clone())
            .unwrap()
    }

    pub(super) fn own_session(&self) -> SessionId {
        self.state.session.id.clone().unwrap()
    }
}

/// How a property is tried: with the same cases every time, as many as take a second or two, so that what fails is the
/// change; with `PROPTEST_CASES` random ones.
pub(super) fn trying(usual: u32) -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    let wanted = wanted.and_then(|cases| cases.parse().ok());
    ProptestConfig {
        failure_persistence: None,
        cases: wanted.unwrap_or(usual),
        rng_seed: wanted.map_or(RngSeed::Fixed(1), |_: u32| RngSeed::Random),
        ..ProptestConfig::default()
    }
}

pub(super) fn fault() -> ConsulFault {
    ConsulFault {
        why: "connection refused".to_owned(),
        denied: false,
    }
}
