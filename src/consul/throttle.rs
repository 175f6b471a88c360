//! A Consul, or a proxy before it, that asks for fewer requests: 429, or 503 with `Retry-After`
//! (<https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>). Consul's own limits answer with these two and say no time
//! (<https://developer.hashicorp.com/consul/docs/agent/limits>).
//!
//! Until that time nothing is sent; a call fails at once, as it would if it were sent, and its caller tries again at its own
//! pace. No call waits here, so that none is sent with what was true a while ago.
//!
//! ```text
//!  a lane:  sent ── 429 ──▶ closed until Retry-After, at most for so long as the lease allows ──▶ one is sent ── 200 ──▶ open
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

use crate::clock::{self, Clock};
use crate::decide::timing::Tick;

/// What is sent for a purpose of its own. A lane is closed by answers to its own calls alone: that the catalog is refused is
/// no reason not to refresh a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Steps at the lock, and the reads that decide about them.
    Lock,
    /// Looks that Consul holds, by which an agent knows that Consul can be read.
    Watch,
    /// Sessions.
    Session,
    /// Everything else.
    Others,
}

const LANES: usize = 4;

/// After the first refusal that says no time. The next pauses double.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Doubling it more often makes no pause longer than the longest.
const DOUBLINGS_MAX: u32 = 10;
/// A pause is longer by up to this part of it, drawn anew each time, so that agents that were refused together do not come
/// back together.
const JITTER: u32 = 4;

/// The lanes of one handle on Consul.
pub(super) struct Throttle {
    clock: Clock,
    lanes: Mutex<[State; LANES]>,
    /// No lane that the lease rests on is closed for longer.
    vital_most: Duration,
    /// No other is.
    most: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    opens_at: Tick,
    /// The status that closed it.
    code: u16,
    /// Refusals in a row.
    refusals: u32,
}

impl Throttle {
    /// For an agent with this lease. A quarter of it is when the next refresh is due, so no `Retry-After` takes away more tries
    /// than a lost request would.
    pub(super) fn new(lease: Duration) -> Self {
        Self {
            clock: Clock::start(),
            lanes: Mutex::default(),
            vital_most: lease / 4,
            most: lease,
        }
    }

    /// Whether a call may be sent now; else the status that closed its lane.
    pub(super) fn admit(&self, lane: Lane) -> Result<(), u16> {
        let state = self.lock()[lane as usize];
        if self.clock.now() < state.opens_at {
            Err(state.code)
        } else {
            Ok(())
        }
    }

    /// Notes an answer, and says whether it asks for fewer requests. That a proxy refuses to hold a request (`held`) is no
    /// such word unless it names a time.
    pub(super) fn hear(&self, lane: Lane, code: u16, headers: &HeaderMap, held: bool) -> bool {
        let asked = retry_after(headers);
        let refuses = match code {
            429 => asked.is_some() || !held,
            503 => asked.is_some(),
            _ => false,
        };
        self.note(lane, refuses.then_some((code, asked)));
        refuses
    }

    /// The same for a refusal whose headers nobody kept.
    pub(super) fn refused(&self, lane: Lane, code: u16) {
        self.note(lane, Some((code, None)));
    }

    fn note(&self, lane: Lane, refusal: Option<(u16, Option<Duration>)>) {
        let now = self.clock.now();
        let state = &mut self.lock()[lane as usize];
        *state = match refusal {
            None => State::default(),
            Some((code, asked)) => {
                let refusals = state.refusals.saturating_add(1);
                let pause = asked.unwrap_or_else(|| backoff(refusals));
                let pause = pause.saturating_add(jitter(pause, clock::random_fraction()));
                State {
                    opens_at: now + pause.min(self.most(lane)),
                    code,
                    refusals,
                }
            }
        };
    }

    fn most(&self, lane: Lane) -> Duration {
        match lane {
            Lane::Lock | Lane::Watch | Lane::Session => self.vital_most,
            Lane::Others => self.most,
        }
    }

    fn lock(&self) -> MutexGuard<'_, [State; LANES]> {
        // No panic can leave it half-changed.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn backoff(refusals: u32) -> Duration {
    let doublings = refusals.saturating_sub(1).min(DOUBLINGS_MAX);
    FIRST_PAUSE.saturating_mul(1 << doublings)
}

/// `fraction` is from 0 to 1.
fn jitter(pause: Duration, fraction: f64) -> Duration {
    // A longer one makes no difference, and this one can be multiplied.
    (pause.min(Duration::from_secs(3600)) / JITTER).mul_f64(fraction)
}

/// How long the server asks to wait: in seconds, or until a moment of its own clock, which it tells beside it.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| Some(headers.get(name)?.to_str().ok()?.trim());
    let asked = text(RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(asked).ok()?;
    let now = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    let now = now.unwrap_or_else(|| UNIX_EPOCH + Duration::from_millis(clock::wall_ms()));
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        });
        pairs.collect()
    }

    fn asks(value: &str) -> HeaderMap {
        headers(&[("retry-after", value)])
    }

    /// How long the lane stays closed from now.
    fn closed_for(throttle: &Throttle, lane: Lane) -> Duration {
        throttle.lock()[lane as usize]
            .opens_at
            .since(throttle.clock.now())
    }

    #[test]
    fn seconds_and_dates_are_read_and_a_date_counts_by_the_servers_clock() {
        assert_eq!(retry_after(&asks("2")), Some(Duration::from_secs(2)));
        assert_eq!(retry_after(&asks("0")), Some(Duration::ZERO));
        let date = headers(&[
            ("retry-after", "Sun, 06 Nov 1994 08:49:42 GMT"),
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ]);
        assert_eq!(retry_after(&date), Some(Duration::from_secs(5)));
        let past = asks("Sun, 06 Nov 1994 08:49:42 GMT");
        assert_eq!(retry_after(&past), Some(Duration::ZERO));
        for senseless in ["", "soon", "-1", "1.5", "99999999999999999999999"] {
            assert_eq!(retry_after(&asks(senseless)), None, "{senseless}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn a_refusal_closes_its_own_lane_for_the_time_that_it_names() {
        let throttle = Throttle::new(LEASE);
        assert!(throttle.hear(Lane::Others, 429, &asks("2"), false));
        assert_eq!(throttle.admit(Lane::Others), Err(429));
        let closed = closed_for(&throttle, Lane::Others);
        assert!(closed > Duration::from_millis(1_900), "{closed:?}");
        assert!(closed <= Duration::from_millis(2_500), "{closed:?}");
        for other in [Lane::Lock, Lane::Watch, Lane::Session] {
            assert_eq!(throttle.admit(other), Ok(()));
        }
        assert!(!throttle.hear(Lane::Others, 200, &HeaderMap::new(), false));
        assert_eq!(throttle.admit(Lane::Others), Ok(()));
    }

    #[test]
    fn what_the_lease_rests_on_is_never_put_off_for_longer_than_a_refresh() {
        let throttle = Throttle::new(LEASE);
        for lane in [Lane::Lock, Lane::Watch, Lane::Session] {
            for _ in 0..50 {
                assert!(throttle.hear(lane, 503, &asks("86400"), false));
                throttle.refused(lane, 429);
            }
            assert!(closed_for(&throttle, lane) <= LEASE / 4, "{lane:?}");
        }
        assert!(throttle.hear(Lane::Others, 429, &asks("86400"), false));
        assert!(closed_for(&throttle, Lane::Others) <= LEASE);
    }

    #[test]
    fn without_a_time_pauses_double() {
        let throttle = Throttle::new(LEASE);
        for expected_ms in [250, 500, 1_000, 2_000, 4_000] {
            throttle.refused(Lane::Others, 429);
            let closed = closed_for(&throttle, Lane::Others);
            let expected = Duration::from_millis(expected_ms);
            assert!(closed > expected - Duration::from_millis(50), "{closed:?}");
            assert!(closed <= expected * 5 / 4, "{closed:?}");
        }
    }

    #[test]
    fn other_answers_are_no_such_word() {
        let throttle = Throttle::new(LEASE);
        for code in [200, 404, 500, 502, 503, 504] {
            assert!(!throttle.hear(Lane::Lock, code, &HeaderMap::new(), false));
        }
        // A proxy that lets nothing be held.
        assert!(!throttle.hear(Lane::Watch, 429, &HeaderMap::new(), true));
        assert!(throttle.hear(Lane::Watch, 429, &asks("1"), true));
    }

    proptest! {
        #[test]
        fn any_header_is_read_and_no_lane_is_closed_for_ever(value in "[ -~]{0,40}", code in 400_u16..600) {
            let throttle = Throttle::new(LEASE);
            throttle.hear(Lane::Lock, code, &asks(&value), false);
            prop_assert!(closed_for(&throttle, Lane::Lock) <= LEASE / 4);
        }

        #[test]
        fn jitter_only_lengthens_and_by_a_quarter_at_most(ms in 0_u64..u64::MAX, fraction in 0.0..=1.0_f64) {
            let pause = Duration::from_millis(ms);
            prop_assert!(jitter(pause, fraction) <= pause / JITTER);
        }
    }
}
