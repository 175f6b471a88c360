//! State → plan: the rules, each in a file with what it plans. The order in which they are asked is [`Planner::reason`] in
//! `lib.rs`.

mod ballot;
mod candidate;
mod catalog;
mod contest;
mod election;
mod ending;
mod failsafe;
mod fit;
mod follow;
mod history;
mod holder;
mod interruption;
mod next_record;
mod offer;
mod pause;
pub(crate) mod planner;
mod probing;
pub mod ranking;
mod session;
mod stop;
mod switchover;
mod unrecorded;
mod votes;
mod vshard;
mod without_lock;
