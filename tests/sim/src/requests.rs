//! Requests: to Consul with whatever becomes of them on their way, and to the other members' guards.

use std::collections::{BTreeMap, BTreeSet};

use crate::agent::{Asking, duration};
use crate::answers::{fault, lost};
use crate::decide::event::{Event, LockStepKind};
use crate::decide::plan::Action;
use crate::decide::term::Term;
use crate::decide::timing::Tick;
use crate::decide::vclock::{Vclock, rows_missing};
use crate::faults::Cut;
use crate::time::{MS, SEC, Time};
use crate::world::{Due, World};

/// What Consul could not commit by then it gives up.
const GIVEN_UP: Time = 30 * SEC;

/// A request to Consul.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) agent: usize,
    pub(crate) action: Action,
    pub(crate) sent_at: Time,
    pub(crate) asked_at: Tick,
    /// A write of a member's key comes to nothing if another one was carried out since.
    pub(crate) rests_on: Time,
    /// The agent gives up waiting then.
    pub(crate) until: Time,
    /// It has been told already that there is no answer, or will be.
    pub(crate) given_up: bool,
}

/// A command to the guard.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) id: u64,
    pub(crate) agent: usize,
    pub(crate) attach: u32,
    pub(crate) pid: u32,
    pub(crate) action: Action,
    pub(crate) sent_at: Time,
    /// The guard's epoch when it began to take the queue.
    pub(crate) epoch: Option<u64>,
    /// The queue took longer than a promotion waits for it.
    pub(crate) too_late: bool,
}

/// A question for a promise.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) id: u64,
    pub(crate) agent: usize,
    pub(crate) member: usize,
    pub(crate) to: String,
    pub(crate) term: Term,
    pub(crate) lasting: Time,
    /// R3: and everybody who is asked, where each is to say that it knows nobody else.
    pub(crate) for_all: Option<BTreeSet<String>>,
    /// What the asking instance has.
    pub(crate) vclock: Vclock,
}

impl World {
    pub(crate) fn next_id(&mut self) -> u64 {
        self.checks.ids += 1;
        self.checks.ids
    }

    /// Whether an agent's requests reach Consul, and Consul's replies the agent.
    pub(crate) fn consul_cut(&self, agent: usize) -> Option<Cut> {
        let at = self.agents[agent].at;
        self.instances[at].ways.consul.map(|(cut, _)| cut)
    }

    pub(crate) fn send_to_consul(&mut self, agent: usize, action: &Action) {
        let wait = if let Action::ReadBallots { wait, .. } = action {
            duration(*wait)
        } else {
            0
        };
        let id = self.next_id();
        let until = self.now + self.patience(agent) + wait;
        let asked_at = self.tick(agent);
        let writes_member = matches!(action, Action::WriteMember { .. });
        let known = self.agents[agent].member_known.take_if(|_| writes_member);
        let mut request = Box::new(Request {
            id,
            agent,
            action: action.clone(),
            sent_at: self.now,
            asked_at,
            rests_on: known.unwrap_or(self.now),
            until,
            given_up: false,
        });
        match self.consul_cut(agent) {
            Some(Cut::Refused) => {
                request.until = self.now + 2 * MS;
                self.give_up(&mut request);
                return;
            }
            Some(Cut::Swallowed) => {
                self.give_up(&mut request);
                return;
            }
            Some(Cut::RepliesSwallowed) | None => {}
        }
        let weather = self.params.weather;
        let rough = !self.calm;
        if rough && self.rng.one_in(weather.lost_request_one_in) {
            self.checks.disturbed(self.agents[agent].at, self.now);
            self.give_up(&mut request);
            return;
        }
        let mut after = self.delay();
        if rough && self.rng.one_in(weather.slow_one_in) {
            self.checks.disturbed(self.agents[agent].at, self.now);
            after = self.rng.below(weather.slow_max);
        }
        if self.now + after >= until {
            self.give_up(&mut request);
        }
        self.schedule(after, Due::Consul(request));
    }

    /// The agent will hear that there was no answer; what was sent may arrive all the same.
    fn give_up(&mut self, request: &mut Request) {
        if request.given_up {
            return;
        }
        request.given_up = true;
        if let Some(event) = lost(&request.action, request.asked_at, false) {
            self.schedule_at(
                request.until,
                Due::Hear {
                    agent: request.agent,
                    event: Box::new(event),
                    answers: None,
                },
            );
        }
    }

    pub(crate) fn arrives_in_consul(&mut self, mut request: Box<Request>) {
        if self.now < self.leader_at {
            if self.now > request.sent_at + GIVEN_UP {
                self.give_up(&mut request);
            } else if self.rng.percent(50) {
                let event = lost(&request.action, request.asked_at, false);
                self.reply(request, event.into_iter().collect());
            } else {
                // It is held until there is a leader, and carried out then.
                let after = self.leader_at + self.rng.below(50) * MS;
                if after >= request.until {
                    self.give_up(&mut request);
                }
                self.schedule_at(after, Due::Consul(request));
            }
            return;
        }
        let at = self.agents[request.agent].at;
        if self.now < self.instances[at].ways.denied_until {
            let event = lost(&request.action, request.asked_at, true);
            self.reply(request, event.into_iter().collect());
            return;
        }
        let for_catalog = matches!(request.action, Action::Tell { .. } | Action::Deregister);
        if for_catalog && request.given_up && !self.agents[request.agent].alive {
            // The catalog is told through the Consul agent beside: no network keeps that word for long.
            return;
        }
        let events = self.carry_out(&mut request);
        match events {
            Some(events) => self.reply(request, events),
            None => {
                let id = request.id;
                let over = request.until.saturating_sub(self.patience(request.agent));
                let over = self.hold_ends(request.sent_at, over);
                self.schedule_at(over, Due::BallotsOver { request: id });
                self.ballot_waiters.push(request);
            }
        }
    }

    /// Where something on the way ends what is held, the agent asks at once, but not sooner than after half a second.
    fn hold_ends(&self, from: Time, until: Time) -> Time {
        let ended_after = self.params.weather.holds_end_after;
        if ended_after == 0 {
            return until;
        }
        until.min(from + ended_after.max(500 * MS))
    }

    fn reply(&mut self, mut request: Box<Request>, events: Vec<Event>) {
        if request.given_up {
            return;
        }
        let rough = !self.calm;
        let lost_one_in = self.params.weather.lost_reply_one_in;
        let lost = rough && self.rng.one_in(lost_one_in);
        let after = self.delay();
        if lost {
            self.checks
                .disturbed(self.agents[request.agent].at, self.now);
        }
        if lost || self.consul_cut(request.agent).is_some() || self.now + after > request.until {
            self.give_up(&mut request);
            return;
        }
        for event in events {
            self.hear(request.agent, after, event);
        }
    }

    pub(crate) fn ballots_over(&mut self, request: u64) {
        let at = self
            .ballot_waiters
            .iter()
            .position(|waiter| waiter.id == request);
        if let Some(at) = at {
            let request = self.ballot_waiters.swap_remove(at);
            self.answer_ballots(request);
        }
    }

    fn answer_ballots(&mut self, request: Box<Request>) {
        let set = self.instances[self.agents[request.agent].at].set;
        let beside = match &self.stale {
            Some((until, stale)) if self.now < *until => &stale[set],
            Some(_) | None => &self.consul.beside[set],
        };
        let found = (beside.ballots_index.max(1), beside.ballots.clone());
        self.reply(request, vec![Event::BallotsRead { result: Ok(found) }]);
    }

    /// Whoever waits for ballots of this set is answered.
    pub(crate) fn ballots_changed(&mut self, set: usize) {
        let waiters = std::mem::take(&mut self.ballot_waiters);
        for waiter in waiters {
            if self.instances[self.agents[waiter.agent].at].set == set {
                self.answer_ballots(waiter);
            } else {
                self.ballot_waiters.push(waiter);
            }
        }
    }

    /// What Consul does about it, and the events of its answer; `None`: the answer has to wait.
    fn carry_out(&mut self, request: &mut Request) -> Option<Vec<Event>> {
        let agent = request.agent;
        let set = self.instances[self.agents[agent].at].set;
        let now = self.now;
        if let Some(events) = self.lock_step(set, request) {
            return Some(events);
        }
        let event = match &request.action {
            Action::CreateSession => {
                let ttl = duration(self.params.sets[set].timing.session_ttl());
                let lives = ttl + self.rng.below(ttl);
                let id = self.consul.create_session(now, lives);
                self.schedule(
                    lives,
                    Due::SessionEnds {
                        session: id.clone(),
                    },
                );
                Event::SessionCreated { result: Ok(id) }
            }
            Action::RenewSession { session } => Event::SessionRenewed {
                session: session.clone(),
                result: Ok(self.consul.renew_session(session, now)),
            },
            Action::DestroySession { session } => {
                let freed = self.consul.end_session(session);
                self.locks_changed(&freed);
                Event::SessionDestroyed
            }
            Action::ReadLock => {
                if !request.given_up {
                    self.looked(agent);
                }
                Event::LockRead {
                    asked_at: request.asked_at,
                    by_watch: false,
                    result: Ok(self.consul.sight(set)),
                }
            }
            Action::ReadBoard => Event::BoardRead {
                result: Ok(Box::new(self.consul.board(set))),
            },
            Action::WriteBallot { ballot } => {
                let index = ballot.index;
                self.consul.write_ballot(set, ballot);
                self.ballots_changed(set);
                let beside = &self.consul.beside[set];
                let found = (beside.ballots_index, beside.ballots.clone());
                Event::BallotWritten {
                    index,
                    result: Ok(found),
                }
            }
            Action::ReadBallots { after, .. } => {
                let found = self.consul.beside[set].ballots_index;
                if *after > 0 && found <= *after {
                    return None;
                }
                Event::BallotsRead {
                    result: Ok((found.max(1), self.consul.beside[set].ballots.clone())),
                }
            }
            Action::WriteSwitchover {
                index, switchover, ..
            } => {
                let written = self.consul.write_switchover(set, *index, switchover);
                self.order_written(set);
                Event::SwitchoverWritten {
                    result: Ok(written),
                }
            }
            Action::ReadHistory => Event::HistoryRead {
                result: Ok(self.consul.beside[set].history.values().cloned().collect()),
            },
            Action::WriteHistory { line, .. } => {
                let term = line.term;
                self.consul.beside[set]
                    .history
                    .insert(term, (**line).clone());
                Event::HistoryWritten {
                    term,
                    result: Ok(()),
                }
            }
            Action::Tell { entry, register } => {
                let known = self.check_told(agent, entry, *register, request.given_up);
                Event::CatalogEnded { result: Ok(known) }
            }
            Action::Deregister => {
                self.check_deregistered(agent);
                Event::CatalogEnded { result: Ok(true) }
            }
            Action::WriteMember { member } => {
                let written = self.consul.write_member(set, member, request.rests_on, now);
                if written {
                    self.check_member(agent, member);
                }
                if written && !request.given_up {
                    self.agents[agent].member_written = now;
                }
                Event::MemberEnded {
                    result: written.then_some(()).ok_or_else(|| fault(false)),
                }
            }
            Action::Guard(_)
            | Action::Kill
            | Action::AskPromises { .. }
            | Action::Acquire { .. }
            | Action::Refresh { .. }
            | Action::TakeOver { .. }
            | Action::Release { .. }
            | Action::Vshard(_)
            | Action::Exit { .. } => return Some(Vec::new()),
        };
        Some(vec![event])
    }

    /// `None`: it is no step at the lock.
    fn lock_step(&mut self, set: usize, request: &Request) -> Option<Vec<Event>> {
        let before = self.consul.record(set).cloned();
        let changed_at = self.checks.lock_changed_at(set);
        let (step, result) = self.consul.lock_step(set, &request.action)?;
        if self.is_traced() {
            let agent = request.agent;
            self.note(|_| format!("Consul: {step:?} of agent-{agent}: {result:?}"));
        }
        let mut events = Vec::new();
        if result.is_ok() {
            if step == LockStepKind::Refresh {
                let board = Box::new(self.consul.board(set));
                events.push(Event::BoardSeen {
                    asked_at: request.asked_at,
                    result: Ok(board),
                });
            }
            self.check_succession(set, request, before.as_deref(), changed_at);
            self.check_lock_step(set, request.agent, &request.action);
            self.locks_changed(&[set]);
        }
        events.push(Event::LockStepEnded {
            step,
            result: Ok(result),
        });
        Some(events)
    }

    pub(crate) fn session_ends(&mut self, session: crate::decide::ids::SessionId) {
        let Some(found) = self.consul.sessions.get(&session).copied() else {
            return;
        };
        let ends_at = found.renewed_at + found.lives;
        if ends_at > self.now {
            self.schedule_at(ends_at, Due::SessionEnds { session });
        } else if self.now < self.leader_at {
            self.schedule_at(self.leader_at + SEC, Due::SessionEnds { session });
        } else {
            self.note(|_| format!("Consul: {session} expires"));
            let freed = self.consul.end_session(&session);
            self.locks_changed(&freed);
        }
    }

    pub(crate) fn ask_promises(&mut self, agent: usize, action: &Action) {
        let Action::AskPromises {
            term,
            instance,
            lasting,
            members,
            reading,
            for_all,
        } = action
        else {
            return;
        };
        let id = self.next_id();
        let set = self.instances[self.agents[agent].at].set;
        self.agents[agent].asking = Some(Asking {
            id,
            reading: *reading,
            for_all: for_all.is_some(),
            members: members.keys().cloned().collect(),
            answers: BTreeMap::new(),
        });
        for (name, address) in members {
            let member = self.find(set, name).filter(|_| address.is_ok());
            let Some(member) = member else {
                continue;
            };
            let after = self.delay();
            let question = Box::new(Question {
                id,
                agent,
                member,
                to: instance.clone(),
                term: *term,
                lasting: duration(*lasting),
                for_all: for_all.as_ref().map(|_| members.keys().cloned().collect()),
                vclock: for_all.clone().unwrap_or_default(),
            });
            self.schedule(after, Due::Ask(question));
        }
        let patience = duration(self.params.sets[set].timing.promise_timeout());
        let patience = if members.is_empty() { 0 } else { patience };
        self.schedule(patience, Due::AskingEnds { agent, id });
    }

    pub(crate) fn asked_for_promise(&mut self, question: Box<Question>) {
        let from = self.agents[question.agent].at;
        let there = &self.instances[question.member];
        if self.cuts[from][question.member].is_some() || !there.alive {
            return;
        }
        if there.frozen {
            let at = there.frozen_until + self.rng.below(5 * MS);
            self.schedule_at(at.max(self.now + MS), Due::Ask(question));
            return;
        }
        let now_ns = there.clock.instance(self.now).monotonic_ns;
        let asked = (question.to.as_str(), question.term, question.lasting);
        let knows_more = question.for_all.as_ref().map(|asked| {
            let mut known = self.sets[there.set].members.clone();
            known.any(|it| {
                let name = &self.instances[it].name;
                *name != question.to && !asked.contains(name)
            })
        });
        // Whatever is missing among those asked, rows or a member, the guard does not stand for.
        let has_more = rows_missing(&there.vclock(), &question.vclock) > 0;
        let knows_more = knows_more.map(|knows_more| knows_more || has_more);
        let there = &mut self.instances[question.member];
        let (name, read_only) = (there.name.clone(), there.read_only);
        let answer = match &mut there.guard {
            Some(guard) => {
                let for_all =
                    knows_more.map_or(Ok(()), |knows_more| guard.stand_for_all(knows_more));
                guard.promise(&name, read_only, asked, now_ns, for_all)
            }
            None => Err("it has no guard that could promise".to_owned()),
        };
        self.note(|_| {
            format!(
                "instance {} promises {}: {answer:?}",
                question.member, question.to
            )
        });
        if self.cuts[question.member][from].is_none() {
            let after = self.delay();
            self.schedule(after, Due::Promised { question, answer });
        }
    }

    pub(crate) fn promise_answered(&mut self, question: &Question, answer: Result<(), String>) {
        let name = self.instances[question.member].name.clone();
        let agent = &mut self.agents[question.agent];
        let Some(asking) = agent
            .asking
            .as_mut()
            .filter(|asking| asking.id == question.id)
        else {
            return;
        };
        asking.answers.insert(name, answer);
        if asking.answers.len() == asking.members.len() {
            self.asking_ends(question.agent, question.id);
        }
    }

    pub(crate) fn asking_ends(&mut self, agent: usize, id: u64) {
        let it = &mut self.agents[agent];
        let Some(mut asking) = it.asking.take_if(|asking| asking.id == id) else {
            return;
        };
        for name in asking.members {
            asking
                .answers
                .entry(name)
                .or_insert_with(|| Err("no answer".to_owned()));
        }
        let all = asking.answers.values().all(Result::is_ok);
        if all && !asking.for_all {
            self.checks.promised(it.at, asking.reading.t0, self.now);
        }
        self.step(
            agent,
            Event::PromisesAnswered {
                unguarded: Default::default(),
                reading: asking.reading,
                answers: asking.answers,
            },
        );
    }
}

/// A fault of the kind that the watch reports.
pub(crate) fn no_answer() -> crate::decide::sight::ConsulFault {
    fault(false)
}
