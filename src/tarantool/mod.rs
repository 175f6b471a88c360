//! The Tarantool adapter.

pub mod conn;
mod guard;
pub mod iproto;
pub mod link;
pub mod peers;
pub(crate) mod vshard;
