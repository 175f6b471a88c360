//! The real decision core, `core/src`, in a simulated world with a time of its own, under a seed.
//!
//! `build.rs` copies the core into this crate; [`run`] plays one seed: agents around Consul, instances with their
//! guards, a network, and faults. Invariants, one file each in `invariants/`, look at everything that happens.

include!(concat!(env!("OUT_DIR"), "/decide.rs"));

mod agent;
mod answers;
mod attach;
mod consul;
mod faults;
mod guard;
mod instance;
mod invariants;
pub mod kept;
pub mod mutants;
mod params;
mod replication;
mod requests;
mod rng;
pub mod shrink;
mod stories;
mod strikes;
mod table;
mod time;
mod watch;
mod world;

pub use invariants::Failure;
pub use params::Params;
pub use world::{Outcome, run};
