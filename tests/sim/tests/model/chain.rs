//! What goes by itself: an agent's turns, its instance's answers, and Consul's where their order decides nothing.

use std::collections::BTreeMap;

use crate::decide::decide;
use crate::decide::event::{Event, GuardCommandKind, KillResult, LockStepKind};
use crate::decide::plan::{Action, GuardCommand};
use crate::decide::record::{Record, Status};
use crate::decide::term::Term;
use crate::guard::{Guard, Promotion};
use crate::time::ns;
use crate::world::{Sent, World, fault, name, seen};

/// More turns than that in one move are a loop that finds no rest.
const TURNS_MAX: u32 = 500;

impl World {
    pub(crate) fn hear(&mut self, n: usize, event: Event) {
        self.queue.push_back((n, event));
    }

    /// Everybody hears what there is to hear, in the order in which it happened.
    pub(crate) fn drain(&mut self) {
        let mut turns = 0;
        while let Some((n, event)) = self.queue.pop_front() {
            turns += 1;
            assert!(turns < TURNS_MAX, "agents find no rest: {event:?}");
            let node = &self.nodes[n];
            if !node.running {
                continue;
            }
            if node.paused {
                self.node(n).inbox.push(event);
                continue;
            }
            self.turn(n, event);
        }
    }

    /// One turn of an agent's loop.
    fn turn(&mut self, n: usize, event: Event) {
        self.node(n).turns += 1;
        if !self.nodes[n].frozen {
            self.time_passes_inside(n);
        }
        let now = self.clock(n);
        let node = self.node(n);
        // No two machines agree about the time of day.
        let hours = u64::try_from(n).unwrap_or(0) + 1;
        node.state.reads_wall_clock(hours * 3_600_000);
        node.state.apply(event, now);
        let plan = decide(&node.state, now);
        for action in &plan.actions {
            node.state.begin(action, now);
        }
        node.wake_at = plan.wake_at;
        if matches!(
            plan.reason,
            crate::decide::plan::Reason::ServingOnPromises { .. }
        ) {
            self.seen |= seen::ON_PROMISES;
        }
        for action in plan.actions {
            self.perform(n, action);
        }
    }

    fn perform(&mut self, n: usize, action: Action) {
        let event = match action {
            Action::Acquire { .. }
            | Action::Refresh { .. }
            | Action::TakeOver { .. }
            | Action::Release { .. } => return self.send_step(n, action),
            Action::Guard(_) => return self.command(n, action),
            Action::Kill => return self.kill(n),
            Action::Exit { .. } => return self.agent_ends(n),
            Action::AskPromises { .. } => self.ask_promises(n, &action),
            Action::Vshard(_) => return,
            _ if self.consul_down => without_answer(&action, self.clock(n)),
            Action::CreateSession => {
                let now = self.now;
                Event::SessionCreated {
                    result: Ok(self.store().create_session(now, 0)),
                }
            }
            Action::RenewSession { session } => {
                let now = self.now;
                let result = Ok(self.store().renew_session(&session, now));
                Event::SessionRenewed { session, result }
            }
            Action::DestroySession { session } => {
                self.store().end_session(&session);
                Event::SessionDestroyed
            }
            Action::ReadLock => Event::LockRead {
                asked_at: self.clock(n),
                by_watch: false,
                result: Ok(self.consul.sight(0)),
            },
            Action::ReadBoard => Event::BoardRead {
                result: Ok(Box::new(self.consul.board(0))),
            },
            Action::WriteBallot { ballot } => {
                self.store().write_ballot(0, &ballot);
                let beside = &self.consul.beside[0];
                Event::BallotWritten {
                    index: ballot.index,
                    result: Ok((beside.ballots_index, beside.ballots.clone())),
                }
            }
            Action::ReadBallots { after, .. } => {
                self.node(n).ballots_after = Some(after);
                return self.answer_ballots(false);
            }
            Action::WriteSwitchover {
                index, switchover, ..
            } => Event::SwitchoverWritten {
                result: Ok(self.store().write_switchover(0, index, &switchover)),
            },
            Action::ReadHistory => Event::HistoryRead {
                result: Ok(self.consul.beside[0].history.values().cloned().collect()),
            },
            Action::WriteHistory { line, .. } => {
                let term = line.term;
                self.store().beside[0].history.insert(term, *line);
                Event::HistoryWritten {
                    term,
                    result: Ok(()),
                }
            }
            Action::Tell { .. } | Action::Deregister => Event::CatalogEnded { result: Ok(true) },
            Action::WriteMember { member } => {
                let members = &mut self.store().beside[0].members;
                members.insert(member.instance.clone(), *member);
                Event::MemberEnded { result: Ok(()) }
            }
        };
        self.hear(n, event);
        self.notify();
        self.answer_ballots(false);
    }

    /// Readers of ballots are answered when there are others, or when they have waited (`over`).
    pub(crate) fn answer_ballots(&mut self, over: bool) {
        let index = self.consul.beside[0].ballots_index;
        for n in 0..self.nodes.len() {
            let waits = self.nodes[n].ballots_after;
            if waits.is_some_and(|after| over || after == 0 || index > after) {
                self.node(n).ballots_after = None;
                let ballots = self.consul.beside[0].ballots.clone();
                let result = Ok((index.max(1), ballots));
                self.hear(n, Event::BallotsRead { result });
            }
        }
    }

    /// The watch on the lock: whoever has not been told of the last change is told now.
    pub(crate) fn notify(&mut self) {
        let index = self.consul.watch_index(0);
        for n in 0..self.nodes.len() {
            let node = &self.nodes[n];
            // Without a key there is no change to be told of.
            let told =
                node.watched == index || (node.watched > 0 && self.consul.locks[0].is_none());
            if node.running && node.attaches > 0 && !told && !self.consul_down {
                self.tell_lock(n);
            }
        }
    }

    /// The looks at the lock that nothing has ended: each says that Consul can be read.
    pub(crate) fn beat(&mut self) {
        for n in 0..self.nodes.len() {
            let node = &self.nodes[n];
            if node.running && !node.paused && node.watched > 0 && !self.consul_down {
                // Each is held for a moment, against what passes between two ticks.
                let now = self.clock(n);
                self.node(n).watch_asked_at = now;
                self.tell_lock(n);
            }
        }
    }

    pub(crate) fn tell_lock(&mut self, n: usize) {
        let index = self.consul.watch_index(0);
        let sight = self.consul.sight(0);
        let now = self.clock(n);
        let node = self.node(n);
        if node.paused && node.watch_in_inbox {
            // It does not ask again before it has heard the last answer.
            return;
        }
        node.watch_in_inbox = node.paused;
        node.watched = index;
        let asked_at = std::mem::replace(&mut node.watch_asked_at, now);
        self.hear(
            n,
            Event::LockRead {
                asked_at,
                by_watch: true,
                result: Ok(sight),
            },
        );
    }

    fn send_step(&mut self, n: usize, action: Action) {
        if self.consul_down {
            let event = without_answer(&action, self.clock(n));
            return self.hear(n, event);
        }
        let at = self.now;
        let node = self.node(n);
        assert!(node.step.is_none(), "one step at a time: {action:?}");
        node.step = Some(Sent {
            action,
            at,
            slow: false,
        });
    }

    /// A new connection to the instance: the guard is there, and belongs to it.
    pub(crate) fn attach(&mut self, n: usize) {
        let now_ns = self.clock_ns(n);
        let node = self.node(n);
        node.attaches += 1;
        let owner = (n, node.attaches);
        let guard = node.guard.get_or_insert_with(|| Guard::new(now_ns));
        guard.owner = owner;
        if node.read_only && guard.needs_barrier() {
            guard.barrier_epoch = Some(guard.epoch);
        }
        let Some(probe) = self.probe(n) else {
            return;
        };
        let process = Ok(());
        self.hear(n, Event::Attached { probe, process });
        self.drain();
        if self.nodes[n].watched == 0 && !self.consul_down {
            self.tell_lock(n);
        }
        if self.consul_down {
            self.cannot_watch(n);
        }
    }

    pub(crate) fn cannot_watch(&mut self, n: usize) {
        let asked_at = self.clock(n);
        self.hear(
            n,
            Event::LockRead {
                asked_at,
                by_watch: true,
                result: Err(fault()),
            },
        );
    }

    fn command(&mut self, n: usize, action: Action) {
        let node = &self.nodes[n];
        if node.alive && !node.frozen {
            return self.obey(n, &action, true);
        }
        let command = guard_command(&action);
        if node.alive {
            let attach = node.attaches;
            self.node(n).parked.push((attach, action));
        }
        let why = "no answer".to_owned();
        self.hear(n, Event::GuardFailed { command, why });
    }

    /// The guard does what it is told, by a command that may have waited in a frozen instance (`answered` false).
    pub(crate) fn obey(&mut self, n: usize, action: &Action, answered: bool) {
        let now_ns = self.clock_ns(n);
        let vclock = self.vclock(n);
        let node = self.node(n);
        let Some(guard) = &mut node.guard else {
            return;
        };
        let mut promoted = None;
        let result = match action {
            Action::Guard(GuardCommand::Promote {
                term,
                deadline,
                before,
                reading,
            }) => {
                let promotion = Promotion {
                    term: *term,
                    deadline: *deadline,
                    t0: reading.t0,
                    owner: guard.owner,
                    epoch: (!guard.leased).then_some(guard.epoch),
                };
                let result = guard
                    .may_promote(&name(n), &promotion, *before, now_ns)
                    .and_then(|()| guard.promote(&promotion, &vclock, now_ns));
                if result.is_ok() {
                    node.read_only = false;
                    promoted = Some(*term);
                }
                result
            }
            Action::Guard(GuardCommand::Grant { term, deadline, .. }) => {
                guard.grant(*term, *deadline, now_ns)
            }
            Action::Guard(GuardCommand::Remember { session }) => {
                guard.session = Some(session.as_str().to_owned());
                Ok(())
            }
            Action::Guard(GuardCommand::Observe { term }) => {
                guard.observe(*term);
                Ok(())
            }
            Action::Guard(GuardCommand::Follow { uri, .. }) => {
                guard.follows = Some(uri.clone().unwrap_or_default());
                Ok(())
            }
            Action::Guard(GuardCommand::Fence { .. }) => {
                self.fence(n, "its agent said so");
                Ok(())
            }
            _ => Ok(()),
        };
        if let Some(term) = promoted {
            self.note_promotion(n, term);
        }
        if answered && let Some(probe) = self.probe(n) {
            let event = Event::GuardAnswered {
                command: guard_command(action),
                probe,
                refused: result.err(),
            };
            self.hear(n, event);
        }
    }

    fn note_promotion(&mut self, n: usize, term: Term) {
        let rows = &self.nodes[n].rows;
        let mut needed = rows.iter().zip(&self.acknowledged);
        if needed.any(|(has, acknowledged)| has < acknowledged) {
            self.seen |= seen::ROW_LOST;
        } else if self.acknowledged.iter().any(|rows| *rows > 0) {
            self.seen |= seen::ROW_KEPT;
        }
        let below = self
            .served
            .iter()
            .any(|(known, by)| *known > term || (*known == term && *by != n));
        if below {
            self.seen |= seen::PROMOTED_BELOW;
        }
        if self.served.contains(&(term, n)) {
            self.seen |= seen::SAME_TERM;
            return;
        }
        if self.served.last().is_some_and(|(_, by)| *by != n) {
            self.seen |= seen::OTHER_MASTER;
        }
        self.served.push((term, n));
    }

    /// Read-only, and what was under way has landed: the model's disks do not hang.
    pub(crate) fn fence(&mut self, n: usize, why: &'static str) {
        let node = self.node(n);
        let was_read_only = std::mem::replace(&mut node.read_only, true);
        if let Some(guard) = &mut node.guard {
            guard.fence(was_read_only, why);
            if guard.needs_barrier() {
                guard.barrier_epoch = Some(guard.epoch);
            }
        }
    }

    fn kill(&mut self, n: usize) {
        let node = &self.nodes[n];
        let spared = self
            .probe(n)
            .filter(|probe| node.alive && !node.frozen && probe.ro && !probe.guard.leased);
        if let Some(probe) = spared {
            let result = KillResult::Spared(probe);
            return self.hear(n, Event::KillEnded { result });
        }
        self.seen |= seen::KILLED;
        self.process_ends(n);
        let result = KillResult::Killed;
        self.hear(n, Event::KillEnded { result });
        let proof = "its process is exiting".to_owned();
        self.hear(n, Event::Died { proof });
    }

    /// The other guards are asked at once, and answer at once if they can.
    fn ask_promises(&mut self, n: usize, action: &Action) -> Event {
        let mut answers = BTreeMap::new();
        let Action::AskPromises {
            term,
            instance,
            lasting,
            members,
            reading,
            for_all,
        } = action
        else {
            unreachable!("it is called for nothing else");
        };
        for member in 0..self.nodes.len() {
            if member == n || !members.contains_key(&name(member)) {
                continue;
            }
            let now_ns = self.clock_ns(member);
            let own = name(member);
            let node = self.node(member);
            let read_only = node.read_only;
            let answer = match &mut node.guard {
                Some(guard) if node.alive && !node.frozen => {
                    // Everybody knows everybody here.
                    let for_all = if for_all.is_some() {
                        guard.stand_for_all(false)
                    } else {
                        Ok(())
                    };
                    let asked = (instance.as_str(), *term, ns(*lasting));
                    guard.promise(&own, read_only, asked, now_ns, for_all)
                }
                Some(_) | None => Err("no answer".to_owned()),
            };
            answers.insert(own, answer);
        }
        Event::PromisesAnswered {
            unguarded: Default::default(),
            reading: *reading,
            answers,
        }
    }

    /// What Consul does about a step at the lock.
    pub(crate) fn carry_out(&mut self, action: &Action) -> (LockStepKind, Result<u64, String>) {
        let before = self.consul.record(0).cloned();
        let Some((step, result)) = self.store().lock_step(0, action) else {
            unreachable!("only steps at the lock are sent");
        };
        if result.is_err() {
            self.seen |= seen::STEP_REFUSED;
        } else if let Some(after) = self.consul.record(0).cloned() {
            self.note_written(step, before.as_deref(), &after);
        }
        (step, result)
    }

    fn note_written(&mut self, step: LockStepKind, before: Option<&Record>, after: &Record) {
        let Some(before) = before else {
            return;
        };
        if after.term < before.term {
            self.seen |= seen::TERM_WENT_BACK;
        }
        let other = before.instance != after.instance;
        match step {
            LockStepKind::TakeOver if other => self.seen |= seen::TAKEN_OVER,
            LockStepKind::Acquire if other && before.status == Status::Fenced => {
                self.seen |= seen::BY_RELEASE;
            }
            LockStepKind::Acquire if other => self.seen |= seen::AFTER_A_WAIT,
            LockStepKind::Release if after.status == Status::Fenced => {
                let writer = (0..self.nodes.len()).find(|n| name(*n) == after.instance);
                if writer.is_some_and(|n| self.is_writable(n) || self.is_leased(n)) {
                    self.seen |= seen::FENCED_TOO_EARLY;
                }
            }
            LockStepKind::Acquire
            | LockStepKind::TakeOver
            | LockStepKind::Refresh
            | LockStepKind::Release => {}
        }
    }
}

fn guard_command(action: &Action) -> GuardCommandKind {
    let Some(command) = action.guard_command_kind() else {
        unreachable!("not for the guard: {action:?}");
    };
    command
}

/// What an agent hears of a request to Consul that nobody answers.
pub(crate) fn without_answer(action: &Action, asked_at: crate::decide::timing::Tick) -> Event {
    let step = |step| Event::LockStepEnded {
        step,
        result: Err(fault()),
    };
    match action {
        Action::Acquire { .. } => step(LockStepKind::Acquire),
        Action::TakeOver { .. } => step(LockStepKind::TakeOver),
        Action::Refresh { .. } => step(LockStepKind::Refresh),
        Action::Release { .. } => step(LockStepKind::Release),
        Action::CreateSession => Event::SessionCreated {
            result: Err(fault()),
        },
        Action::RenewSession { session } => Event::SessionRenewed {
            session: session.clone(),
            result: Err(fault()),
        },
        Action::DestroySession { .. } => Event::SessionDestroyed,
        Action::ReadLock => Event::LockRead {
            asked_at,
            by_watch: false,
            result: Err(fault()),
        },
        Action::ReadBoard => Event::BoardRead {
            result: Err(fault()),
        },
        Action::WriteBallot { ballot } => Event::BallotWritten {
            index: ballot.index,
            result: Err(fault()),
        },
        Action::ReadBallots { .. } => Event::BallotsRead {
            result: Err(fault()),
        },
        Action::WriteSwitchover { .. } => Event::SwitchoverWritten {
            result: Err(fault()),
        },
        Action::ReadHistory => Event::HistoryRead {
            result: Err(fault()),
        },
        Action::WriteHistory { line, .. } => Event::HistoryWritten {
            term: line.term,
            result: Err(fault()),
        },
        Action::Tell { .. } | Action::Deregister => Event::CatalogEnded {
            result: Err(fault()),
        },
        Action::WriteMember { .. } => Event::MemberEnded {
            result: Err(fault()),
        },
        other => unreachable!("not for Consul: {other:?}"),
    }
}
