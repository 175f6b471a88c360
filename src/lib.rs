//! tarsec keeps at most one writable Tarantool instance per replica set.
//!
//! ```text
//!  events ─▶ agent (the loop) ─▶ decide (pure) ─▶ execute ─▶ tarantool: the guard in the instance
//!     ▲                                              └─────▶ consul: the lock, the session, the catalog
//!     └──────────────── what came of it ◀───────────────────────┘
//! ```
//!
//! `ARCHITECTURE.md` is the map, `docs/PROTOCOL.md` says why this is safe.
#![warn(clippy::too_many_lines)]

mod agent;
mod birth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod consul;
pub mod ctl;
mod dump;
pub mod errors;
mod execute;
mod execute_board;
mod execute_catalog;
pub mod exit;
mod exposure;
mod http;
mod journal;
mod keys;
pub mod logging;
mod neighbours;
pub mod outlet;
pub mod plain;
pub mod process;
mod router;
mod run;
pub mod secrets;
mod setup;
mod signals;
pub mod tarantool;
mod waiting;
mod watch_vshard;

pub use run::run;
pub use tarsec_core as decide;

const _: () = assert!(
    !decide::MUTANTS,
    "this core can be broken on purpose: build and test the simulation, tarsec-sim, with a command of its own (HACKING.md)"
);
