//! Event + state → state, for what stands beside the lock key: ballots, orders, history.

use std::collections::BTreeMap;
use std::time::Duration;

use super::retries::CONSUL_RETRY;
use crate::state::election::Election;
use crate::state::hold::Handover;
use crate::state::slots::Place;
use crate::state::{MemberTerms, State};
use crate::words::board::{Ballot, Board, HistoryLine, Party, Switchover, SwitchoverState};
use crate::words::sight::ConsulFault;
use crate::words::term::{SaidBy, Term};
use crate::words::timing::Tick;

/// Between two looks for a line that is not there yet.
pub(super) const READ_AGAIN: Duration = Duration::from_secs(1);

impl State {
    pub(super) fn board_read(&mut self, result: Result<Box<Board>, ConsulFault>, now: Tick) {
        let asked_at = self.pending.ends(Place::Board);
        match result {
            Ok(board) => {
                let (term, lease) = board.terms(|term| self.believes(term, SaidBy::Member));
                self.member_terms = Some(MemberTerms { term, lease });
                self.highest_term = self.highest_term.max(term);
                self.own_key_seen(&board, asked_at);
                self.board_seen(*board, asked_at);
            }
            Err(fault) => {
                self.pending.retries(Place::Board, Some(now + CONSUL_RETRY));
                self.unread.board_failed(fault);
            }
        }
    }

    pub(super) fn board_seen(&mut self, board: Board, asked_at: Tick) {
        self.orders.pause.clone_from(&board.pause);
        if let Some(pause) = &board.pause {
            self.orders.last_pause = Some((pause.clone(), asked_at));
        }
        self.switchover_seen(board.switchover.clone(), asked_at);
        self.announced = board.announced();
        self.board = Some((board, asked_at));
        self.unread.board_seen();
    }

    /// It may be overtaken by one that was asked for later.
    pub(super) fn board_seen_beside(
        &mut self,
        asked_at: Tick,
        result: Result<Box<Board>, ConsulFault>,
    ) {
        match result {
            Ok(board)
                if self
                    .board
                    .as_ref()
                    .is_none_or(|(_, known)| *known <= asked_at) =>
            {
                self.own_key_seen(&board, asked_at);
                self.board_seen(*board, asked_at);
            }
            Ok(_) => {}
            Err(fault) => self.unread.board_failed(fault),
        }
    }

    /// Another agent of the same instance may have written over what this one has said for a pause.
    pub(super) fn own_key_seen(&mut self, board: &Board, sent_after: Tick) {
        let said = self.catalog.stands_down_since;
        let own = self.instance.probe.as_ref().map(|probe| &probe.uuid);
        let found = own.and_then(|uuid| board.members.get(uuid));
        if said.is_some_and(|since| since <= sent_after)
            && !found.is_some_and(|member| member.stands_down)
        {
            self.catalog.forgets_member();
        }
    }

    /// The watch and the board may overtake each other; the lower index is no news, unless it is of an order that was
    /// asked for later: a Consul that has lost its data counts from the beginning.
    pub(super) fn switchover_seen(&mut self, found: Option<(u64, Switchover)>, now: Tick) {
        let known = self.orders.switchover.as_ref();
        if let Some((index, switchover)) = found
            && known.is_none_or(|(known_index, known)| {
                *known_index < index || switchover.is_asked_after(known)
            })
        {
            // An outcome is of one order; another one in its place makes it nobody's business.
            self.orders.outcome = self
                .orders
                .outcome
                .take()
                .filter(|known| known.id == switchover.id);
            self.orders.switchover = Some((index, switchover));
            self.orders.seen_at = now;
        }
    }

    pub(super) fn begin_ballot(&mut self, ballot: &Ballot, now: Tick) {
        let same = |known: &Election| known.index == ballot.index && known.term == ballot.term;
        let before = self.election.take().unwrap_or_default();
        let ran = same(&before) && before.runs();
        let mut election = if same(&before) {
            before
        } else {
            Election {
                index: ballot.index,
                term: ballot.term,
                begun_at: now,
                ..Election::default()
            }
        };
        election.writing = Some(ballot.clone());
        if election.runs() && !ran {
            election.begun_at = now;
        }
        self.election = Some(election);
    }

    pub(super) fn ballot_written(
        &mut self,
        index: u64,
        result: Result<(u64, BTreeMap<String, Ballot>), ConsulFault>,
        now: Tick,
    ) {
        self.pending.ends(Place::Ballot);
        match result {
            Ok((ballots_index, ballots)) => {
                self.unread.ballots = None;
                if let Some(election) = self.election.as_mut().filter(|known| known.index == index)
                {
                    election.own = election.writing.take();
                    election.own_at = now;
                    election.reads(ballots_index, ballots, now);
                }
            }
            Err(fault) => self.ballot_call_failed(fault, now),
        }
    }

    pub(super) fn ballots_read(
        &mut self,
        result: Result<(u64, BTreeMap<String, Ballot>), ConsulFault>,
        now: Tick,
    ) {
        self.pending.ends(Place::Ballot);
        match result {
            Ok((index, ballots)) => {
                self.unread.ballots = None;
                if let Some(election) = &mut self.election {
                    election.reads(index, ballots, now);
                }
            }
            Err(fault) => self.ballot_call_failed(fault, now),
        }
    }

    fn ballot_call_failed(&mut self, fault: ConsulFault, now: Tick) {
        self.pending
            .retries(Place::Ballot, Some(now + CONSUL_RETRY));
        self.unread.ballots = Some(fault);
    }

    pub(super) fn begin_switchover(&mut self, switchover: &Switchover, to: Option<Party>) {
        let begins = switchover.state == SwitchoverState::Running;
        self.orders.outcome = (!begins).then(|| switchover.clone());
        self.orders.writing = Some((switchover.clone(), to));
        if !begins {
            // Whatever it was, it is over; what is left to do is to say so.
            self.hold.handover = None;
        }
    }

    pub(super) fn switchover_written(
        &mut self,
        result: Result<Option<u64>, ConsulFault>,
        now: Tick,
    ) {
        self.pending.ends(Place::Switchover);
        let writing = self.orders.writing.take();
        match (result, writing) {
            (Ok(Some(index)), Some((order, to))) => {
                self.orders.outcome = None;
                self.orders.switchover = Some((index, order.clone()));
                if let Some(to) = to {
                    self.hold.handover = Some(Handover {
                        order,
                        to,
                        announced: None,
                        fencing_since: None,
                    });
                }
            }
            // Somebody has changed the key: whatever is found there next is news.
            (Ok(None), _) => {
                self.orders.outcome = None;
                self.orders.switchover = None;
            }
            (Ok(Some(_)), None) => {}
            (Err(fault), _) => {
                self.pending
                    .retries(Place::Switchover, Some(now + CONSUL_RETRY));
                self.consul_fault = Some(fault);
            }
        }
    }

    pub(super) fn begin_history(&mut self, line: &HistoryLine) {
        self.past.writing = Some(line.clone());
        let own = self.instance.probe.as_ref().map(|probe| &probe.uuid);
        if line.returned.is_some() && own != Some(&line.to.instance) {
            self.past.returned = Some(line.clone());
        } else {
            self.past.last = Some(line.clone());
        }
    }

    pub(super) fn history_read(
        &mut self,
        result: Result<Vec<HistoryLine>, ConsulFault>,
        now: Tick,
    ) {
        self.pending.ends(Place::History);
        match result {
            Ok(lines) => {
                self.past.reads = self.past.reads.saturating_add(1);
                self.past.read_again_at = Some(now + READ_AGAIN);
                self.past.last = lines.last().cloned();
                self.past.lines = Some(lines);
            }
            Err(fault) => self.history_call_failed(fault, now),
        }
    }

    pub(super) fn history_written(
        &mut self,
        term: Term,
        result: Result<(), ConsulFault>,
        now: Tick,
    ) {
        self.pending.ends(Place::History);
        match result {
            Ok(()) => {
                let own = self.hold.record.as_ref().map(|record| record.term);
                if let Some(gained) = self.hold.gained.as_mut().filter(|_| own == Some(term)) {
                    gained.told = true;
                }
                self.past.untold.retain(|line| line.term != term);
                self.past.denied = false;
                self.pending.retries(Place::History, None);
                if let Some(line) = self.past.writing.take() {
                    self.interruptions_told(&line);
                }
                if self
                    .past
                    .returned
                    .as_ref()
                    .is_some_and(|line| line.term == term)
                {
                    self.past.returning = false;
                }
            }
            Err(fault) => self.history_call_failed(fault, now),
        }
    }

    fn history_call_failed(&mut self, fault: ConsulFault, now: Tick) {
        self.pending
            .retries(Place::History, Some(now + CONSUL_RETRY));
        self.past.denied = fault.denied;
        self.consul_fault = Some(fault);
    }
}
