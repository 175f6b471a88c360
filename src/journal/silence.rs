//! What is said of an instance that does not answer: nothing where it is late, for a busy machine makes every instance
//! late; one line where it stays silent, and one when that is over.

use tracing::{info, warn};

use super::Said;
use crate::decide::state::State;
use crate::decide::timing::Tick;

/// A silence as far as it was told of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Silence {
    since: Tick,
    said: bool,
}

/// Looks at the instance after each turn. A silence as long as `HEALTHCHECK_INTERVAL`, in which every instance that can be
/// used has a whole probe to answer, is worth a line.
pub(crate) fn say(said: &mut Said, state: &State, now: Tick) {
    let patience = state.settings.timing.healthcheck_interval();
    let is_long = |silence: &Silence| now.since(silence.since) >= patience;
    let millis = |silence: &Silence| {
        let lasted = now.since(silence.since);
        u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX)
    };
    match (state.instance.silent_since, &mut said.silence) {
        (None, None) => {}
        (Some(since), None) => said.silence = Some(Silence { since, said: false }),
        (Some(_), Some(silence)) => {
            if !silence.said && is_long(silence) {
                silence.said = true;
                warn!(silent_ms = millis(silence), "the instance does not answer");
            }
        }
        (None, Some(silence)) => {
            // A death or a new connection ends it, too, and has lines of its own.
            if state.live_probe().is_some() && is_long(silence) {
                info!(silent_ms = millis(silence), "the instance answers again");
            }
            said.silence = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing::Level;

    use super::*;
    use crate::decide::fixtures;
    use crate::logging::tests::logged;

    /// What is logged of an instance that is silent for so long, with turns of the agent in between.
    fn silent_for(level: Level, silence: Duration) -> String {
        let mut said = Said::default();
        let mut state = State::new(fixtures::settings());
        logged(level, false, || {
            let begin = Tick::at(Duration::from_secs(5));
            for turn in 0..=10 {
                let now = begin + silence * turn / 10;
                state.instance.silent_since = (turn < 10).then_some(begin);
                say(&mut said, &state, now);
            }
        })
    }

    #[test]
    fn an_instance_that_is_late_is_no_news() {
        let interval = fixtures::settings().timing.healthcheck_interval();
        assert_eq!(
            silent_for(Level::DEBUG, interval - Duration::from_millis(1)),
            ""
        );
    }

    #[test]
    fn an_instance_that_stays_silent_is_said_once() {
        let text = silent_for(Level::INFO, Duration::from_secs(20));
        assert_eq!(
            text.matches("WARN the instance does not answer").count(),
            1,
            "{text}"
        );
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
