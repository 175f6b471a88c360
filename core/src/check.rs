//! What an agent answers to a check: whether its instance is master, follows one, or can be used at all. A check is asked
//! at any moment and answered from the last turn of the loop, so each thing that ends by itself has its end with it, and
//! the answer reads the clock ([`Snapshot::answer`]).
//! Until when the agent vouches for its master is in `vouch.rs`.

use std::time::Duration;

use serde::Serialize;

use crate::plan::{Plan, Reason};
pub use crate::questions::vouch::Trail;
use crate::router::{RouterPlan, RouterState};
use crate::state::lag::MOMENT;
use crate::state::{Link, State};
use crate::words::lag::{Arrival, Behind};
use crate::words::observed::Probe;
use crate::words::record::Status;
use crate::words::term::Term;
use crate::words::timing::Tick;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Whether the instance is master.
    Master,
    /// Whether it follows the master, closely enough.
    Replica(Wish),
    /// Whether readers may use it: a master, or an instance whose feed is not broken, closely enough where that is wished.
    Reads(Wish),
    /// Whether it answers its agent.
    Health,
    /// Whether the loop turns.
    Liveness,
    /// Whether it is in full use: a master, a replica that has caught up, or a router that reaches every master.
    Readiness,
    /// Whether the agent can read Consul and knows the master.
    Consensus,
}

/// How close to the master a replica must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// It lacks so many rows at most.
    pub lag: Option<u64>,
    /// It heard of the master so long ago at most.
    pub idle: Option<Duration>,
}

/// Yes, or why not.
pub type Answer = Result<(), String>;

/// What the agent knew at the end of a turn of its loop, as far as checks ask for it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Why the agent does what it does, in words.
    reason: String,
    /// For so long the loop may stand still before nothing counts that it knew.
    lease: Duration,
    /// It was asked to stop.
    stopping: bool,
    seat: Seat,
}

/// What the agent looks after.
#[derive(Debug, Clone)]
enum Seat {
    /// Nothing yet.
    Nobody,
    Storage(Box<Storage>),
    Router(Router),
}

#[derive(Debug, Clone)]
struct Storage {
    name: String,
    instance: Option<(String, String)>,
    term: Term,
    /// Why it does not answer; else from when on its silence counts.
    answers: Result<Option<Tick>, String>,
    /// Why nobody is to use it though it answers.
    unfit: Option<String>,
    /// Until when the agent vouches for its lease.
    master_until: Result<Tick, String>,
    following: Result<Following, String>,
    /// Nothing of the master's rows arrives, and why.
    cut_off: Option<String>,
    /// Whoever else is master, by name.
    master: Option<String>,
    /// When Consul was asked last for an answer that came.
    consul: Result<Tick, String>,
}

/// How an instance follows the master.
#[derive(Debug, Clone)]
struct Following {
    behind: Option<Behind>,
    heard_at: Option<Tick>,
}

#[derive(Debug, Clone)]
struct Router {
    name: String,
    instance: Option<String>,
    /// Why it does not answer.
    lost: Option<String>,
    /// Why not every master is connected.
    lacking: Option<String>,
    /// Why Consul was not told, or has not said who is master.
    consul: Answer,
}

/// An agent and its instance in one moment, for people and programs beside the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    /// `master`, `replica`, `router`; `unknown` where the instance does not answer.
    pub role: &'static str,
    /// What operators know it by.
    pub name: Option<String>,
    /// Instance UUID.
    pub instance: Option<String>,
    /// Replica-set UUID.
    pub replicaset: Option<String>,
    /// Of a master the term under which it is writable, else the highest that is known.
    pub term: Option<Term>,
    /// How long the agent vouches for the master.
    pub lease_left_ms: Option<u64>,
    /// The master's name.
    pub master: Option<String>,
    /// Rows that a replica lacked of what the master had at its last word.
    pub behind_rows: Option<u64>,
    /// How long ago a replica heard of the master.
    pub idle_ms: Option<u64>,
    /// Why the agent does what it does.
    pub reason: String,
}

impl Snapshot {
    /// Of an agent that has not taken a turn yet.
    #[must_use]
    pub fn of_nobody(lease: Duration) -> Self {
        Self {
            reason: "the agent has just started".to_owned(),
            lease,
            stopping: false,
            seat: Seat::Nobody,
        }
    }

    /// Of a storage's agent at the end of a turn, whose actions are begun.
    #[must_use]
    pub fn of(state: &State, plan: &Plan, trail: &Trail, now: Tick) -> Self {
        let probe = state.instance.probe.as_ref();
        let unfit = probe.and_then(|probe| {
            if let Reason::InstanceUnsuitable { why } = &plan.reason {
                return Some(why.clone());
            }
            let halted =
                (probe.status != "running").then(|| format!("its status is '{}'", probe.status));
            halted.or_else(|| state.split_off_words())
        });
        let feed = state.instance.feed.as_ref().filter(|feed| feed.broken);
        let storage = Storage {
            name: state.settings.announce.clone(),
            instance: probe.map(|it| (it.uuid.clone(), it.replicaset_uuid.clone())),
            term: state.serving_term().unwrap_or(state.highest_term),
            answers: state.answers(),
            unfit,
            master_until: state.vouched_until(trail),
            following: state.following(now),
            cut_off: feed.map(|feed| feed.fault.clone().unwrap_or_default()),
            master: state.other_master(now).map(|(_, name)| name),
            consul: state.consul_read_at(),
        };
        Self {
            reason: plan.reason.to_string(),
            lease: state.settings.timing.lease(),
            stopping: state.stopping.is_some(),
            seat: Seat::Storage(Box::new(storage)),
        }
    }

    /// Of a router's agent.
    #[must_use]
    pub fn of_router(state: &RouterState, plan: &RouterPlan, lease: Duration) -> Self {
        let consul = match (&state.consul_fault, &state.vshard.masters) {
            (Some(why), _) => Err(why.clone()),
            (None, None) => Err("it has not said yet who is master".to_owned()),
            (None, Some(_)) => Ok(()),
        };
        Self {
            reason: plan.reason.clone(),
            lease,
            stopping: state.is_stopping(),
            seat: Seat::Router(Router {
                name: state.name().to_owned(),
                instance: state.identity.as_ref().map(|it| it.uuid.clone()),
                lost: state.lost.clone().or_else(|| state.unanswered.clone()),
                lacking: state.lacking(),
                consul,
            }),
        }
    }

    /// Answers at `now`, which is to be read for this answer and no other; the loop last ran at `ran_at`.
    ///
    /// # Errors
    /// Why not.
    pub fn answer(&self, check: Check, ran_at: Tick, now: Tick) -> Answer {
        let stood_still = now.since(ran_at);
        if stood_still > self.lease {
            // What it knew says nothing of this moment, but for the end of a lease, which is over as well.
            return Err(format!(
                "the agent has stood still for {} s",
                stood_still.as_secs()
            ));
        }
        if check == Check::Liveness {
            return Ok(());
        }
        match &self.seat {
            Seat::Nobody => Err(self.reason.clone()),
            Seat::Storage(storage) => self.of_storage(storage, check, now),
            Seat::Router(router) => self.of_routers(router, check),
        }
    }

    fn of_storage(&self, storage: &Storage, check: Check, now: Tick) -> Answer {
        if check == Check::Consensus {
            return storage.knows_master(self.lease, now);
        }
        storage.answers(now)?;
        if check == Check::Health {
            return Ok(());
        }
        let master = storage.is_master(now);
        if check == Check::Master || master.is_ok() && !matches!(check, Check::Replica(_)) {
            return match self.stopping && check == Check::Readiness {
                true => Err(STOPPING.to_owned()),
                false => master,
            };
        }
        if let Some(why) = &storage.unfit {
            return Err(why.clone());
        }
        match check {
            Check::Replica(wish) => storage.is_replica()?.suits(wish, now),
            Check::Reads(wish) => storage.serves_readers(wish, now),
            Check::Readiness if self.stopping => Err(STOPPING.to_owned()),
            Check::Readiness => storage.is_replica()?.has_caught_up(),
            Check::Master | Check::Health | Check::Liveness | Check::Consensus => Ok(()),
        }
    }

    fn of_routers(&self, router: &Router, check: Check) -> Answer {
        let lost = |why: &String| format!("the router does not answer: {why}");
        match check {
            Check::Consensus => router.consul.clone(),
            Check::Master | Check::Replica(_) | Check::Reads(_) => {
                Err("the instance is a vshard router, ask it for /readiness".to_owned())
            }
            Check::Readiness if self.stopping => Err(STOPPING.to_owned()),
            Check::Health | Check::Readiness | Check::Liveness => {
                if let Some(why) = &router.lost {
                    return Err(lost(why));
                }
                let lacking = router.lacking.clone().filter(|_| check == Check::Readiness);
                lacking.map_or(Ok(()), Err)
            }
        }
    }

    /// Until when a yes to this stands, if it ends by itself: an answer that is sent later is not true.
    #[must_use]
    pub fn stands_until(&self, check: Check) -> Option<Tick> {
        match &self.seat {
            Seat::Storage(storage) if check == Check::Master => {
                storage.master_until.as_ref().ok().copied()
            }
            Seat::Storage(_) | Seat::Nobody | Seat::Router(_) => None,
        }
    }

    /// What is known besides, at `now`.
    #[must_use]
    pub fn account(&self, now: Tick) -> Account {
        let mut account = Account {
            role: "unknown",
            name: None,
            instance: None,
            replicaset: None,
            term: None,
            lease_left_ms: None,
            master: None,
            behind_rows: None,
            idle_ms: None,
            reason: self.reason.clone(),
        };
        match &self.seat {
            Seat::Nobody => {}
            Seat::Router(router) => {
                account.role = "router";
                account.name = Some(router.name.clone());
                account.instance.clone_from(&router.instance);
            }
            Seat::Storage(storage) => storage.tell(&mut account, now),
        }
        account
    }
}

const STOPPING: &str = "the agent was asked to stop";

impl Storage {
    fn answers(&self, now: Tick) -> Answer {
        match &self.answers {
            Err(why) => Err(format!("the instance does not answer: {why}")),
            Ok(Some(from)) if *from <= now => Err("the instance does not answer".to_owned()),
            Ok(_) => Ok(()),
        }
    }

    fn is_master(&self, now: Tick) -> Answer {
        match &self.master_until {
            Ok(until) if sound!(now < *until; AnswerWithoutClock => true) => Ok(()),
            Ok(_) => Err("its lease, as far as its agent can tell, is over".to_owned()),
            Err(why) => Err(why.clone()),
        }
    }

    fn is_replica(&self) -> Result<&Following, String> {
        self.following.as_ref().map_err(Clone::clone)
    }

    /// Without a master readers go on: what an instance has is as new as anybody's.
    fn serves_readers(&self, wish: Wish, now: Tick) -> Answer {
        if wish != Wish::default() {
            return self.is_replica()?.suits(wish, now);
        }
        match &self.cut_off {
            Some(why) => Err(format!("nothing of the master's rows arrives: {why}")),
            None => Ok(()),
        }
    }

    fn knows_master(&self, lease: Duration, now: Tick) -> Answer {
        match &self.consul {
            Err(why) => return Err(format!("Consul cannot be read: {why}")),
            Ok(at) if now.since(*at) > lease => {
                return Err("Consul has not answered for longer than a lease".to_owned());
            }
            Ok(_) => {}
        }
        if self.master.is_none() && self.is_master(now).is_err() {
            return Err("no master is known".to_owned());
        }
        Ok(())
    }

    fn tell(&self, account: &mut Account, now: Tick) {
        let left = self.master_until.as_ref().ok().map(|at| at.since(now));
        let left = left.filter(|left| !left.is_zero() && self.answers(now).is_ok());
        account.role = match (left, self.answers(now)) {
            (Some(_), _) => "master",
            (None, Ok(())) => "replica",
            (None, Err(_)) => "unknown",
        };
        account.name = Some(self.name.clone());
        if let Some((instance, replicaset)) = &self.instance {
            account.instance = Some(instance.clone());
            account.replicaset = Some(replicaset.clone());
        }
        account.term = Some(self.term);
        account.lease_left_ms = left.map(millis);
        account.master = match left {
            Some(_) => account.name.clone(),
            None => self.master.clone(),
        };
        if let (None, Ok(following)) = (left, &self.following) {
            account.behind_rows = following.behind.as_ref().map(|behind| behind.rows);
            account.idle_ms = following.heard_at.map(|at| millis(now.since(at)));
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Following {
    fn suits(&self, wish: Wish, now: Tick) -> Answer {
        if let Some(most) = wish.lag {
            let rows = self.behind.as_ref().map(|behind| behind.rows);
            let rows = rows.ok_or("how many rows it lacks is not known")?;
            if rows > most {
                return Err(format!("it lacks {rows} rows, wished are {most} at most"));
            }
        }
        if let Some(most) = wish.idle {
            let heard_at = self
                .heard_at
                .ok_or("when it heard of the master is not known")?;
            let idle = now.since(heard_at);
            if idle > most {
                return Err(format!(
                    "it heard of the master {} ms ago, wished are {} ms at most",
                    millis(idle),
                    millis(most)
                ));
            }
        }
        Ok(())
    }

    /// Rows that are on their way do not count.
    fn has_caught_up(&self) -> Answer {
        let Some(behind) = &self.behind else {
            return Err("how many rows it lacks is not known".to_owned());
        };
        if behind.rows > 0 && Duration::from_millis(behind.ms) >= MOMENT {
            return Err(format!(
                "it lacks {} rows, for {} ms",
                behind.rows, behind.ms
            ));
        }
        Ok(())
    }
}

impl State {
    /// Whether the instance answers, and from when on a silence that has begun counts.
    fn answers(&self) -> Result<Option<Tick>, String> {
        match self.instance.link {
            Link::Up => {
                let patience = self.settings.timing.healthcheck_timeout();
                Ok(self.silent_since().map(|since| since + patience))
            }
            Link::Unknown | Link::Down { .. } | Link::Dead { .. } | Link::Unsuitable { .. } => {
                Err(self.instance.link.to_string())
            }
        }
    }

    /// Whoever else is master, by instance UUID and name: the holder of the lock by its record, or, where the lock does
    /// not say, the instance to which the guard has promised not to be promoted (R6).
    fn other_master(&self, now: Tick) -> Option<(String, String)> {
        let known = self.instance.probe.as_ref()?;
        if let Some((record, _)) = self.master_elsewhere(known) {
            return Some((record.instance.clone(), record.name.clone()));
        }
        let promise = self
            .live_probe()?
            .promise_to_another()
            .filter(|_| self.instance.bound_until > now)?;
        let known = self.seen_record();
        let name = known.filter(|record| record.instance == promise.to);
        // A holder that died or was fenced says so, and nobody is master on a promise to it.
        if name.is_some_and(|record| record.status == Status::Fenced) {
            return None;
        }
        let name = name.map_or(&promise.to, |record| &record.name);
        Some((promise.to.clone(), name.clone()))
    }

    fn following(&self, now: Tick) -> Result<Following, String> {
        let Some(probe) = self.live_probe() else {
            return Err("the instance does not answer".to_owned());
        };
        if !probe.ro || probe.guard.leased {
            return Err("the instance is no replica: it is writable".to_owned());
        }
        let Some((master, name)) = self.other_master(now) else {
            return Err("no master is known".to_owned());
        };
        let heard_at = self.heard_of(probe, &master);
        let of_master = |from: &String| *from == master;
        let feed = self.instance.feed.as_ref();
        let Some(feed) = feed.filter(|feed| of_master(&feed.from)) else {
            // The lock does not show the master that it has promised to.
            let behind = None;
            return match probe.follows(&master) && self.key_session().is_none() {
                true => Ok(Following { behind, heard_at }),
                false => Err(format!(
                    "it does not follow {name} yet, as far as it was asked"
                )),
            };
        };
        let behind = self.behind(now);
        let arrival = behind.as_ref().map(|behind| behind.arrival);
        let gone = match arrival {
            Some(Arrival::Stopped | Arrival::Disconnected) => true,
            Some(Arrival::Arriving | Arrival::Stalled | Arrival::Silent) => feed.broken,
            None => feed.failing_since.is_some(),
        };
        if gone {
            let fault = feed.fault.clone();
            return Err(fault.unwrap_or_else(|| format!("nothing arrives of {name}'s rows")));
        }
        Ok(Following { behind, heard_at })
    }

    /// When the instance heard of the master: from it, or from those by whom its rows come.
    fn heard_of(&self, probe: &Probe, master: &str) -> Option<Tick> {
        let direct = probe.follows(master);
        let peers = probe
            .followed()
            .filter(|peer| !direct || peer.uuid == master);
        let heard = peers.filter_map(|peer| self.instance.heard.get(&peer.uuid));
        heard.map(|heard| heard.at).max()
    }

    fn consul_read_at(&self) -> Result<Tick, String> {
        if let Some(fault) = &self.consul_fault {
            return Err(fault.why.clone());
        }
        if self.lock.unreadable || self.lock.sight.is_none() {
            return Err("it has not answered yet".to_owned());
        }
        Ok(self.lock.readable_at)
    }
}
