//! The Tarantool adapter.
