//! The core, rule by rule, and the core among others of its kind.

mod adoption;
mod catalog;
mod chaos;
mod failsafe;
mod fixtures;
mod guarding;
mod hung;
mod lease;
mod lock_reads;
mod record;
mod release;
mod scenarios;
mod stop;
mod succession;
mod toys;
mod world;
