//! Waiting for conditions that span processes.

use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Short enough not to blur what a test measures, long enough to leave the processor alone.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Asks `probe` until it answers `Ok`, for at most `deadline`.
///
/// # Errors
/// [`Error::Timeout`] with `what` and the last `Err` the probe gave.
pub async fn eventually<T, E: Display>(
    deadline: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T> {
    let started = Instant::now();
    let mut last = "nothing, the first look has not ended".to_owned();
    loop {
        // Even a deadline that has passed leaves time for one honest look.
        let left = deadline
            .saturating_sub(started.elapsed())
            .max(POLL_INTERVAL);
        match tokio::time::timeout(left, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = seen.to_string(),
            Err(_) => {}
        }
        if started.elapsed() >= deadline {
            return Err(Error::Timeout {
                what: what.to_owned(),
                waited: started.elapsed(),
                last,
            });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn says_what_was_awaited_and_last_seen() {
        let mut looks = 0;
        let error = eventually::<(), _>(Duration::from_millis(50), "a unicorn", async || {
            looks += 1;
            Err(format!("{looks} horses"))
        })
        .await
        .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("a unicorn") && text.contains(" horses"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_probe_that_hangs_does_not_outlast_the_deadline() {
        let started = Instant::now();
        let error = eventually::<(), &str>(Duration::from_millis(50), "an answer", async || {
            std::future::pending::<()>().await;
            Ok(())
        })
        .await
        .unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }));
        assert!(started.elapsed() < Duration::from_secs(1));
    }
}
