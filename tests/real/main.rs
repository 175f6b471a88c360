//! Stories with real processes: Consul, Tarantool and the agent's own binary, writers against every instance, and the
//! oracle's verdict at the end. One file per story or close family.
#![allow(clippy::disallowed_methods, reason = "tests measure real time")]
#![allow(clippy::unwrap_used, reason = "a story may stop at what is not there")]

mod agent_frozen;
mod agent_killed;
mod by_hand;
mod catalog;
mod cluster;
mod cold_start;
mod commands;
mod consul_away;
mod consul_cut_off;
mod consul_servers;
mod crash;
mod dumps;
mod election;
mod endings;
mod failsafe;
mod guard_promises;
mod hang;
mod held_requests;
mod history;
mod lock_by_hand;
mod lock_overwritten;
mod logs;
mod lost_reply;
mod open_transactions;
mod operator;
mod pause;
mod platform;
mod problems;
mod replica_broken;
mod scene;
mod settings;
mod stop;
mod strict;
mod strict_guard;
mod support;
mod surroundings_access;
mod surroundings_acl;
mod surroundings_gate;
mod surroundings_instance;
mod surroundings_settings;
mod surroundings_tarantool;
mod surroundings_tls;
mod switchover;
mod sync;
mod sync_guard;
mod takeover;
mod two;
mod unread;
mod vshard;
mod vshard_config;
mod vshard_lua;
mod vshard_routers;
mod vshard_static;
