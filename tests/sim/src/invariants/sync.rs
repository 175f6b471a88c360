//! Acknowledged synchronous writes survive: a new master has all of them, where somebody who had them was among those
//! that it was compared with (docs/PROTOCOL.md, "The queue of synchronous transactions").

use crate::decide::state::Elector;
use crate::world::World;

impl World {
    pub(super) fn check_rows(&mut self, set: usize, at: usize) {
        if self.params.sets[set].elector != Elector::Smart {
            return;
        }
        for origin in self.sets[set].members.clone() {
            let n = self.instances[origin].n;
            let acknowledged = self.checks.places[origin].acknowledged;
            let has = self.instances[at].has[n];
            if has >= acknowledged {
                continue;
            }
            let compared = self.sets[set].members.clone().find(|other| {
                *other != at
                    && self.instances[*other].has[n] >= acknowledged
                    && self.is_fit(set, *other)
            });
            if let Some(other) = compared.filter(|_| self.was_quiet(set, at)) {
                let words = format!(
                    "instance {at} becomes master with {has} of {acknowledged} acknowledged rows of instance {origin}, and instance {other} has them all"
                );
                return self.fail("acknowledged synchronous writes survive", words);
            }
        }
    }
}
