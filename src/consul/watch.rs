//! A watch on the lock key.

use std::time::Duration;

use super::Consul;
use super::error::ConsulError;
use super::lock::LockView;

/// A watch on a lock key that remembers how far it has read.
#[derive(Debug, Clone)]
pub struct LockWatch {
    key: String,
    wait: Duration,
    after: u64,
}

impl LockWatch {
    /// A watch that reads at once and then waits for changes, for `wait` at a time.
    #[must_use]
    pub fn new(key: impl Into<String>, wait: Duration) -> Self {
        Self {
            key: key.into(),
            wait,
            after: 0,
        }
    }

    /// The lock as soon as it has changed, or after `wait`. Safe to drop: the next call asks the same again.
    ///
    /// # Errors
    /// As [`Consul::watch_lock`]; pause before the next call, which will wait for nothing: that Consul can be read again
    /// is news by itself, and R3's count begins with it.
    pub async fn next(&mut self, consul: &Consul) -> Result<LockView, ConsulError> {
        let seen = consul.watch_lock(&self.key, self.after, self.wait).await;
        let found = seen.as_ref().map_or(0, |view| view.index);
        self.after = next_after(self.after, found);
        seen
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
