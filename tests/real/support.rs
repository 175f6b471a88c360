//! What every story begins with.

use std::time::Duration;

use tarsec_harness::{World, WorldBuilder};

/// `MASTER_LEASE` in the harness's defaults.
pub(crate) const LEASE: Duration = Duration::from_secs(3);
/// For what takes moments on an idle machine; this one may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A world whose agents are this crate's own.
pub(crate) fn world() -> WorldBuilder {
    World::builder().agent_binary(env!("CARGO_BIN_EXE_tarsec"))
}
