//! The catalog never shows two passing masters longer than a bound (DESIGN 4: a master that is none is never left there
//! as a passing one).

use std::time::Duration;

use crate::agent::duration;
use crate::decide::plan::{CatalogEntry, Health, Role};
use crate::time::{SEC, Time};
use crate::world::World;

/// The longest TTL of an entry here; its agent speaks at least thrice in it.
const REPLICA_TTL: Duration = Duration::from_secs(20);

/// One entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Service {
    master: bool,
    passing: bool,
    told_at: Time,
    ttl: Duration,
}

impl Service {
    fn is_passing_master(&self, now: Time) -> bool {
        self.master && self.passing && now < self.told_at + duration(self.ttl)
    }
}

impl super::Checks {
    /// A Consul agent that restarts has lost it.
    pub(crate) fn forget_service(&mut self, at: usize) {
        self.places[at].service = None;
    }
}

impl World {
    /// An agent tells the catalog; the answer is whether the service is known there.
    /// A word that its agent has given up (`late`) may stand until the agent speaks the next time.
    pub(crate) fn check_told(
        &mut self,
        agent: usize,
        entry: &CatalogEntry,
        register: bool,
        late: bool,
    ) -> bool {
        let at = self.agents[agent].at;
        let (set, ttl) = (self.instances[at].set, duration(REPLICA_TTL));
        if self.current[at] != agent {
            // Two agents of one instance speak for one entry until the older one learns that it is superseded; what it
            // said last may stand until the newer one has something new to say (docs/PROOF.md).
            return true;
        }
        if late {
            self.checks.sets[set].late_word_until = self.now + ttl * 2 / 3;
        }
        if !register && self.checks.places[at].service.is_none() {
            return false;
        }
        let registered = Service {
            master: entry.registered.role == Role::Master,
            passing: true,
            told_at: self.now,
            ttl: entry.registered.ttl,
        };
        let known = self.checks.places[at].service.filter(|_| !register);
        self.checks.places[at].service = Some(Service {
            passing: entry.health != Health::Critical,
            told_at: self.now,
            ..known.unwrap_or(registered)
        });
        self.look_at_catalog(self.instances[at].set);
        true
    }

    pub(crate) fn check_deregistered(&mut self, agent: usize) {
        let at = self.agents[agent].at;
        self.checks.places[at].service = None;
    }

    fn look_at_catalog(&mut self, set: usize) {
        let masters = self.sets[set].members.clone();
        let masters = masters.filter(|at| {
            let service = self.checks.places[*at].service;
            service.is_some_and(|service| service.is_passing_master(self.now))
        });
        let masters: Vec<usize> = masters.collect();
        let memory = &mut self.checks.sets[set];
        if masters.len() < 2 || memory.late_word_until > self.now {
            memory.two_masters_since = None;
            return;
        }
        let since = *memory.two_masters_since.get_or_insert(self.now);
        let timing = &self.params.sets[set].timing;
        let bound =
            duration(timing.healthcheck_timeout()) + duration(timing.lease()) * 7 / 10 + SEC;
        if self.now - since > bound {
            let words = format!(
                "instances {masters:?} have been passing masters for {} ms",
                (self.now - since) / 1_000_000
            );
            self.fail("the catalog shows one master", words);
        }
    }
}
