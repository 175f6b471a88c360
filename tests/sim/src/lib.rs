//! The real decision core, `tarsec-core`, in a simulated world with a time of its own, under a seed.
//!
//! [`run`] plays one seed: agents around Consul, instances with their guards, a network, and faults. Invariants, one file
//! each in `invariants/`, look at everything that happens.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
mod time;
mod watch;
mod world;

pub use invariants::Failure;
pub use params::Params;
pub use tarsec_core as decide;
pub use world::{Outcome, run};
