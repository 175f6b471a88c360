//! The core, rule by rule, and the core among others of its kind.

mod adoption;
mod board;
mod candidacy;
mod catalog;
mod chaos;
mod election;
mod failsafe;
mod fixtures;
mod guarding;
mod history;
mod hung;
mod lease;
mod lock_reads;
mod pause;
mod problems;
mod record;
mod release;
mod router;
mod scenarios;
mod stop;
mod succession;
mod switchover;
mod takeover;
mod toys;
mod vshard;
mod world;
