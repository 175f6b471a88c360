//! For how long the instance has said nothing, as far as this agent can know: an agent that did not run heard nobody, and
//! what it did not hear is no silence of the instance's.
//!
//! Leases, promises and waits for other agents are another matter: they count whole time, whoever ran meanwhile.

use crate::state::State;
use crate::words::timing::Tick;

impl State {
    /// Since when this agent has run and asked without an answer to its pings.
    pub(crate) fn silent_since(&self) -> Option<Tick> {
        let since = self.instance.silent_since?;
        Some(since.max(self.instance.overslept_at.unwrap_or_default()))
    }

    /// Before that no silence is long enough to kill for: an agent that stood still asks for the timeout of a request.
    pub(crate) fn patience_ends_at(&self) -> Tick {
        let patience = self.settings.timing.healthcheck_timeout();
        let overslept_at = self.instance.overslept_at;
        let ends_at = overslept_at.map(|at| sound!(at + patience; StallIsSilence => at));
        ends_at.unwrap_or_default()
    }

    /// Whether a call that was begun then may have come to no end because the agent did not run.
    pub(crate) fn slept_through(&self, begun_at: Tick) -> bool {
        self.instance.overslept_at.is_some_and(|at| begun_at < at)
    }
}
