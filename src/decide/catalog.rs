//! What Consul's catalog is to show.

use std::time::Duration;

use super::plan::{Action, CatalogEntry, Health, Reason, Registered, Role};
use super::state::Link;
use super::{Place, Planner};

impl Planner<'_> {
    /// Compares what the catalog should show with what it was told last.
    pub(super) fn tell_catalog(&mut self, reason: &Reason) {
        let Some(entry) = self.entry(reason) else {
            return;
        };
        if self.state.stopping.is_some() && !self.state.holds_lock() {
            return;
        }
        self.write_member(&entry.registered);
        let catalog = &self.state.catalog;
        // New words alone would reach the catalog only after Consul's check_update_interval, so they register anew.
        let register = catalog.told.as_ref() != Some(&entry) || catalog.lost;
        let due_at = catalog.told_at + entry.registered.ttl / 3;
        if register || due_at <= self.now {
            if self.may_call(self.state.pending.catalog, catalog.retry_at) {
                self.act(Action::Tell { entry, register });
            }
        } else {
            self.wake(due_at);
        }
    }

    fn entry(&self, reason: &Reason) -> Option<CatalogEntry> {
        let probe = self.state.instance.probe.as_ref()?;
        let role = if self.state.holds_lock() && self.state.is_serving() {
            Role::Master
        } else {
            Role::Replica
        };
        let timing = &self.state.settings.timing;
        let twice = timing.healthcheck_interval() * 2;
        // An agent that dies cannot take its word back: a master's word must run out before its lease does, and a
        // refresh may be a quarter of the lease old. A replica's may last; each word costs a request.
        let ttl = match role {
            Role::Master => timing.lease() * 7 / 10,
            Role::Replica => twice.max(timing.lease() * 2).max(Duration::from_secs(20)),
        };
        let registered = Registered {
            role,
            instance: probe.uuid.clone(),
            replicaset: probe.replicaset_uuid.clone(),
            term: self.state.highest_term,
            version: probe.version.clone(),
            ttl,
        };
        let (health, output) = self.health(reason);
        Some(CatalogEntry {
            registered,
            health,
            output,
        })
    }

    fn health(&self, reason: &Reason) -> (Health, String) {
        let instance = &self.state.instance;
        let words = reason.to_string();
        let silent_for = instance.silent_since.map(|since| self.now.since(since));
        match &instance.link {
            Link::Up => {}
            Link::Unknown | Link::Down { .. } | Link::Dead { .. } | Link::Unsuitable { .. } => {
                let why = self.instance_words();
                let same = words.contains(&why);
                return (
                    Health::Critical,
                    if same {
                        words
                    } else {
                        format!("{words} ({why})")
                    },
                );
            }
        }
        if silent_for.is_some_and(|silent_for| {
            silent_for >= self.state.settings.timing.healthcheck_timeout()
        }) {
            return (Health::Critical, words);
        }
        let Some(probe) = self.state.live_probe() else {
            return (Health::Critical, words);
        };
        if probe.status != "running" {
            return (
                Health::Critical,
                format!("its status is '{}'; {words}", probe.status),
            );
        }
        if let Some(why) = &instance.process
            && self.state.settings.kill_hung
            && self.state.is_serving()
        {
            return (
                Health::Passing,
                format!("{words}; should it hang, it cannot be killed: {why}"),
            );
        }
        (Health::Passing, words)
    }

    fn write_member(&mut self, member: &Registered) {
        // The key may hold the only word of a term that a deleted record carried: it is not written over before the
        // terms are known, from a record or from the members' keys.
        let knows_terms = self.state.lock.unchanged.is_some() || self.state.member_terms.is_some();
        let changed = knows_terms && self.state.catalog.member.as_ref() != Some(member);
        let under_way = self.state.pending.member || self.planned(Place::Member);
        if changed && self.may_call(under_way, self.state.catalog.member_retry_at) {
            self.act(Action::WriteMember {
                member: member.clone(),
            });
        }
    }
}
