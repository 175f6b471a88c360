//! Event + state → state, by where the event comes from. Here facts are written down; nothing is decided. No other place changes
//! what an agent knows.

mod apply;
mod begin;
pub(crate) mod board;
mod catalog;
mod failsafe;
mod feed;
mod history;
mod instance;
mod interruption;
pub(crate) mod lock;
pub(crate) mod retries;
mod session;
mod silence;
mod unrecorded;
mod vshard;
