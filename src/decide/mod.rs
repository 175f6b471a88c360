//! The pure core: state and event in, plan out. No I/O, no clock, no randomness, no logging.

pub mod ids;
pub mod timing;
