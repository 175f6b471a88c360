//! The simulation's guard and Consul are second writings of the real ones. Here both are asked the same, drawn from a
//! seed, and must answer alike.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it fails"
)]

mod against_consul;
mod against_guard;
#[allow(dead_code, reason = "the simulation's, of which half is needed here")]
#[path = "../sim/src/consul.rs"]
mod consul;
#[allow(dead_code, reason = "the simulation's, of which most is needed here")]
#[path = "../sim/src/guard.rs"]
mod guard;
#[allow(dead_code, reason = "the simulation's, of which half is needed here")]
#[path = "../sim/src/rng.rs"]
mod rng;
#[allow(dead_code, reason = "the simulation's, of which half is needed here")]
#[path = "../sim/src/time.rs"]
mod time;

// What the simulation's files call the core is the product's here, and not their copy of it.
use tarsec::decide;
