//! The Tarantool adapter.

pub mod conn;
pub mod iproto;
