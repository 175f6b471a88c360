//! The world: one queue of what is to happen, and everything that it happens to.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;

use crate::agent::Agent;
use crate::consul::{Beside, Store};
use crate::decide::event::Event;
use crate::decide::ids::SessionId;
use crate::instance::{Instance, Lsns};
use crate::invariants::{Checks, Failure};
use crate::params::{Params, SIZE_MAX};
use crate::requests::{Command, Question, Request};
use crate::rng::Rng;
use crate::time::{Clock, FAST_MAX_PPM, SEC, Time};

/// What is to happen.
#[derive(Debug)]
pub(crate) enum Due {
    /// An agent's timer.
    Wake {
        agent: usize,
        turn: u64,
    },
    /// An agent hears something; `answers`: only if it still waits for the answer to this command.
    Hear {
        agent: usize,
        event: Box<Event>,
        answers: Option<u64>,
    },
    /// A request arrives in Consul's leader.
    Consul(Box<Request>),
    /// A wait for ballots is over.
    BallotsOver {
        request: u64,
    },
    SessionEnds {
        session: SessionId,
    },
    /// The watch on the lock key asks, and gives up.
    WatchAsks {
        agent: usize,
        turn: u32,
    },
    WatchOver {
        agent: usize,
        turn: u32,
    },
    /// Its answer comes in.
    WatchHears {
        agent: usize,
        event: Box<Event>,
        pause: Time,
    },
    /// The watch on the switchover key.
    OrderSeen {
        agent: usize,
    },
    /// A command arrives at a guard.
    Command(Box<Command>),
    /// The queue has been taken, and a promotion goes on.
    QueueTaken(Box<Command>),
    /// The agent gives up waiting for a command's answer.
    Overdue {
        agent: usize,
        id: u64,
    },
    /// The last question before a kill has been answered, or not.
    KillDecides {
        agent: usize,
    },
    /// The agent tries to reach its instance.
    Attach {
        agent: usize,
        turn: u32,
    },
    AttachArrives {
        agent: usize,
        attach: u32,
        pid: u32,
        turn: u32,
    },
    Attached {
        agent: usize,
        attach: u32,
        pid: u32,
        turn: u32,
    },
    /// A ping has been late for long, or is answered after that.
    Silence {
        agent: usize,
    },
    Speak {
        agent: usize,
    },
    /// The agent sees the death of the process.
    Dies {
        agent: usize,
        pid: u32,
    },
    /// The fencing fiber looks.
    Fiber {
        instance: usize,
        pid: u32,
    },
    Write {
        instance: usize,
        pid: u32,
    },
    Landed {
        instance: usize,
        pid: u32,
        sync: bool,
    },
    Barrier {
        instance: usize,
        pid: u32,
        epoch: u64,
    },
    /// Rows arrive at a replica, and its confirmation at the source.
    Sync {
        src: usize,
        dst: usize,
    },
    Confirm {
        src: usize,
        dst: usize,
        has: Lsns,
    },
    Ask(Box<Question>),
    Promised {
        question: Box<Question>,
        answer: Result<(), String>,
    },
    AskingEnds {
        agent: usize,
        id: u64,
    },
    Fault(usize),
    Mend(Mend),
    Calm,
    Look,
}

/// The end of something that went wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mend {
    StartInstance {
        instance: usize,
        pid: u32,
    },
    StartAgent {
        instance: usize,
    },
    ResumeAgent {
        agent: usize,
    },
    Thaw {
        instance: usize,
        pid: u32,
        machine: bool,
    },
    Consul {
        instance: usize,
    },
    Link {
        instance: usize,
    },
    Peers {
        a: usize,
        b: usize,
    },
    Leader,
    Pause {
        set: usize,
        cluster: bool,
    },
}

struct Entry(Reverse<(Time, u64)>, Due);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// One replica set.
#[derive(Debug)]
pub(crate) struct Set {
    /// Its instances.
    pub(crate) members: Range<usize>,
}

/// Everything.
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) params: Params,
    pub(crate) rng: Rng,
    queue: BinaryHeap<Entry>,
    order: u64,
    pub(crate) consul: Store,
    /// There is no leader before then.
    pub(crate) leader_at: Time,
    /// What a server that lags behind still shows beside the locks.
    pub(crate) stale: Option<(Time, Vec<Beside>)>,
    #[allow(
        clippy::vec_box,
        reason = "they come in boxes from the queue, and leave in them"
    )]
    pub(crate) ballot_waiters: Vec<Box<Request>>,
    pub(crate) sets: Vec<Set>,
    pub(crate) instances: Vec<Instance>,
    pub(crate) agents: Vec<Agent>,
    /// The newest agent of each instance.
    pub(crate) current: Vec<usize>,
    /// Since when the way from one instance's machine to another's is cut.
    pub(crate) cuts: Vec<Vec<Option<Time>>>,
    pub(crate) checks: Checks,
    /// Nothing goes wrong any more.
    pub(crate) calm: bool,
    pub(crate) failure: Option<Failure>,
    trace: Option<VecDeque<String>>,
    pub(crate) steps: u64,
    ended: bool,
}

/// What came of one seed.
#[derive(Debug)]
pub struct Outcome {
    /// The invariant that did not hold.
    pub failure: Option<Failure>,
    /// Simulated time, in nanoseconds.
    pub simulated_ns: u64,
    /// Turns of agents.
    pub steps: u64,
    /// How many faults struck.
    pub faults: usize,
    /// What happened, if that was asked for.
    pub trace: Vec<String>,
    /// Promotions, all sets together.
    pub promotions: u64,
}

/// Plays one seed with these parameters.
#[must_use]
pub fn run(seed: u64, params: &Params, traced: bool) -> Outcome {
    let mut world = World::new(seed, params.clone(), traced);
    world.begin();
    world.play();
    Outcome {
        failure: world.failure,
        simulated_ns: world.now,
        steps: world.steps,
        faults: params.faults(),
        trace: world.trace.map(Vec::from).unwrap_or_default(),
        promotions: world.checks.promotions,
    }
}

impl World {
    fn new(seed: u64, params: Params, traced: bool) -> Self {
        let mut rng = Rng::new(seed, 2);
        let mut sets = Vec::new();
        let mut instances = Vec::new();
        for (number, set) in params.sets.iter().enumerate() {
            let first = instances.len();
            for n in 0..set.size {
                let clock = Clock {
                    from: 0,
                    base_ns: rng.between(100 * SEC, 100_000 * SEC),
                    fast_ppm: draw_rate(&mut rng),
                };
                instances.push(Instance::new(number, n, clock, set.sees_process[n]));
            }
            sets.push(Set {
                members: first..first + set.size,
            });
        }
        let all = instances.len();
        Self {
            now: SEC,
            consul: Store::new(params.sets.len()),
            checks: Checks::new(params.sets.len(), all),
            params,
            rng,
            queue: BinaryHeap::with_capacity(256),
            order: 0,
            leader_at: 0,
            stale: None,
            ballot_waiters: Vec::new(),
            sets,
            current: vec![0; all],
            cuts: vec![vec![None; all]; all],
            instances,
            agents: Vec::new(),
            calm: false,
            failure: None,
            trace: traced.then(VecDeque::new),
            steps: 0,
            ended: false,
        }
    }

    fn begin(&mut self) {
        for instance in 0..self.instances.len() {
            self.start_agent(instance);
        }
        for (index, at) in self
            .params
            .faults
            .iter()
            .map(|(at, _)| *at)
            .enumerate()
            .collect::<Vec<_>>()
        {
            self.schedule(at, Due::Fault(index));
        }
        let calm_from = self.params.calm_from;
        self.schedule(calm_from, Due::Calm);
    }

    fn play(&mut self) {
        while self.failure.is_none()
            && !self.ended
            && let Some(Entry(Reverse((at, _)), due)) = self.queue.pop()
        {
            self.now = at;
            self.happens(due);
        }
    }

    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    pub(crate) fn schedule(&mut self, after: Time, due: Due) {
        self.schedule_at(self.now.saturating_add(after), due);
    }

    pub(crate) fn schedule_at(&mut self, at: Time, due: Due) {
        self.order += 1;
        self.queue
            .push(Entry(Reverse((at.max(self.now), self.order)), due));
    }

    /// Writes down what happens, where somebody will read it.
    pub(crate) fn note(&mut self, words: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{:11.6} {}", self.now as f64 / 1e9, words(self));
            if let Some(trace) = &mut self.trace {
                if trace.len() >= 4_000 {
                    trace.pop_front();
                }
                trace.push_back(line);
            }
        }
    }

    pub(crate) fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// The way of one message.
    pub(crate) fn delay(&mut self) -> Time {
        let max = self.params.weather.delay_max;
        40_000 + self.rng.below(max)
    }

    fn happens(&mut self, due: Due) {
        if let Some(agent) = for_agent(&due) {
            let agent = &mut self.agents[agent];
            if !agent.alive {
                return;
            }
            if agent.paused {
                agent.deferred.push_back(due);
                return;
            }
        }
        match due {
            Due::Wake { agent, turn } => self.wakes(agent, turn),
            Due::Hear {
                agent,
                event,
                answers,
            } => self.hears(agent, *event, answers),
            Due::Consul(request) => self.arrives_in_consul(request),
            Due::BallotsOver { request } => self.ballots_over(request),
            Due::SessionEnds { session } => self.session_ends(session),
            Due::WatchAsks { agent, turn } => self.watch_asks(agent, turn),
            Due::WatchOver { agent, turn } => self.watch_over(agent, turn),
            Due::WatchHears {
                agent,
                event,
                pause,
            } => self.watch_hears(agent, *event, pause),
            Due::OrderSeen { agent } => self.order_seen(agent),
            Due::Command(command) => self.command_arrives(command),
            Due::QueueTaken(command) => self.queue_taken(command),
            Due::Overdue { agent, id } => self.overdue(agent, id),
            Due::KillDecides { agent } => self.kill_decides(agent),
            Due::Attach { agent, turn } => self.attach(agent, turn),
            Due::AttachArrives {
                agent,
                attach,
                pid,
                turn,
            } => {
                self.attach_arrives(agent, attach, pid, turn);
            }
            Due::Attached {
                agent,
                attach,
                pid,
                turn,
            } => self.attached(agent, attach, pid, turn),
            Due::Silence { agent } => self.silence(agent),
            Due::Speak { agent } => self.speak(agent),
            Due::Dies { agent, pid } => self.sees_death(agent, pid),
            Due::Fiber { instance, pid } => self.fiber_wakes(instance, pid),
            Due::Write { instance, pid } => self.write(instance, pid),
            Due::Landed {
                instance,
                pid,
                sync,
            } => self.landed(instance, pid, sync),
            Due::Barrier {
                instance,
                pid,
                epoch,
            } => self.barrier_passed(instance, pid, epoch),
            Due::Sync { src, dst } => self.rows_arrive(src, dst),
            Due::Confirm { src, dst, has } => self.confirmed(src, dst, has),
            Due::Ask(question) => self.asked_for_promise(question),
            Due::Promised { question, answer } => self.promise_answered(&question, answer),
            Due::AskingEnds { agent, id } => self.asking_ends(agent, id),
            Due::Fault(index) => self.strikes(index),
            Due::Mend(mend) => self.mends(mend),
            Due::Calm => self.calms_down(),
            Due::Look => self.looks_for_masters(),
        }
    }

    /// The number of this instance in its set, and the set.
    pub(crate) fn place(&self, instance: usize) -> (usize, usize) {
        let it = &self.instances[instance];
        (it.set, it.n)
    }

    /// The instance of that name in the set.
    pub(crate) fn find(&self, set: usize, name: &str) -> Option<usize> {
        self.sets[set]
            .members
            .clone()
            .find(|at| self.instances[*at].name == name)
    }

    /// All agents of an instance that run: for a while there may be two.
    pub(crate) fn running_agents(&self, instance: usize) -> Vec<usize> {
        let agents = self.agents.iter().enumerate();
        let running = agents.filter(|(_, it)| it.at == instance && it.alive);
        running.map(|(agent, _)| agent).collect()
    }

    /// The agent of an instance that runs, if one does; of two the later one.
    pub(crate) fn running_agent(&self, instance: usize) -> Option<usize> {
        let agent = self.current[instance];
        self.agents.get(agent).filter(|it| it.alive).map(|_| agent)
    }
}

pub(crate) fn draw_rate(rng: &mut Rng) -> i64 {
    let max = i64::try_from(FAST_MAX_PPM).unwrap_or(0);
    let bound = i64::try_from(rng.below(2 * FAST_MAX_PPM + 1)).unwrap_or(0) - max;
    rng.one_of(&[0, -max, max, bound])
}

/// The agent whose own turn this is: an agent that sleeps has it later, one that is gone never.
fn for_agent(due: &Due) -> Option<usize> {
    match due {
        Due::Wake { agent, .. }
        | Due::Hear { agent, .. }
        | Due::WatchAsks { agent, .. }
        | Due::WatchOver { agent, .. }
        | Due::WatchHears { agent, .. }
        | Due::OrderSeen { agent }
        | Due::Overdue { agent, .. }
        | Due::KillDecides { agent }
        | Due::Attach { agent, .. }
        | Due::Attached { agent, .. }
        | Due::Silence { agent }
        | Due::Speak { agent }
        | Due::Dies { agent, .. }
        | Due::AskingEnds { agent, .. } => Some(*agent),
        Due::Promised { question, .. } => Some(question.agent),
        Due::Consul(_)
        | Due::BallotsOver { .. }
        | Due::SessionEnds { .. }
        | Due::Command(_)
        | Due::QueueTaken(_)
        | Due::AttachArrives { .. }
        | Due::Fiber { .. }
        | Due::Write { .. }
        | Due::Landed { .. }
        | Due::Barrier { .. }
        | Due::Sync { .. }
        | Due::Confirm { .. }
        | Due::Ask(_)
        | Due::Fault(_)
        | Due::Mend(_)
        | Due::Calm
        | Due::Look => None,
    }
}

const _: () = assert!(SIZE_MAX == 5);
