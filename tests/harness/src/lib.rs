//! Real Consul, real Tarantool and faults between them, for tests, demo, benchmark and chaos of tarsec.
//!
//! ```text
//!  World ── temp dir, ports, pids, logs; ends everything when it is dropped
//!    ├─ Consul       one server or three; ACL, TLS; kill, restart, leader
//!    ├─ ReplicaSet   Instances under lua/init.lua; kill, freeze, restart; which are writable
//!    │    └─ Writers ── write to every instance at once → History → Verdict (the oracle)
//!    ├─ Agent        the tarsec binary; signals, dumps, JSON logs
//!    ├─ Machine      an instance and its agent, lost or frozen together
//!    ├─ Clocks       a machine that is suspended, a wall clock that is set
//!    ├─ Board        a replica set's keys in Consul: record, members, orders, history
//!    ├─ Cli          the tarsec binary with arguments: what it prints, how it ends
//!    └─ Proxy        a TCP link that can be cut, stalled, delayed, healed
//! ```
//!
//! A story starts a world, starts what it needs in it, breaks something, and asks the oracle:
//! see `World::builder().story(…)`. Waiting for what other processes do is [`eventually`]'s work.
#![allow(
    clippy::disallowed_methods,
    reason = "the harness measures real time; the one clock is a rule for the agent"
)]

use std::io::Write as _;

mod agent;
mod board;
mod checks;
mod cli;
mod clocks;
mod consul;
mod error;
mod handover;
mod interrupt;
mod machine;
mod moment;
mod oracle;
mod ports;
mod process;
mod proxy;
mod requests;
mod tarantool;
mod usage;
mod vshard;
mod wait;
mod world;
mod writers;

pub use agent::{Agent, AgentBuilder, LogLine};
pub use board::Board;
pub use checks::{CheckReply, Prober, Seen, ask_check, check_status};
pub use cli::{Cli, CliOutput};
pub use clocks::Clocks;
pub use consul::{Consul, ConsulApi, ConsulOptions, KvEntry, Server, ServiceEntry, Token};
pub use error::{Error, Result};
pub use handover::{Handover, Switch, TakeOver};
pub use interrupt::{INTERRUPTED, unless_interrupted};
pub use machine::Machine;
pub use moment::Moment;
pub use oracle::{
    Accepted, Change, Gap, History, Outcome, Overrun, Share, Tenure, Verdict, Violation, Write,
};
pub use process::{Output, Process, Rights, is_root};
pub use proxy::{Fault, Proxy};
pub use serde_json::{Value, json};
pub use tarantool::{
    Connection, Declaration, Instance, Login, ReplicaSet, ReplicaSetOptions, Replies, Reply,
    Request, Requests, Standing, Version, sources, tarantool,
};
pub use usage::Usage;
pub use vshard::{
    RouterWrite, RouterWriters, VshardCluster, VshardOptions, vshard_root, wait_for_flag,
};
pub use wait::eventually;
pub use world::{World, WorldBuilder};
pub use writers::{Writers, WritersBuilder};

/// Past the test runner, which keeps what a passing test prints to itself.
pub fn say_skipped(why: &str) {
    // That nobody reads it is no reason to fail.
    let _ = writeln!(std::io::stderr(), "skipped {why}");
}
