//! Terms grow: records' terms never go back, no term is served by two instances, and nobody is promoted below a term
//! that was served (DESIGN, "term"; the guard's first rule).

use crate::decide::plan::Action;
use crate::decide::record::Status;
use crate::guard::Promotion;
use crate::world::World;

impl World {
    /// Consul has accepted a step at the lock.
    pub(crate) fn check_lock_step(&mut self, set: usize, agent: usize, action: &Action) {
        let at = self.agents[agent].at;
        let (record, reading) = if let Action::Acquire { attempt, .. }
        | Action::TakeOver { attempt, .. }
        | Action::Refresh { attempt, .. } = action
        {
            (&attempt.record, Some(attempt.reading))
        } else if let Action::Release { record, .. } = action {
            (&**record, None)
        } else {
            return;
        };
        self.check_says_paused(at, record);
        let memory = &mut self.checks.sets[set];
        let before = memory.written;
        memory.written = before.max(record.term);
        memory.written_at = self.now;
        let named = record.handover_to.clone();
        memory.handed_to = match record.status {
            Status::Fenced => named,
            // Whoever it was handed to is on its way, however long its own promotion takes.
            Status::Promoting => memory.handed_to.take().filter(|to| *to == record.instance),
            Status::Active => None,
        };
        let forgotten = memory.key_lost;
        if record.term < before && !forgotten {
            let words = format!(
                "agent-{agent} writes a record of term {} after one of term {before}",
                record.term
            );
            return self.fail("terms grow", words);
        }
        if let Some(reading) = reading {
            self.checks.places[at].based_at = Some(self.now);
            self.checks.places[at]
                .accepted
                .push((record.term, reading.t0));
            if self.instances[at].clock.instance(self.now) < reading.t0 {
                // Read from an earlier process's clock: it must not carry a lease.
                self.checks.places[at].accepted.pop();
            }
        } else {
            self.check_release(set, at, record);
        }
    }

    /// The guard has promoted its instance.
    pub(crate) fn check_promoted(&mut self, at: usize, promotion: &Promotion, was_read_only: bool) {
        let (set, term) = (self.instances[at].set, promotion.term);
        self.checks.promotions += 1;
        // Without the lock key the members' keys are all that is left of the last term, and they are written later and
        // plainly (docs/PROOF.md).
        let memory = &self.checks.sets[set];
        let forgotten = memory.key_lost;
        if let Some((served, by)) = memory.served
            && (term < served || (term == served && by != at))
            && !forgotten
        {
            let words = format!(
                "instance {at} is promoted for term {term}, instance {by} has served term {served}"
            );
            return self.fail("no promotion below a seen term", words);
        }
        let n = self.instances[at].n;
        if self.params.sets[set].priorities[n] < 0 {
            self.fail(
                "negative PRIORITY: never master",
                format!("instance {at} is promoted"),
            );
        }
        self.check_leased(at, promotion.deadline.monotonic_ns);
        if was_read_only {
            self.check_alone(at);
        }
        let new = self.checks.sets[set]
            .served
            .is_none_or(|(served, _)| served < term);
        if new {
            self.check_rows(set, at);
            self.check_election(set, at);
        }
        self.checks.sets[set].served = Some((term, at));
    }
}
