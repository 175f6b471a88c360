//! A time within a term in which its master was read-only: nothing changed hands, and its clients saw it all the same.

use serde::{Deserialize, Serialize};

use super::ending::Outage;

/// Of one term so many are remembered, the newest: a line of history stays a line, whatever goes on.
pub const INTERRUPTIONS: usize = 8;

/// A time within a term in which its master was not writable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interruption {
    /// Wall-clock milliseconds since the epoch when it was writable again.
    pub at_ms: u64,
    /// Why it was not, in words.
    pub why: String,
    /// For how long.
    pub outage: Outage,
}

pub(crate) fn keep(list: &mut Vec<Interruption>, interruption: Interruption) {
    if list.contains(&interruption) {
        return;
    }
    if list.len() == INTERRUPTIONS {
        list.remove(0);
    }
    list.push(interruption);
}
