//! An election: who goes first when the lock is up for grabs. Ballots order the queue; the lock alone decides.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::board::{self, Ballot};
use super::observed::Probe;
use super::plan::{Action, GuardCommand, Reason};
use super::ranking::{LastMaster, compare};
use super::record::{Record, Status, Vclock};
use super::state::{Elector, Unchanged};
use super::term::Term;
use super::timing::{Tick, Timing};
use super::votes::Doubt;
use super::{Place, Planner};

/// "Never" in a ballot: longer than anybody waits, and a number that every reader of JSON can hold.
const NEVER_MS: u64 = u32::MAX as u64;

/// The election that we take part in.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Election {
    /// The lock key's `ModifyIndex` that it rests on; 0: there is no key.
    pub index: u64,
    /// The term up for grabs.
    pub term: Term,
    /// When we began to take part.
    pub begun_at: Tick,
    /// Our ballot, once Consul has it.
    pub own: Option<Ballot>,
    /// When Consul had it.
    pub own_at: Tick,
    /// What is being written.
    #[serde(skip)]
    pub writing: Option<Ballot>,
    /// The ballots as last read, by instance UUID, those of other elections among them.
    pub ballots: BTreeMap<String, Ballot>,
    /// The index that they were read at; 0: not yet.
    pub ballots_index: u64,
    /// When each of the others' that count was first seen as it stands, by instance UUID.
    pub came_at: BTreeMap<String, Tick>,
}

impl Election {
    /// Takes what stands under the ballots' prefix.
    pub(super) fn reads(&mut self, index: u64, ballots: BTreeMap<String, Ballot>, now: Tick) {
        // An index that went backwards is of another store: start over.
        self.ballots_index = if index < self.ballots_index { 0 } else { index };
        // Should somebody have removed our ballot, it is to be written again.
        let is_there = |own: &Ballot| ballots.contains_key(&own.instance);
        self.own = self.own.take().filter(is_there);
        let before = std::mem::replace(&mut self.ballots, ballots);
        let own = self.own.as_ref().map(|ballot| ballot.instance.as_str());
        let counting = self.counting().into_iter();
        let others = counting.filter(|(uuid, _)| Some(*uuid) != own);
        self.came_at = others
            .map(|(uuid, ballot)| {
                let known = self.came_at.get(uuid);
                let known = known.filter(|_| before.get(uuid) == Some(ballot));
                (uuid.to_owned(), known.copied().unwrap_or(now))
            })
            .collect();
    }

    /// Our last ballot, written or under way, says that we run.
    pub(super) fn runs(&self) -> bool {
        let last = self.writing.as_ref().or(self.own.as_ref());
        last.is_some_and(|ballot| ballot.excluded.is_none())
    }

    /// When one that counts was last seen to come.
    fn last_came_at(&self) -> Tick {
        self.came_at.values().copied().max().unwrap_or_default()
    }

    /// The ballots of this election, ours among them, by instance UUID.
    pub(super) fn counting(&self) -> BTreeMap<&str, &Ballot> {
        let read = self.ballots.values();
        read.chain(&self.own)
            .filter(|ballot| ballot.term == self.term && ballot.index == self.index)
            .map(|ballot| (ballot.instance.as_str(), ballot))
            .collect()
    }
}

/// As a ballot has it.
fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).map_or(NEVER_MS, |ms| ms.min(NEVER_MS))
}

/// What is up for grabs, and on what terms.
pub(super) struct Contest<'a> {
    /// The key's `ModifyIndex`; 0: there is no key.
    pub(super) index: u64,
    /// The term that whoever gains it begins.
    pub(super) term: Term,
    /// Whoever was master before, where a record says so.
    pub(super) record: Option<&'a Record>,
    /// It has been up for grabs since then.
    pub(super) since: Tick,
    /// It is held, and its holder offers it: ballots are no votes.
    pub(super) is_offered: bool,
}

impl Planner<'_> {
    /// Why this instance is not to be master in the place of whoever was before, if so. Silence counts from `patience`
    /// on.
    pub(super) fn excluded(&self, record: Option<&Record>, patience: Duration) -> Option<String> {
        if let Some(why) = self.unfit(patience) {
            return Some(why);
        }
        let settings = &self.state.settings;
        let probe = self.state.live_probe()?;
        let record = record?;
        // R6: this member was never asked for a promise, so it cannot know whether the last master still goes on.
        if record.may_run_on_promises()
            && !record.members.is_empty()
            && record.instance != probe.uuid
            && !record.members.contains(&probe.uuid)
        {
            return Some("the last master's record does not name it".to_owned());
        }
        let lag = record.rows_missing(&probe.vclock);
        if settings.max_lag_rows > 0 && lag > settings.max_lag_rows {
            return Some(format!(
                "it lacks {lag} rows that the last master had, MAX_LAG_ROWS is {}",
                settings.max_lag_rows
            ));
        }
        let idle_ms = self.idle_ms(probe, record);
        let max_idle = settings.max_idle;
        if !max_idle.is_zero() && u128::from(idle_ms) > max_idle.as_millis() {
            let allowed = humantime::format_duration(max_idle);
            return Some(if idle_ms == NEVER_MS {
                format!("it has never heard the last master, MAX_IDLE is {allowed}")
            } else {
                format!("it had not heard the last master for {idle_ms}ms, MAX_IDLE is {allowed}")
            });
        }
        None
    }

    /// What we know of the record's writer, if the record is the last one seen.
    fn last_word(&self, record: &Record) -> Option<&Unchanged> {
        let known = self.state.lock.unchanged.as_ref();
        known.filter(|known| known.stamp == record.stamp())
    }

    /// How long before the last master's last word this instance had last heard it. Who was refused need not have been
    /// heard.
    fn idle_ms(&self, probe: &Probe, record: &Record) -> u64 {
        let refused = record.refused && !record.was_promoted();
        if record.instance == probe.uuid || refused {
            return 0;
        }
        let heard = self.state.instance.heard.get(&record.instance);
        let (Some(heard), Some(known)) = (heard, self.last_word(record)) else {
            return NEVER_MS;
        };
        whole_ms(known.spoke_at.since(heard.at))
    }

    /// Whether it followed the last master while that was alive: the master said so, or it has seen so itself. An agent
    /// that was not there at the time has only the master's word; where that names nobody, or is handed on by one that
    /// was not promoted, rows alone decide.
    fn was_following(&self, probe: &Probe, record: &Record) -> bool {
        let following = &record.following;
        let known = record.last_masters_word().is_some();
        let nobody_knows = known && (following.is_empty() || !record.was_promoted());
        if record.instance == probe.uuid || nobody_knows || following.contains(&probe.uuid) {
            return true;
        }
        let heard = self.state.instance.heard.get(&record.instance);
        let followed_at = heard.and_then(|heard| heard.followed_at);
        let patience = self.state.settings.timing.healthcheck_interval() * 3;
        match (followed_at, self.last_word(record)) {
            (Some(at), Some(known)) => at + patience >= known.spoke_at,
            (Some(_) | None, None) | (None, Some(_)) => false,
        }
    }

    fn ballot(&self, contest: &Contest<'_>, excluded: Option<String>) -> Option<Ballot> {
        let probe = self.state.instance.probe.as_ref()?;
        let settings = &self.state.settings;
        let record = contest.record;
        Some(Ballot {
            v: board::VERSION,
            instance: probe.uuid.clone(),
            name: settings.announce.clone(),
            term: contest.term,
            index: contest.index,
            vclock: probe.vclock.clone(),
            following: record.is_some_and(|record| self.was_following(probe, record)),
            priority: self.state.priority(),
            idle_ms: record.map_or(0, |record| self.idle_ms(probe, record)),
            same_configuration: record.is_none_or(|record| self.is_configured_like(probe, record)),
            unfollowed: self.is_unfollowed(probe, record),
            open_ms: whole_ms(self.all_are_free_at(record).since(self.now)),
            vote: Some(self.may_vote(contest)),
            excluded,
        })
    }

    /// Nobody replicates from it. With `REPLICATION=follow` nobody does before it is master. What the instance says of a
    /// last master that was lost may be older than the loss.
    fn is_unfollowed(&self, probe: &Probe, record: Option<&Record>) -> bool {
        let lost = record.filter(|record| record.status != Status::Fenced);
        let mut followers = probe.followers().into_iter();
        let followed = followers.any(|uuid| lost.is_none_or(|lost| lost.instance != uuid));
        !followed && !self.state.settings.follow
    }

    /// From then on no member is kept from running by a promise to the last master (R6), whatever we have seen of it: it
    /// asks the members for as long as its lease runs, and that rests on Consul's last acceptance or on promises of which
    /// one is ours.
    fn all_are_free_at(&self, record: Option<&Record>) -> Tick {
        let promised = record.filter(|record| record.may_run_on_promises());
        promised.map_or_else(Tick::default, |record| {
            let ours = self.state.instance.bound_until;
            self.outlived_at(record).max(ours) + Timing::lease_and_margin(record.lease())
        })
    }

    /// Whether it has the vshard configuration of the last master, where both say which they have.
    fn is_configured_like(&self, probe: &Probe, record: &Record) -> bool {
        let own = probe
            .vshard
            .as_ref()
            .and_then(|look| look.fingerprint.as_ref());
        let board = self.state.board.as_ref().map(|(board, _)| board);
        let master = board.and_then(|board| board.members.get(&record.instance));
        let its = master.and_then(|member| member.fingerprint.as_ref());
        own.is_none() || its.is_none() || own == its
    }

    fn election(&self, contest: &Contest<'_>) -> Option<&Election> {
        let election = self.state.election.as_ref();
        election.filter(|known| known.index == contest.index && known.term == contest.term)
    }

    /// Our ballot is in and says that we run, and it is a vote where votes are needed.
    pub(super) fn has_cast(&self, contest: &Contest<'_>) -> bool {
        let election = self.election(contest);
        let own = election.and_then(|election| election.own.as_ref());
        let runs = own.filter(|own| own.excluded.is_none());
        // A ballot of before, under the same index, may be none.
        runs.is_some_and(|own| !self.needs_votes(contest) || own.is_vote())
    }

    /// Says that we do not run, so that nobody waits for our ballot; and what our instance has, once that is a vote.
    pub(super) fn decline(&mut self, contest: &Contest<'_>, why: &str) {
        let asked = self.quorum_to_ask(contest.record).is_some();
        let own = self.state.instance.probe.as_ref().map(|probe| &probe.uuid);
        let spared = contest.record.and_then(spared) == own.map(String::as_str);
        let compares = self.state.settings.elector != Elector::First && !spared;
        if own.is_none() || !(asked || compares) {
            return;
        }
        let election = self.election(contest);
        let said = election.and_then(|known| known.own.as_ref());
        let said = said.filter(|own| own.excluded.is_some());
        let may_vote = self.may_vote(contest);
        if said.is_none() || (may_vote && said.is_some_and(|own| !own.is_vote())) {
            self.write_ballot(contest, Some(why.to_owned()));
        }
        if !may_vote && !contest.is_offered {
            self.gets_its_vote(contest);
        }
    }

    /// Until its word is one: from after the lock came up for grabs, and bound by no promise.
    fn gets_its_vote(&mut self, contest: &Contest<'_>) {
        let from = self.votes_from(contest);
        if self.is_due(Some(from)) {
            let _ = self.has_asked_after(from);
        }
    }

    fn write_ballot(&mut self, contest: &Contest<'_>, excluded: Option<String>) {
        let known = self.election(contest).and_then(|it| it.own.clone());
        if let Some(mut ballot) = self.ballot(contest, excluded)
            && self.may_call(Place::Ballot)
        {
            // A vote is true for as long as the election goes on, whatever becomes of the instance.
            if let Some(voted) = known.filter(|own| own.vote == Some(true) && !contest.is_offered)
                && ballot.vote == Some(false)
            {
                ballot.vote = voted.vote;
                ballot.vclock = voted.vclock;
            }
            self.act(Action::WriteBallot {
                ballot: Box::new(ballot),
            });
        }
    }

    /// Whose ballots are worth waiting for: of the members that followed the last master at its last word, and of those that are
    /// healthy and that our instance does not miss, since a member that came back behind that word may have more rows. A candidate
    /// that was not named is in no hurry, and waits for all that are healthy; so do all where nobody knows who followed.
    fn expected<'r>(&'r self, record: Option<&'r Record>) -> BTreeSet<&'r str> {
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
        let first = self.state.settings.elector == Elector::First;
        if !asks && (first || self.expected(contest.record).is_empty()) {
            return Ok(None);
        }
        let probe = self.state.live_probe();
        let (Some(probe), Some(election)) = (probe, self.election(contest).cloned()) else {
            self.run(contest);
            let until = self.now + self.state.settings.election_window * 2;
            return Err(Reason::WaitingForBallots { until });
        };
        let doubt = self.doubt(contest.record, &election, probe);
        let turn = if self.has_cast(contest) {
            self.turn(contest, &election, probe, doubt.as_ref())
        } else {
            self.wait_for_own_ballot(contest, &election, probe)
        };
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

    /// Where Consul lets us write the lock and no ballot, the lock alone decides.
    fn wait_for_own_ballot(
        &mut self,
        contest: &Contest<'_>,
        election: &Election,
        probe: &Probe,
    ) -> Result<(), Reason> {
        self.run(contest);
        let window = self.state.settings.election_window;
        let patience = self.patience(contest.record, &probe.vclock);
        // A ballot of before, under the same index, was for something else.
        let begun_at = if election.runs() {
            election.begun_at.max(contest.since)
        } else {
            self.now
        };
        let free_at = self.all_are_free_at(contest.record);
        let until = begun_at.max(free_at) + patience.max(window * 2);
        self.wake(until);
        if self.now < until {
            return Err(Reason::WaitingForBallots { until });
        }
        Ok(())
    }

    /// Every better candidate has a window to itself, once all are known or the wait for the rest is over.
    fn turn(
        &mut self,
        contest: &Contest<'_>,
        election: &Election,
        probe: &Probe,
        doubt: Option<&Doubt>,
    ) -> Result<(), Reason> {
        let window = self.state.settings.election_window;
        let (patience, silent) = self.silent(contest.record, election, probe, doubt);
        // A member that is bound by a promise casts no vote, and may have what nobody else has.
        let free_at = self.all_are_free_at(contest.record) + window;
        let own_at = election.own_at.max(contest.since);
        let closes_at = (own_at + patience).max(free_at);
        let last_came_at = own_at.max(election.last_came_at());
        let complete = !silent && doubt.is_none();
        let better = self.better(contest, election, probe);
        let ahead = u32::try_from(better.len()).unwrap_or(u32::MAX);
        let ranked_at = if complete {
            last_came_at
        } else {
            let lease = contest.record.map(Record::lease).unwrap_or_default();
            let theirs = better.iter().filter_map(|ballot| {
                let came_at = election.came_at.get(&ballot.instance)?;
                let open = Duration::from_millis(ballot.open_ms);
                let open = open.min(Timing::lease_and_margin(lease)) + window;
                // It waits as we do, if both of us lack rows.
                let theirs = self.patience(contest.record, &ballot.vclock);
                Some(*came_at + open.max(theirs.min(patience)))
            });
            theirs.fold(closes_at.max(last_came_at), Tick::max)
        };
        let until = ranked_at + window.saturating_mul(sound!(ahead; NobodyHoldsBack => 0));
        if self.now >= until {
            return Ok(());
        }
        self.wake(until);
        if !complete && self.now < closes_at {
            self.wake(closes_at);
            self.keep_reading(election, closes_at);
            return Err(Reason::WaitingForBallots { until: closes_at });
        }
        let first = better.first();
        let first = first.map_or_else(String::new, |best| best.name.clone());
        Err(Reason::HoldingBack { first, until })
    }

    /// How long a ballot that is missing is waited for, and whether one is. For a candidate that lacks rows a member that
    /// casts no vote is silent, unless it never is to be master: its instance may be back in a moment, with what nobody else has.
    fn silent(
        &self,
        record: Option<&Record>,
        election: &Election,
        probe: &Probe,
        doubt: Option<&Doubt>,
    ) -> (Duration, bool) {
        let window = self.state.settings.election_window;
        let mut patience = self.patience(record, &probe.vclock);
        if let (Some(Doubt::Rows { .. }), Some(record)) = (doubt, record) {
            patience = window.max(record.lease());
        }
        let lacks = patience > window;
        let compares = self.state.settings.elector != Elector::First;
        let ballots = election.counting();
        let silent = |uuid: &&str| match ballots.get(*uuid) {
            None => true,
            Some(it) => lacks && it.excluded.is_some() && !it.is_vote() && it.priority >= 0,
        };
        let silent = sound!(self.expected(record).iter().any(silent); NoBallotWaitedFor => false);
        (patience, silent && compares)
    }

    /// The candidates that go before us, the best one first.
    fn better<'e>(
        &self,
        contest: &Contest<'_>,
        election: &'e Election,
        probe: &Probe,
    ) -> Vec<&'e Ballot> {
        let elector = self.state.settings.elector;
        if elector == Elector::First {
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

    /// How long a ballot that is missing is waited for. A candidate that lacks rows of the last master's last word gives the
    /// silent members a lease: they may have what nobody else has.
    fn patience(&self, record: Option<&Record>, vclock: &Vclock) -> Duration {
        let window = self.state.settings.election_window;
        let behind = record.filter(|last| last.rows_missing(vclock) > 0);
        behind.map_or(window, |last| window.max(last.lease()))
    }

    /// Its ballot takes two calls, which need not wait for the board.
    pub(super) fn prepare_ballot(&mut self, contest: &Contest<'_>) {
        // Whether it has the last master's vshard configuration is on the board.
        let probe = self.state.live_probe();
        let compares = probe.is_some_and(|probe| {
            let look = probe.vshard.as_ref();
            look.is_some_and(|look| look.fingerprint.is_some())
        });
        let compared = self.state.settings.elector != Elector::First
            && !self.expected(contest.record).is_empty();
        let asked = compared || self.quorum_to_ask(contest.record).is_some();
        if asked && !compares && self.election(contest).is_none_or(|known| !known.runs()) {
            self.run(contest);
        }
    }

    fn read_ballots(&mut self, after: u64, wait: Duration) {
        if self.may_call(Place::Ballot) {
            self.act(Action::ReadBallots { after, wait });
        }
    }

    /// Writes our ballot, from a word of the instance that was asked for after the lock came up for grabs: only then
    /// has everything arrived that will.
    pub(super) fn run(&mut self, contest: &Contest<'_>) {
        let from = if self.needs_votes(contest) {
            self.votes_from(contest)
        } else {
            contest.since
        };
        if self.has_asked_after(from) {
            self.write_ballot(contest, None);
        }
    }

    /// Whether the instance's last word was asked for after that; else asks for a new one.
    fn has_asked_after(&mut self, since: Tick) -> bool {
        let asked_at = self.state.instance.answered_begun_at;
        let has = asked_at.is_some_and(|at| at >= since);
        if !has && self.may_command_guard() {
            self.tell_guard(GuardCommand::Probe);
        }
        has
    }
}

/// Whose ballot nobody waits for: the last master's. But who gave the lock up for somebody else, should that one not
/// come, or because it was not promoted, is as fit as before.
fn spared(record: &Record) -> Option<&str> {
    let spared = handover(record).is_none() && !record.refused;
    spared.then_some(record.instance.as_str())
}

/// Whom the last master gave the lock up for.
pub(super) fn handover(record: &Record) -> Option<&str> {
    let target = record.handover_to.as_deref();
    target.filter(|_| record.status == Status::Fenced)
}
