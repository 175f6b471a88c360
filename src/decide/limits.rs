//! What is written to Consul can be read there: whatever words and names came from outside, each has an end.

use std::collections::BTreeSet;

use super::board::{Ballot, HistoryLine, Member};
use super::plan::Action;
use super::record::{Record, Vclock};

/// In characters: longer than any sentence of ours. The worst of them takes six bytes in JSON.
const WORDS_MAX: usize = 500;
/// The first ones say enough; the others stand in their own members' keys.
const PROBLEMS_MAX: usize = 8;
/// More members than a replica set has, those that have left among them.
const NAMES_MAX: usize = 64;
/// A UUID has 36.
const NAME_MAX: usize = 64;

fn cut(words: &mut String) {
    if let Some((end, _)) = words.char_indices().nth(WORDS_MAX) {
        words.truncate(end);
        words.push('…');
    }
}

fn cut_all(problems: &mut Vec<String>) {
    problems.truncate(PROBLEMS_MAX);
    problems.iter_mut().for_each(cut);
}

impl Action {
    /// The same with an end to each of its words.
    pub(super) fn within_limits(mut self) -> Self {
        match &mut self {
            Self::Acquire { attempt, .. }
            | Self::Refresh { attempt, .. }
            | Self::TakeOver { attempt, .. } => attempt.record.cut_words(),
            Self::Release { record, .. } => record.cut_words(),
            Self::WriteBallot { ballot } => ballot.cut_words(),
            Self::WriteHistory { line, .. } => line.cut_words(),
            Self::WriteMember { member } => member.cut_words(),
            Self::Guard(_)
            | Self::Kill
            | Self::CreateSession
            | Self::RenewSession { .. }
            | Self::DestroySession { .. }
            | Self::ReadLock
            | Self::ReadBoard
            | Self::ReadBallots { .. }
            | Self::WriteSwitchover { .. }
            | Self::ReadHistory
            | Self::AskPromises { .. }
            | Self::Tell { .. }
            | Self::Deregister
            | Self::Vshard(_)
            | Self::Exit { .. } => {}
        }
        self
    }
}

impl Record {
    fn cut_words(&mut self) {
        cut(&mut self.reason);
        cut_all(&mut self.problems);
    }

    /// What is too long in it; a holder hands much of it on, and its own record must be read. `None`: nothing.
    pub(super) fn excess(&self) -> Option<String> {
        let sets = [&self.tried].into_iter().chain(&self.unguarded);
        let quorum = self.quorum.iter().map(|quorum| &quorum.members);
        let lists = [&self.members, &self.following, &self.split_off];
        let last = self.last_master.iter();
        let vclocks = [&self.vclock, &self.base].into_iter();
        let single = [&self.instance, &self.replicaset, &self.agent].into_iter();
        let single = single.chain(&self.handover_to);
        let has_room = sets.chain(quorum).all(fits)
            && lists
                .into_iter()
                .all(|names| names.len() <= NAMES_MAX && names.iter().all(|it| is_name(it)))
            && vclocks
                .chain(last.clone().map(|word| &word.vclock))
                .all(is_vclock)
            && single
                .chain(last.map(|word| &word.instance))
                .all(|name| name.chars().count() <= NAME_MAX);
        (!has_room).then(|| {
            format!("more than {NAMES_MAX} members or components, or a name of more than {NAME_MAX} characters")
        })
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= NAME_MAX
}

fn fits(names: &BTreeSet<String>) -> bool {
    names.len() <= NAMES_MAX && names.iter().all(|it| is_name(it))
}

fn is_vclock(vclock: &Vclock) -> bool {
    vclock.len() <= NAMES_MAX && vclock.keys().all(|it| is_name(it))
}

impl Ballot {
    fn cut_words(&mut self) {
        self.excluded.iter_mut().for_each(cut);
    }
}

impl Member {
    fn cut_words(&mut self) {
        cut(&mut self.reason);
        self.cut_off.iter_mut().for_each(cut);
        self.vshard.iter_mut().for_each(cut);
        cut_all(&mut self.problems);
    }
}

impl HistoryLine {
    fn cut_words(&mut self) {
        cut(&mut self.reason);
        self.by.iter_mut().for_each(cut);
        cut(&mut self.to.name);
        self.from.iter_mut().for_each(|party| cut(&mut party.name));
    }
}
