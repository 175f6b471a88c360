//! Event + state → state, for what stands beside the lock key: ballots, orders, history.

use std::collections::BTreeMap;

use super::apply::CONSUL_RETRY;
use super::board::{Ballot, Board, HistoryLine, Switchover};
use super::election::Election;
use super::event::ConsulFault;
use super::state::State;
use super::timing::Tick;

impl State {
    pub(super) fn board_seen(&mut self, board: Board, asked_at: Tick) {
        self.orders.pause.clone_from(&board.pause);
        self.switchover_seen(board.switchover.clone());
        self.board = Some((board, asked_at));
    }

    /// The watch and the board may overtake each other; the lower index is no news.
    pub(super) fn switchover_seen(&mut self, found: Option<(u64, Switchover)>) {
        let known = self.orders.switchover.as_ref().map(|(index, _)| *index);
        if let Some((index, switchover)) = found
            && known.is_none_or(|known| known < index)
        {
            self.orders.switchover = Some((index, switchover));
        }
    }

    pub(super) fn begin_ballot(&mut self, ballot: &Ballot, now: Tick) {
        self.pending.ballot = true;
        let same = |known: &Election| known.index == ballot.index && known.term == ballot.term;
        let election = self.election.take().filter(same);
        self.election = Some(Election {
            writing: Some(ballot.clone()),
            ..election.unwrap_or(Election {
                index: ballot.index,
                term: ballot.term,
                begun_at: now,
                ..Election::default()
            })
        });
    }

    pub(super) fn ballot_written(
        &mut self,
        index: u64,
        result: Result<(), ConsulFault>,
        now: Tick,
    ) {
        self.pending.ballot = false;
        match result {
            Ok(()) => {
                if let Some(election) = self.election.as_mut().filter(|known| known.index == index)
                {
                    election.own = election.writing.take();
                    election.own_at = now;
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
        self.pending.ballot = false;
        match result {
            Ok((index, ballots)) => {
                if let Some(election) = &mut self.election {
                    // An index that went backwards is of another store: start over.
                    election.ballots_index = if index < election.ballots_index {
                        0
                    } else {
                        index
                    };
                    election.ballots = ballots;
                }
            }
            Err(fault) => self.ballot_call_failed(fault, now),
        }
    }

    fn ballot_call_failed(&mut self, fault: ConsulFault, now: Tick) {
        self.pending.ballot_retry_at = Some(now + CONSUL_RETRY);
        self.consul_fault = Some(fault);
    }

    pub(super) fn switchover_written(
        &mut self,
        result: Result<Option<u64>, ConsulFault>,
        now: Tick,
    ) {
        self.pending.switchover = false;
        if let Err(fault) = result {
            self.pending.switchover_retry_at = Some(now + CONSUL_RETRY);
            self.consul_fault = Some(fault);
        }
    }

    pub(super) fn history_read(
        &mut self,
        result: Result<Vec<HistoryLine>, ConsulFault>,
        now: Tick,
    ) {
        self.pending.history = false;
        if let Err(fault) = result {
            self.pending.history_retry_at = Some(now + CONSUL_RETRY);
            self.consul_fault = Some(fault);
        }
    }

    pub(super) fn history_written(
        &mut self,
        _term: u64,
        result: Result<(), ConsulFault>,
        now: Tick,
    ) {
        self.pending.history = false;
        if let Err(fault) = result {
            self.pending.history_retry_at = Some(now + CONSUL_RETRY);
            self.consul_fault = Some(fault);
        }
    }
}
