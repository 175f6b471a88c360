//! What the cluster's configuration and the settings say of this instance together.

use crate::state::State;
use crate::words::declared::Declared;

impl State {
    fn declared(&self) -> Option<&Declared> {
        self.instance.probe.as_ref()?.declared.as_ref()
    }

    /// What operators know the instance by: its own name where it has one, else the address that it announces.
    #[must_use]
    pub fn name(&self) -> &str {
        let probe = self.instance.probe.as_ref();
        let own = probe.and_then(|probe| probe.name.as_deref());
        own.unwrap_or(&self.settings.announce)
    }

    /// `PRIORITY`, or what the cluster's configuration says in its place.
    pub(crate) fn own_priority(&self) -> i64 {
        let declared = || match self.declared() {
            Some(Declared { learner: true, .. }) => -1,
            Some(declared) => declared.priority.unwrap_or(0),
            None => 0,
        };
        self.settings.priority.unwrap_or_else(declared)
    }

    /// Why this instance never becomes master, if it does not: who says so, and where.
    pub(crate) fn never_master(&self) -> Option<String> {
        let own = self.own_priority();
        if sound!(own >= 0; NeverMasterMayBe => true) {
            return None;
        }
        let section = self.declared().map(Declared::section).unwrap_or_default();
        Some(match (self.settings.priority, self.declared()) {
            (None, Some(Declared { learner: true, .. })) => {
                format!("the configuration has it among {section}.learners")
            }
            (None, Some(_)) => format!("its priority in {section}.priority is {own}"),
            (Some(_), _) | (None, None) => format!("PRIORITY is {own}"),
        })
    }
}
