//! A model checker around the real decision core: every order of a bounded number of events, not a sample of them.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the core's actions are matched one by one in src/execute.rs; each place here is for some of them"
)]

mod chain;
#[allow(dead_code, reason = "the simulation's, of which the model needs half")]
#[path = "../../src/consul.rs"]
mod consul;
#[allow(dead_code, reason = "the simulation's, of which the model needs most")]
#[path = "../../src/guard.rs"]
mod guard;
mod moves;
mod search;
#[allow(
    dead_code,
    reason = "the simulation's, of which the model needs the units"
)]
#[path = "../../src/time.rs"]
mod time;
mod world;

use tarsec_sim::decide;
