//! Several agents around one toy lock: apply → decide → begin for each, with answers that take their time, get lost
//! or come late. After everything that happens it looks how many instances are writable.

mod faults;
mod promises;
mod requests;

use crate::event::KillResult;
use crate::term::Term;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::fixtures::{Span, fault, settings};
use super::toys::{ToyInstance, ToyLock, follower, lost};
use crate::decide;
use crate::event::Event;
use crate::observed::Peer;
use crate::plan::{Action, Plan};
use crate::settings::Settings;
use crate::state::State;
use crate::timing::{Reading, Tick};

/// Two actions of a busy agent are never closer than this on average: more is a loop that finds no rest.
const BUSY: u32 = 400;

/// What is to happen at a time.
#[derive(Debug, Clone)]
#[allow(
    clippy::large_enum_variant,
    reason = "a test's queue holds a few dozen of them"
)]
enum Due {
    /// An agent's timer.
    Wake {
        at: usize,
        agent: u32,
        turn: u64,
    },
    /// An agent hears something.
    Hear {
        at: usize,
        agent: u32,
        event: Event,
    },
    /// A request arrives where it was sent.
    Arrive {
        at: usize,
        agent: u32,
        action: Action,
        asked_at: Tick,
        reply_lost: bool,
    },
    /// An agent's watch looks whether there is something to report.
    Watch {
        at: usize,
        agent: u32,
        turn: u64,
    },
    /// A guard's fiber wakes.
    Guard {
        at: usize,
        turn: u64,
    },
    /// A fault of the script ends.
    Mend {
        at: usize,
        what: Broken,
    },
    /// A supervisor starts what is not running.
    StartAgent {
        at: usize,
    },
    StartInstance {
        at: usize,
        pid: u32,
    },
    /// A question for a promise arrives at a member.
    Ask {
        question: u64,
        member: String,
    },
    /// Its answer comes back.
    Answered {
        question: u64,
        member: String,
        answer: Result<(), String>,
    },
    /// Who has not answered by now has not promised.
    AskingEnds {
        question: u64,
    },
}

/// A question for promises that is under way.
struct Question {
    at: usize,
    agent: u32,
    to: String,
    term: Term,
    lasting: Duration,
    for_all: bool,
    reading: Reading,
    members: BTreeSet<String>,
    answers: BTreeMap<String, Result<(), String>>,
    told: bool,
}

/// What the script may break for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The instance's process is stopped, and goes on later.
    Frozen,
    /// The agent cannot reach Consul.
    Consul,
    /// The agent cannot reach its instance, which serves on.
    Link,
    /// The agent cannot reach other members' instances, nor can their agents reach its own.
    Peers,
}

/// One agent and its instance.
pub(super) struct Place {
    /// `None`: not running.
    pub(super) state: Option<State>,
    pub(super) instance: ToyInstance,
    pub(super) plan: Option<Plan>,
    agent: u32,
    turn: u64,
    guard_turn: u64,
    consul: bool,
    link: bool,
    peers: bool,
    watch: Watch,
    waiting_for_thaw: Vec<(u32, Action, Tick, bool)>,
    /// Whether a supervisor starts it again, and after how long.
    pub(super) agent_restarts: Option<Duration>,
    pub(super) instance_restarts: Option<Duration>,
    steps_this_second: (u64, u32),
}

#[derive(Debug, Clone, Copy, Default)]
struct Watch {
    asked_at: Tick,
    index: Option<u64>,
    /// The last answer brought news: the next look is held for longer.
    news: bool,
    waits: bool,
    /// Only the look that was scheduled last counts.
    turn: u64,
}

/// How long things take and what gets lost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// One in so many requests to Consul takes up to `slow`; 0: none.
    pub(super) slow_one_in: u64,
    pub(super) slow: Duration,
    /// One in so many answers of Consul never comes; 0: none.
    pub(super) lost_one_in: u64,
}

pub(super) const FAIR: Weather = Weather {
    slow_one_in: 0,
    slow: Duration::ZERO,
    lost_one_in: 0,
};

/// One line of what a failing run prints.
#[derive(Debug)]
enum Note {
    Words(String),
    Step(usize, Box<(Event, Plan)>),
}

/// The whole.
pub(super) struct World {
    pub(super) now: Tick,
    pub(super) lock: ToyLock,
    pub(super) places: Vec<Place>,
    pub(super) weather: Weather,
    pub(super) settings: Settings,
    due: BTreeMap<(Tick, u64), Due>,
    questions: BTreeMap<u64, Question>,
    order: u64,
    random: u64,
    /// Whenever another instance turned writable: when, and who.
    pub(super) reigns: Vec<(Tick, usize)>,
    log: VecDeque<(Tick, Note)>,
}

/// A replica set of `size` with agents that have just started, seen at `seed`.
pub(super) fn world(size: usize, seed: u64) -> World {
    world_with(size, seed, |_| {})
}

/// The same, whose masters may go on without Consul on promises (R6).
pub(super) fn failsafe_world(size: usize, seed: u64) -> World {
    world_with(size, seed, |settings| settings.failsafe = true)
}

/// The same with other settings.
pub(super) fn world_with(size: usize, seed: u64, change: impl FnOnce(&mut Settings)) -> World {
    let mut settings = settings();
    change(&mut settings);
    let mut world = World {
        now: Tick::at(1.secs()),
        lock: ToyLock::default(),
        places: Vec::new(),
        weather: FAIR,
        settings,
        due: BTreeMap::new(),
        questions: BTreeMap::new(),
        order: 0,
        random: seed | 1,
        reigns: Vec::new(),
        log: VecDeque::new(),
    };
    for at in 0..size {
        let mut instance = ToyInstance::new(&format!("instance-{at}"));
        instance.ahead = (1_000 * u64::try_from(at).unwrap()).secs();
        instance.fast_ppm = [0, 5_000, -5_000][at % 3];
        instance.replication = (0..size).map(toy_peer).collect();
        world.places.push(Place {
            state: None,
            instance,
            plan: None,
            agent: 0,
            turn: 0,
            guard_turn: 0,
            consul: true,
            link: true,
            peers: true,
            watch: Watch::default(),
            waiting_for_thaw: Vec::new(),
            agent_restarts: Some(2.secs()),
            instance_restarts: Some(3.secs()),
            steps_this_second: (0, 0),
        });
        world.start_agent(at);
    }
    world
}

fn toy_peer(at: usize) -> Peer {
    Peer {
        id: 0,
        uuid: format!("instance-{at}"),
        upstream: None,
        downstream_status: None,
        downstream_vclock: None,
    }
}

impl World {
    /// Everybody replicates from everybody, and says so whatever becomes of the others.
    pub(super) fn all_follow_each_other(&mut self) {
        let size = self.places.len();
        for (at, place) in self.places.iter_mut().enumerate() {
            // Tarantool lists the instance itself, too.
            let peers = (0..size).map(toy_peer);
            place.instance.replication = peers
                .enumerate()
                .map(|(other, peer)| {
                    if other == at {
                        peer
                    } else {
                        follower(&peer.uuid)
                    }
                })
                .collect();
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        if below == 0 { 0 } else { self.random % below }
    }

    fn soon(&mut self) -> Duration {
        Duration::from_micros(50 + self.random(1_000))
    }

    fn schedule(&mut self, after: Duration, due: Due) {
        self.order += 1;
        self.due.insert((self.now + after, self.order), due);
    }

    fn hear(&mut self, at: usize, after: Duration, event: Event) {
        let agent = self.places[at].agent;
        self.schedule(after, Due::Hear { at, agent, event });
    }

    fn note(&mut self, words: String) {
        self.write_down(Note::Words(words));
    }

    fn write_down(&mut self, note: Note) {
        if self.log.len() >= 200 {
            self.log.pop_front();
        }
        self.log.push_back((self.now, note));
    }

    fn fail(&self, words: &str) -> ! {
        let mut lines = String::new();
        for (at, note) in &self.log {
            let at = at.elapsed().as_secs_f64();
            let line = match note {
                Note::Words(words) => format!("{at:10.4} {words}\n"),
                Note::Step(who, step) => {
                    let (event, plan) = &**step;
                    format!(
                        "{at:10.4} agent {who}: {event:?}\n    {} → {:?}\n",
                        plan.reason, plan.actions
                    )
                }
            };
            lines.push_str(&line);
        }
        panic!("{words}\n{lines}");
    }

    /// Plays for that long.
    pub(super) fn plays(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some((&(at, _), _)) = self.due.first_key_value()
            && at <= until
        {
            let Some(((at, _), due)) = self.due.pop_first() else {
                break;
            };
            self.now = at;
            self.lock.expire_sessions(20.secs(), self.now);
            self.happens(due);
            self.look();
            self.wake_watches();
        }
        self.now = until;
    }

    /// Plays until there is a master other than `not`, and says who and how long it took.
    pub(super) fn plays_until_master(&mut self, not: Option<usize>) -> (usize, Duration) {
        let from = self.now;
        while self.now.since(from) < 120.secs() {
            if let Some(master) = self.master()
                && Some(master) != not
            {
                return (master, self.now.since(from));
            }
            self.plays(1.ms());
        }
        self.fail("there is no new master in two minutes")
    }

    pub(super) fn master(&self) -> Option<usize> {
        self.places
            .iter()
            .position(|place| place.instance.is_writable())
    }

    /// At every moment at most one instance is writable.
    fn look(&mut self) {
        let writable: Vec<usize> = (0..self.places.len())
            .filter(|at| self.places[*at].instance.is_writable())
            .collect();
        if writable.len() > 1 {
            self.fail(&format!("instances {writable:?} are writable at once"));
        }
        if let Some(master) = writable.first()
            && self.reigns.last().map(|(_, who)| who) != Some(master)
        {
            self.reigns.push((self.now, *master));
            self.note(format!("instance {master} is writable"));
        }
    }

    fn wake_watches(&mut self) {
        let index = self.lock.watch_index();
        for at in 0..self.places.len() {
            let place = &mut self.places[at];
            if place.watch.waits && place.watch.index != Some(index) {
                place.watch.waits = false;
                let after = self.soon();
                self.watch_after(at, after);
            }
        }
    }

    fn happens(&mut self, due: Due) {
        match due {
            Due::Wake { at, agent, turn } => {
                if self.places[at].agent == agent && self.places[at].turn == turn {
                    self.step(at, Event::Woke);
                }
            }
            Due::Hear { at, agent, event } => {
                if self.places[at].agent == agent {
                    let by_watch = matches!(event, Event::LockRead { by_watch: true, .. });
                    let failed = matches!(event, Event::LockRead { result: Err(_), .. });
                    let lost = matches!(event, Event::Unreachable { .. });
                    self.step(at, event);
                    if lost {
                        // It connects again: the link may be whole by now.
                        self.attach(at);
                    }
                    if by_watch {
                        self.places[at].watch.asked_at = self.now;
                        let pause = if failed { 100.ms() } else { Duration::ZERO };
                        self.watch_after(at, pause);
                    }
                }
            }
            Due::Arrive {
                at,
                agent,
                action,
                asked_at,
                reply_lost,
            } => {
                self.arrive(at, agent, action, asked_at, reply_lost);
            }
            Due::Watch { at, agent, turn } => {
                if self.places[at].agent == agent && self.places[at].watch.turn == turn {
                    self.watch(at, agent);
                }
            }
            Due::Guard { at, turn } => {
                if self.places[at].guard_turn == turn {
                    self.places[at].instance.guard_wakes(self.now);
                    self.wake_guard(at);
                }
            }
            Due::Mend { at, what } => self.mend(at, what),
            Due::StartAgent { at } => self.start_agent(at),
            Due::StartInstance { at, pid } => self.start_instance(at, pid),
            Due::Ask { question, member } => self.asks_member(question, member),
            Due::Answered {
                question,
                member,
                answer,
            } => self.member_answers(question, member, answer),
            Due::AskingEnds { question } => self.asking_ends(question),
        }
    }

    /// One turn of an agent's loop.
    fn step(&mut self, at: usize, event: Event) {
        let now = self.now;
        let place = &mut self.places[at];
        let Some(state) = &mut place.state else {
            return;
        };
        let second = now.elapsed().as_secs();
        if place.steps_this_second.0 != second {
            place.steps_this_second = (second, 0);
        }
        place.steps_this_second.1 += 1;
        let busy = place.steps_this_second.1 > BUSY;
        state.apply(event.clone(), now);
        let plan = decide(state, now);
        for action in &plan.actions {
            state.begin(action, now);
        }
        place.turn += 1;
        let (agent, turn) = (place.agent, place.turn);
        if let Some(wake_at) = plan.wake_at {
            self.schedule(wake_at.since(now), Due::Wake { at, agent, turn });
        }
        let quiet = plan.actions.is_empty() && matches!(event, Event::Woke);
        if !quiet {
            self.write_down(Note::Step(at, Box::new((event, plan.clone()))));
        }
        if busy {
            self.fail(&format!("agent {at} finds no rest"));
        }
        for action in plan.actions.clone() {
            self.send(at, action);
        }
        self.places[at].plan = Some(plan);
    }

    fn wake_guard(&mut self, at: usize) {
        if let Some(left) = self.places[at].instance.lease_left(self.now)
            && self.places[at].instance.alive
            && !self.places[at].instance.frozen
        {
            self.places[at].guard_turn += 1;
            let turn = self.places[at].guard_turn;
            self.schedule(left + Duration::from_micros(20), Due::Guard { at, turn });
        }
    }

    fn watch_after(&mut self, at: usize, after: Duration) {
        let agent = self.places[at].agent;
        self.places[at].watch.turn += 1;
        let turn = self.places[at].watch.turn;
        self.schedule(after, Due::Watch { at, agent, turn });
    }

    fn watch(&mut self, at: usize, agent: u32) {
        let now = self.now;
        let after = self.soon();
        let place = &mut self.places[at];
        if place.agent != agent || place.state.is_none() {
            return;
        }
        let asked_at = place.watch.asked_at;
        let result = if place.consul {
            let timing = &self.settings.timing;
            let hold = match place.watch.news {
                true => timing.watch_hold(),
                false => timing.watch_beat(),
            };
            let changed = place.watch.index != Some(self.lock.watch_index());
            if !changed && now.since(asked_at) < hold {
                place.watch.waits = true;
                let rest = hold.saturating_sub(now.since(asked_at)) + 1.ms();
                self.watch_after(at, rest);
                return;
            }
            place.watch.news = changed;
            place.watch.index = Some(self.lock.watch_index());
            Ok(self.lock.sight())
        } else {
            Err(fault())
        };
        place.watch.waits = false;
        let event = Event::LockRead {
            asked_at,
            by_watch: true,
            result,
        };
        self.hear(at, after, event);
    }

    fn start_agent(&mut self, at: usize) {
        if self.places[at].state.is_some() {
            return;
        }
        self.note(format!("agent {at} starts"));
        let place = &mut self.places[at];
        place.agent += 1;
        let settings = Settings {
            announce: place.instance.uuid.clone(),
            agent: format!("agent-{at}-{}", place.agent),
            ..self.settings.clone()
        };
        place.state = Some(State::new(settings));
        place.plan = None;
        place.watch = Watch {
            asked_at: self.now,
            index: None,
            ..place.watch
        };
        self.watch_after(at, 1.ms());
        self.attach(at);
    }

    fn attach(&mut self, at: usize) {
        let place = &self.places[at];
        if place.state.is_some() && place.instance.alive && !place.instance.frozen && place.link {
            let event = place.instance.attached(self.now);
            let after = self.soon();
            self.hear(at, after, event);
        }
    }

    fn start_instance(&mut self, at: usize, pid: u32) {
        if !self.places[at].instance.alive && self.places[at].instance.pid == pid {
            self.note(format!("instance {at} starts"));
            let now = self.now;
            self.places[at].instance.restart(now);
            self.attach(at);
        }
    }
}
