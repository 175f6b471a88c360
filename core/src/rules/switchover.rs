//! Another master at an operator's wish: the target is made ready while everything goes on, then the instance is
//! fenced, the target gets the last rows, and the lock is released with its name on it. Until that release the record
//! is never `fenced`, so nothing that happens on the way gives anybody a right to the lock, and the same master may be
//! writable again in the same term.

use std::time::Duration;

use super::planner::Planner;
use crate::plan::{Action, GuardCommand, Reason};
use crate::state::hold::{Gained, Handover};
use crate::state::slots::Place;
use crate::words::board::{self, Ballot, Member, Party, Switchover, SwitchoverState};
use crate::words::observed::Probe;
use crate::words::record::{Cause, Record, Status};
use crate::words::sight::KeySight;
use crate::words::term::Term;
use crate::words::vclock::rows_missing;

/// How long the target may take to catch up where the order does not say.
const CATCH_UP: Duration = Duration::from_secs(2);

/// How often a fenced master looks whether the target has everything: nothing can be written meanwhile.
const CATCH_UP_POLL: Duration = Duration::from_millis(2);

/// How often the board is read for the target's ballot, while writes go on.
const READY_POLL: Duration = Duration::from_millis(10);

impl Planner<'_> {
    /// Of a serving master: takes notice of an order, or writes down what became of one.
    pub(super) fn mind_switchover(&mut self, record: &Record, probe: &Probe) {
        let orders = &self.state.orders;
        if self.state.pending.is_busy(Place::Switchover) || self.state.hold.handover.is_some() {
            return;
        }
        let Some((index, order)) = &orders.switchover else {
            return;
        };
        if let Some(outcome) = &orders.outcome {
            self.answer_order(*index, outcome.clone(), None);
            return;
        }
        let gained = self.state.hold.gained.as_ref();
        let predates = gained.is_some_and(|gained| *index < gained.index);
        match order.state {
            SwitchoverState::Requested if predates => self.close_order(
                *index,
                order,
                SwitchoverState::Refused,
                "the master changed before it took notice".to_owned(),
            ),
            SwitchoverState::Requested => self.consider_order(*index, order, probe),
            SwitchoverState::Running if record.status == Status::Active => {
                let (state, why) = self.end_of_handover(record, gained.filter(|_| predates));
                self.close_order(*index, order, state, why);
            }
            SwitchoverState::Running
            | SwitchoverState::Done
            | SwitchoverState::Refused
            | SwitchoverState::Undone
            | SwitchoverState::None => {}
        }
    }

    /// Somebody began it, and here we are master: `gained` is how we became it, if that was after its begin.
    fn end_of_handover(
        &self,
        record: &Record,
        gained: Option<&Gained>,
    ) -> (SwitchoverState, String) {
        let Some(gained) = gained else {
            // Agents restart: the record still knows.
            return if record.cause == Cause::Switchover && self.state.hold.gained.is_none() {
                (SwitchoverState::Done, String::new())
            } else {
                let why = "the master's agent restarted or lost Consul before it was carried out";
                (SwitchoverState::Undone, why.to_owned())
            };
        };
        let before = gained.predecessor.as_ref();
        let target = before.and_then(|before| before.handover_to.as_deref());
        let own = record.instance.as_str();
        match target {
            Some(target) if target == own => (SwitchoverState::Done, String::new()),
            Some(target) if before.is_some_and(|before| before.instance == own) => (
                SwitchoverState::Undone,
                format!("{} did not take the lock", self.name_of(target)),
            ),
            Some(target) => (
                SwitchoverState::Done,
                format!(
                    "{} did not take the lock, {} did",
                    self.name_of(target),
                    self.name_of(own)
                ),
            ),
            None => (
                SwitchoverState::Refused,
                "the master changed before it was carried out".to_owned(),
            ),
        }
    }

    pub(super) fn name_of(&self, instance: &str) -> String {
        self.state.known_as(instance)
    }

    fn consider_order(&mut self, index: u64, order: &Switchover, probe: &Probe) {
        // What was known before the order came may be a refresh interval old: a pause, a member that has fallen ill or is
        // back.
        let seen_at = Some(self.state.orders.seen_at);
        let knows_board = self.state.board.as_ref().map(|(_, at)| *at) >= seen_at;
        let knows_instance = self.state.instance.answered_begun_at >= seen_at;
        if !knows_board {
            self.look_at_board(Duration::ZERO);
        }
        if !knows_instance && self.may_command_guard() {
            self.tell_guard(GuardCommand::Probe);
        }
        if !knows_board || !knows_instance {
            return;
        }
        if self.state.lock.outdated {
            return;
        }
        match self.choose_target(order, probe) {
            Ok(to) => {
                let running = Switchover {
                    state: SwitchoverState::Running,
                    why: format!("handing over to {}", to.name),
                    ..order.clone()
                };
                self.answer_order(index, running, Some(to));
            }
            Err(why) => self.close_order(index, order, SwitchoverState::Refused, why),
        }
    }

    fn close_order(&mut self, index: u64, order: &Switchover, state: SwitchoverState, why: String) {
        let closed = Switchover {
            state,
            why,
            ..order.clone()
        };
        self.answer_order(index, closed, None);
    }

    fn answer_order(&mut self, index: u64, switchover: Switchover, to: Option<Party>) {
        if self.may_call(Place::Switchover) {
            self.act(Action::WriteSwitchover {
                index,
                switchover: Box::new(switchover),
                to,
            });
        }
    }

    /// Reads the board, unless it was read that lately.
    pub(super) fn look_at_board(&mut self, interval: Duration) {
        let read_at = self.state.board.as_ref().map(|(_, at)| *at);
        if let Some(due_at) = read_at.map(|at| at + interval).filter(|at| *at > self.now) {
            self.wake(due_at);
            return;
        }
        self.read_board();
    }

    pub(super) fn read_board(&mut self) {
        if self.may_call(Place::Board) {
            self.act(Action::ReadBoard);
        }
    }

    fn choose_target(&self, order: &Switchover, probe: &Probe) -> Result<Party, String> {
        if let Some(words) = self.pause_words() {
            return Err(words);
        }
        let Some((board, _)) = &self.state.board else {
            return Err("the members are not known".to_owned());
        };
        let party = |member: &Member| Party {
            instance: member.instance.clone(),
            name: self.name_of(&member.instance),
        };
        if let Some(target) = &order.target {
            let named =
                |member: &&Member| [&member.instance, &member.name, &member.uri].contains(&target);
            let found: Vec<&Member> = board.members.values().filter(named).collect();
            return match found.as_slice() {
                [] => Err(format!("no member is called {target}")),
                [member] => self.lag_of_fit(member, probe).map(|_| party(member)),
                [_, _, ..] => {
                    let names = found.iter().map(|member| self.name_of(&member.instance));
                    let names: Vec<String> = names.collect();
                    let names = names.join(", ");
                    Err(format!("more than one member is called {target}: {names}"))
                }
            };
        }
        let mut fit = Vec::new();
        let mut unfit = Vec::new();
        for member in board
            .members
            .values()
            .filter(|member| member.instance != probe.uuid)
        {
            match self.lag_of_fit(member, probe) {
                Ok(lag) => fit.push((lag, -member.priority, member)),
                Err(why) => unfit.push(why),
            }
        }
        let best = fit
            .into_iter()
            .min_by_key(|(lag, priority, member)| (*lag, *priority, member.instance.clone()));
        match best {
            Some((_, _, member)) => Ok(party(member)),
            None if unfit.is_empty() => Err("there is no other member".to_owned()),
            None => Err(format!("no member is fit: {}", unfit.join("; "))),
        }
    }

    /// How many rows it lacks, or why it cannot be master.
    fn lag_of_fit(&self, member: &Member, probe: &Probe) -> Result<u64, String> {
        let name = self.name_of(&member.instance);
        if member.instance == probe.uuid {
            return Err(format!("{name} is the master already"));
        }
        if member.anonymous {
            return Err(format!(
                "{name} is an anonymous replica, it never becomes master"
            ));
        }
        if member.priority < 0 {
            return Err(format!(
                "{name} never becomes master: its priority is {}",
                member.priority
            ));
        }
        if member.health != "passing" {
            return Err(format!("{name} is {}: {}", member.health, member.reason));
        }
        if let Some(why) = &member.cut_off {
            return Err(format!("the master's rows do not arrive at {name}: {why}"));
        }
        let Some(confirmed) = probe.confirmed_by(&member.instance) else {
            return Err(format!("{name} does not replicate from the master"));
        };
        if !self.has_follower_after(member, probe) {
            return Err(format!(
                "nobody replicates from {name}: were it master, what is written would exist once"
            ));
        }
        let lag = rows_missing(&probe.vclock, confirmed);
        match self.state.settings.max_lag_rows {
            max @ 1.. if lag > max => Err(format!(
                "{name} lags {lag} rows behind, MAX_LAG_ROWS is {max}"
            )),
            _ => Ok(lag),
        }
    }

    /// Whether anybody that lives would have what the member writes as master: we ourselves, or who follows us now.
    fn has_follower_after(&self, member: &Member, probe: &Probe) -> bool {
        if self.state.settings.follow || probe.follows(&member.instance) {
            return true;
        }
        let living = probe.followers();
        let board = self.state.board.iter();
        let members = board.flat_map(|(board, _)| board.members.values());
        let mut others =
            members.filter(|it| it.instance != member.instance && living.contains(&it.instance));
        others.any(|it| it.may_follow(&member.instance))
    }

    /// Whom the record of `term` is to name.
    pub(super) fn hands_over_to(&self, term: Term) -> Option<String> {
        let hold = &self.state.hold;
        let ours = hold
            .record
            .as_ref()
            .is_some_and(|record| record.term == term);
        let handover = hold.handover.as_ref().filter(|_| ours)?;
        Some(handover.to.instance.clone())
    }

    /// Whether the instance is master of `term` in all but being writable at this moment: fenced for a handover that
    /// may be undone, or left to an operator's hand by a guard that stands down. Whoever was before is over, and that
    /// is what `active` says beyond `promoting`; both count as writable for the whole lease.
    pub(super) fn reigns(&self, term: Term, probe: &Probe) -> bool {
        let stands_down = probe.guard.stood_down && probe.guard.term == term;
        let fenced_for_handover = self.hands_over_to(term).is_some() && probe.guard.term == term;
        probe.is_master(term) || stands_down || fenced_for_handover
    }

    /// A switchover that has begun, step by step.
    pub(super) fn hand_over(
        &mut self,
        record: &Record,
        probe: &Probe,
        handover: &Handover,
    ) -> Reason {
        let reason = Reason::SwitchingOver {
            to: handover.to.name.clone(),
        };
        if let Some(why) = self.spoils_handover(probe, handover) {
            return self.undo_handover(record, probe, handover, why);
        }
        let Some(since) = handover.fencing_since else {
            return self.prepare_handover(record, probe, handover, reason);
        };
        let catch_up = match handover.order.catch_up_ms {
            0 => CATCH_UP,
            ms => Duration::from_millis(ms),
        };
        let missing = probe
            .confirmed_by(&handover.to.instance)
            .map_or(0, |confirmed| rows_missing(&probe.vclock, confirmed));
        let give_up_at = since + catch_up;
        if self.now >= give_up_at {
            let why = if self.state.is_fenced() {
                format!(
                    "{} still lacked {missing} rows after {} ms",
                    handover.to.name,
                    catch_up.as_millis()
                )
            } else {
                format!(
                    "the last commits had not landed after {} ms",
                    catch_up.as_millis()
                )
            };
            return self.undo_handover(record, probe, handover, why);
        }
        self.wake(give_up_at);
        if !self.state.is_fenced() {
            let _ = self.fence(&reason.to_string());
        } else if sound!(missing == 0; TargetLacksRows => true) {
            let by = &handover.order.by;
            let why = format!("switchover to {} by {by}", handover.to.name);
            self.release_to(&why, Some(&handover.to.instance));
        } else {
            self.look_for_rows();
        }
        self.refresh_while_fenced(record);
        reason
    }

    fn spoils_handover(&self, probe: &Probe, handover: &Handover) -> Option<String> {
        if let Some(words) = self.pause_words() {
            return Some(words);
        }
        let follows = probe.confirmed_by(&handover.to.instance).is_some();
        (!follows).then(|| {
            format!(
                "{} does not replicate from the master any more",
                handover.to.name
            )
        })
    }

    /// Writes go on until the target has said in its ballot that it has a session and waits for the lock.
    fn prepare_handover(
        &mut self,
        record: &Record,
        probe: &Probe,
        handover: &Handover,
        reason: Reason,
    ) -> Reason {
        if !probe.is_master(record.term) {
            let why = "the master lost its lease meanwhile".to_owned();
            return self.undo_handover(record, probe, handover, why);
        }
        let Some((index, announced_at)) = handover.announced else {
            let _ = self.serve(record, probe);
            return reason;
        };
        let ballot = self.state.board.as_ref().and_then(|(board, _)| {
            let ballot = board.ballots.get(&handover.to.instance)?;
            (ballot.term == record.term.next() && ballot.index >= index).then_some(ballot)
        });
        match ballot.map(|ballot| &ballot.excluded) {
            Some(Some(why)) => {
                let why = format!("{} cannot be master: {why}", handover.to.name);
                return self.undo_handover(record, probe, handover, why);
            }
            // A grant that overtakes the fence, or a refresh before the release, would cost time that matters.
            Some(None)
                if !self.state.pending.is_busy(Place::Guard)
                    && !self.state.pending.is_busy(Place::Lock)
                    && !self.state.lock.outdated =>
            {
                let _ = self.fence(&reason.to_string());
                return reason;
            }
            Some(None) => {}
            None => self.look_at_board(READY_POLL),
        }
        // Nothing is read-only yet, so a target on a slow Consul costs nobody a write.
        let give_up_at = announced_at + self.state.settings.timing.lease();
        if self.now >= give_up_at {
            let why = format!("the agent of {} does not answer", handover.to.name);
            return self.undo_handover(record, probe, handover, why);
        }
        self.wake(give_up_at);
        let _ = self.serve(record, probe);
        reason
    }

    pub(super) fn look_for_rows(&mut self) {
        let probed_at = self.state.instance.probed_at;
        let look_at = probed_at.map_or(self.now, |at| at + CATCH_UP_POLL);
        if look_at > self.now {
            self.wake(look_at);
        } else if self.may_command_guard() {
            self.tell_guard(GuardCommand::Probe);
        }
    }

    /// A target may take longer than a lease: nobody is to take the lock over meanwhile.
    fn refresh_while_fenced(&mut self, record: &Record) {
        let due_at = self.state.hold.accepted_at + self.state.settings.timing.refresh_interval();
        if due_at > self.now {
            self.wake(due_at);
        } else if !self.planned(Place::Lock) {
            self.refresh(record.term, &self.state.hold.reason.clone(), None);
        }
    }

    /// Nothing was released: the same master goes on in the same term.
    fn undo_handover(
        &mut self,
        record: &Record,
        probe: &Probe,
        handover: &Handover,
        why: String,
    ) -> Reason {
        if let Some((index, _)) = &self.state.orders.switchover {
            self.close_order(*index, &handover.order, SwitchoverState::Undone, why);
        }
        if probe.is_master(record.term) {
            self.serve(record, probe)
        } else {
            self.become_master(record, probe)
        }
    }

    /// Of a replica: the master names us in its record. The session is created and written down beforehand, and our
    /// ballot says so.
    pub(super) fn gets_ready_for_handover(&mut self, key: &KeySight) -> bool {
        let Some(probe) = self.state.live_probe() else {
            return false;
        };
        let Ok(record) = &key.record else {
            return false;
        };
        if record.handover_to.as_ref() != Some(&probe.uuid)
            || record.instance == probe.uuid
            || record.status != Status::Active
        {
            return false;
        }
        // A moment of silence is no reason to say no, and none to say yes.
        let excluded = self.unfit(self.state.settings.timing.healthcheck_timeout());
        let silent = self.state.instance.silent_since.is_some();
        if excluded.is_none() && (silent || self.prepared_session().is_none()) {
            return true;
        }
        let known = self
            .state
            .election
            .as_ref()
            .and_then(|election| election.own.as_ref());
        let said = known.is_some_and(|own| {
            own.term == record.term.next()
                && own.index == key.modify_index
                && own.excluded == excluded
        });
        if !said && self.may_call(Place::Ballot) {
            self.act(Action::WriteBallot {
                ballot: Box::new(Ballot {
                    v: board::VERSION,
                    instance: probe.uuid.clone(),
                    name: self.state.name().to_owned(),
                    term: record.term.next(),
                    index: key.modify_index,
                    vclock: probe.vclock.clone(),
                    following: true,
                    priority: self.state.priority(),
                    idle_ms: 0,
                    same_configuration: true,
                    unfollowed: false,
                    vote: Some(false),
                    excluded,
                }),
            });
        }
        true
    }
}
