//! What every story begins with.

use std::time::Duration;

use tarsec_harness::{Version, World, WorldBuilder};

/// `MASTER_LEASE` in the harness's defaults.
pub(crate) const LEASE: Duration = Duration::from_secs(3);
/// For what takes moments on an idle machine; this one may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A world whose agents are this crate's own.
pub(crate) fn world() -> WorldBuilder {
    World::builder().agent_binary(env!("CARGO_BIN_EXE_tarsec"))
}

/// Whether a test about Tarantool 3's declarative configuration is to be left out; says by name that it is.
pub(crate) fn knows_no_declarations(test: &str) -> bool {
    let knows = |version| version >= Version::new(3, 0, 0);
    Version::skips(test, knows, "it knows no configuration in YAML")
}
