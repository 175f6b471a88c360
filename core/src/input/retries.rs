//! How long to wait after Consul did not do what it was asked for.

use std::time::Duration;

/// After a failed call to Consul: long enough not to add to its trouble, short against any lease.
pub(crate) const CONSUL_RETRY: Duration = Duration::from_millis(200);

/// After Consul denied a session or a first hold: a person has to act.
pub(super) const DENIED_RETRY: Duration = Duration::from_secs(1);
