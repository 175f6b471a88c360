//! The only reader of time and randomness.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::sleep;

use crate::decide::timing::Tick;

/// No sleep for a moment of this clock is longer: tokio's timers stand still while the machine is suspended, and this clock
/// does not.
pub const NAP: Duration = Duration::from_millis(100);

/// The agent's own clock. It never goes back, and goes on while the machine is suspended (`CLOCK_BOOTTIME`), so that a
/// lease that ran out meanwhile is over.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Duration,
}

fn boottime() -> Duration {
    let read = clock_gettime(ClockId::Boottime);
    // Neither is negative: the clock begins with the machine.
    let seconds = u64::try_from(read.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(read.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanoseconds)
}

impl Clock {
    /// A clock that begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: boottime() }
    }

    /// How far this clock has run.
    #[must_use]
    pub fn now(&self) -> Tick {
        Tick::at(boottime().saturating_sub(self.start))
    }

    /// Waits until then; without a time, for ever.
    pub async fn wake(&self, at: Option<Tick>) {
        match at {
            Some(at) => loop {
                let left = at.since(self.now());
                if left.is_zero() {
                    return;
                }
                sleep(left.min(NAP)).await;
            },
            None => std::future::pending().await,
        }
    }
}

/// The wall clock in milliseconds since the epoch, for people: no decision rests on it. It is read anew for each moment
/// that is written down, because it may have been set, and a machine may have slept, since any earlier reading.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the one clock")]
pub fn wall_ms() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// A number from 0 to 1, for pauses that are not to be the same for all; 0 where there is no randomness to be had.
#[must_use]
pub fn random_fraction() -> f64 {
    let mut bytes = [0_u8; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.0,
    }
}

/// A name for this run of the agent that no other run has.
///
/// # Errors
/// The operating system has no randomness to give.
pub fn random_id() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}
