//! Liveness: when all faults have ended there is one master within a bound, and it stays.

use crate::agent::duration;
use crate::decide::timing::Timing;
use crate::time::{MS, SEC, Time};
use crate::world::{Due, World};

/// How often it is looked.
const LOOK: Time = 50 * MS;

impl World {
    fn bound(&self, set: usize) -> Time {
        let params = &self.params.sets[set];
        let lease = duration(Timing::lease_and_margin(params.timing.lease()));
        let calls = duration(params.timing.healthcheck_timeout()) * 4 + duration(params.window) * 8;
        // A lost key may have to be waited for a minute, the longest lease that anybody may have.
        let lost = if self.checks.sets[set].key_lost {
            130 * SEC
        } else {
            0
        };
        let paused = if self.checks.sets[set].paused_until > 0 {
            65 * SEC
        } else {
            0
        };
        lease * 5 + calls + duration(params.cooldown) + 5 * SEC + lost + paused
    }

    /// How long it must stay.
    fn steady_time(&self, set: usize) -> Time {
        duration(self.params.sets[set].timing.lease()) * 3 / 2
    }

    pub(crate) fn looks_for_masters(&mut self) {
        let Some(since) = self.checks.calm_since else {
            return;
        };
        let mut all_steady = true;
        for set in 0..self.sets.len() {
            let mut members = self.sets[set].members.clone();
            let master = members.find(|at| self.instances[*at].is_writable());
            let now = self.now;
            let memory = &mut self.checks.sets[set];
            memory.steady = match (memory.steady, master) {
                (Some((known, from)), Some(master)) if known == master => Some((known, from)),
                (_, Some(master)) => Some((master, now)),
                (_, None) => None,
            };
            let steady = memory
                .steady
                .is_some_and(|(_, from)| now >= from + self.steady_time(set));
            all_steady &= steady;
            if !steady && now > since + self.bound(set) {
                let words = format!(
                    "set {set} has no steady master {} s after all faults have ended",
                    (now - since) / SEC
                );
                return self.fail("one master when all faults have ended", words);
            }
        }
        if all_steady {
            self.end();
        } else {
            self.schedule(LOOK, Due::Look);
        }
    }
}
