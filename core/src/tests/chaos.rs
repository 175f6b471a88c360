//! Whatever the agent hears, in whatever order, repeated or stale: what it does is never unsafe.

mod events;
mod rules;

use crate::term::Term;
use rules::sound;

use crate::event::KillResult;
use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use self::events::any_event;

use super::fixtures::{LEASE, MOMENT, OTHER, OWN, Span, fault, record, settings, trying};
use super::toys::{ToyInstance, ToyLock, follower, lost, member};
use crate::board::{Pause, Switchover, SwitchoverState};
use crate::decide;
use crate::event::Event;
use crate::ids::SessionId;
use crate::observed::Peer;
use crate::plan::{Action, GuardCommand, Health, Plan, Role};
use crate::record::Status;
use crate::settings::{Elector, Settings};
use crate::sight::LockSight;
use crate::state::State;
use crate::timing::{InstanceTime, Tick, Timing};
use crate::vclock::rows_missing;

/// Things that happen to one agent. Requests are answered by toys, whenever, or not at all.
#[derive(Debug, Clone)]
enum Happening {
    /// Time passes.
    Time(Duration),
    /// A request that is under way is carried out; its answer is still to come.
    CarryOut(prop::sample::Index),
    /// An answer that is under way comes.
    Answer(prop::sample::Index),
    /// Something under way is lost; what was carried out stays carried out.
    Lose(prop::sample::Index),
    /// The watch reports what it saw some changes ago.
    Watch(prop::sample::Index),
    WatchFails,
    Attach,
    Restart,
    CutOff,
    Die,
    Silent,
    Speak,
    Stop,
    EndSession,
    /// The other members promise from now on, or refuse.
    Promise(bool),
    Foreign(Foreign),
    /// An operator pauses, or ends a pause.
    Pause(bool),
    /// An operator wants another master.
    Order,
    /// The other member's agent says that it is ready for the lock, whether or not it was named.
    Ready,
}

/// Other hands at the lock key.
#[derive(Debug, Clone)]
enum Foreign {
    Takes {
        status: Status,
        terms_ahead: usize,
        held: bool,
    },
    Garbage {
        held: bool,
    },
    OtherVersion,
    Deletes,
}

fn any_status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Promoting),
        Just(Status::Active),
        Just(Status::Fenced)
    ]
}

fn any_foreign() -> impl Strategy<Value = Foreign> {
    prop_oneof![
        (any_status(), 0..3_usize, any::<bool>()).prop_map(|(status, terms_ahead, held)| {
            Foreign::Takes {
                status,
                terms_ahead,
                held,
            }
        }),
        any::<bool>().prop_map(|held| Foreign::Garbage { held }),
        Just(Foreign::OtherVersion),
        Just(Foreign::Deletes),
    ]
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => (0..400_u64).prop_map(|ms| Happening::Time(ms.ms())),
        1 => (0..13_000_u64).prop_map(|ms| Happening::Time(ms.ms())),
        10 => index().prop_map(Happening::CarryOut),
        10 => index().prop_map(Happening::Answer),
        2 => index().prop_map(Happening::Lose),
        3 => index().prop_map(Happening::Watch),
        1 => Just(Happening::WatchFails),
        1 => Just(Happening::Attach),
        1 => Just(Happening::Restart),
        1 => Just(Happening::CutOff),
        1 => Just(Happening::Die),
        1 => Just(Happening::Silent),
        1 => Just(Happening::Speak),
        1 => Just(Happening::EndSession),
        1 => any::<bool>().prop_map(Happening::Promise),
        1 => any_foreign().prop_map(Happening::Foreign),
        1 => any::<bool>().prop_map(Happening::Pause),
        1 => Just(Happening::Order),
        2 => Just(Happening::Ready),
    ]
}

fn any_peer(uuid: &str) -> Peer {
    Peer {
        id: 0,
        uuid: uuid.to_owned(),
        upstream: None,
        downstream_status: None,
        downstream_vclock: None,
    }
}

/// One agent, whose requests and answers lie about until something becomes of them.
struct Chaos {
    state: State,
    now: Tick,
    lock: ToyLock,
    instance: ToyInstance,
    requests: Vec<(Action, Tick)>,
    answers: Vec<Event>,
    sights: Vec<(Tick, LockSight)>,
    /// Readings under a record that Consul accepted from us, by term.
    accepted: Vec<(Term, InstanceTime)>,
    /// Readings under which the other members promised a lease, by term.
    promised: Vec<(Term, InstanceTime)>,
    promising: bool,
    /// Leases handed over: until when they run at most, on the agent's clock.
    handed_until: Option<Tick>,
    /// A promotion or grant is under way, or its answer.
    handing: usize,
}

impl Chaos {
    fn new(failsafe: bool) -> Self {
        let mut lock = ToyLock::default();
        lock.put_record(None, &record().says(Status::Fenced));
        let mut chaos = Self {
            state: State::new(Settings {
                failsafe,
                ..settings()
            }),
            now: Tick::at(1_000.secs()),
            lock,
            instance: ToyInstance {
                replication: [OWN, OTHER].map(any_peer).to_vec(),
                ..ToyInstance::new(OWN)
            },
            requests: Vec::new(),
            answers: Vec::new(),
            sights: Vec::new(),
            accepted: Vec::new(),
            promised: Vec::new(),
            promising: true,
            handed_until: None,
            handing: 0,
        };
        chaos.note_sight();
        chaos
    }

    fn note_sight(&mut self) {
        let sight = self.lock.sight();
        if self.sights.last().map(|(_, known)| known) != Some(&sight) {
            self.sights.push((self.now, sight));
        }
    }

    fn hears(&mut self, event: Event) {
        self.state.apply(event, self.now);
    }

    fn happens(&mut self, happening: Happening) {
        self.now = self.now + MOMENT;
        match happening {
            Happening::Time(time) => {
                self.now = self.now + time;
                self.instance.guard_wakes(self.now);
                self.hears(Event::Woke);
            }
            Happening::CarryOut(index) => self.carry_out(&index),
            Happening::Answer(index) => {
                if !self.answers.is_empty() {
                    let at = index.index(self.answers.len());
                    let at = in_order(&self.answers, at, |event| {
                        matches!(event, Event::GuardAnswered { .. })
                    });
                    let event = self.answers.remove(at);
                    self.hears_answer(event);
                }
            }
            Happening::Lose(index) => self.lose(&index),
            Happening::Watch(index) => {
                let newest = self.sights.len();
                let back = index.index(newest).min(3);
                let (seen_at, sight) = self.sights[newest - 1 - back].clone();
                let asked_at = if back == 0 { self.now } else { seen_at };
                self.hears(Event::LockRead {
                    asked_at,
                    by_watch: true,
                    result: Ok(sight),
                });
            }
            Happening::WatchFails => {
                let asked_at = self.now;
                self.hears(Event::LockRead {
                    asked_at,
                    by_watch: true,
                    result: Err(fault()),
                });
            }
            Happening::Attach => {
                self.connection_ends();
                self.attach();
            }
            Happening::Restart => {
                self.connection_ends();
                self.instance.restart(self.now);
                self.hears(Event::Died {
                    proof: "its pid is another".to_owned(),
                });
                self.handed_until = None;
                self.attach();
            }
            Happening::CutOff => self.hears(Event::Unreachable {
                why: "timed out".to_owned(),
            }),
            Happening::Die => {
                self.instance.alive = false;
                self.handed_until = None;
                self.hears(Event::Died {
                    proof: "a zombie".to_owned(),
                });
            }
            Happening::Silent => self.hears(Event::FellSilent),
            Happening::Speak => self.hears(Event::SpokeAgain),
            Happening::Stop => self.hears(Event::StopRequested { signal: "SIGTERM" }),
            Happening::EndSession => {
                if let Some(session) = self.state.session.id.clone() {
                    self.lock.end_session(&session);
                }
            }
            Happening::Promise(promising) => self.promising = promising,
            Happening::Foreign(foreign) => self.foreign_hand(&foreign),
            Happening::Pause(paused) => self.lock.pause = paused.then(Pause::default),
            Happening::Order => self.order(),
            Happening::Ready => self.lock.says_ready(OTHER),
        }
        self.note_sight();
    }

    fn order(&mut self) {
        self.lock
            .members
            .insert(OTHER.to_owned(), member(OTHER, "b:3301"));
        self.lock.order(Switchover {
            state: SwitchoverState::Requested,
            ..Switchover::nothing()
        });
        let (index, switchover) = self.lock.switchover.clone().unwrap();
        self.hears(Event::SwitchoverSeen { index, switchover });
    }

    /// While the guard stands down the record says so and the lock is kept; a target has everything when it is named.
    fn keeps_its_word(&self, action: &Action) {
        let stands_down = self.instance.alive && self.instance.guard.stood_down;
        if let Action::Guard(GuardCommand::StandDown { down: true }) = action
            && stands_down
            && let Some(record) = self.lock.record()
            && record.instance == OWN
        {
            assert!(record.paused, "the guard stands down and {record:?}");
        }
        if let Action::Acquire { attempt, .. }
        | Action::TakeOver { attempt, .. }
        | Action::Refresh { attempt, .. } = action
        {
            let said = attempt.record.paused || !stands_down;
            assert!(said, "{attempt:?} while the guard stands down");
        }
        if let Action::Release { record, .. } = action {
            assert!(
                !self.instance.is_writable(),
                "{record:?}, and it is writable"
            );
            if let Some(target) = &record.handover_to {
                let peers = &self.instance.replication;
                let peer = peers.iter().find(|peer| peer.uuid == *target);
                let seen = peer.and_then(|peer| peer.downstream_vclock.as_ref());
                let level = seen.is_some_and(|seen| rows_missing(&self.instance.vclock, seen) == 0);
                assert!(level && record.status == Status::Fenced, "{record:?}");
            }
        }
    }

    /// Whoever asked over it has its answer, or knows that there is none, before the next one stands; and what the
    /// guard has not begun it does not begin.
    fn connection_ends(&mut self) {
        for event in std::mem::take(&mut self.answers) {
            if matches!(event, Event::GuardAnswered { .. }) {
                self.hears_answer(event);
            } else {
                self.answers.push(event);
            }
        }
        for (action, asked_at) in std::mem::take(&mut self.requests) {
            if action.guard_command_kind().is_none() {
                self.requests.push((action, asked_at));
            } else if let Some(event) = lost(&action, asked_at) {
                self.hears(event);
            }
        }
        self.handing = 0;
    }

    fn attach(&mut self) {
        if !self.instance.alive {
            self.instance.restart(self.now);
            self.instance.alive = true;
        }
        if self.instance.probe(self.now).is_fenced() {
            self.handed_until = None;
        }
        self.hears(self.instance.attached(self.now));
    }

    fn hears_answer(&mut self, event: Event) {
        if let Event::GuardAnswered { command, probe, .. } = &event {
            use crate::event::GuardCommandKind as C;
            if matches!(command, C::Promote | C::Grant) {
                self.handing = self.handing.saturating_sub(1);
            }
            // A word said after everything that was handed over had been answered.
            if self.handing == 0 && probe.is_fenced() {
                self.handed_until = None;
            }
        }
        self.hears(event);
    }

    fn carry_out(&mut self, index: &prop::sample::Index) {
        if self.requests.is_empty() {
            return;
        }
        let at = index.index(self.requests.len());
        let at = in_order(&self.requests, at, |(action, _)| {
            action.guard_command_kind().is_some()
        });
        let (action, asked_at) = self.requests.remove(at);
        let answer = if matches!(action, Action::Kill) {
            Some(Event::KillEnded {
                result: KillResult::Failed("not permitted".to_owned()),
            })
        } else if action.guard_command_kind().is_some() {
            if self.instance.alive {
                self.instance.obey(&action, self.now)
            } else {
                lost(&action, asked_at)
            }
        } else if let Action::AskPromises {
            term,
            members,
            reading,
            ..
        } = &action
            && self.promising
        {
            self.promised.push((*term, reading.t0));
            Some(Event::PromisesAnswered {
                unguarded: Default::default(),
                reading: *reading,
                answers: members.keys().map(|uuid| (uuid.clone(), Ok(()))).collect(),
            })
        } else {
            self.lock.obey(&action, asked_at, self.now)
        };
        if let (
            Action::Acquire { attempt, .. }
            | Action::TakeOver { attempt, .. }
            | Action::Refresh { attempt, .. },
            Some(Event::LockStepEnded {
                result: Ok(Ok(_)), ..
            }),
        ) = (&action, &answer)
        {
            self.accepted
                .push((attempt.record.term, attempt.reading.t0));
        }
        let refused = matches!(
            answer,
            Some(Event::LockStepEnded {
                result: Ok(Err(_)) | Err(_),
                ..
            })
        );
        if !refused {
            self.keeps_its_word(&action);
        }
        self.note_sight();
        let seen = answer
            .as_ref()
            .and_then(|answer| self.lock.seen_beside(answer, self.now));
        self.answers.extend(seen);
        self.answers.extend(answer);
    }

    /// A request without an answer, carried out or not.
    fn lose(&mut self, index: &prop::sample::Index) {
        if self.requests.is_empty() {
            return;
        }
        let (action, asked_at) = self.requests.remove(index.index(self.requests.len()));
        if matches!(
            action,
            Action::Guard(GuardCommand::Promote { .. } | GuardCommand::Grant { .. })
        ) {
            self.handing = self.handing.saturating_sub(1);
        }
        if let Some(event) = lost(&action, asked_at) {
            self.hears(event);
        }
    }

    fn foreign_hand(&mut self, foreign: &Foreign) {
        match foreign {
            Foreign::Takes {
                status,
                terms_ahead,
                held,
            } => {
                let known = self.state.highest_term.max(Term::FIRST);
                let term = (0..*terms_ahead).fold(known, |term, _| term.next());
                let written = record().of(OTHER).term(term).says(*status);
                let holder = held.then(|| SessionId::new("theirs"));
                self.lock.put_record(holder, &written);
            }
            Foreign::Garbage { held } => {
                let holder = self.lock.holder().cloned().filter(|_| *held);
                self.lock.put(holder, "rubbish");
            }
            Foreign::OtherVersion => {
                self.lock.put(None, r#"{"v":2}"#);
            }
            Foreign::Deletes => self.lock.delete_key(),
        }
    }

    /// Decides, checks, begins.
    fn turn(&mut self) -> Result<Plan, TestCaseError> {
        let plan = decide(&self.state, self.now);
        sound(&self.state, &plan, self.now)?;
        for action in &plan.actions {
            if let Action::Guard(
                GuardCommand::Promote {
                    term,
                    deadline,
                    reading,
                    ..
                }
                | GuardCommand::Grant {
                    term,
                    deadline,
                    reading,
                },
            ) = action
            {
                let base = (*term, reading.t0);
                let promised = matches!(action, Action::Guard(GuardCommand::Grant { .. }))
                    && self.promised.contains(&base);
                prop_assert!(
                    promised || self.accepted.contains(&base),
                    "{action:?} rests on {:?} and {:?}",
                    self.accepted,
                    self.promised
                );
                prop_assert!(*deadline <= reading.t0 + LEASE);
                self.handing += 1;
                let until = reading.reply_at + LEASE;
                self.handed_until = self.handed_until.max(Some(until));
            }
            if let Action::Release { record, .. } = action {
                let running = self.handed_until.is_some_and(|until| until > self.now);
                prop_assert!(
                    !running,
                    "{record:?} while a lease was handed over until {:?}",
                    self.handed_until
                );
            }
            self.state.begin(action, self.now);
            if !matches!(action, Action::Exit { .. }) {
                self.requests.push((action.clone(), self.now));
            }
        }
        Ok(plan)
    }
}

/// One connection's requests arrive in order: the first of that kind instead of a later one.
fn in_order<T>(under_way: &[T], chosen: usize, kind: impl Fn(&T) -> bool) -> usize {
    if kind(&under_way[chosen]) {
        under_way.iter().position(kind).unwrap_or(chosen)
    } else {
        chosen
    }
}

proptest! {
    #![proptest_config(trying(256))]

    /// Every request has one answer at most, everything else is in any order.
    #[test]
    fn no_order_of_answers_makes_a_plan_unsafe(
        happenings in proptest::collection::vec(any_happening(), 0..200),
        stop_after in 0..400_usize,
        smart in any::<bool>(),
        failsafe in any::<bool>(),
    ) {
        let mut chaos = Chaos::new(failsafe);
        if smart {
            chaos.state.settings.elector = Elector::Smart;
        }
        chaos.instance.replication = vec![any_peer(OWN), follower(OTHER)];
        chaos.happens(Happening::Attach);
        chaos.turn()?;
        for (at, happening) in happenings.into_iter().enumerate() {
            if at == stop_after {
                chaos.happens(Happening::Stop);
                chaos.turn()?;
            }
            chaos.happens(happening);
            let plan = chaos.turn()?;
            if plan.actions.iter().any(|action| matches!(action, Action::Exit { .. })) {
                break;
            }
        }
    }

    /// Answers to questions that nobody asked, too.
    #[test]
    fn no_event_at_all_makes_a_plan_unsafe_or_a_panic(
        events in proptest::collection::vec((any_event(Tick::at(1_000.secs())), 0..3_000_u64, any::<bool>()), 0..80),
    ) {
        let mut state = State::new(settings());
        let mut now = Tick::at(1_000.secs());
        for (event, pause_ms, long) in events {
            now = now + if long { pause_ms.ms() } else { MOMENT };
            state.apply(event, now);
            let plan = decide(&state, now);
            sound(&state, &plan, now)?;
            let _ = (plan.reason.to_string(), serde_json::to_string(&plan).is_ok());
            for action in &plan.actions {
                state.begin(action, now);
            }
        }
    }
}
