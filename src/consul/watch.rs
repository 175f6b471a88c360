//! A watch on the lock key.

use std::time::Duration;

use super::Consul;
use super::error::ConsulError;
use super::lock::LockView;

/// A watch on a lock key that remembers how far it has read.
#[derive(Debug, Clone)]
pub struct LockWatch {
    key: String,
    hold: Duration,
    beat: Duration,
    /// The index from which the next question goes on; 0: it is not held.
    after: u64,
    /// The last answer's index.
    seen: u64,
    /// The last answer brought news.
    news: bool,
    /// Consul was to hold the last question.
    held: bool,
    /// A held question had no answer at all, and nothing has changed since: something on the way swallows held
    /// questions, and each would cost its whole deadline without a word about Consul.
    swallowed: bool,
}

impl LockWatch {
    /// A watch that reads at once and then waits for changes, for `wait` at a time.
    #[must_use]
    pub fn new(key: impl Into<String>, wait: Duration) -> Self {
        Self::beating(key, wait, wait)
    }

    /// The same, but it waits for `hold` after a change and for `beat` after an answer without one.
    #[must_use]
    pub fn beating(key: impl Into<String>, hold: Duration, beat: Duration) -> Self {
        Self {
            key: key.into(),
            hold,
            beat,
            after: 0,
            seen: 0,
            news: true,
            held: false,
            swallowed: false,
        }
    }

    /// The lock as soon as it has changed, or after the wait. Safe to drop: the next call asks the same again.
    ///
    /// # Errors
    /// As [`Consul::watch_lock`]. The next call will wait for nothing. Where Consul [was to hold](Self::was_held) this
    /// call's question, the failure is no news: the next call decides. Otherwise the caller pauses before the next
    /// call.
    pub async fn next(&mut self, consul: &Consul) -> Result<LockView, ConsulError> {
        let after = if self.swallowed { 0 } else { self.after };
        self.held = after > 0;
        let wait = if self.news { self.hold } else { self.beat };
        let seen = consul.watch_lock(&self.key, after, wait).await;
        match &seen {
            Ok(view) => {
                self.news = view.index != self.seen;
                self.swallowed &= !self.news;
                self.seen = view.index;
                self.after = next_after(self.after, view.index);
            }
            Err(error) => {
                self.swallowed |= self.held && matches!(error, ConsulError::Timeout { .. });
                self.after = 0;
            }
        }
        seen
    }

    /// Whether nothing is held at the moment, so that the next question ought to come a beat later.
    #[must_use]
    pub fn holds_nothing(&self) -> bool {
        self.swallowed
    }

    /// Whether Consul was to hold the last question.
    #[must_use]
    pub fn was_held(&self) -> bool {
        self.held
    }
}

/// An index that went backwards is of another store (a restored snapshot, a new cluster): start over.
fn next_after(after: u64, found: u64) -> u64 {
    if found < after { 0 } else { found }
}

#[cfg(test)]
mod tests {
    use super::next_after;

    #[test]
    fn a_watch_starts_over_when_the_index_goes_backwards() {
        assert_eq!(next_after(0, 7), 7);
        assert_eq!(next_after(7, 7), 7);
        assert_eq!(next_after(7, 6), 0);
    }
}
