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
    /// As [`Consul::watch_lock`]; pause before the next call, it will ask the same again.
    pub async fn next(&mut self, consul: &Consul) -> Result<LockView, ConsulError> {
        let view = consul.watch_lock(&self.key, self.after, self.wait).await?;
        self.after = next_after(self.after, view.index);
        Ok(view)
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
