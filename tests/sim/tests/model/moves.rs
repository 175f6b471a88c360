//! The moves: everything whose order, or whether it happens at all, is up to the world.

use crate::chain::without_answer;
use crate::decide::event::Event;
use crate::decide::plan::{Action, GuardCommand};
use crate::world::{PATIENCE, QUARTER, SHORT, TURNS_TAKE, World, seen};

/// One thing that may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    /// Time passes.
    Tick,
    /// Consul carries out a step at the lock, and its reply arrives.
    Deliver(usize),
    /// A step stays on its way while time passes. A fault.
    Slow(usize),
    /// There is no reply to a step: lost, or its reply is, or it is late. A fault.
    GiveUp(usize),
    /// A step that was given up is carried out after all.
    Late(usize),
    /// The agent does nothing for a while. A fault.
    Pause(usize),
    /// It goes on.
    Resume(usize),
    /// The agent dies. A fault.
    AgentDies(usize),
    /// A new one starts.
    AgentStarts(usize),
    /// The agent is asked to stop. Counts as a fault.
    Stop(usize),
    /// The instance answers nothing and runs nothing for a while. A fault.
    Freeze(usize),
    /// It goes on.
    Thaw(usize),
    /// The instance dies. A fault.
    InstanceDies(usize),
    /// It is there again.
    InstanceStarts(usize),
    /// Consul ends the session that holds the lock. A fault, unless nobody renews it.
    Expire,
    /// A master writes a row, which one other node has before its client is told that it is safe.
    Write(usize, usize),
    /// Rows arrive.
    Flow(usize, usize),
    /// Consul answers nobody. A fault.
    ConsulGoes,
    /// It answers again.
    ConsulComes,
}

impl World {
    /// What may happen now.
    pub(crate) fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        let may_fail = self.faults_left > 0;
        let may_be_lost = may_fail && self.bounds.rows == 0;
        let mut add = |when: bool, what: Move| {
            if when {
                moves.push(what);
            }
        };
        let overdue = self.nodes.iter().any(|node| {
            let sent = node.step.as_ref();
            sent.is_some_and(|sent| !sent.slow || sent.at + PATIENCE <= self.now)
        });
        add(!overdue && self.now < self.ends_at, Move::Tick);
        for (n, node) in self.nodes.iter().enumerate() {
            if let Some(sent) = &node.step {
                add(!self.consul_down, Move::Deliver(n));
                add(may_be_lost && !sent.slow, Move::Slow(n));
                add(may_be_lost || sent.slow, Move::GiveUp(n));
            }
            add(!self.consul_down && !node.orphans.is_empty(), Move::Late(n));
            add(may_fail && node.running && !node.paused, Move::Pause(n));
            add(node.running && node.paused, Move::Resume(n));
            add(may_be_lost && node.running, Move::AgentDies(n));
            let reachable = node.alive && !node.frozen;
            add(!node.running && reachable, Move::AgentStarts(n));
            add(
                may_be_lost && node.running && !node.paused && !node.stops,
                Move::Stop(n),
            );
            add(may_be_lost && reachable, Move::Freeze(n));
            add(node.alive && node.frozen, Move::Thaw(n));
            add(may_fail && node.alive, Move::InstanceDies(n));
            let starts = !node.alive && !node.paused && self.bounds.rows == 0;
            add(starts, Move::InstanceStarts(n));
            for to in (0..self.nodes.len()).filter(|to| *to != n) {
                let writes = self.writes_left > 0 && self.is_writable(n);
                let reached = self.nodes[to].alive && !self.nodes[to].frozen;
                add(writes && reached, Move::Write(n, to));
                add(
                    self.bounds.rows > 0 && self.may_flow(n, to),
                    Move::Flow(n, to),
                );
            }
        }
        let held = self.consul.holder(0).is_some() && !self.consul_down;
        add(held && (may_be_lost || self.is_abandoned()), Move::Expire);
        add(may_be_lost && !self.consul_down, Move::ConsulGoes);
        add(self.consul_down, Move::ConsulComes);
        moves
    }

    /// No agent that is awake renews the session that holds the lock.
    fn is_abandoned(&self) -> bool {
        let holder = self.consul.holder(0);
        let mut awake = self
            .nodes
            .iter()
            .filter(|node| node.running && !node.paused);
        awake.all(|node| node.state.session.id.as_ref() != holder)
    }

    /// The world after it.
    pub(crate) fn after(&self, what: Move) -> World {
        let mut world = self.clone();
        world.seen = 0;
        world.go(what);
        world.seal();
        world
    }

    fn go(&mut self, what: Move) {
        match what {
            Move::Tick => self.tick(),
            Move::Deliver(n) => self.deliver(n),
            Move::Slow(n) => {
                self.faults_left -= 1;
                if let Some(sent) = &mut self.node(n).step {
                    sent.slow = true;
                }
            }
            Move::GiveUp(n) => {
                let slow = self.nodes[n].step.as_ref().is_some_and(|sent| sent.slow);
                self.faults_left -= u8::from(!slow);
                self.give_up(n);
            }
            Move::Late(n) => {
                if let Some(action) = self.node(n).orphans.pop_front() {
                    let _ = self.carry_out(&action);
                    self.notify();
                }
            }
            Move::Pause(n) => {
                self.faults_left -= 1;
                self.node(n).paused = true;
            }
            Move::Resume(n) => self.resume(n),
            Move::AgentDies(n) => {
                self.faults_left -= 1;
                self.agent_ends(n);
            }
            Move::AgentStarts(n) => {
                let bounds = self.bounds;
                self.node(n).new_run(bounds, n);
                self.attach(n);
            }
            Move::Stop(n) => {
                self.faults_left -= 1;
                self.node(n).stops = true;
                self.hear(n, Event::StopRequested { signal: "SIGTERM" });
            }
            Move::Freeze(n) => {
                self.faults_left -= 1;
                self.node(n).frozen = true;
                self.hear(n, Event::FellSilent);
            }
            Move::Thaw(n) => self.thaw(n),
            Move::InstanceDies(n) => {
                self.faults_left -= 1;
                self.process_ends(n);
                let proof = "its process is exiting".to_owned();
                self.hear(n, Event::Died { proof });
            }
            Move::InstanceStarts(n) => self.instance_starts(n),
            Move::Expire => {
                self.faults_left -= u8::from(!self.is_abandoned());
                if let Some(session) = self.consul.holder(0).cloned() {
                    self.store().end_session(&session);
                    self.notify();
                }
            }
            Move::Write(n, to) => {
                self.writes_left -= 1;
                self.node(n).rows[n] += 1;
                self.flow(n, to);
                self.acknowledged[n] = self.nodes[n].rows[n];
            }
            Move::Flow(from, to) => self.flow(from, to),
            Move::ConsulGoes => self.consul_goes(),
            Move::ConsulComes => {
                self.consul_down = false;
                for n in 0..self.nodes.len() {
                    if self.nodes[n].running {
                        self.tell_lock(n);
                    }
                }
            }
        }
        self.drain();
    }

    /// By a quarter of a lease, or only a moment ahead where somebody waits for no more than that.
    pub(crate) fn tick(&mut self) {
        let soon = self.now + SHORT;
        let short = self.nodes.iter().any(|node| {
            let at = node.wake_at.filter(|_| node.running && !node.paused);
            at.is_some_and(|at| at <= crate::decide::timing::Tick::at(crate::world::duration(soon)))
        });
        self.now += if short { SHORT } else { QUARTER + TURNS_TAKE };
        for n in 0..self.nodes.len() {
            self.node(n).turns = 0;
            self.time_passes_inside(n);
        }
        self.beat();
        self.answer_ballots(true);
        for n in 0..self.nodes.len() {
            let now = self.clock(n);
            let node = &self.nodes[n];
            if node.wake_at.is_some_and(|at| at <= now) && node.running && !node.paused {
                self.node(n).wake_at = None;
                self.hear(n, Event::Woke);
            }
        }
        self.drain();
    }

    /// The fencing fiber, which sleeps until the deadline.
    pub(crate) fn time_passes_inside(&mut self, n: usize) {
        let node = &self.nodes[n];
        let Some(guard) = node.guard.as_ref().filter(|guard| guard.leased) else {
            return;
        };
        if guard.deadline_ns > self.clock_ns(n) {
            return;
        }
        if node.frozen {
            let sent = node
                .parked
                .iter()
                .filter_map(|(_, action)| deadline(action))
                .max();
            if sent.is_some_and(|sent| sent > self.clock_ns(n)) {
                // For all that its agent knows this lease has arrived.
                return;
            }
            let could_kill = node.running && !node.paused;
            let node = self.node(n);
            node.overdue = if could_kill {
                node.overdue.saturating_add(1).min(3)
            } else {
                0
            };
        } else {
            self.seen |= seen::DEADLINE;
            self.fence(n, "its lease ended");
        }
    }

    pub(crate) fn deliver(&mut self, n: usize) {
        if let Some(sent) = self.node(n).step.take() {
            let (step, result) = self.carry_out(&sent.action);
            if step == crate::decide::event::LockStepKind::Refresh && result.is_ok() {
                let board = Box::new(self.consul.board(0));
                let asked_at = self.clock(n);
                let result = Ok(board);
                self.hear(n, Event::BoardSeen { asked_at, result });
            }
            let result = Ok(result);
            self.hear(n, Event::LockStepEnded { step, result });
            self.notify();
        }
        self.drain();
    }

    /// Its sender hears that there is no answer; whether it is carried out is another matter.
    fn give_up(&mut self, n: usize) {
        if let Some(sent) = self.node(n).step.take() {
            let event = without_answer(&sent.action, self.clock(n));
            self.node(n).orphans.push_back(sent.action);
            self.hear(n, event);
        }
    }

    fn resume(&mut self, n: usize) {
        let node = self.node(n);
        node.paused = false;
        node.watch_in_inbox = false;
        for event in std::mem::take(&mut node.inbox) {
            self.hear(n, event);
        }
        self.hear(n, Event::Woke);
        self.notify();
    }

    pub(crate) fn agent_ends(&mut self, n: usize) {
        let node = self.node(n);
        node.running = false;
        node.paused = false;
        node.inbox.clear();
        node.wake_at = None;
        node.ballots_after = None;
        if let Some(sent) = node.step.take() {
            node.orphans.push_back(sent.action);
        }
    }

    pub(crate) fn process_ends(&mut self, n: usize) {
        let node = self.node(n);
        node.alive = false;
        node.frozen = false;
        node.read_only = true;
        node.guard = None;
        node.parked.clear();
        node.overdue = 0;
    }

    fn instance_starts(&mut self, n: usize) {
        let node = self.node(n);
        node.alive = true;
        node.pid += 1;
        if node.running {
            self.attach(n);
        }
    }

    /// What was queued in a frozen instance runs when it goes on. Its guard is given the lead, unless an agent that was
    /// awake has let it live for long after its lease.
    fn thaw(&mut self, n: usize) {
        let node = self.node(n);
        node.frozen = false;
        let overdue = std::mem::take(&mut node.overdue);
        let now_ns = self.clock_ns(n);
        let node = &self.nodes[n];
        let over = node
            .guard
            .as_ref()
            .is_some_and(|guard| guard.leased && guard.deadline_ns <= now_ns);
        if over {
            if overdue >= 2 {
                self.seen |= seen::HUNG_WENT_ON;
            }
            self.fence(n, "its lease ended");
        }
        for (attach, action) in std::mem::take(&mut self.node(n).parked) {
            if self.nodes[n]
                .guard
                .as_ref()
                .is_some_and(|guard| guard.owner.1 == attach)
            {
                self.obey(n, &action, false);
            }
        }
        self.hear(n, Event::SpokeAgain);
    }

    fn consul_goes(&mut self) {
        self.faults_left -= 1;
        self.consul_down = true;
        for n in 0..self.nodes.len() {
            self.give_up(n);
            if self.nodes[n].running {
                self.cannot_watch(n);
            }
        }
    }
}

/// Until when a lease that is on its way to the guard would run.
fn deadline(action: &Action) -> Option<u64> {
    match action {
        Action::Guard(
            GuardCommand::Promote { deadline, .. } | GuardCommand::Grant { deadline, .. },
        ) => Some(deadline.monotonic_ns),
        _ => None,
    }
}
