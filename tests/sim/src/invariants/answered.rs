//! A master's check over HTTP says yes only while that master's lease runs, and no two say yes at once (docs/HTTP.md, "The
//! master check"). Any moment may be the one in which it is asked, and an agent that stands still may go on in it.

use crate::decide::check::{Check, Snapshot};
use crate::world::World;

impl World {
    /// Whether this agent's check would say yes now. That the loop has stood still is left out of it: the lease has to do.
    fn says_master(&self, agent: usize) -> bool {
        let it = &self.agents[agent];
        let Some(plan) = it.plan.as_ref().filter(|_| it.alive) else {
            return false;
        };
        let now = self.tick(agent);
        let snapshot = Snapshot::of(&it.state, plan, &it.trail, now);
        snapshot.answer(Check::Master, now, now).is_ok()
    }

    /// The agent that owns the guard: another one of the same instance has still to hear that it was superseded.
    fn owner(&self, at: usize) -> Option<usize> {
        let guard = self.instances[at].guard.as_ref()?;
        let (agent, _) = guard.owner;
        (self.agents.get(agent)?.at == at).then_some(agent)
    }

    /// Somebody becomes writable: nobody else says to be master.
    pub(super) fn check_alone_by_answers(&mut self, at: usize) {
        let set = self.instances[at].set;
        for other in self.sets[set].members.clone() {
            if other == at {
                continue;
            }
            // Of an instance that is gone the guard is, too, and its last agent is who was there.
            let agent = self.owner(other).unwrap_or(self.current[other]);
            if self.says_master(agent) {
                let words = format!(
                    "agent-{agent} of instance {other} says that it is master when instance {at} turns writable"
                );
                return self.fail("one master by the checks", words);
            }
        }
    }

    /// A guard ends a lease, because it is over or because its agent said so.
    pub(crate) fn check_answer_to_fence(&mut self, at: usize, why: &'static str) {
        let guard = self.instances[at].guard.as_ref();
        if guard.is_some_and(|guard| guard.leased)
            && let Some(agent) = self.owner(at)
            && self.says_master(agent)
        {
            let words =
                format!("agent-{agent} says that instance {at} is master, which is fenced: {why}");
            self.fail("a master's check ends with the lease", words);
        }
    }
}
