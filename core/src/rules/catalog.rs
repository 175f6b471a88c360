//! What Consul's catalog is to show.

use std::time::Duration;

use super::planner::Planner;
use crate::plan::{Action, CatalogEntry, Health, Reason, Registered, Role};
use crate::state::Link;
use crate::state::slots::Place;
use crate::words::board::{self, Member};
use crate::words::record::Status;

/// How long what only tells others waits while the lock changes hands: enough for a change that goes well, and short
/// beside what readers of the catalog wait for when one does not.
const QUIET: Duration = Duration::from_millis(250);

/// Whether the master's rows arrive as they did: how many are missing and for how long is no news.
fn same_arrival(known: &Member, member: &Member) -> bool {
    let arrival = |member: &Member| {
        let behind = member.behind.as_ref()?;
        Some((behind.of.clone(), behind.arrival))
    };
    arrival(known) == arrival(member)
}

fn is_passing_master(entry: &CatalogEntry) -> bool {
    entry.registered.role == Role::Master && entry.health != Health::Critical
}

impl Planner<'_> {
    /// Whether the lock is changing hands: each word to the catalog or to a member's key is a write of its own, from
    /// every member at the same moment, in line with the steps that count.
    pub(super) fn stays_quiet(&mut self) -> bool {
        let state = self.state;
        if state.stopping.is_some() || state.lock.sight.is_none() {
            return false;
        }
        let fencing_since = state
            .hold
            .handover
            .as_ref()
            .map(|known| known.fencing_since);
        let until = match (&state.instance.link, fencing_since.flatten()) {
            (Link::Dead { since, .. }, _) if state.holds_lock() => *since + QUIET,
            (_, Some(since)) => since + QUIET,
            (_, None) => {
                let record = state.seen_record();
                let served = record.is_some_and(|record| record.status == Status::Active);
                if served && state.key_session().is_some() {
                    return false;
                }
                state.lock.stood_since + QUIET
            }
        };
        self.wake(until);
        self.now < until
    }

    /// Compares what the catalog should show with what it was told last.
    pub(crate) fn tell_catalog(&mut self, reason: &Reason) {
        let Some(entry) = self.entry(reason) else {
            return;
        };
        let state = self.state;
        // What it knew of the guard is another's to say now.
        if state.superseded.is_some() || state.stopping.is_some() && !state.holds_lock() {
            return;
        }
        let told = self.state.catalog.told.as_ref();
        // A master that is none any more is taken back at once, whatever else is to be done.
        let takes_back = told.is_some_and(is_passing_master) && !is_passing_master(&entry);
        if self.stays_quiet() {
            if !takes_back {
                return;
            }
        } else {
            // The key has fields of their own for a pause and for a feed that is broken: its health says whether the
            // instance may be master.
            self.write_member(&entry);
        }
        let entry = self.critical_while_cut_off(entry);
        let entry = self.loud_about_following(self.loud_about_pause(entry));
        let catalog = &self.state.catalog;
        // New words alone would reach the catalog only after Consul's check_update_interval, so they register anew.
        let news = catalog.told.as_ref() != Some(&entry) || catalog.lost;
        let due_at = catalog.told_at + entry.registered.ttl / 3;
        if news || due_at <= self.now {
            // A registration of another role that was lost may have been carried out behind the last one.
            let doubted = catalog.doubted_until > Some(catalog.registered_at);
            let register = news || doubted;
            if self.may_call(Place::Catalog) {
                self.act(Action::Tell { entry, register });
            }
        } else {
            self.wake(due_at);
        }
    }

    /// Readers are to leave a replica to which nothing comes.
    fn critical_while_cut_off(&self, entry: CatalogEntry) -> CatalogEntry {
        let broken = self
            .state
            .instance
            .feed
            .as_ref()
            .is_some_and(|it| it.broken);
        CatalogEntry {
            health: if broken {
                Health::Critical
            } else {
                entry.health
            },
            ..entry
        }
    }

    /// An instance that was not pointed at the master may receive rows from elsewhere, and may be elected; an operator has
    /// to see to it all the same.
    fn loud_about_following(&self, entry: CatalogEntry) -> CatalogEntry {
        let health = match entry.health {
            Health::Passing if self.state.instance.follow_fault.is_some() => Health::Warning,
            Health::Passing | Health::Warning | Health::Critical => entry.health,
        };
        CatalogEntry { health, ..entry }
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
            Role::Master => {
                sound!(timing.lease() * 7 / 10; EntryOutlivesAgent => timing.lease() * 70)
            }
            Role::Replica | Role::Router => {
                twice.max(timing.lease() * 2).max(Duration::from_secs(20))
            }
        };
        let registered = Registered {
            role,
            instance: probe.uuid.clone(),
            replicaset: probe.replicaset_uuid.clone(),
            term: self.state.highest_term,
            version: probe.version.clone(),
            ttl,
        };
        let (health, mut output) = self.health(reason);
        for problem in self.state.problems() {
            output = format!("{output}; problem: {problem}");
        }
        Some(CatalogEntry {
            registered,
            health,
            output,
        })
    }

    /// Of an agent that is about to end, and is not to leave a healthy member behind for as long as its check's TTL runs, nor
    /// one of which nobody knows why. Consul has one chance to be told.
    pub(crate) fn has_said_that_it_is_critical(&self) -> bool {
        let (state, catalog) = (self.state, &self.state.catalog);
        if state.lock.outdated || state.lock.sight.is_none() || state.stopping.is_some() {
            return true;
        }
        let told = catalog.told.as_ref();
        let told = told.is_none_or(|entry| entry.health == Health::Critical);
        let written = catalog.member.as_ref();
        let written = written.is_none_or(|member| member.health == Health::Critical.name());
        (told || self.fails(Place::Catalog)) && (written || self.fails(Place::Member))
    }

    fn health(&self, reason: &Reason) -> (Health, String) {
        let instance = &self.state.instance;
        let words = reason.to_string();
        let silent_for = self.state.silent_since().map(|since| self.now.since(since));
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
        if self.unsuitable().is_some() {
            return (Health::Critical, words);
        }
        if let Some(why) = self.state.split_off_words() {
            return (Health::Critical, format!("{words}; {why}"));
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
        let mut words = words;
        let feed = instance.feed.as_ref();
        let untold = instance.follow_fault.as_ref();
        let untold = untold.map(|why| format!("COULD NOT BE POINTED AT THE MASTER: {why}"));
        for fault in feed
            .and_then(|feed| feed.fault.clone())
            .into_iter()
            .chain(untold)
        {
            words = format!("{words}; {fault}");
        }
        (Health::Passing, words)
    }

    /// On a change of role, term, health or way of following at once, for the rest at most every `MEMBER_INTERVAL`.
    fn write_member(&mut self, entry: &CatalogEntry) {
        // The key may hold the only word of a term that a deleted record carried: it is not written over before the
        // terms are known, from a record or from the members' keys.
        let knows_terms = self.state.lock.unchanged.is_some() || self.state.member_terms.is_some();
        if !knows_terms {
            // Also where it is no candidate: its key may say yet that its guard stands down.
            if self.state.lock.sight.is_some() {
                self.read_board();
            }
            return;
        }
        let Some(member) = self.member(entry) else {
            return;
        };
        let catalog = &self.state.catalog;
        let lately = |known: &Member| Member {
            vclock: known.vclock.clone(),
            behind: if same_arrival(known, &member) {
                known.behind.clone()
            } else {
                member.behind.clone()
            },
            written: known.written,
            written_ms: known.written_ms,
            ..member.clone()
        };
        match &catalog.member {
            Some(known) if *known == lately(known) => {
                if known.vclock == member.vclock && known.behind == member.behind {
                    return;
                }
                let due_at = catalog.member_written_at + self.state.settings.member_interval;
                if due_at > self.now {
                    self.wake(due_at);
                    return;
                }
            }
            Some(_) | None => {}
        }
        if self.may_call(Place::Member) {
            self.act(Action::WriteMember {
                member: Box::new(member),
            });
        }
    }

    /// What its key and its check say of a feed that is broken.
    fn cut_off(&self) -> Option<String> {
        let feed = self.state.instance.feed.as_ref().filter(|it| it.broken)?;
        let fault = feed.fault.as_deref();
        Some(
            fault
                .unwrap_or("nothing of the master's rows arrives")
                .to_owned(),
        )
    }

    fn member(&self, entry: &CatalogEntry) -> Option<Member> {
        let probe = self.state.instance.probe.as_ref()?;
        let settings = &self.state.settings;
        let registered = &entry.registered;
        let look = probe.vshard.as_ref();
        let upstreams = probe.replication.iter().filter_map(|peer| {
            let upstream = peer.upstream.as_ref()?;
            Some((peer.uuid.clone(), upstream.status.clone()))
        });
        Some(Member {
            v: board::VERSION,
            instance: registered.instance.clone(),
            replicaset: registered.replicaset.clone(),
            name: self.state.name().to_owned(),
            uri: settings.announce.clone(),
            role: registered.role.name().to_owned(),
            health: entry.health.name().to_owned(),
            reason: entry.output.clone(),
            cut_off: self.cut_off(),
            dead: matches!(self.state.instance.link, Link::Dead { .. }),
            term: registered.term,
            lease_ms: u64::try_from(settings.timing.lease().as_millis()).unwrap_or(0),
            shared: settings.shared_in(&registered.replicaset),
            priority: self.state.priority(),
            vclock: probe.vclock.clone(),
            behind: self.state.behind(self.now),
            upstreams: upstreams.collect(),
            unfollowed: self.state.is_unfollowed(self.now),
            anonymous: probe.is_anonymous(),
            fingerprint: look.and_then(|look| look.fingerprint.clone()),
            vshard: self.state.vshard.problem(look),
            problems: self.state.own_problems(),
            paused: self.is_paused(),
            stands_down: self.tells_that_it_stands_down(),
            service: None,
            written: self.state.wall_ms / 1000,
            written_ms: self.state.wall_ms,
            tarantool_version: registered.version.clone(),
            tarsec_version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}
