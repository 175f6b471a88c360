//! The Tarantool adapter.

pub mod iproto;
