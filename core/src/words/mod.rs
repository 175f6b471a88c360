//! The words of the core: what is said of instances, of Consul and of each other by guards, agents and operators, and what follows
//! from one such word alone. Nothing here knows what an agent knows.

pub mod addresses;
pub mod board;
pub mod declared;
pub mod ending;
pub mod ids;
pub mod interruption;
pub mod lag;
pub(crate) mod limits;
pub mod names;
pub mod neighbours;
pub mod observed;
pub mod record;
pub mod settings;
pub mod sight;
pub mod term;
pub mod timing;
pub mod unguarded;
pub mod vclock;
pub mod vshard;
