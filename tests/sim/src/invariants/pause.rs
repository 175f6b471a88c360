//! While a guard stands down for a pause no time bounds its lease, so the record and the member's key say so before and
//! until after (docs/PROTOCOL.md, "A pause: no time bounds a lease").

use crate::decide::board::Member;
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
        let place = &self.checks.places[at];
        let told_since = place.told_since;
        if !place.disputed
            && told_since.is_none_or(|since| self.checks.sets[set].written_at < since)
        {
            let words = format!(
                "the guard of instance {at} stands down, and no record was accepted since its member's key says so"
            );
            self.fail(
                "the member's key says so before the record's last word",
                words,
            );
        }
    }

    /// A member's key is written.
    pub(crate) fn check_member(&mut self, agent: usize, member: &Member) {
        let at = self.agents[agent].at;
        let since = self.checks.places[at].told_since.unwrap_or(self.now);
        self.checks.places[at].told_since = member.stands_down.then_some(since);
        let Some(guard) = self.instances[at].guard.as_ref() else {
            return;
        };
        // Two agents of one instance take turns; it is written again as soon as that is seen (PROOF.md, "Known limits").
        let several = guard.owner.0 != agent || self.running_agents(at).len() > 1;
        self.checks.places[at].disputed |= several;
        let alone = !self.checks.places[at].disputed;
        if guard.stood_down && !member.stands_down && alone {
            let words = format!(
                "the guard of instance {at} stands down, and its member's key stops saying so"
            );
            self.fail("the member's key says so until after", words);
        }
    }

    /// The lock says that it is paused, so that nobody succeeds it.
    pub(super) fn is_recorded_paused(&self, at: usize) -> bool {
        let it = &self.instances[at];
        let record = self.consul.record(it.set);
        record.is_some_and(|record| record.paused && record.instance == it.name)
    }

    /// Its agent's last accepted record says so.
    pub(super) fn knows_paused_record(&self, at: usize) -> bool {
        let agent = self.running_agent(at);
        let record = agent.and_then(|agent| self.agents[agent].state.hold.record.as_ref());
        record.is_some_and(|record| record.paused)
    }

    /// A record of this instance is accepted. Behind a deletion that may be one of before the pause, whose writer had no
    /// reply; the member's key still says so then.
    pub(super) fn check_says_paused(&mut self, at: usize, record: &Record) {
        let it = &self.instances[at];
        let told = self.checks.places[at].told_since.is_some();
        let late = told && self.checks.sets[it.set].key_lost;
        if it.guard.as_ref().is_some_and(|guard| guard.stood_down) && !record.paused && !late {
            let words =
                format!("the guard of instance {at} stands down, and the record stops saying so");
            self.fail("the record says paused before and until after", words);
        }
    }
}
