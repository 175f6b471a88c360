//! The Tarantool adapter.

pub mod conn;
pub(crate) mod console;
mod guard;
pub mod iproto;
pub mod link;
pub mod peers;
mod platform;
mod said;
pub(crate) mod uri;
pub(crate) mod vshard;

/// Every reader of an instance's answers to the agent's words, for a fuzzer.
#[cfg(fuzzing)]
pub fn read_any_reply(value: &iproto::FirstValue) {
    guard::read_any_reply(value);
    let _ = value.decode::<peers::Reply>();
    let _ = value.decode::<vshard::Reply>();
}
