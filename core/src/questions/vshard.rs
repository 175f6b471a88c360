//! Which priority this instance has.

use crate::state::State;
use crate::words::vshard::as_priority;

impl State {
    /// `PRIORITY` or what the configuration says in its place, or the `master_weight` that the central configuration
    /// gives this instance.
    #[must_use]
    pub fn priority(&self) -> i64 {
        let own = self.own_priority();
        let look = self.instance.probe.as_ref().and_then(|p| p.vshard.as_ref());
        let weight = look
            .and_then(|look| look.config.as_ref())
            .and_then(|config| config.weight);
        match weight {
            Some(weight) if own >= 0 => as_priority(weight),
            Some(_) | None => own,
        }
    }
}
