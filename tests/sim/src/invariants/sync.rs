//! R7: with `SYNC_LOSS=refuse` every new master has every acknowledged synchronous row, unless the lock key was lost, which
//! says who is to be asked. With `accept` a new master has them where a member that has them was there to be compared with.

use crate::decide::settings::Elector;
use crate::world::World;

impl World {
    pub(super) fn check_rows(&mut self, set: usize, at: usize) {
        let refuses = self.params.sets[set].refuses_loss && !self.checks.sets[set].key_lost;
        if !refuses && self.params.sets[set].elector != Elector::Smart {
            return;
        }
        for origin in self.sets[set].members.clone() {
            let n = self.instances[origin].n;
            let acknowledged = self.checks.places[origin].acknowledged;
            let has = self.instances[at].has[n];
            if has >= acknowledged {
                continue;
            }
            if refuses {
                let words = format!(
                    "instance {at} becomes master with {has} of {acknowledged} acknowledged rows of instance {origin}"
                );
                return self.fail("no acknowledged synchronous row is lost", words);
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
