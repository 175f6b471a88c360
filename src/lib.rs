//! tarsec keeps at most one writable Tarantool instance per replica set.

pub mod config;
pub mod consul;
pub mod decide;
pub mod exit;
pub mod tarantool;

