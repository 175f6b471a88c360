//! What a member says of its instance where the lock is up for grabs: a ballot, by which it runs or says why it does not, and
//! which may be a vote.

use std::time::Duration;

use super::contest::{Contest, spared};
use super::planner::Planner;
use crate::plan::{Action, GuardCommand};
use crate::state::Unchanged;
use crate::state::slots::Place;
use crate::words::board::{self, Ballot};
use crate::words::observed::Probe;
use crate::words::record::{Record, Status};
use crate::words::timing::Tick;

/// "Never" in a ballot: longer than anybody waits, and a number that every reader of JSON can hold.
const NEVER_MS: u64 = u32::MAX as u64;

/// As a ballot has it.
fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).map_or(NEVER_MS, |ms| ms.min(NEVER_MS))
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
        let compared = self.compares() && !spared;
        if own.is_none() || !(asked || compared) {
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

    /// Its ballot takes two calls, which need not wait for the board.
    pub(super) fn prepare_ballot(&mut self, contest: &Contest<'_>) {
        // Whether it has the last master's vshard configuration is on the board.
        let probe = self.state.live_probe();
        let look = probe.and_then(|probe| probe.vshard.as_ref());
        let needs_board = look.is_some_and(|look| look.fingerprint.is_some());
        let asked =
            self.expects_ballots(contest.record) || self.quorum_to_ask(contest.record).is_some();
        if asked && !needs_board && self.election(contest).is_none_or(|known| !known.runs()) {
            self.run(contest);
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
