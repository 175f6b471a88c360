//! An election: who goes first when the lock is up for grabs. Ballots order the queue; the lock alone decides.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::board::{self, Ballot, rows_missing};
use super::hold::GivesWay;
use super::observed::Probe;
use super::plan::{Action, GuardCommand, Reason};
use super::record::{Record, Status, Vclock};
use super::state::{Elector, Link, Unchanged};
use super::timing::{Tick, Timing};
use super::{Place, Planner};

/// "Never" in a ballot: longer than anybody waits, and a number that every reader of JSON can hold.
const NEVER_MS: u64 = u32::MAX as u64;

/// So many turns has one that merely gives way while its rows come: enough to fetch what was missed in a long absence, and
/// an end where they do not come in truth.
const TURNS_WHILE_ROWS_COME: u64 = 8;

/// The election that we take part in.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Election {
    /// The lock key's `ModifyIndex` that it rests on; 0: there is no key.
    pub index: u64,
    /// The term up for grabs.
    pub term: u64,
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
    /// Who merely gave way while we ran, by instance UUID, and the first term in which that was so.
    pub turns: BTreeMap<String, u64>,
}

impl Election {
    /// Takes what stands under the ballots' prefix.
    pub(super) fn reads(&mut self, index: u64, ballots: BTreeMap<String, Ballot>, now: Tick) {
        // An index that went backwards is of another store: start over.
        self.ballots_index = if index < self.ballots_index { 0 } else { index };
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
        if self.runs() {
            let giving_way = self.counting().into_iter();
            let giving_way = giving_way.filter(|(_, ballot)| ballot.gives_way_ms > 0);
            let uuids: Vec<String> = giving_way.map(|(uuid, _)| uuid.to_owned()).collect();
            for uuid in uuids {
                self.turns.entry(uuid).or_insert(self.term);
            }
        }
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
    fn counting(&self) -> BTreeMap<&str, &Ballot> {
        let read = self.ballots.values();
        read.chain(&self.own)
            .filter(|ballot| ballot.term == self.term && ballot.index == self.index)
            .map(|ballot| (ballot.instance.as_str(), ballot))
            .collect()
    }
}

/// What the last master had, by its last word and by the rows that it wrote itself since.
#[derive(Debug, Clone)]
pub struct LastMaster {
    vclock: Vclock,
    /// Its component of vclocks.
    id: String,
}

impl LastMaster {
    /// `None`: nobody says who served last, or which component is its own.
    pub(super) fn of(record: Option<&Record>, probe: &Probe) -> Option<Self> {
        // Who wrote it and was never promoted may have fewer rows than its predecessor.
        let last = record?.last_masters_word()?;
        let peer = probe.peer(&last.instance)?;
        Some(Self {
            vclock: last.vclock,
            id: peer.id.to_string(),
        })
    }
}

/// Who is to go first comes first. The instance UUID makes it one order for all.
#[must_use]
pub fn compare(elector: Elector, last: Option<&LastMaster>, a: &Ballot, b: &Ballot) -> Ordering {
    let rows = |vclock: &Vclock| rows(vclock, last);
    let by_elector = match elector {
        Elector::Smart => {
            let key = |ballot: &Ballot| {
                let (same, following) = (ballot.same_configuration, ballot.following);
                let ahead = (same, following, rows(&ballot.vclock), !ballot.unfollowed);
                (Reverse((ahead, ballot.priority)), ballot.idle_ms)
            };
            key(a).cmp(&key(b))
        }
        Elector::Idle => {
            let key = |ballot: &Ballot| {
                let rows = Reverse(rows(&ballot.vclock));
                (ballot.unfollowed, ballot.idle_ms, rows)
            };
            key(a).cmp(&key(b))
        }
        Elector::First => Ordering::Equal,
    };
    by_elector.then_with(|| a.instance.cmp(&b.instance))
}

/// As a ballot has it.
fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).map_or(NEVER_MS, |ms| ms.min(NEVER_MS))
}

/// How much of what the last master had a vclock has: of two of which one has everything that the other has, no less.
/// What an earlier master alone has, and the last one never had, was acknowledged by nobody that counts.
fn rows(vclock: &Vclock, last: Option<&LastMaster>) -> u64 {
    let counts = |(id, lsn): (&String, &u64)| match last {
        Some(last) if last.id != *id => last.vclock.get(id).copied().unwrap_or(0).min(*lsn),
        Some(_) | None => *lsn,
    };
    vclock.iter().map(counts).fold(0, u64::saturating_add)
}

/// What is up for grabs, and on what terms.
pub(super) struct Contest<'a> {
    /// The key's `ModifyIndex`; 0: there is no key.
    pub(super) index: u64,
    /// The term that whoever gains it begins.
    pub(super) term: u64,
    /// Whoever was master before, where a record says so.
    pub(super) record: Option<&'a Record>,
    /// It has been up for grabs since then.
    pub(super) since: Tick,
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

    /// Its guard would not promote it a short time ago, nobody else was promoted since, and nobody replicates from it
    /// with whom it might go otherwise.
    pub(super) fn gives_way(&self, record: Option<&Record>) -> Option<&GivesWay> {
        let probe = self.state.live_probe()?;
        let known = self.state.hold.gives_way.as_ref()?;
        let came = record.is_some_and(|last| last.instance != probe.uuid && last.was_promoted());
        let joined = known.refused_with.as_ref().is_some_and(|known| {
            let followers = probe.followers();
            followers.iter().any(|it| !known.contains(it))
        });
        (!came && !joined && self.now < known.until).then_some(known)
    }

    /// The same where nothing else keeps it from running.
    fn merely_gives_way(&self, record: Option<&Record>) -> Option<&GivesWay> {
        let gives_way = self.gives_way(record)?;
        let excluded = self.excluded(record, Duration::ZERO);
        excluded.is_none().then_some(gives_way)
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
        let gives_way = self.merely_gives_way(record);
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
            absent: excluded.is_some() && self.is_absent(),
            excluded,
            gives_way_ms: gives_way.map_or(0, |it| whole_ms(it.until.since(self.now)).max(1)),
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

    fn is_absent(&self) -> bool {
        let instance = &self.state.instance;
        let unanswered = instance.unanswered_at > instance.answered_begun_at;
        let probe = self.state.live_probe();
        let there = probe.is_some_and(|probe| probe.status == "running");
        let absent = !there || unanswered || instance.silent_since.is_some();
        absent && self.state.never_master().is_none()
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

    /// Says that we do not run, once, so that nobody waits for our ballot; and again when we begin or cease merely to give
    /// way.
    pub(super) fn decline(&mut self, contest: &Contest<'_>, why: &str) {
        let own = self.state.instance.probe.as_ref().map(|probe| &probe.uuid);
        let expected = own.is_some() && contest.record.and_then(spared) != own.map(String::as_str);
        let election = self.election(contest);
        let gives_way = self.merely_gives_way(contest.record).is_some();
        let said = election.is_some_and(|known| {
            let ballot = known.own.as_ref();
            ballot.is_some_and(|it| it.excluded.is_some() && (it.gives_way_ms > 0) == gives_way)
        });
        if expected && !said && self.is_lost_for_a_moment(contest.record) {
            return;
        }
        if expected && !said && self.state.settings.elector != Elector::First {
            self.write_ballot(contest, Some(why.to_owned()));
        }
    }

    /// We give way, and somebody may wait for us: a connection that was lost is no reason yet to say no more.
    fn is_lost_for_a_moment(&mut self, record: Option<&Record>) -> bool {
        let known = self.state.hold.gives_way.as_ref();
        let came = record.is_some_and(|last| !last.refused && last.was_promoted());
        let gives_way = !came && known.is_some_and(|known| self.now < known.until);
        let Link::Down { since, .. } = &self.state.instance.link else {
            return false;
        };
        let until = *since + self.state.settings.timing.healthcheck_timeout();
        let lost = gives_way && self.now < until;
        if lost {
            self.wake(until);
        }
        lost
    }

    fn write_ballot(&mut self, contest: &Contest<'_>, excluded: Option<String>) {
        if let Some(ballot) = self.ballot(contest, excluded)
            && self.may_call(Place::Ballot)
        {
            self.act(Action::WriteBallot {
                ballot: Box::new(ballot),
            });
        }
    }

    /// Whose ballots are worth waiting for: those who followed the last master at its last word, and its members that
    /// are healthy and not missed by our instance: who came back behind that word may have rows that a quorum
    /// acknowledged. Who was not named is in no hurry, and waits for all that are healthy; so do all where nobody knows
    /// who followed.
    fn expected<'r>(&'r self, record: Option<&'r Record>) -> BTreeSet<&'r str> {
        let probe = self.state.live_probe();
        let own = probe.map_or("", |probe| &probe.uuid);
        let following = record.map_or(&[][..], |record| record.following.as_slice());
        let mut expected: BTreeSet<&str> = following.iter().map(String::as_str).collect();
        let named = expected.contains(own);
        // The key of one that left stays where it is.
        let members = record.map_or(&[][..], |record| record.members.as_slice());
        let left = |uuid: &String| {
            let known =
                probe.is_some_and(|it| it.replication.iter().any(|peer| peer.uuid == *uuid));
            !members.is_empty() && !members.contains(uuid) && !known
        };
        if let Some((board, _)) = &self.state.board {
            let healthy = board.members.iter();
            let healthy = healthy.filter(|(uuid, member)| {
                let missed = named && probe.is_some_and(|it| it.misses(uuid));
                member.health == "passing" && !missed && !left(uuid)
            });
            expected.extend(healthy.map(|(uuid, _)| uuid.as_str()));
        }
        if let Some(refused) = record.filter(|last| last.refused) {
            expected.insert(&refused.instance);
        }
        expected.remove(own);
        if let Some(spared) = record.and_then(spared) {
            expected.remove(spared);
        }
        expected
    }

    /// Whose turn it is. `None`: ours; else why not yet.
    pub(super) fn wait_for_turn(&mut self, contest: &Contest<'_>) -> Option<Reason> {
        let settings = &self.state.settings;
        let window = settings.election_window;
        if let Some(first) = contest.record.and_then(handover) {
            let until = contest.since + window;
            if self.now < until {
                self.wake(until);
                let first = first.to_owned();
                return Some(Reason::HoldingBack { first, until });
            }
        }
        let expected = self.expected(contest.record);
        if settings.elector == Elector::First || expected.is_empty() {
            return None;
        }
        // Who did not run before has no ballot that counts either.
        let election = self.election(contest).filter(|election| election.runs());
        let Some(election) = election.cloned() else {
            self.run(contest);
            let until = self.now + window * 2;
            return Some(Reason::WaitingForBallots { until });
        };
        // Who is bound by a promise casts no ballot, and may have what nobody else has.
        let free_at = self.all_are_free_at(contest.record);
        let Some(own) = election.own.as_ref().filter(|own| own.excluded.is_none()) else {
            self.run(contest);
            // Where Consul lets us write the lock and no ballot, the lock alone decides.
            let probe = self.state.live_probe();
            let patience = probe.map_or(window, |it| self.patience(contest.record, &it.vclock));
            let until = election.begun_at.max(free_at) + patience.max(window * 2);
            self.wake(until);
            return (self.now < until).then_some(Reason::WaitingForBallots { until });
        };
        let ballots = election.counting();
        let probe = self.state.live_probe();
        let last = probe.and_then(|probe| LastMaster::of(contest.record, probe));
        let patience = probe.map_or(window, |it| self.patience(contest.record, &it.vclock));
        // Whose instance is not there counts as silent for who lacks rows.
        let absent = patience > window && ballots.values().any(|it| it.absent);
        let cast = !absent && expected.iter().all(|uuid| ballots.contains_key(uuid));
        let mut queue: Vec<&Ballot> = ballots.into_values().collect();
        queue.retain(|ballot| ballot.excluded.is_none());
        queue.sort_by(|a, b| compare(settings.elector, last.as_ref(), a, b));
        let better = queue
            .iter()
            .take_while(|ballot| ballot.instance != own.instance);
        let ahead = u32::try_from(better.clone().count()).unwrap_or(u32::MAX);
        let turns_end = probe.and_then(|it| self.turns_end(&election, it, ahead > 0));
        let turns_end = turns_end.unwrap_or_default();
        let complete = cast && turns_end <= self.now;
        let closes_at = (election.own_at + patience)
            .max(free_at + window)
            .max(turns_end);
        // Whoever is better gets its whole window, however late in ours its ballot came.
        let ranked_at = if complete {
            let cast_at = election.own_at.max(election.last_came_at());
            cast_at.max(turns_end)
        } else {
            let lease = contest.record.map(Record::lease).unwrap_or_default();
            let theirs = better.filter_map(|ballot| {
                let came_at = election.came_at.get(&ballot.instance)?;
                let open = Duration::from_millis(ballot.open_ms);
                let open = open.min(Timing::lease_and_margin(lease)) + window;
                // It waits as we do, if both of us lack rows.
                let theirs = self.patience(contest.record, &ballot.vclock);
                Some(*came_at + open.max(theirs.min(patience)))
            });
            theirs.fold(closes_at.max(election.last_came_at()), Tick::max)
        };
        let until = ranked_at + window.saturating_mul(ahead);
        if self.now >= until {
            return None;
        }
        self.wake(until);
        if !complete && self.now < closes_at {
            self.wake(closes_at);
            // No longer than this, for it keeps us from writing a ballot.
            let longest = settings.timing.healthcheck_interval().max(window);
            let wait = closes_at.since(self.now).min(longest);
            self.read_ballots(election.ballots_index, wait);
            return Some(Reason::WaitingForBallots { until: closes_at });
        }
        let first = queue
            .first()
            .map_or_else(String::new, |best| best.name.clone());
        Some(Reason::HoldingBack { first, until })
    }

    /// When those have had their turn that merely give way and have rows which this instance lacks. It waits for a whole
    /// turn while it receives their rows, or runs beside them for the first time, or a better one may wait (`ahead`); else
    /// for a lease, so that nobody waits for ever.
    fn turns_end(&self, election: &Election, probe: &Probe, ahead: bool) -> Option<Tick> {
        let settings = &self.state.settings;
        // Its way to the lock takes calls.
        let way = settings
            .election_window
            .max(settings.timing.healthcheck_timeout());
        let lease = self.state.longest_lease();
        let ballots = election.counting().into_values();
        let behind =
            ballots.filter(|it| it.gives_way_ms > 0 && rows_missing(&it.vclock, &probe.vclock) > 0);
        let ends = behind.filter_map(|ballot| {
            let known = election.turns.get(&ballot.instance);
            let turns = known.map_or(0, |term| election.term.saturating_sub(*term));
            let comes = turns < TURNS_WHILE_ROWS_COME && probe.follows(&ballot.instance);
            let longest = if ahead || turns == 0 || comes {
                Timing::lease_and_margin(lease) * 2
            } else {
                lease
            };
            let turn = Duration::from_millis(ballot.gives_way_ms).min(longest);
            let came_at = *election.came_at.get(&ballot.instance)?;
            let came_at = if ahead {
                election.last_came_at()
            } else {
                came_at
            };
            Some(came_at + turn + way)
        });
        ends.max()
    }

    /// How long a ballot that is missing is waited for. Who knows that it lacks rows which the last master had gives
    /// those who are silent a lease: they may have what nobody else has.
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
        let asked = self.state.settings.elector != Elector::First
            && !self.expected(contest.record).is_empty();
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
    fn run(&mut self, contest: &Contest<'_>) {
        let asked_at = self.state.instance.answered_begun_at;
        if asked_at.is_some_and(|at| at >= contest.since) {
            self.write_ballot(contest, None);
        } else if self.may_command_guard() {
            self.tell_guard(GuardCommand::Probe);
        }
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
