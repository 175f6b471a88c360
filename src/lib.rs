//! tarsec keeps at most one writable Tarantool instance per replica set.

pub mod agent;
pub mod cli;
pub mod clock;
pub mod config;
pub mod consul;
pub mod decide;
mod dump;
pub mod errors;
pub mod execute;
pub mod exit;
mod journal;
pub mod logging;
pub mod process;
pub mod tarantool;

pub use agent::run;
