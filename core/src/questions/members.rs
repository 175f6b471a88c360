//! Whom an agent knows in its replica set.

use crate::state::State;
use crate::words::observed::Probe;
use crate::words::record::{Record, Status};
use crate::words::timing::Tick;

/// The keys of so many instances are read: a replica set has 32 members at most, and as many may have left it.
const KNOWN_MEMBERS: usize = 64;

impl State {
    /// Whether something rests on the keys of members that nobody here has heard of: no record says who was promoted last.
    #[must_use]
    pub fn rests_on_all_members(&self) -> bool {
        let says = |record: &Record| {
            record.term >= self.highest_term && record.status != Status::Promoting
        };
        !self.seen_record().is_some_and(says)
    }

    /// The instances whose keys beside the lock are read: all that anybody here has heard of, the surest first.
    #[must_use]
    pub fn known_members(&self) -> Vec<String> {
        let probe = self.instance.probe.iter();
        let instance = probe.flat_map(|probe| {
            let peers = probe.replication.iter().map(|peer| &peer.uuid);
            std::iter::once(&probe.uuid).chain(peers)
        });
        let records = [self.hold.record.as_ref(), self.seen_record()];
        let records = records.into_iter().flatten();
        let recorded =
            records.flat_map(|record| std::iter::once(&record.instance).chain(&record.members));
        let board = self
            .board
            .iter()
            .flat_map(|(board, _)| board.members.keys());
        let mut known: Vec<String> = Vec::new();
        for uuid in instance.chain(recorded).chain(board) {
            if known.len() < KNOWN_MEMBERS && !known.contains(uuid) {
                known.push(uuid.clone());
            }
        }
        known
    }
}

impl State {
    /// Who replicates from the instance, if it was heard lately: what it said long ago leaves out who has come back since.
    pub(crate) fn followers(&self, now: Tick) -> Option<Vec<String>> {
        let patience = self.settings.timing.healthcheck_interval() * 2;
        let probed_at = self.instance.probed_at.filter(|at| *at + patience >= now);
        probed_at.and(self.instance.probe.as_ref().map(Probe::followers))
    }
}
