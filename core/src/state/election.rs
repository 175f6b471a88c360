//! What an agent knows of the election that it takes part in.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::words::board::Ballot;
use crate::words::term::Term;
use crate::words::timing::Tick;

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
    pub(crate) fn reads(&mut self, index: u64, ballots: BTreeMap<String, Ballot>, now: Tick) {
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
    pub(crate) fn runs(&self) -> bool {
        let last = self.writing.as_ref().or(self.own.as_ref());
        last.is_some_and(|ballot| ballot.excluded.is_none())
    }

    /// The ballots of this election, ours among them, by instance UUID.
    pub(crate) fn counting(&self) -> BTreeMap<&str, &Ballot> {
        let read = self.ballots.values();
        read.chain(&self.own)
            .filter(|it| {
                sound!(it.term == self.term && it.index == self.index; AnyElectionsBallots => true)
            })
            .map(|ballot| (ballot.instance.as_str(), ballot))
            .collect()
    }
}
