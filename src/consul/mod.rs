//! The Consul adapter: sessions, the lock, the catalog, the members' keys. It reports what happened and never decides.
//!
//! | file | what it speaks |
//! | --- | --- |
//! | `wire` | HTTP through `reqwest`: deadlines, bounds, denials |
//! | `clients` | the clients that requests are sent with, made anew when a token or a certificate was renewed |
//! | `tls` | the one TLS configuration |
//! | `throttle` | when Consul asks for fewer requests |
//! | `session` | sessions |
//! | `lock`, `watch` | the lock key: reads, watches, transactions |
//! | `txn` | transactions |
//! | `exact` | keys beside the lock, read by their names |
//! | `board` | the same keys, written if nobody else has; whole prefixes for commands |
//! | `advice` | what to do about an error |
//! | `catalog` | the agent's services and checks |
//! | `named` | everybody's services of one name |
//! | `members` | plain writes of keys, through `rs-consul` |

mod advice;
mod board;
mod catalog;
mod clients;
mod error;
mod exact;
mod lock;
mod members;
mod named;
mod session;
#[cfg(test)]
pub(crate) mod testing;
mod throttle;
mod tls;
mod txn;
mod watch;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use catalog::{CheckStatus, CheckUpdate, Keeper, Registration};
pub use error::{Advice, BodyError, Cause, ConsulError, SetupError};
pub use exact::{NAMES_LIMIT_BYTES, VALUE_LIMIT_BYTES, Values};
pub use lock::{LockKey, LockOutcome, LockStep, LockView};
pub use named::Service;
pub use session::Renewal;
pub use txn::Found;
pub use watch::LockWatch;

use crate::config::ConsulConfig;
use crate::decide::timing::Timing;
use wire::Wire;

/// A handle on the Consul agent beside us; clones share its connections.
///
/// Dropping one of its futures drops the request: it may or may not have been carried out.
#[derive(Clone)]
pub struct Consul {
    inner: Arc<Inner>,
}

struct Inner {
    wire: Wire,
    /// As it goes into the operations of a transaction.
    namespace: Option<String>,
    guesses: exact::Guesses,
}

impl Consul {
    /// Reads the certificates and prepares the clients. Nothing is sent. Files are read again when Consul refuses what
    /// they held.
    ///
    /// Every request is given `request_timeout` from the connect to the last byte of the answer.
    ///
    /// # Errors
    /// A setting that cannot be used, by the variable's name.
    pub fn new(config: &ConsulConfig, request_timeout: Duration) -> Result<Self, SetupError> {
        Self::for_lease(config, request_timeout, Timing::LEASE_MIN)
    }

    /// The same for an agent with a lease, from which follows how long a request is put off at most that Consul asks not to
    /// send.
    ///
    /// # Errors
    /// As [`new`](Consul::new).
    pub fn for_lease(
        config: &ConsulConfig,
        request_timeout: Duration,
        lease: Duration,
    ) -> Result<Self, SetupError> {
        let wire = Wire::new(config, request_timeout, lease)?;
        Ok(Self {
            inner: Arc::new(Inner {
                wire,
                namespace: config.namespace.clone(),
                guesses: exact::Guesses::default(),
            }),
        })
    }

    fn wire(&self) -> &Wire {
        &self.inner.wire
    }
}

/// Every reader of Consul's answers, for a fuzzer: to a read or a watch of the lock, to a transaction, to a read of
/// keys, to a question about a session.
#[cfg(fuzzing)]
pub fn read_any_answer(code: u16, index: Option<u64>, body: &[u8]) {
    let answer = || wire::Answer {
        what: "fuzz".to_owned(),
        code,
        index,
        body: body.to_vec(),
        cut: false,
    };
    lock::read_any_answer(answer);
    exact::read_any_answer(answer);
    session::read_any_answer(&answer());
    let _ = wire::quoted(body);
}

impl fmt::Debug for Consul {
    /// Nothing of the settings: they hold the token and the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consul").finish_non_exhaustive()
    }
}
