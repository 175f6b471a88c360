//! R5: an agent's own stall is no evidence. After it has stood still it asks for the timeout of a request before it kills.

use crate::time::Time;
use crate::world::World;

/// An instance that has been gone for so many timeouts was asked for long enough, whatever stalls were in between.
const ASKED_ENOUGH: Time = 4;

impl World {
    /// An agent begins to kill its instance.
    pub(crate) fn check_patience(&mut self, agent: usize) {
        let it = &self.agents[agent];
        let instance = &self.instances[it.at];
        let patience = self.patience(agent);
        // Its clock may run faster than true time.
        let patient_until = it.awake_since.saturating_sub(patience / 50);
        let gone = instance.down_since.map(|since| self.now - since);
        let was_gone_for_long =
            instance.ways.link.is_some() || gone > Some(patience * ASKED_ENOUGH);
        if self.now < patient_until && !was_gone_for_long {
            let words =
                format!("agent-{agent} kills an instance right after it stood still itself");
            self.fail("a stall is no evidence", words);
        }
    }
}
