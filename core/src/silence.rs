//! For how long the instance has said nothing, as far as this agent can know: an agent that did not run heard nobody, and
//! what it did not hear is no silence of the instance's.
//!
//! Leases, promises and waits for other agents are another matter: they count whole time, whoever ran meanwhile.

use std::time::Duration;

use super::state::State;
use super::timing::Tick;

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

    /// Since when this agent has run and asked without an answer to its pings.
    pub(super) fn silent_since(&self) -> Option<Tick> {
        let since = self.instance.silent_since?;
        Some(since.max(self.instance.overslept_at.unwrap_or_default()))
    }

    /// Before that no silence is long enough to kill for: an agent that stood still asks for the timeout of a request.
    pub(super) fn patience_ends_at(&self) -> Tick {
        let patience = self.settings.timing.healthcheck_timeout();
        let overslept_at = self.instance.overslept_at;
        let ends_at = overslept_at.map(|at| sound!(at + patience; StallIsSilence => at));
        ends_at.unwrap_or_default()
    }

    /// Whether a call that was begun then may have come to no end because the agent did not run.
    pub(super) fn slept_through(&self, begun_at: Tick) -> bool {
        self.instance.overslept_at.is_some_and(|at| begun_at < at)
    }
}
