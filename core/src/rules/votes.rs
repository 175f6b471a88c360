//! Synchronous rows (R7): what a client was told to be safe is on whichever instance becomes master.
//!
//! A row is acknowledged once a quorum of Q among N members has it. So every set of N - Q + 1 members has one with that row,
//! and a candidate that has whatever these have lacks nothing that was acknowledged.

use super::contest::Contest;
use super::planner::Planner;
use super::ranking::{LastMaster, rows_lacked};
use crate::plan::Reason;
use crate::state::election::Election;
use crate::words::board::Ballot;
use crate::words::observed::Probe;
use crate::words::record::{Quorum, Record};
use crate::words::settings::{Elector, SyncLoss};
use crate::words::timing::Tick;

/// Why nobody can tell whether every acknowledged synchronous row is on a candidate's instance.
pub(super) enum Doubt {
    /// Too few members have said what they have.
    Votes {
        /// So many have.
        cast: usize,
        /// So many must.
        needed: usize,
        /// Instance UUIDs of those whose votes are missing.
        missing: Vec<String>,
    },
    /// A voter has rows that the candidate lacks.
    Rows {
        /// The voter that has most of them.
        of: Ballot,
    },
}

impl Planner<'_> {
    /// The quorum that the last master's clients relied on, where votes tell anything about it and are asked for.
    pub(super) fn quorum_to_ask<'r>(&self, record: Option<&'r Record>) -> Option<&'r Quorum> {
        let quorum = record?.quorum.as_ref()?;
        let asks = self.refuses_loss() || self.state.settings.elector != Elector::First;
        quorum.votes_needed().filter(|_| asks)?;
        Some(quorum)
    }

    /// Whether the ballots of a contest are to be votes. Those that answer an offer are none.
    pub(super) fn needs_votes(&self, contest: &Contest<'_>) -> bool {
        !contest.is_offered && self.quorum_to_ask(contest.record).is_some()
    }

    pub(super) fn refuses_loss(&self) -> bool {
        self.state.settings.sync_loss == SyncLoss::Refuse
    }

    /// Whether what this instance said last is a vote. An answer to an offer is none: the holder may be promoted after all and
    /// acknowledge more, and the lock may then be taken over by time, under the same index.
    pub(super) fn may_vote(&self, contest: &Contest<'_>) -> bool {
        let probe = self.state.live_probe().filter(|_| !contest.is_offered);
        let asked_at = self.state.instance.answered_begun_at;
        let (Some(probe), Some(asked_at)) = (probe, asked_at) else {
            return false;
        };
        // An orphan has read its whole WAL.
        let has_read_all = matches!(probe.status.as_str(), "running" | "orphan");
        // Not whether a promise binds it by now, but whether one did when it said so.
        let bound_until = self.promise_ran_until(contest, asked_at);
        let is_new = sound!(asked_at >= contest.since; OldWordIsVote => true);
        is_new && has_read_all && bound_until.is_none()
    }

    /// Until when a promise to the last master binds the instance, or may, as it was at that moment.
    fn promise_ran_until(&self, contest: &Contest<'_>, at: Tick) -> Option<Tick> {
        let before = self.state.before(contest.term);
        self.state.promised_until(before, at)
    }

    /// From then on what the instance says is a vote.
    pub(super) fn votes_from(&self, contest: &Contest<'_>) -> Tick {
        let asked_at = self.state.instance.answered_begun_at;
        let bound_until = self.promise_ran_until(contest, asked_at.unwrap_or_default());
        contest.since.max(bound_until.unwrap_or_default())
    }

    /// `None`: whatever was acknowledged is here, or no votes would tell.
    pub(super) fn doubt(
        &self,
        record: Option<&Record>,
        election: &Election,
        probe: &Probe,
    ) -> Option<Doubt> {
        let quorum = self.quorum_to_ask(record)?;
        // The last master itself has whatever it acknowledged, and had what was acknowledged before; its last word tells whether
        // its disk is still the same.
        let was_master = record.is_some_and(|last| {
            let word = last.last_masters_word();
            let own = word.is_some_and(|word| word.instance == probe.uuid);
            own && last.rows_missing(&probe.vclock) == 0
        });
        let needed = if was_master {
            0
        } else {
            quorum.votes_needed()?
        };
        let ballots = election.counting().into_values();
        let votes: Vec<&Ballot> = ballots
            .filter(|it| it.is_vote() && quorum.members.contains(&it.instance))
            .collect();
        if sound!(votes.len() < needed; VotesNotCounted => false) {
            let cast = |uuid: &&String| votes.iter().any(|vote| vote.instance == **uuid);
            let missing = quorum.members.iter().filter(|uuid| !cast(uuid));
            return Some(Doubt::Votes {
                cast: votes.len(),
                needed,
                missing: missing.cloned().collect(),
            });
        }
        let last = LastMaster::of(record, probe);
        let lacked = |it: &Ballot| rows_lacked(&probe.vclock, &it.vclock, last.as_ref());
        let of = votes.into_iter().max_by_key(|it| lacked(it))?;
        sound!(lacked(of) > 0; VotersRowsIgnored => false).then(|| Doubt::Rows { of: of.clone() })
    }

    /// Until the doubt is over nobody goes on.
    pub(super) fn wait_for_certainty(&mut self, doubt: &Doubt) -> Reason {
        if let Doubt::Rows { of } = doubt {
            self.fetch_rows(of);
        }
        Reason::WaitingForRows {
            why: self.doubt_words(doubt),
        }
    }

    /// With `REPLICATION=follow` they come from the last master alone, which is gone.
    fn fetch_rows(&mut self, of: &Ballot) {
        if self.receives_from(&of.instance) {
            let begun_at = self.state.election.as_ref().map(|it| it.own_at);
            let lease = self.state.settings.timing.lease();
            // They come in moments; where they have not come in a lease, the usual probes will do.
            if begun_at.is_some_and(|at| self.now < at + lease) {
                self.look_for_rows();
            }
        } else if self.state.settings.follow {
            self.point_at(&of.instance, "");
        }
    }

    fn receives_from(&self, member: &str) -> bool {
        let probe = self.state.live_probe();
        probe.is_some_and(|probe| probe.follows(member))
    }

    pub(super) fn doubt_words(&self, doubt: &Doubt) -> String {
        match doubt {
            Doubt::Votes {
                cast,
                needed,
                missing,
            } => {
                let names: Vec<String> = missing.iter().map(|uuid| self.name_of(uuid)).collect();
                let names = names.join(", ");
                format!("{needed} members must say what they have, {cast} did; missing: {names}")
            }
            Doubt::Rows { of } if self.receives_from(&of.instance) => {
                format!("{} has rows that are not here yet", of.name)
            }
            Doubt::Rows { of } => format!(
                "{} has rows that are not here, and the instance does not replicate from it",
                of.name
            ),
        }
    }
}
