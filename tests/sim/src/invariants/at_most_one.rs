//! At no moment do two instances of a replica set begin a write (docs/PROTOCOL.md, "Why there is at most one writable
//! instance"), and a hung instance that its agent can kill is killed before it can (R5).

use crate::time::{MS, Time};
use crate::world::World;

/// What an agent may take, awake, from the end of a lease to the kill, beyond the margin.
const KILL_TAKES: Time = 400 * MS;

impl World {
    /// Somebody has become writable.
    pub(super) fn check_alone(&mut self, at: usize) {
        let set = self.instances[at].set;
        for other in self.sets[set].members.clone() {
            let it = &self.instances[other];
            if other == at || !it.alive || it.read_only {
                continue;
            }
            let leased = it.lease_ends().is_some_and(|end| end > self.now);
            let stood_down = it.guard.as_ref().is_some_and(|guard| guard.stood_down);
            if it.is_writable() || leased || stood_down {
                let words = format!(
                    "instance {at} turns writable while instance {other} is (lease running: {leased})"
                );
                return self.fail("at most one writable", words);
            }
        }
        self.check_alone_by_answers(at);
    }

    /// A frozen instance goes on. Writes that were queued in it run before its guard does, unless the whole machine was
    /// frozen or nobody could kill it: that is where assumption A5 ends, and where the guard is given the lead.
    pub(crate) fn check_thawed(&mut self, at: usize, machine: bool) {
        let it = &self.instances[at];
        let Some(ended_at) = it
            .lease_ends()
            .filter(|end| *end < self.now && !it.read_only)
        else {
            return;
        };
        // A grant for what Consul has accepted since may be on its way.
        let ended_at = ended_at.max(self.may_be_leased_until(at));
        let it = &self.instances[at];
        let set = it.set;
        let pid = it.pid;
        let params = &self.params.sets[set];
        let margin =
            crate::agent::duration(crate::decide::timing::Timing::margin(params.timing.lease()));
        let stood_down = it.guard.as_ref().is_some_and(|guard| guard.stood_down);
        // Its agent may not have been able to read that the pause is over; nobody succeeds it before that. Where somebody
        // wrote over the record, the agent cannot know that either (docs/PROOF.md).
        let memory = &self.checks.sets[set];
        let paused = memory.paused_until + margin > ended_at
            || (memory.key_lost && self.knows_paused_record(at))
            || self.is_recorded_paused(at);
        let could_kill = self.running_agent(at).is_some_and(|agent| {
            let agent = &self.agents[agent];
            agent.sees == Some(pid)
                && !agent.paused
                && !agent.stops
                && self.now > agent.awake_since.max(ended_at) + margin + KILL_TAKES
        });
        if could_kill && params.kill_hung && !machine && !paused && !stood_down && !self.calm {
            let since = self.now - ended_at;
            let words = format!("instance {at} goes on {} ms after its lease", since / MS);
            return self.fail("hung instance is killed", words);
        }
        if !stood_down {
            // The guard gets the processor first.
            if let Some(guard) = &mut self.instances[at].guard {
                guard.fence(false, "its lease ended");
            }
            self.instances[at].read_only = true;
        }
    }
}
