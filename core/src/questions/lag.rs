//! How far behind the master this instance is.

use crate::state::lag::in_steps;
use crate::state::{Link, State};
use crate::words::lag::{Arrival, Behind};
use crate::words::timing::Tick;
use crate::words::vclock::rows_missing;

impl State {
    /// How far behind the master our instance is; `None`: nobody else is known to be master, or it was not looked at since
    /// that one's first word.
    #[must_use]
    pub fn behind(&self, now: Tick) -> Option<Behind> {
        let probe = self.instance.probe.as_ref()?;
        let (record, _) = self.master_elsewhere(probe)?;
        if record.vclock.is_empty() {
            // It has not said what it has.
            return None;
        }
        let silent_for = self.unheard_since().map(|since| now.since(since));
        match silent_for {
            Some(silent_for) if silent_for >= self.settings.timing.healthcheck_timeout() => {
                Some(Behind {
                    of: record.instance.clone(),
                    rows: rows_missing(&record.vclock, &probe.vclock),
                    ms: in_steps(silent_for),
                    arrival: Arrival::Silent,
                })
            }
            Some(_) | None => {
                let feed = self.instance.feed.as_ref();
                let behind = feed.and_then(|feed| feed.lag.behind.as_ref());
                behind.filter(|it| it.of == record.instance).cloned()
            }
        }
    }

    /// Since when the instance has not answered.
    fn unheard_since(&self) -> Option<Tick> {
        match self.instance.link {
            Link::Down { since, .. } | Link::Dead { since, .. } => Some(since),
            Link::Unknown | Link::Up | Link::Unsuitable { .. } => self.instance.silent_since,
        }
    }
}
