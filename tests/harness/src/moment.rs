//! The one scale on which signals, agents' logs and writes meet: the host's wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment on the host's wall clock, to the microsecond, as agents log it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    since_epoch_us: i64,
}

impl Moment {
    /// The present moment.
    #[must_use]
    pub fn now() -> Self {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            since_epoch_us: micros(elapsed.unwrap_or_default()),
        }
    }

    /// A time stamp like `2026-01-02T03:04:05.123456Z`.
    #[must_use]
    pub fn parse(stamp: &str) -> Option<Self> {
        let (date, time) = stamp.strip_suffix('Z')?.split_once('T')?;
        let mut date = date.splitn(3, '-').map(str::parse::<i64>);
        let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let mut time = time.splitn(3, ':').map(str::parse::<i64>);
        let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
        let fraction_us = format!("{fraction:0<6}").get(..6)?.parse::<i64>().ok()?;
        let seconds =
            ((days_since_epoch(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
        Some(Self {
            since_epoch_us: seconds * 1_000_000 + fraction_us,
        })
    }

    /// Whole seconds since 1970, as the agents write them for people.
    pub(crate) fn epoch_seconds(self) -> i64 {
        self.since_epoch_us / 1_000_000
    }

    /// Whole milliseconds since 1970, as the agents write them for people.
    #[must_use]
    pub fn epoch_ms(self) -> u64 {
        u64::try_from(self.since_epoch_us / 1_000).unwrap_or(0)
    }

    /// Milliseconds from `earlier` to this, negative when it is not earlier.
    #[must_use]
    pub fn ms_since(self, earlier: Self) -> f64 {
        (self.since_epoch_us - earlier.since_epoch_us) as f64 / 1000.0
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self {
            since_epoch_us: self.since_epoch_us.saturating_add(micros(later)),
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Days from 1970-01-01 in the Gregorian calendar; years begin in March, so that the leap day comes last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_stamp_is_read_to_the_microsecond() {
        let at = |stamp: &str| Moment::parse(stamp).unwrap().since_epoch_us;
        assert_eq!(at("1970-01-01T00:00:00.000001Z"), 1);
        assert_eq!(at("2000-02-29T12:00:00Z"), 951_825_600_000_000);
        assert_eq!(at("2026-01-02T03:04:05.123456Z"), 1_767_323_045_123_456);
        assert_eq!(at("2026-01-02T03:04:05.5Z"), 1_767_323_045_500_000);
        assert_eq!(Moment::parse("yesterday"), None);
    }
}
