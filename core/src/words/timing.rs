//! The lease and the intervals that must fit into it.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// A point on the agent's own clock, which never goes back and goes on while the machine is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tick {
    /// Nanoseconds since the agent's clock began.
    since_start_ns: u64,
}

impl Tick {
    /// `elapsed` after the agent's clock began.
    #[must_use]
    pub fn at(elapsed: Duration) -> Self {
        Self {
            since_start_ns: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// The time since the agent's clock began.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Duration::from_nanos(self.since_start_ns)
    }

    /// So long before this, but not before the agent's clock began.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self::at(self.elapsed().saturating_sub(by))
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Tick) -> Duration {
        Duration::from_nanos(self.since_start_ns.saturating_sub(earlier.since_start_ns))
    }
}

/// In dumps: seconds since the agent's start.
impl serde::Serialize for Tick {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.elapsed().as_secs_f64())
    }
}

impl std::ops::Add<Duration> for Tick {
    type Output = Tick;
    fn add(self, rhs: Duration) -> Tick {
        Tick::at(self.elapsed().saturating_add(rhs))
    }
}

/// A point on the clock that the guard reads (`time.lua`), read and compared only there;
/// the agent carries it back and forth and adds the lease.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct InstanceTime {
    /// Nanoseconds on that clock, which never goes back.
    pub monotonic_ns: u64,
}

impl std::ops::Add<Duration> for InstanceTime {
    type Output = InstanceTime;
    fn add(self, rhs: Duration) -> InstanceTime {
        let rhs_ns = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        InstanceTime {
            monotonic_ns: self.monotonic_ns.saturating_add(rhs_ns),
        }
    }
}

/// Durations that fit together; there is no other way to have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    lease: Duration,
    session_ttl: Duration,
    healthcheck_interval: Duration,
    healthcheck_timeout: Duration,
    liveness_interval: Duration,
}

/// Why durations do not fit together. Each names the variables to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// The lease is outside its bounds.
    #[error("MASTER_LEASE is {}, allowed is {} to {}", human(*.lease), human(Timing::LEASE_MIN), human(Timing::LEASE_MAX))]
    LeaseOutOfRange {
        /// What was found.
        lease: Duration,
    },
    /// The session would expire before the lease that rests on it.
    #[error("CONSUL_LOCK_TTL is {}, allowed is at least MASTER_LEASE ({}) and from 10s to 86400s, as Consul has it", human(*.ttl), human(*.lease))]
    TtlTooSmall {
        /// What was found.
        ttl: Duration,
        /// The lease it must hold.
        lease: Duration,
    },
    /// Two refreshes and a request timeout do not fit into the lease.
    #[error("HEALTHCHECK_TIMEOUT is {}, allowed with MASTER_LEASE={} is more than 0s and at most {}: two refreshes (a quarter of the lease each) and one timeout must fit into the lease", human(*.timeout), human(*.lease), human(*.lease / 2))]
    TimeoutTooLong {
        /// What was found.
        timeout: Duration,
        /// The lease it must fit into.
        lease: Duration,
    },
    /// The probe is outside its bounds.
    #[error("HEALTHCHECK_INTERVAL is {}, allowed with MASTER_LEASE={} is 10ms to {}, half the lease", human(*.interval), human(*.lease), human(*.lease / 2))]
    IntervalOutOfRange {
        /// What was found.
        interval: Duration,
        /// The lease it must fit into.
        lease: Duration,
    },
    /// The liveness ping is outside its bounds.
    #[error("LIVENESS_INTERVAL is {}, allowed is 10ms to HEALTHCHECK_INTERVAL ({})", human(*.liveness), human(*.interval))]
    LivenessOutOfRange {
        /// What was found.
        liveness: Duration,
        /// Its upper bound.
        interval: Duration,
    },
}

fn human(duration: Duration) -> impl fmt::Display {
    humantime::format_duration(duration)
}

/// How late whoever waits for a processor may be.
const SCHEDULING: Duration = Duration::from_millis(250);

impl Timing {
    /// Below this the margin and a slow Consul eat the lease.
    pub const LEASE_MIN: Duration = Duration::from_secs(2);
    /// Above this a lost machine costs more than anyone wants.
    pub const LEASE_MAX: Duration = Duration::from_secs(60);
    /// The least session TTL that Consul takes (<https://developer.hashicorp.com/consul/api-docs/session>).
    pub const TTL_MIN: Duration = Duration::from_secs(10);
    /// The greatest session TTL that Consul takes.
    pub const TTL_MAX: Duration = Duration::from_secs(86_400);
    /// A ping more often than this costs more CPU than it saves time.
    pub const LIVENESS_MIN: Duration = Duration::from_millis(10);

    /// Checks the inequalities, once.
    ///
    /// # Errors
    /// The first inequality that does not hold.
    pub fn new(
        lease: Duration,
        session_ttl: Duration,
        healthcheck_interval: Duration,
        healthcheck_timeout: Duration,
        liveness_interval: Duration,
    ) -> Result<Self, TimingError> {
        if lease < Self::LEASE_MIN || lease > Self::LEASE_MAX {
            return Err(TimingError::LeaseOutOfRange { lease });
        }
        if session_ttl < lease || session_ttl < Self::TTL_MIN || session_ttl > Self::TTL_MAX {
            return Err(TimingError::TtlTooSmall {
                ttl: session_ttl,
                lease,
            });
        }
        if healthcheck_timeout.is_zero() || healthcheck_timeout > lease / 2 {
            return Err(TimingError::TimeoutTooLong {
                timeout: healthcheck_timeout,
                lease,
            });
        }
        if healthcheck_interval < Self::LIVENESS_MIN || healthcheck_interval > lease / 2 {
            return Err(TimingError::IntervalOutOfRange {
                interval: healthcheck_interval,
                lease,
            });
        }
        if liveness_interval < Self::LIVENESS_MIN || liveness_interval > healthcheck_interval {
            return Err(TimingError::LivenessOutOfRange {
                liveness: liveness_interval,
                interval: healthcheck_interval,
            });
        }
        Ok(Self {
            lease,
            session_ttl,
            healthcheck_interval,
            healthcheck_timeout,
            liveness_interval,
        })
    }

    /// `MASTER_LEASE`.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// `CONSUL_LOCK_TTL`.
    #[must_use]
    pub fn session_ttl(&self) -> Duration {
        self.session_ttl
    }

    /// `HEALTHCHECK_INTERVAL`.
    #[must_use]
    pub fn healthcheck_interval(&self) -> Duration {
        self.healthcheck_interval
    }

    /// `HEALTHCHECK_TIMEOUT`: the deadline of every request to the instance and to Consul.
    #[must_use]
    pub fn healthcheck_timeout(&self) -> Duration {
        self.healthcheck_timeout
    }

    /// `LIVENESS_INTERVAL`.
    #[must_use]
    pub fn liveness_interval(&self) -> Duration {
        self.liveness_interval
    }

    /// A quarter of the lease: two may be lost and a third still comes in time.
    #[must_use]
    pub fn refresh_interval(&self) -> Duration {
        self.lease / 4
    }

    /// How long a look at the lock is held that follows a change of it: five quarters of a refresh interval, so that the
    /// refresh of a punctual holder ends it and an idle agent asks once for each. At most 18.75 s.
    #[must_use]
    pub fn watch_hold(&self) -> Duration {
        self.refresh_interval() * 5 / 4
    }

    /// How long a look at the lock is held that follows none: the holder is late, and each answer is one more word that
    /// Consul can be read (R3).
    #[must_use]
    pub fn watch_beat(&self) -> Duration {
        self.refresh_interval() / 4
    }

    /// R3: the longest time between two questions to Consul that were answered for which it counts as readable. A hold
    /// of the watch and a slow answer fit into it. Consul may have been away for that long, and for a request's deadline
    /// more while the second answer came, unnoticed: by the inequality of [`Timing::new`] no longer than a lease, so that
    /// at least the margin is left of the old holder's time, in which it tries at least once.
    #[must_use]
    pub fn unread_limit(&self) -> Duration {
        self.refresh_interval() * 2
    }

    /// The deadline of a question for promises: asked again in time where it is asked with half of the lease left.
    #[must_use]
    pub fn promise_timeout(&self) -> Duration {
        self.healthcheck_timeout.min(self.refresh_interval())
    }

    /// An agent whose timer is later than this had no processor: it, or the whole host, had stopped.
    pub const OVERSLEPT: Duration = SCHEDULING;

    /// What is added to any lease that is judged by another clock than the one it was granted on: 2 % for clock rates,
    /// 250 ms for scheduling.
    #[must_use]
    pub fn margin(lease: Duration) -> Duration {
        lease / 50 + SCHEDULING
    }

    /// A lease and its margin.
    #[must_use]
    pub fn lease_and_margin(lease: Duration) -> Duration {
        lease + Self::margin(lease)
    }

    /// The server expires a session after twice its TTL at the earliest moment we may rely on,
    /// so half a TTL leaves three tries.
    #[must_use]
    pub fn session_renew_interval(&self) -> Duration {
        self.session_ttl / 2
    }
}

/// In whole milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A wall-clock moment in milliseconds since the epoch, of fields that may both be there: an older writer knows seconds
/// alone.
#[must_use]
pub fn moment_ms(ms: u64, seconds: u64) -> u64 {
    if ms == 0 {
        seconds.saturating_mul(1000)
    } else {
        ms
    }
}

/// A clock reading that a lease may rest on (R1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// The instance's clock.
    pub t0: InstanceTime,
    /// When the reply that carried it came in.
    pub reply_at: Tick,
}
