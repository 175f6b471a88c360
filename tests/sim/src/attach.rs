//! The way from an agent to its instance: connect, attach, see death, command the guard, kill.

use crate::agent::{Conn, Told};
use crate::answers::failed;
use crate::decide::event::{Event, GuardCommandKind, KillResult};
use crate::decide::plan::Action;
use crate::faults::Cut;
use crate::guard::Guard;
use crate::requests::Command;
use crate::time::{MS, SEC, Time};
use crate::world::{Due, World};

/// Between two tries to reach an instance.
const RETRY: Time = 100 * MS;
/// How long an instance has for its last word before it is killed.
const LAST_WORD: Time = 50 * MS;

impl World {
    pub(crate) fn attach_after(&mut self, agent: usize, after: Time) {
        let it = &mut self.agents[agent];
        it.link_turn += 1;
        let turn = it.link_turn;
        self.schedule(after, Due::Attach { agent, turn });
    }

    fn link_cut(&self, instance: usize) -> Option<(Cut, Time)> {
        self.instances[instance].ways.link
    }

    /// Says it once: the same is no news.
    fn tell(&mut self, agent: usize, told: Told, event: Event) {
        if self.agents[agent].told != told {
            self.agents[agent].told = told;
            self.step(agent, event);
        }
    }

    fn unreachable(&mut self, agent: usize, why: &str) {
        let why = why.to_owned();
        self.tell(agent, Told::Unreachable, Event::Unreachable { why });
    }

    pub(crate) fn attach(&mut self, agent: usize, turn: u32) {
        let it = &self.agents[agent];
        if it.link_turn != turn || it.conn.is_some() {
            return;
        }
        let at = it.at;
        let instance = &self.instances[at];
        let patience = self.patience(agent);
        if !instance.alive {
            if it.reset && it.sees.is_none() {
                self.agents[agent].reset = false;
                let proof = "its connection was reset, the next one refused".to_owned();
                self.tell(agent, Told::Dead, Event::Died { proof });
            } else {
                self.unreachable(agent, "connection refused");
            }
            return self.attach_after(agent, RETRY);
        }
        match self.link_cut(at) {
            Some((Cut::Refused, _)) => {
                self.unreachable(agent, "no route to host");
                return self.attach_after(agent, RETRY);
            }
            Some((Cut::Swallowed | Cut::RepliesSwallowed, _)) => {
                return self.attach_times_out(agent, patience);
            }
            None => {}
        }
        if self.now < self.instances[at].runs_from {
            self.unreachable(agent, "it is loading");
            return self.attach_after(agent, RETRY);
        }
        self.agents[agent].attaches += 1;
        let (attach, pid) = (self.agents[agent].attaches, self.instances[at].pid);
        if self.instances[at].frozen {
            // What stands in its queue is read when it goes on, whatever has become of who sent it.
            let after = self.instances[at].frozen_until.saturating_sub(self.now);
            if self.rng.percent(30) {
                let late = self.rng.below(3 * MS);
                self.schedule(
                    after + late,
                    Due::AttachArrives {
                        agent,
                        attach,
                        pid,
                        turn: 0,
                    },
                );
            }
            return self.attach_times_out(agent, patience);
        }
        let after = self.delay();
        self.schedule(
            after,
            Due::AttachArrives {
                agent,
                attach,
                pid,
                turn,
            },
        );
    }

    fn attach_times_out(&mut self, agent: usize, patience: Time) {
        // Told at the next try, which then fails or not: a little late is no difference to the core.
        let it = &mut self.agents[agent];
        it.link_turn += 1;
        let turn = it.link_turn;
        if it.told == Told::Nothing || it.told == Told::Attached || it.told == Told::Silent {
            it.told = Told::Unreachable;
            self.hear(
                agent,
                patience,
                Event::Unreachable {
                    why: "timed out".to_owned(),
                },
            );
        }
        self.schedule(patience + RETRY, Due::Attach { agent, turn });
    }

    /// In the instance: the guard is installed where there is none, and belongs to this attach from now on.
    pub(crate) fn attach_arrives(&mut self, agent: usize, attach: u32, pid: u32, turn: u32) {
        let at = self.agents[agent].at;
        let it = &mut self.instances[at];
        if !it.alive || it.pid != pid || (it.frozen && turn == 0) {
            return self.retry_attach(agent, turn);
        }
        let now_ns = it.clock.instance(self.now).monotonic_ns;
        let guard = it.guard.get_or_insert_with(|| Guard::new(now_ns));
        guard.owner = (agent, attach);
        let after = self.delay() * 3;
        if turn > 0 {
            self.schedule(
                after,
                Due::Attached {
                    agent,
                    attach,
                    pid,
                    turn,
                },
            );
        }
        self.look_with_fiber(at);
    }

    fn retry_attach(&mut self, agent: usize, turn: u32) {
        if turn > 0 && self.agents[agent].alive && self.agents[agent].link_turn == turn {
            self.attach_after(agent, RETRY);
        }
    }

    pub(crate) fn attached(&mut self, agent: usize, attach: u32, pid: u32, turn: u32) {
        let at = self.agents[agent].at;
        if self.agents[agent].link_turn != turn {
            return;
        }
        let instance = &self.instances[at];
        let reachable = instance.answers() && instance.pid == pid && instance.ways.link.is_none();
        let Some(probe) = self.probe(at).filter(|_| reachable) else {
            return self.retry_attach(agent, turn);
        };
        let visible = self.instances[at].sees_process;
        let it = &mut self.agents[agent];
        it.conn = Some(Conn { attach, pid });
        it.sees = visible.then_some(pid);
        it.told = Told::Attached;
        it.reset = false;
        let first = !it.knows_keys;
        it.knows_keys = true;
        let process = if visible {
            Ok(())
        } else {
            Err("its process is not on this machine".to_owned())
        };
        self.step(agent, Event::Attached { probe, process });
        if first && self.agents[agent].alive {
            self.watch_after(agent, 0);
            self.schedule(MS, Due::OrderSeen { agent });
        }
    }

    /// The connection is gone; whoever asked over it hears so.
    fn connection_ends(&mut self, agent: usize) {
        self.agents[agent].conn = None;
        for (_, command) in std::mem::take(&mut self.agents[agent].outstanding) {
            self.step(agent, failed(command));
        }
    }

    pub(crate) fn sees_death(&mut self, agent: usize, pid: u32) {
        let it = &mut self.agents[agent];
        let seen = it.sees == Some(pid);
        if it.conn.is_some_and(|conn| conn.pid == pid) {
            self.connection_ends(agent);
        }
        let it = &mut self.agents[agent];
        if seen {
            it.sees = None;
            it.reset = false;
            let proof = "its process is exiting".to_owned();
            self.tell(agent, Told::Dead, Event::Died { proof });
            self.attach_after(agent, RETRY);
        } else if it.conn.is_none() {
            it.reset = true;
            self.attach_after(agent, 0);
        }
    }

    /// A link that is reset.
    pub(crate) fn link_breaks(&mut self, instance: usize) {
        let Some(agent) = self.running_agent(instance) else {
            return;
        };
        if self.agents[agent].conn.is_none() {
            return;
        }
        self.agents[agent].conn = None;
        for (id, command) in self.agents[agent].outstanding.clone() {
            self.schedule(
                0,
                Due::Hear {
                    agent,
                    event: Box::new(failed(command)),
                    answers: Some(id),
                },
            );
        }
        self.agents[agent].told = Told::Unreachable;
        self.hear(
            agent,
            MS,
            Event::Unreachable {
                why: "its connection timed out".to_owned(),
            },
        );
        self.attach_after(agent, RETRY);
    }

    pub(crate) fn send_command(&mut self, agent: usize, action: &Action) {
        let Some(kind) = action.guard_command_kind() else {
            return;
        };
        let id = self.next_id();
        self.agents[agent].outstanding.push((id, kind));
        let Some(conn) = self.agents[agent].conn else {
            self.schedule(
                10_000,
                Due::Hear {
                    agent,
                    event: Box::new(failed(kind)),
                    answers: Some(id),
                },
            );
            return;
        };
        let after = self.delay();
        let command = Box::new(Command {
            id,
            agent,
            attach: conn.attach,
            pid: conn.pid,
            action: action.clone(),
            sent_at: self.now,
            epoch: None,
            too_late: false,
        });
        let at = self.in_order(agent, self.now + after);
        self.schedule_at(at, Due::Command(command));
    }

    /// No earlier than what was sent before.
    fn in_order(&mut self, agent: usize, at: Time) -> Time {
        let last = &mut self.agents[agent].last_request;
        *last = at.max(*last + 1);
        *last
    }

    fn overdue_later(&mut self, command: &Command) {
        let at = command.sent_at + self.patience(command.agent);
        let (agent, id) = (command.agent, command.id);
        self.schedule_at(at, Due::Overdue { agent, id });
    }

    pub(crate) fn overdue(&mut self, agent: usize, id: u64) {
        let outstanding = &self.agents[agent].outstanding;
        if let Some((_, kind)) = outstanding.iter().find(|(known, _)| *known == id) {
            let event = failed(*kind);
            self.hears(agent, event, Some(id));
        }
    }

    pub(crate) fn command_arrives(&mut self, mut command: Box<Command>) {
        let at = self.agents[command.agent].at;
        let it = &self.instances[at];
        if !it.alive || it.pid != command.pid {
            return;
        }
        let swallowed = it.ways.link.filter(|(cut, _)| *cut == Cut::Swallowed);
        let held_until = if it.frozen {
            Some(it.frozen_until)
        } else {
            swallowed.map(|(_, until)| until)
        };
        if let Some(until) = held_until {
            self.overdue_later(&command);
            let late = self.rng.between(10_000, 3 * MS);
            let at = self.in_order(command.agent, until + late);
            self.schedule_at(at, Due::Command(command));
            return;
        }
        let owner = (command.agent, command.attach);
        let known = self.instances[at].guard.as_ref().map(|guard| guard.owner);
        match known {
            Some(known) if known == owner => {
                if let Some(refused) = self.obey(at, &mut command) {
                    self.answer(at, &command, refused);
                } else {
                    self.overdue_later(&command);
                    self.parked(at, command);
                }
                self.look_with_fiber(at);
            }
            Some(known) => self.answer_superseded(&command, known),
            None => self.answer_event(&command, failed(kind(&command))),
        }
    }

    fn answer_superseded(&mut self, command: &Command, by: (usize, u32)) {
        let (agent, attach) = by;
        if agent != command.agent {
            let by = format!("agent-{agent}");
            return self.answer_event(command, Event::Superseded { by });
        }
        self.answer_event(command, failed(kind(command)));
        if attach < command.attach && self.agents[agent].alive {
            // An earlier attach of its own was carried out behind this one: it attaches anew.
            self.agents[agent].conn = None;
            self.attach_after(agent, RETRY);
        }
    }

    pub(crate) fn answer(&mut self, at: usize, command: &Command, refused: Option<String>) {
        if let Some(probe) = self.probe(at) {
            let event = Event::GuardAnswered {
                command: kind(command),
                probe,
                refused,
            };
            self.answer_event(command, event);
        }
    }

    fn answer_event(&mut self, command: &Command, event: Event) {
        let at = self.agents[command.agent].at;
        let mut arrives_at = self.now + self.delay();
        if let Some((cut, until)) = self.instances[at].ways.link {
            if cut == Cut::Refused {
                return;
            }
            arrives_at = until + self.delay();
        }
        let last = &mut self.agents[command.agent].last_reply;
        arrives_at = arrives_at.max(*last + 1);
        *last = arrives_at;
        let patience = self.patience(command.agent);
        if arrives_at > command.sent_at + patience {
            self.overdue_later(command);
            if arrives_at > command.sent_at + patience + SEC {
                return;
            }
        }
        self.schedule_at(
            arrives_at,
            Due::Hear {
                agent: command.agent,
                event: Box::new(event),
                answers: Some(command.id),
            },
        );
    }

    pub(crate) fn kill_asked(&mut self, agent: usize) {
        let at = self.agents[agent].at;
        let responsive = self.instances[at].answers() && self.instances[at].ways.link.is_none();
        let connected = self.agents[agent].conn.is_some();
        let after = match (responsive, connected) {
            (true, true) => self.delay() * 2,
            (true, false) => self.delay() * 4,
            (false, true) => LAST_WORD,
            (false, false) => LAST_WORD * 2,
        };
        self.schedule(after, Due::KillDecides { agent });
    }

    pub(crate) fn kill_decides(&mut self, agent: usize) {
        let at = self.agents[agent].at;
        let instance = &self.instances[at];
        let responsive = instance.answers() && instance.ways.link.is_none();
        let owner = instance.guard.as_ref().map(|guard| guard.owner.0);
        let result = match (responsive, owner) {
            (true, Some(other)) if other != agent => {
                let by = format!("agent-{other}");
                return self.step(agent, Event::Superseded { by });
            }
            (true, Some(_)) => self
                .probe(at)
                .filter(|probe| probe.ro && !probe.guard.leased && !probe.is_landing())
                .map(KillResult::Spared),
            (true | false, _) => None,
        };
        let result = result.unwrap_or_else(|| match self.agents[agent].sees {
            Some(pid) => {
                if self.instances[at].pid == pid {
                    self.note(|_| format!("agent-{agent} kills its instance"));
                    let after = self.rng.between(500, 4_000) * MS;
                    self.checks.killed(at);
                    self.kill_process(at, after);
                }
                KillResult::Killed
            }
            None => KillResult::Failed("its process is not known".to_owned()),
        });
        self.step(agent, Event::KillEnded { result });
    }
}

pub(crate) fn kind(command: &Command) -> GuardCommandKind {
    command
        .action
        .guard_command_kind()
        .unwrap_or(GuardCommandKind::Probe)
}
