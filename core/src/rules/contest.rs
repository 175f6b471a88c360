//! What is up for grabs.

use crate::words::record::{Record, Status};
use crate::words::term::Term;
use crate::words::timing::Tick;

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

/// Whose ballot nobody waits for: the last master's. But who gave the lock up for somebody else, should that one not
/// come, or because it was not promoted, is as fit as before.
pub(super) fn spared(record: &Record) -> Option<&str> {
    let spared = handover(record).is_none() && !record.refused;
    spared.then_some(record.instance.as_str())
}

/// Whom the last master gave the lock up for.
pub(super) fn handover(record: &Record) -> Option<&str> {
    let target = record.handover_to.as_deref();
    target.filter(|_| record.status == Status::Fenced)
}
