//! Members that may be writable without a guard, written down.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::state::State;
use crate::words::timing::{Tick, Timing};
use crate::words::unguarded::Unguarded;

impl State {
    /// Every instance that anybody knows said, when we had the lock already, that it is read-only, with its commits landed;
    /// and each refuses from then on whatever rests on an earlier word. So nobody is master, and on nobody's promise. Not
    /// so where members' keys were not read: whose they are was not asked.
    pub(super) fn all_are_read_only(&mut self) {
        let misses = self.board.as_ref().is_some_and(|(it, _)| it.misses_members);
        if self.holds_unrecorded_since().is_some() && !misses {
            self.hold.predecessor_over_at = None;
            self.hold.before.guard_age = Duration::ZERO;
        }
    }

    /// A member that was writable without a guard stays so for us until it says otherwise. From that moment its last commits
    /// may land for as long as a lease would have run, unless everybody promises.
    pub(super) fn note_unguarded(&mut self, said: Unguarded, all_promised: bool, now: Tick) {
        let known = self.hold.unguarded.take().unwrap_or_default();
        let unguarded = Unguarded {
            silent: known
                .names()
                .filter(|uuid| said.silent.contains(*uuid))
                .cloned()
                .collect(),
            writable: said.writable,
        };
        if all_promised {
            self.hold.unguarded_until = None;
        } else if !known.is_empty() || !unguarded.is_empty() {
            let lease = Timing::lease_and_margin(self.settings.timing.lease());
            self.hold.unguarded_until = Some(now + lease);
        }
        self.hold.unguarded = Some(unguarded);
    }

    /// A hold begins under a record that says whom a holder before us heard to be writable without a guard. They are so
    /// for us, too. Where the members have not all promised yet, they have a lease for it.
    pub(super) fn begin_with_unguarded(&mut self, heard: Option<BTreeSet<String>>, now: Tick) {
        let lease = Timing::lease_and_margin(self.settings.timing.lease());
        self.hold.unguarded_until = heard.as_ref().map(|_| now + lease);
        let named = heard.filter(|heard| !heard.is_empty());
        self.hold.unguarded = named.map(|writable| Unguarded {
            writable,
            ..Unguarded::default()
        });
    }
}
