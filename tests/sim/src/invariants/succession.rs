//! R3 and R4: whoever takes the lock after a record that does not say `fenced` has seen it stand for its lease, in a time
//! in which it could read Consul; and one consistent read comes before a take-over.

use crate::agent::duration;
use crate::decide::plan::Action;
use crate::decide::record::Record;
use crate::decide::record::Status;
use crate::requests::Request;
use crate::time::Time;
use crate::world::World;

impl World {
    /// A step at the lock is about to be carried out; `before` is the record that stands there, since `changed_at`.
    pub(crate) fn check_succession(
        &mut self,
        set: usize,
        request: &Request,
        before: Option<&Record>,
        changed_at: Time,
    ) {
        let takes_over = matches!(request.action, Action::TakeOver { .. });
        let (Some(before), true) = (
            before,
            takes_over || matches!(request.action, Action::Acquire { .. }),
        ) else {
            return;
        };
        let agent = &self.agents[request.agent];
        let own = before.instance == self.instances[agent.at].name;
        if own || before.status == Status::Fenced || before.term < self.checks.sets[set].written {
            return;
        }
        // On the agent's clock, which may be fast.
        let lease = duration(before.lease()) / 100 * 99;
        // What it heard after it had sent the step is no matter of the step.
        let unread_for = request.sent_at.checked_sub(agent.unread_at);
        let unread_for = unread_for.unwrap_or(Time::MAX);
        let stood_for = request.sent_at.saturating_sub(changed_at);
        if unread_for.min(stood_for) < lease {
            let words = format!(
                "agent-{} takes the lock {} ms after its record was written, and {} ms after a time without a look at it",
                request.agent,
                stood_for / 1_000_000,
                unread_for / 1_000_000
            );
            return self.fail("a successor waits for a lease", words);
        }
        if takes_over && agent.read_at < changed_at + lease {
            let words = format!("agent-{} takes the lock over without a look", request.agent);
            self.fail("a consistent read comes before a take-over", words);
        }
    }
}
