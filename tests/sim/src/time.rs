//! True time, which nobody in the simulated world can read, and clocks that run at their own rates.

use std::time::Duration;

use crate::decide::timing::{InstanceTime, Tick};

/// Nanoseconds of true time since the world began.
pub(crate) type Time = u64;

/// A millisecond.
pub(crate) const MS: Time = 1_000_000;
/// A second.
pub(crate) const SEC: Time = 1_000 * MS;

/// A monotonic clock: what it shows at `from`, and how much faster than true time it runs, in millionths. All rates lie
/// within ±0.95 %, so that two of them differ by less than the 2 % of assumption A1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) from: Time,
    pub(crate) base_ns: u64,
    pub(crate) fast_ppm: i64,
}

/// Bound of a clock's rate, in millionths.
pub(crate) const FAST_MAX_PPM: u64 = 9_500;

impl Clock {
    fn at(&self, now: Time) -> u64 {
        let passed = i64::try_from(now.saturating_sub(self.from)).unwrap_or(i64::MAX);
        let shown = passed + passed / 1_000_000 * self.fast_ppm;
        self.base_ns.saturating_add_signed(shown)
    }

    /// As an agent reads it.
    pub(crate) fn tick(&self, now: Time) -> Tick {
        Tick::at(Duration::from_nanos(self.at(now)))
    }

    /// As an instance reads it.
    pub(crate) fn instance(&self, now: Time) -> InstanceTime {
        InstanceTime {
            monotonic_ns: self.at(now),
        }
    }

    /// The first moment of true time at which it shows at least `shown_ns`.
    pub(crate) fn when(&self, shown_ns: u64) -> Time {
        let passed = u128::from(shown_ns.saturating_sub(self.base_ns));
        let rate = u128::try_from(1_000_000 + self.fast_ppm).unwrap_or(1_000_000);
        let true_ns = u64::try_from(passed * 1_000_000 / rate).unwrap_or(u64::MAX / 4);
        let mut at = self.from.saturating_add(true_ns);
        while self.at(at) < shown_ns {
            at += 1_000;
        }
        at
    }

    /// When this tick of an agent's clock comes.
    pub(crate) fn when_tick(&self, tick: Tick) -> Time {
        self.when(ns(tick.elapsed()))
    }
}

/// In nanoseconds.
pub(crate) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_what_it_was_asked_for_at_the_time_that_it_gives() {
        for fast_ppm in [-9_500, -1, 0, 1, 9_500] {
            let clock = Clock {
                from: 3 * SEC,
                base_ns: 17,
                fast_ppm,
            };
            for shown in [17, 18, SEC, 100 * SEC + 1] {
                let at = clock.when(shown);
                assert!(clock.at(at) >= shown, "{fast_ppm} {shown}");
                assert!(
                    at < 3 * SEC + MS || clock.at(at - MS) < shown,
                    "{fast_ppm} {shown}"
                );
            }
        }
    }
}
