//! An election: who goes first when the lock is up for grabs. Ballots order the queue; the lock alone decides.

use std::collections::BTreeSet;
use std::time::Duration;

use super::contest::{Contest, handover, spared};
use super::planner::Planner;
use super::ranking::{LastMaster, compare};
use super::votes::Doubt;
use crate::plan::{Action, Reason};
use crate::state::election::Election;
use crate::state::slots::Place;
use crate::words::board::Ballot;
use crate::words::observed::Probe;
use crate::words::record::Record;
use crate::words::settings::Elector;
use crate::words::timing::{Tick, Timing};

impl Planner<'_> {
    pub(super) fn election(&self, contest: &Contest<'_>) -> Option<&Election> {
        let election = self.state.election.as_ref();
        election.filter(|known| known.index == contest.index && known.term == contest.term)
    }

    /// Whose ballots are worth waiting for: of the members that followed the last master at its last word, and of those that are
    /// healthy and that our instance does not miss, since a member that came back behind that word may have more rows. A candidate
    /// that was not named is in no hurry, and waits for all that are healthy; so do all where nobody knows who followed.
    pub(super) fn expected<'r>(&'r self, record: Option<&'r Record>) -> BTreeSet<&'r str> {
        let probe = self.state.live_probe();
        let own = probe.map_or("", |probe| &probe.uuid);
        let following = record.map_or(&[][..], |record| record.following.as_slice());
        let mut expected: BTreeSet<&str> = following.iter().map(String::as_str).collect();
        let named = expected.contains(own);
        if let Some((board, _)) = &self.state.board {
            // The key of a member that left stays where it is.
            let members = record.map_or(&[][..], |record| record.members.as_slice());
            let left = |uuid: &String| {
                let known = probe.is_some_and(|it| it.peer(uuid).is_some());
                !members.is_empty() && !members.contains(uuid) && !known
            };
            let healthy = board.members.iter();
            let healthy = healthy.filter(|(uuid, it)| {
                let missed = probe.is_some_and(|it| it.misses(uuid));
                let missed = named && sound!(missed; ReturnedNotWaitedFor => true);
                it.health == "passing" && !missed && !left(uuid)
            });
            expected.extend(healthy.map(|(uuid, _)| uuid.as_str()));
        }
        if let Some(record) = record {
            match spared(record) {
                Some(spared) => expected.remove(spared),
                None => expected.insert(&record.instance),
            };
        }
        expected.remove(own);
        expected
    }

    /// A handover's target has a window to itself.
    fn lets_target_go_first(&mut self, contest: &Contest<'_>) -> Option<Reason> {
        let first = contest.record.and_then(handover)?.to_owned();
        let until = contest.since + self.state.settings.election_window;
        (self.now < until).then(|| {
            self.wake(until);
            Reason::HoldingBack { first, until }
        })
    }

    /// Whose turn it is. `Ok`: ours, and what may be lost by it; else why not yet.
    pub(super) fn wait_for_turn(
        &mut self,
        contest: &Contest<'_>,
    ) -> Result<Option<String>, Reason> {
        if let Some(reason) = self.lets_target_go_first(contest) {
            return Err(reason);
        }
        let asks = self.quorum_to_ask(contest.record).is_some();
        if !asks && !self.expects_ballots(contest.record) {
            return Ok(None);
        }
        if !self.has_cast(contest) {
            self.run(contest);
        }
        let probe = self.state.live_probe();
        let (Some(probe), Some(election)) = (probe, self.election(contest).cloned()) else {
            let until = self.now + self.state.settings.election_window * 2;
            return Err(Reason::WaitingForBallots { until });
        };
        let doubt = self.doubt(contest.record, &election, probe);
        let turn = self.turn(contest, &election, probe, doubt.as_ref());
        match doubt {
            Some(doubt) if sound!(self.refuses_loss(); DoubtEndsWithWait => turn.is_err()) => {
                if turn.is_ok() {
                    self.keep_reading(&election, self.now);
                }
                Err(self.wait_for_certainty(&doubt))
            }
            doubt => turn.map(|()| doubt.map(|it| self.doubt_words(&it))),
        }
    }

    /// Once the ballots are in or have been waited for, every better candidate has a window to itself, from the last ballot on.
    fn turn(
        &mut self,
        contest: &Contest<'_>,
        election: &Election,
        probe: &Probe,
        doubt: Option<&Doubt>,
    ) -> Result<(), Reason> {
        let window = self.state.settings.election_window;
        let lacks = matches!(doubt, Some(Doubt::Rows { .. }))
            || (contest.record).is_some_and(|last| last.rows_missing(&probe.vclock) > 0);
        let better = self.better(contest, election, probe);
        let has_cast = self.has_cast(contest);
        let own_at = if has_cast {
            election.own_at.max(contest.since)
        } else if election.runs() {
            // Where Consul lets us write the lock and no ballot, the lock alone decides.
            election.begun_at.max(contest.since) + window
        } else {
            self.now
        };
        // A promise may have been given behind a ballot, and behind one that answers an operator's order.
        let bound_until = self.state.instance.bound_until;
        let may_be_bound = contest.record.is_some_and(Record::may_run_on_promises);
        let own_at = if may_be_bound {
            own_at.max(bound_until)
        } else {
            own_at
        };
        let came_at = |it: &&Ballot| election.came_at.get(&it.instance).copied();
        let closes_at =
            if !has_cast || doubt.is_some() || self.misses_ballots(contest, election, lacks) {
                let last_at = better.iter().filter_map(came_at).fold(own_at, Tick::max);
                last_at + self.wait_for_missing(contest.record, lacks)
            } else {
                election.came_at.values().copied().fold(own_at, Tick::max)
            };
        let ahead = u32::try_from(better.len()).unwrap_or(u32::MAX);
        let until = closes_at + window.saturating_mul(sound!(ahead; NobodyHoldsBack => 0));
        if self.now >= until {
            return Ok(());
        }
        self.wake(until);
        if self.now < closes_at {
            self.wake(closes_at);
            if has_cast {
                self.keep_reading(election, closes_at);
            }
            return Err(Reason::WaitingForBallots { until: closes_at });
        }
        let first = better.first();
        let first = first.map_or_else(String::new, |best| best.name.clone());
        Err(Reason::HoldingBack { first, until })
    }

    /// How long a ballot that is missing is waited for, from our own and from every better one on: whoever would cast it may have
    /// what nobody else has. A member that is bound by a promise (R6) casts its vote when that is over; the last master asks for
    /// promises as long as its lease runs, and that rests on its last accepted record or on a promise of every member, ours among
    /// them.
    fn wait_for_missing(&self, record: Option<&Record>, lacks: bool) -> Duration {
        let window = self.state.settings.election_window;
        let lease = record.map(Record::lease).unwrap_or_default();
        if record.is_some_and(Record::may_run_on_promises) {
            Timing::lease_and_margin(lease) + window
        } else if lacks {
            lease.max(window)
        } else {
            window
        }
    }

    /// For a candidate that lacks rows a member that neither runs nor votes is missing, unless it never is to be master: its
    /// instance may be back in a moment.
    fn misses_ballots(&self, contest: &Contest<'_>, election: &Election, lacks: bool) -> bool {
        let ballots = election.counting();
        let is_missing = |uuid: &str| match ballots.get(uuid) {
            None => true,
            Some(it) => lacks && it.excluded.is_some() && !it.is_vote() && it.priority >= 0,
        };
        let expected = self.expected(contest.record);
        let misses = expected.into_iter().any(is_missing);
        sound!(misses; NoBallotWaitedFor => false) && self.compares()
    }

    /// Whether candidates are ranked at all.
    pub(super) fn compares(&self) -> bool {
        self.state.settings.elector != Elector::First
    }

    /// Whether anybody's ballot but our own is waited for.
    pub(super) fn expects_ballots(&self, record: Option<&Record>) -> bool {
        self.compares() && !self.expected(record).is_empty()
    }

    /// The candidates that go before us, the best one first.
    fn better<'e>(
        &self,
        contest: &Contest<'_>,
        election: &'e Election,
        probe: &Probe,
    ) -> Vec<&'e Ballot> {
        let elector = self.state.settings.elector;
        if !self.compares() {
            return Vec::new();
        }
        let last = LastMaster::of(contest.record, probe);
        let mut queue: Vec<&Ballot> = election.counting().into_values().collect();
        queue.retain(|ballot| ballot.excluded.is_none());
        queue.sort_by(|a, b| compare(elector, last.as_ref(), a, b));
        let ours = queue.iter().position(|it| it.instance == probe.uuid);
        queue.truncate(ours.unwrap_or(0));
        queue
    }

    /// Looks for ballots that are new, for no longer than this, since it keeps us from writing one.
    fn keep_reading(&mut self, election: &Election, until: Tick) {
        let settings = &self.state.settings;
        let longest = settings
            .timing
            .healthcheck_interval()
            .max(settings.election_window);
        let left = until.since(self.now);
        let wait = if left.is_zero() {
            longest
        } else {
            left.min(longest)
        };
        self.read_ballots(election.ballots_index, wait);
    }

    fn read_ballots(&mut self, after: u64, wait: Duration) {
        if self.may_call(Place::Ballot) {
            self.act(Action::ReadBallots { after, wait });
        }
    }
}
