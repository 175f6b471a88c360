//! Whose rows this instance gets, who gets its rows, and whose are refused for good.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::state::State;
use crate::words::observed::Probe;
use crate::words::record::{Record, Status};
use crate::words::timing::Tick;

/// How long nobody replicates from an instance before that is a problem: whoever was started again is connected long
/// before.
const UNFOLLOWED: Duration = Duration::from_secs(15);

/// What a member is that others refuse, and how an operator mends it.
pub(crate) const SPLIT_OFF: &str = "it wrote some as a master whose time was over (Split-Brain). Remove its WAL, \
     snapshot and vinyl files and start it, so that it joins anew; then set box.cfg.replication of the others to {} and \
     back";

impl State {
    /// Whether that has lasted.
    pub(crate) fn is_unfollowed(&self, now: Tick) -> bool {
        let since = self.instance.unfollowed_since;
        since.is_some_and(|since| now.since(since) >= UNFOLLOWED)
    }

    /// What the next record says of members that are split off, after our own last one or a predecessor's: a member stays it
    /// while this instance is to replicate from it and does not.
    pub(crate) fn split_off(&self, own: Option<&Record>) -> Vec<String> {
        let Some(probe) = &self.instance.probe else {
            return Vec::new();
        };
        let before = own.or_else(|| self.seen_record());
        let unfollowed = |uuid: &&String| probe.upstream(uuid).is_some() && !probe.follows(uuid);
        let known = before.into_iter().flat_map(|record| &record.split_off);
        let refused = probe.split_off().map(|peer| &peer.uuid);
        let all: BTreeSet<&String> = refused.chain(known.filter(unfollowed)).collect();
        all.into_iter().cloned().collect()
    }

    /// Why this instance is none that may be master, if the others refuse what it wrote.
    pub(crate) fn split_off_words(&self) -> Option<String> {
        let probe = self.live_probe()?;
        let record = self.seen_record()?;
        let split = record.instance != probe.uuid && record.split_off.contains(&probe.uuid);
        split.then(|| format!("{} refuses its rows for good: {SPLIT_OFF}", record.name))
    }

    /// The record of whoever else holds the lock and is active, and when its last word was seen.
    pub(crate) fn master_elsewhere(&self, probe: &Probe) -> Option<(&Record, Tick)> {
        let record = self.seen_record()?;
        self.key_session()?;
        let known = self.lock.unchanged.as_ref()?;
        let serves = record.status == Status::Active && known.stamp == record.stamp();
        (serves && record.instance != probe.uuid).then_some((record, known.spoke_at))
    }
}
