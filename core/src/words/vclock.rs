//! How many rows an instance has of each instance.

use std::collections::BTreeMap;

/// Instance id (as text, since JSON has no other keys) → LSN.
pub type Vclock = BTreeMap<String, u64>;

/// How many rows `ahead` has that `behind` lacks.
#[must_use]
pub fn rows_missing(ahead: &Vclock, behind: &Vclock) -> u64 {
    ahead
        .iter()
        .map(|(id, lsn)| lsn.saturating_sub(behind.get(id).copied().unwrap_or(0)))
        .fold(0, u64::saturating_add)
}
