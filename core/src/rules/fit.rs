//! Whether this instance may be master.

use std::time::Duration;

use super::planner::Planner;
use crate::state::Link;
use crate::words::declared::own_rule;

impl Planner<'_> {
    /// A failover mode of Tarantool's own would fight us for `read_only`.
    pub(crate) fn unsuitable(&self) -> Option<String> {
        if let Link::Unsuitable { why } = &self.state.instance.link {
            return Some(why.clone());
        }
        let probe = self.state.live_probe()?;
        let why = own_rule(probe.election_mode.as_deref(), probe.declared.as_ref())?;
        Some(format!(
            "{why}; until then its guard keeps it read-only, unless it is started again without an agent"
        ))
    }

    /// Nobody can write to an isolated instance, nor replicate from it.
    pub(super) fn isolation(&self) -> Option<String> {
        let probe = self
            .state
            .live_probe()
            .filter(|probe| probe.is_isolated())?;
        let name = probe.name.as_deref().unwrap_or("this instance");
        Some(format!(
            "the configuration isolates it (`isolated: true` at {name})"
        ))
    }
}

impl Planner<'_> {
    /// Why this instance cannot be promoted, if it cannot. Silence counts from `patience` on.
    pub(super) fn unfit(&self, patience: Duration) -> Option<String> {
        let Some(probe) = self.state.live_probe() else {
            return Some(self.instance_words());
        };
        if let Some(why) = self.state.never_master().or_else(|| self.isolation()) {
            return Some(why);
        }
        // A word from its guard that came in since then is an answer, however late the pings' own are.
        let heard_at = self.state.instance.reading.map(|reading| reading.reply_at);
        let silent_for = self
            .state
            .silent_since()
            .filter(|since| heard_at.is_none_or(|at| at <= *since))
            .map(|since| self.now.since(since));
        if silent_for.is_some_and(|silent_for| silent_for >= patience) {
            return Some("the instance does not answer".to_owned());
        }
        let instance = &self.state.instance;
        let interval = self.state.settings.timing.healthcheck_interval();
        if instance.unanswered_at > instance.answered_begun_at
            && instance
                .probed_at
                .max(instance.overslept_at)
                .is_some_and(|at| self.now.since(at) >= patience.max(interval * 2))
        {
            return Some("its guard does not answer".to_owned());
        }
        if probe.is_anonymous() {
            return Some("it is an anonymous replica".to_owned());
        }
        let halted =
            (probe.status != "running").then(|| format!("its status is '{}'", probe.status));
        halted.or_else(|| self.state.split_off_words())
    }

    pub(super) fn instance_words(&self) -> String {
        self.state.instance.link.to_string()
    }
}
