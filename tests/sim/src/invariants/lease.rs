//! R1: an instance is writable only while its lease runs, and a lease rests on a reading of its present process's clock
//! that was taken before Consul accepted a write, or before all members promised (R6).

use crate::agent::duration;
use crate::decide::term::Term;
use crate::time::{MS, Time};
use crate::world::World;

/// A fiber may be that late (A4), and a turn of the event loop is no time at all.
const LATE: Time = 250 * MS;

impl World {
    /// A lease was started or lengthened.
    pub(crate) fn check_leased(&mut self, at: usize, deadline_ns: u64) {
        let set = self.instances[at].set;
        let lease = duration(self.params.sets[set].timing.lease());
        let term = self.instances[at]
            .guard
            .as_ref()
            .map_or(Term::NONE, |guard| guard.term);
        let place = &mut self.checks.places[at];
        let t0 = deadline_ns.saturating_sub(lease);
        let accepted = place
            .accepted
            .iter()
            .any(|(known, at)| *known == term && at.monotonic_ns >= t0);
        let promised = place.promised.iter().any(|at| at.monotonic_ns >= t0);
        place.leased_until = self.instances[at].clock.when(deadline_ns);
        if !accepted && !promised {
            let words =
                format!("instance {at} is given a lease for term {term} that rests on nothing");
            self.fail("a lease rests on an accepted write", words);
        }
    }

    /// The end of the longest lease that an accepted write or promises allow, as its agent counts it: from the moment
    /// of their acceptance, which a successor's wait begins no earlier than.
    pub(super) fn may_be_leased_until(&self, at: usize) -> Time {
        let it = &self.instances[at];
        let place = &self.checks.places[at];
        let lease = duration(self.params.sets[it.set].timing.lease());
        place
            .based_at
            .map_or(0, |based_at| based_at + lease + lease / 50)
    }

    /// A client's write begins.
    pub(crate) fn check_write(&mut self, at: usize) {
        let it = &self.instances[at];
        let Some(guard) = &it.guard else {
            return self.fail(
                "writable only under a lease",
                format!("instance {at} has no guard"),
            );
        };
        if guard.stood_down {
            return;
        }
        let end = it.clock.when(guard.deadline_ns);
        if !guard.leased || self.now > end + LATE {
            let words = format!(
                "instance {at} begins a write {} ms after its lease",
                self.now.saturating_sub(end) / MS
            );
            self.fail("writable only under a lease", words);
        }
    }
}
