//! tarsec keeps at most one writable Tarantool instance per replica set.

mod agent;
pub mod cli;
pub mod config;
pub mod consul;
pub mod decide;
pub mod exit;
pub mod logging;
pub mod tarantool;

pub use agent::run;
