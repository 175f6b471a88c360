//! Which of two ballots goes first.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeSet;

use crate::words::board::Ballot;
use crate::words::observed::Probe;
use crate::words::record::Record;
use crate::words::settings::Elector;
use crate::words::vclock::{Vclock, rows_missing};

/// Which rows count: those that the last master wrote itself, and others as far as it had them. What an earlier master alone
/// has, and the last one never had, was acknowledged by nobody that counts.
#[derive(Debug, Clone)]
pub struct LastMaster {
    /// What it had at its last word.
    vclock: Vclock,
    /// Its component of vclocks; two, where a holder may have been promoted before anybody heard of it.
    ids: BTreeSet<String>,
}

impl LastMaster {
    /// `None`: nobody says who served last, or which component is its own; then every row counts.
    pub(crate) fn of(record: Option<&Record>, probe: &Probe) -> Option<Self> {
        let record = record?;
        let mut vclock = record.vclock.clone();
        let mut instances = vec![record.instance.as_str()];
        if !record.was_promoted() {
            let last = record.last_master.as_ref()?;
            if record.refused {
                instances.clear();
            }
            for (id, lsn) in &last.vclock {
                let known = vclock.entry(id.clone()).or_default();
                *known = (*known).max(*lsn);
            }
            instances.push(&last.instance);
        }
        let ids = instances
            .into_iter()
            .map(|uuid| Some(probe.peer(uuid)?.id.to_string()));
        Some(Self {
            vclock,
            ids: ids.collect::<Option<_>>()?,
        })
    }
}

/// How many of the rows that count `own` lacks and `theirs` has.
pub(super) fn rows_lacked(own: &Vclock, theirs: &Vclock, last: Option<&LastMaster>) -> u64 {
    let Some(last) = last else {
        return rows_missing(theirs, own);
    };
    let counts = theirs.iter().map(|(id, lsn)| {
        let most = last.vclock.get(id).copied().unwrap_or(0);
        let lsn = if last.ids.contains(id) {
            *lsn
        } else {
            most.min(*lsn)
        };
        (id.clone(), lsn)
    });
    rows_missing(&counts.collect(), own)
}

/// Who is to go first comes first. The instance UUID makes it one order for all.
#[must_use]
pub fn compare(elector: Elector, last: Option<&LastMaster>, a: &Ballot, b: &Ballot) -> Ordering {
    let rows = |vclock: &Vclock| rows(vclock, last);
    let by_elector = match elector {
        Elector::Smart => {
            let key = |ballot: &Ballot| {
                let (same, following) = (ballot.same_configuration, ballot.following);
                let all = rows(&ballot.vclock);
                let rows = sound!(all; StalestFirst => u64::MAX - all);
                let ahead = (same, following, rows, !ballot.unfollowed);
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

/// How many of the rows that count a vclock has: of two of which one has everything that the other has, no less.
fn rows(vclock: &Vclock, last: Option<&LastMaster>) -> u64 {
    rows_lacked(&Vclock::new(), vclock, last)
}
