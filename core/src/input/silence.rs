//! A time in which this agent did not run, written down.

use std::time::Duration;

use crate::state::State;
use crate::words::timing::Tick;

/// So many times `HEALTHCHECK_TIMEOUT` an agent asks an instance that it does not hear, all told, before it no longer
/// makes allowance for having stood still again. An agent that never runs for one timeout in a piece judges then, too.
const ASKED_ENOUGH: u32 = 4;

impl State {
    /// The agent did not run between `ran_until` and `now`: its patience with the instance begins anew.
    pub(super) fn overslept(&mut self, ran_until: Tick, now: Tick) {
        let enough = self.settings.timing.healthcheck_timeout() * ASKED_ENOUGH;
        let instance = &mut self.instance;
        instance.asked_in_vain = match instance.overslept_at {
            Some(at) if instance.probed_at <= Some(at) => {
                instance.asked_in_vain.saturating_add(ran_until.since(at))
            }
            Some(_) | None => Duration::ZERO,
        };
        if instance.asked_in_vain < enough {
            instance.overslept_at = Some(now);
        }
    }
}
