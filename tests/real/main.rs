//! Stories with real processes: Consul, Tarantool and the agent's own binary, writers against every instance, and the
//! oracle's verdict at the end. One file per story or close family.
#![allow(clippy::disallowed_methods, reason = "tests measure real time")]

mod support;
mod surroundings_access;
mod surroundings_acl;
mod surroundings_gate;
mod surroundings_instance;
mod surroundings_settings;
mod surroundings_tarantool;
mod surroundings_tls;
