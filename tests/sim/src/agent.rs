//! An agent: the real core with its loop, apply → decide → begin, and what it sends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::decide::check::Trail;
use crate::decide::decide;
use crate::decide::event::{Event, GuardCommandKind};
use crate::decide::plan::{Action, Ending, Plan};
use crate::decide::settings::{Settings, SyncLoss};
use crate::decide::state::State;
use crate::decide::timing::{Reading, Tick};
use crate::faults::Cut;
use crate::time::{Clock, MS, SEC, Time};
use crate::world::{Due, World, draw_rate};

/// More turns than that in a second are a loop that finds no rest.
const BUSY: u32 = 1_500;

/// The connection to the instance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conn {
    pub(crate) attach: u32,
    pub(crate) pid: u32,
}

/// What the link told last: the same is no news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Nothing,
    Attached,
    Unreachable,
    Silent,
    Dead,
}

/// The watch on the lock key.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Watch {
    pub(crate) turn: u32,
    pub(crate) asked_at: Tick,
    pub(crate) after: u64,
    /// The last answer's index, and whether it was news.
    pub(crate) seen: u64,
    pub(crate) news: bool,
    /// Its question is one to be held.
    pub(crate) held: bool,
    /// It stands in Consul and waits for a change.
    pub(crate) waits: bool,
    /// Something on the way will end that before Consul does.
    pub(crate) cut: bool,
    /// The last question failed while it was held.
    pub(crate) was_cut: bool,
    pub(crate) failures: u32,
}

/// Promises asked for.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) id: u64,
    pub(crate) reading: Reading,
    pub(crate) for_all: bool,
    pub(crate) members: BTreeSet<String>,
    pub(crate) answers: BTreeMap<String, Result<(), String>>,
}

/// One run of an agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) at: usize,
    pub(crate) state: State,
    pub(crate) plan: Option<Plan>,
    pub(crate) trail: Trail,
    pub(crate) clock: Clock,
    pub(crate) alive: bool,
    pub(crate) paused: bool,
    pub(crate) paused_at: Time,
    pub(crate) awake_since: Time,
    pub(crate) deferred: VecDeque<Due>,
    turn: u64,
    pub(crate) conn: Option<Conn>,
    pub(crate) attaches: u32,
    /// On one connection, requests begin in the order in which they were sent, and so do replies.
    pub(crate) last_request: Time,
    pub(crate) last_reply: Time,
    pub(crate) link_turn: u32,
    /// The process that it has a handle of.
    pub(crate) sees: Option<u32>,
    pub(crate) told: Told,
    /// Its connection ended like that of a dying process.
    pub(crate) reset: bool,
    pub(crate) watch: Watch,
    pub(crate) knows_keys: bool,
    /// When its own last write of the member's key was carried out, and the same while none is under way or in doubt.
    pub(crate) member_written: Time,
    pub(crate) member_known: Option<Time>,
    /// The switchover key's index as its watch last saw it.
    pub(crate) order_seen: u64,
    pub(crate) outstanding: Vec<(u64, GuardCommandKind)>,
    pub(crate) asking: Option<Asking>,
    /// When Consul last looked at the lock for it, when it last did so after a time in which it may not have been readable,
    /// and when it last asked with a single read that was answered.
    pub(crate) looked_at: Time,
    pub(crate) unread_at: Time,
    pub(crate) read_at: Time,
    steps: (Time, u32),
    pub(crate) stops: bool,
}

/// What became of an agent's ways to the outside.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ways {
    pub(crate) consul: Option<(Cut, Time)>,
    pub(crate) link: Option<(Cut, Time)>,
    pub(crate) denied_until: Time,
}

/// What the wall clock of this agent's machine shows, in milliseconds since the epoch. Where clocks are set, each is off by
/// up to a day, in another way every other second, and none of that is drawn: a seed tells the same story with it.
fn wall_ms(agent: usize, now: Time, is_set: bool) -> u64 {
    let true_ms = 1_700_000_000_000 + now / MS;
    if !is_set {
        return true_ms;
    }
    let turn = now / (2 * SEC) + 1;
    let day_ms = 86_400_000;
    let off_ms = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ agent as u64) % (2 * day_ms);
    true_ms + off_ms - day_ms
}

impl World {
    pub(crate) fn start_agent(&mut self, instance: usize) {
        let (set, n) = self.place(instance);
        let number = self.agents.len();
        let params = &self.params.sets[set];
        let name = self.instances[instance].name.clone();
        let settings = Settings {
            timing: params.timing,
            priority: Some(params.priorities[n]),
            kill_hung: params.kill_hung,
            follow: params.follow,
            elector: params.elector,
            election_window: params.window,
            sync_loss: if params.refuses_loss {
                SyncLoss::Refuse
            } else {
                SyncLoss::Accept
            },
            max_lag_rows: params.max_lag_rows,
            max_idle: params.max_idle,
            replica_max_idle: Duration::from_secs(5),
            failover_cooldown: params.cooldown,
            member_interval: params.member_interval,
            failsafe: params.failsafe,
            peer_addrs: Default::default(),
            shared: BTreeMap::new(),
            announce: name,
            agent: format!("agent-{number}"),
        };
        let clock = Clock {
            from: self.now,
            base_ns: 0,
            fast_ppm: draw_rate(&mut self.rng),
        };
        self.agents.push(Agent {
            at: instance,
            state: State::new(settings),
            plan: None,
            trail: Trail::default(),
            clock,
            alive: true,
            paused: false,
            paused_at: self.now,
            awake_since: self.now,
            deferred: VecDeque::new(),
            turn: 0,
            conn: None,
            attaches: 0,
            last_request: 0,
            last_reply: 0,
            link_turn: 0,
            sees: None,
            told: Told::Nothing,
            reset: false,
            watch: Watch::default(),
            knows_keys: false,
            member_written: 0,
            member_known: None,
            order_seen: 0,
            outstanding: Vec::new(),
            asking: None,
            looked_at: 0,
            unread_at: 0,
            read_at: 0,
            steps: (0, 0),
            stops: false,
        });
        self.current[instance] = number;
        self.checks.disturbed(instance, self.now);
        self.note(|_| format!("agent-{number} starts at instance {instance}"));
        self.attach_after(number, MS);
    }

    pub(crate) fn tick(&self, agent: usize) -> Tick {
        self.agents[agent].clock.tick(self.now)
    }

    pub(crate) fn hear(&mut self, agent: usize, after: Time, event: Event) {
        self.schedule(
            after,
            Due::Hear {
                agent,
                event: Box::new(event),
                answers: None,
            },
        );
    }

    pub(crate) fn wakes(&mut self, agent: usize, turn: u64) {
        if self.agents[agent].turn == turn {
            self.step(agent, Event::Woke);
        }
    }

    pub(crate) fn hears(&mut self, agent: usize, event: Event, answers: Option<u64>) {
        if let Some(id) = answers {
            let outstanding = &mut self.agents[agent].outstanding;
            let Some(at) = outstanding.iter().position(|(known, _)| *known == id) else {
                return;
            };
            outstanding.swap_remove(at);
        }
        self.step(agent, event);
    }

    /// One turn of an agent's loop.
    pub(crate) fn step(&mut self, number: usize, event: Event) {
        self.steps += 1;
        let now = self.now;
        let traced = self.is_traced();
        let agent = &mut self.agents[number];
        if matches!(event, Event::MemberEnded { result: Ok(()) }) {
            agent.member_known = Some(agent.member_written);
        }
        let second = now / SEC;
        if agent.steps.0 != second {
            agent.steps = (second, 0);
        }
        agent.steps.1 += 1;
        let busy = agent.steps.1 > BUSY;
        let tick = agent.clock.tick(now);
        if let Event::LockRead {
            asked_at,
            by_watch: false,
            result: Ok(_),
        } = &event
        {
            agent.read_at = agent.clock.when_tick(*asked_at);
        }
        let heard = if traced && !matches!(event, Event::Woke) {
            Some(short(&event))
        } else {
            None
        };
        let wall_ms = wall_ms(number, self.now, self.params.clocks_are_set);
        agent.state.reads_wall_clock(wall_ms);
        agent.state.apply(event, tick);
        let plan = decide(&agent.state, tick);
        for action in &plan.actions {
            agent.state.begin(action, tick);
            agent.trail.note(action, tick);
        }
        agent.turn += 1;
        let (turn, clock) = (agent.turn, agent.clock);
        if let Some(at) = plan.wake_at {
            // A timer is never early, and a little late.
            self.schedule_at(
                clock.when_tick(at) + 1_000,
                Due::Wake {
                    agent: number,
                    turn,
                },
            );
        }
        if traced {
            self.trace_step(number, heard, &plan);
        }
        if busy {
            self.fail(
                "rest",
                format!("agent-{number} finds no rest: {}", plan.reason),
            );
        }
        for action in &plan.actions {
            self.send(number, action);
        }
        self.agents[number].plan = Some(plan);
    }

    fn trace_step(&mut self, number: usize, heard: Option<String>, plan: &Plan) {
        let known = self.agents[number].plan.as_ref().map(|plan| &plan.reason);
        if heard.is_none() && plan.actions.is_empty() && known == Some(&plan.reason) {
            return;
        }
        let actions: Vec<String> = plan.actions.iter().map(short).collect();
        let heard = heard.unwrap_or_default();
        self.note(|_| {
            format!(
                "agent-{number} {heard}\n{:16}{}\n{:16}→ {}",
                "",
                plan.reason,
                "",
                actions.join(" ")
            )
        });
    }

    fn send(&mut self, agent: usize, action: &Action) {
        if let Action::Exit { how } = action {
            self.exits(agent, *how);
        } else if let Action::AskPromises { .. } = action {
            self.ask_promises(agent, action);
        } else if matches!(action, Action::Kill) {
            self.check_patience(agent);
            self.kill_asked(agent);
        } else if action.guard_command_kind().is_some() {
            self.send_command(agent, action);
        } else {
            self.send_to_consul(agent, action);
        }
    }

    fn exits(&mut self, agent: usize, how: Ending) {
        self.note(|_| format!("agent-{agent} exits: {how:?}"));
        let at = self.agents[agent].at;
        self.ends_agent(agent);
        let again = match how {
            Ending::Stopped | Ending::Unsuitable => true,
            Ending::Superseded => false,
        };
        if self.calm && again {
            self.schedule(
                SEC,
                Due::Mend(crate::world::Mend::StartAgent { instance: at }),
            );
        }
    }

    pub(crate) fn ends_agent(&mut self, agent: usize) {
        let agent = &mut self.agents[agent];
        agent.alive = false;
        agent.paused = false;
        agent.deferred.clear();
        agent.outstanding.clear();
        let at = agent.at;
        self.checks.disturbed(at, self.now);
    }

    /// The timeout of its calls.
    pub(crate) fn patience(&self, agent: usize) -> Time {
        let set = self.instances[self.agents[agent].at].set;
        duration(self.params.sets[set].timing.healthcheck_timeout())
    }
}

pub(crate) fn duration(duration: Duration) -> Time {
    crate::time::ns(duration)
}

/// What it is, and as much of it as fits into a line.
fn short(value: &impl std::fmt::Debug) -> String {
    let mut text = format!("{value:?}");
    for (long, brief) in [
        ("monotonic_ns: ", ""),
        ("since_start_ns: ", ""),
        ("instance-", "i"),
        ("session-", "s"),
    ] {
        text = text.replace(long, brief);
    }
    if let Some(from) = text.find("replication: [")
        && let Some(to) = text.find("election_mode")
    {
        text.replace_range(from..to, "");
    }
    if text.len() > 420 {
        let end = (0..=420)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
