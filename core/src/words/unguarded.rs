//! Members that gave no promise, and may be writable without a guard.

use std::collections::BTreeSet;

use serde::Serialize;

/// Members that gave no promise, by instance UUID, as far as it matters to who may be writable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Unguarded {
    /// They are writable, and have no guard that could fence them.
    pub writable: BTreeSet<String>,
    /// They have not been heard.
    pub silent: BTreeSet<String>,
}

impl Unguarded {
    pub(crate) fn is_empty(&self) -> bool {
        self.writable.is_empty() && self.silent.is_empty()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.writable.union(&self.silent)
    }
}
