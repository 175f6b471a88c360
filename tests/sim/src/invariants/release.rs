//! R2: the lock is released only once the instance is read-only with its commits landed, dead, or past its lease; and a
//! record that says `fenced` is true of everybody.

use crate::decide::record::{Record, Status};
use crate::time::MS;
use crate::world::World;

impl World {
    pub(super) fn check_release(&mut self, set: usize, at: usize, record: &Record) {
        let it = &self.instances[at];
        let lease_over = self.checks.places[at].leased_until <= self.now;
        if it.alive {
            let guard = it.guard.as_ref();
            let stood_down = guard.is_some_and(|guard| guard.stood_down);
            let now_ns = it.clock.instance(self.now).monotonic_ns;
            let promoting = guard.is_some_and(|guard| guard.may_turn_writable(now_ns));
            if stood_down || promoting || (!it.read_only && !lease_over) {
                let left = self.checks.places[at].leased_until.saturating_sub(self.now) / MS;
                let words = format!(
                    "the lock is released and instance {at} is writable, its lease runs for {left} ms"
                );
                return self.fail("released only when fenced, dead or expired", words);
            }
            if it.in_flight > 0 && !lease_over {
                let words = format!(
                    "the lock is released while {} commits of instance {at} are in flight",
                    it.in_flight
                );
                return self.fail("released only when fenced, dead or expired", words);
            }
        }
        if record.status == Status::Fenced {
            self.check_landed(at);
            self.check_nobody_writable(set, at);
        }
        if let Some(target) = &record.handover_to {
            self.check_handed_over(set, at, target, record);
        }
    }

    /// An instance that is spared because its barrier cannot be written has not said that its commits have landed.
    fn check_landed(&mut self, at: usize) {
        let it = &self.instances[at];
        let guard = it.guard.as_ref().filter(|_| it.alive);
        let failed = guard.is_some_and(|guard| guard.has_failed_barrier());
        if failed && it.in_flight > 0 {
            let words = format!(
                "instance {at} says `fenced` with {} commits in flight and no barrier",
                it.in_flight
            );
            self.fail("released only when fenced, dead or expired", words);
        }
    }

    fn check_nobody_writable(&mut self, set: usize, at: usize) {
        for other in self.sets[set].members.clone() {
            let it = &self.instances[other];
            let leased = it.lease_ends().is_some_and(|end| end > self.now);
            if other != at && it.alive && !it.read_only && (leased || it.is_writable()) {
                let words =
                    format!("instance {at} says `fenced`, and instance {other} is writable");
                return self.fail("released only when fenced, dead or expired", words);
            }
        }
    }

    pub(crate) fn check_fenced(&mut self, at: usize) {
        if self.instances[at].in_flight == 0 {
            self.checks.places[at].leased_until = self.checks.places[at].leased_until.min(self.now);
        }
    }
}
