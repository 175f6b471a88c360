//! How many connections there are. Where there are too many, the one goes that has asked nothing for the longest: a client
//! that holds connections and asks nothing costs others none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

/// All connections.
#[derive(Default)]
pub(super) struct Crowd {
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    next: u64,
    /// The one that has asked nothing for the longest first.
    taken: BTreeMap<u64, AbortHandle>,
}

/// One connection's place; it is free when this is dropped.
pub(super) struct Seat {
    crowd: Arc<Crowd>,
    number: AtomicU64,
}

impl Crowd {
    /// Starts the task of a connection that has just come, so that there are `most` at most.
    pub(super) fn admit<F>(self: &Arc<Self>, most: usize, serve: impl FnOnce(Seat) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let number = {
            let mut seats = self.lock();
            while seats.taken.len() >= most {
                let Some((_, longest)) = seats.taken.pop_first() else {
                    break;
                };
                longest.abort();
            }
            seats.number()
        };
        let seat = Seat {
            crowd: Arc::clone(self),
            number: AtomicU64::new(number),
        };
        // There is one thread, so the task begins when this is over.
        let task = tokio::spawn(serve(seat));
        self.lock().taken.insert(number, task.abort_handle());
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        // No panic can leave it half-changed.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Seat {
    /// It has asked something: others go before it does.
    pub(super) fn asks(&self) {
        let mut seats = self.crowd.lock();
        let number = self.number.load(Ordering::Relaxed);
        // Without an entry it is about to go.
        if let Some(task) = seats.taken.remove(&number) {
            let number = seats.number();
            self.number.store(number, Ordering::Relaxed);
            seats.taken.insert(number, task);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let number = self.number.load(Ordering::Relaxed);
        self.crowd.lock().taken.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::{mpsc, oneshot};

    /// Says its number when it goes.
    struct Guest(u32, mpsc::UnboundedSender<u32>);

    impl Drop for Guest {
        fn drop(&mut self) {
            self.1.send(self.0).ok();
        }
    }

    #[tokio::test]
    async fn the_connection_that_has_asked_nothing_for_the_longest_goes_first() {
        let (gone, mut goes) = mpsc::unbounded_channel();
        let crowd = Arc::new(Crowd::default());
        let (says, mut said) = mpsc::unbounded_channel();
        let mut leave = Vec::new();
        for number in 0..4 {
            let guest = Guest(number, gone.clone());
            let says = says.clone();
            let (leaves, left) = oneshot::channel::<()>();
            leave.push(leaves);
            crowd.admit(2, move |seat| async move {
                let _guest = guest;
                if number == 0 {
                    seat.asks();
                    says.send(()).ok();
                }
                left.await.ok();
            });
            if number == 0 {
                // A second one comes, and then the first one asks.
                continue;
            }
            if number == 1 {
                said.recv().await;
            }
        }
        // The second one had asked nothing since it came, the first one something.
        assert_eq!(goes.recv().await, Some(1));
        assert_eq!(goes.recv().await, Some(0));
        assert_eq!(crowd.lock().taken.len(), 2);
        drop(leave);
        assert!(goes.recv().await.is_some() && goes.recv().await.is_some());
        assert!(crowd.lock().taken.is_empty());
    }
}
