//! What follows from what an agent knows: questions to the state that input and rules ask alike, each answered in one place.
//! Nothing is changed here, and nothing is planned.

mod addresses;
mod declared;
mod ending;
mod failsafe;
mod feed;
mod history;
mod lag;
mod members;
pub mod problems;
mod silence;
mod unrecorded;
pub(crate) mod vouch;
mod vshard;
