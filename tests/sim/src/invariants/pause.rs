//! While a guard stands down for a pause no time bounds its lease, so the record says so before and until after
//! (ARCHITECTURE, "A pause: no time bounds a lease").

use crate::decide::record::Record;
use crate::world::World;

impl World {
    /// The guard is told to stand down.
    pub(crate) fn check_stands_down(&mut self, at: usize) {
        let set = self.instances[at].set;
        if !self.is_recorded_paused(at) && !self.checks.sets[set].key_lost {
            let words =
                format!("the guard of instance {at} stands down, and the record does not say so");
            self.fail("the record says paused before and until after", words);
        }
    }

    /// The lock says that it is paused, so that nobody succeeds it.
    pub(super) fn is_recorded_paused(&self, at: usize) -> bool {
        let it = &self.instances[at];
        let record = self.consul.record(it.set);
        record.is_some_and(|record| record.paused && record.instance == it.name)
    }

    /// A record of this instance is accepted.
    pub(super) fn check_says_paused(&mut self, at: usize, record: &Record) {
        let guard = self.instances[at].guard.as_ref();
        if guard.is_some_and(|guard| guard.stood_down) && !record.paused {
            let words =
                format!("the guard of instance {at} stands down, and the record stops saying so");
            self.fail("the record says paused before and until after", words);
        }
    }
}
