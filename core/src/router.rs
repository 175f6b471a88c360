//! A vshard router's agent: no lock, no lease, nothing made writable or read-only. It keeps the router's masters equal to
//! what the masters' keys say, and the catalog true.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::input::retries::CONSUL_RETRY;
use crate::plan::{CatalogEntry, Ending, Health, Registered, Role};
use crate::state::vshard::{Due, Vshard};
use crate::words::board::{self, ServiceRef};
use crate::words::neighbours::Neighbours;
use crate::words::sight::ConsulFault;
use crate::words::term::Term;
use crate::words::timing::Tick;
use crate::words::vshard::{Look, Named, Routes, VshardAction, VshardEvent, Wanted};

/// Without a word for that long, Consul calls the router critical.
const TTL: Duration = Duration::from_secs(20);

/// A router's service is removed at the end of its agent; Consul that does not answer must not keep it from ending.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What a router's agent was told at the start.
#[derive(Debug, Clone)]
pub struct RouterSettings {
    /// The name and the address that others know it by.
    pub announce: String,
    /// How often the router is looked at.
    pub interval: Duration,
}

/// Whose process it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Identity {
    /// Instance UUID.
    pub uuid: String,
    /// Tarantool's version.
    pub version: String,
}

/// `routers/<instance-uuid>`: a router as its agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterKey {
    /// The version of this layout.
    pub v: u64,
    /// Instance UUID.
    pub instance: String,
    /// What operators know it by.
    pub name: String,
    /// `passing`, `warning` or `critical`, as in the catalog.
    #[serde(default)]
    pub health: String,
    /// Why, in words.
    #[serde(default)]
    pub reason: String,
    /// Of its vshard configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// vshard's version, as far as it says.
    #[serde(default)]
    pub vshard_version: String,
    /// What its agent found that is not as it should be and no matter of its health, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Where the catalog says whether its agent lives. Whoever writes the key puts it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// Wall-clock seconds since the epoch when this was written, for people and for older readers.
    #[serde(default)]
    pub written: u64,
    /// The same in milliseconds; 0: its writer was an older one.
    #[serde(default)]
    pub written_ms: u64,
    /// The agent's version.
    #[serde(default)]
    pub tarsec_version: String,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
pub enum RouterEvent {
    /// A connection stands.
    Attached {
        /// To whom.
        identity: Identity,
        /// What it says of vshard.
        look: Box<Option<Look>>,
    },
    /// There is none.
    Lost {
        /// Why.
        why: String,
    },
    /// It was looked at.
    Looked {
        /// What it says of vshard, or why it does not.
        result: Result<Box<Option<Look>>, String>,
    },
    /// Something about vshard.
    Vshard(VshardEvent),
    /// The catalog was told, or the service removed.
    Told {
        /// `Ok(false)`: Consul does not know the service.
        result: Result<bool, ConsulFault>,
    },
    /// The router's key was written.
    KeyWritten {
        /// Whether.
        result: Result<(), ConsulFault>,
    },
    /// Others are found under our service's name, or are found there no more.
    NeighboursSeen(Neighbours),
    /// Somebody asked us to stop.
    StopRequested,
    /// A timer that the last plan asked for.
    Woke,
}

impl From<Neighbours> for RouterEvent {
    fn from(seen: Neighbours) -> Self {
        Self::NeighboursSeen(seen)
    }
}

impl From<VshardEvent> for RouterEvent {
    fn from(event: VshardEvent) -> Self {
        Self::Vshard(event)
    }
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum RouterAction {
    /// Ask it for what it has.
    Look,
    /// Tell it what its configuration is to say.
    Apply(VshardAction),
    /// Tell the catalog.
    Tell {
        /// What.
        entry: CatalogEntry,
        /// Register anew.
        register: bool,
    },
    /// Write the router's key.
    WriteKey {
        /// What.
        key: RouterKey,
    },
    /// Remove the service.
    Deregister,
    /// End the agent.
    Exit {
        /// How.
        how: Ending,
    },
}

/// What to do now, why, and when to look again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouterPlan {
    /// To be started in this order.
    pub actions: Vec<RouterAction>,
    /// Why these, or why none.
    pub reason: String,
    /// When to decide again if nothing happens before.
    pub wake_at: Option<Tick>,
}

/// Everything that a router's agent knows.
#[derive(Debug, Clone, Serialize)]
pub struct RouterState {
    #[serde(skip)]
    settings: RouterSettings,
    /// The wall clock in this turn, in milliseconds since the epoch, for people.
    #[serde(skip)]
    wall_ms: u64,
    /// Who it is, once that was said.
    pub identity: Option<Identity>,
    /// Why there is no connection.
    pub lost: Option<String>,
    /// What it last said.
    pub look: Option<Look>,
    /// When.
    pub looked_at: Option<Tick>,
    /// Why it did not say anything the last time that it was asked.
    pub unanswered: Option<String>,
    looking: bool,
    /// What is known of vshard.
    pub vshard: Vshard,
    /// What the catalog was told.
    pub told: Option<CatalogEntry>,
    told_at: Tick,
    #[serde(skip)]
    telling: Option<CatalogEntry>,
    is_telling: bool,
    tell_retry_at: Option<Tick>,
    /// What the router's key says.
    #[serde(skip)]
    written: Option<RouterKey>,
    #[serde(skip)]
    writing: Option<RouterKey>,
    write_retry_at: Option<Tick>,
    /// Why Consul was not told the last time.
    pub consul_fault: Option<String>,
    /// Who else is found under the name of a router's service.
    pub neighbours: Option<Neighbours>,
    stopping_at: Option<Tick>,
    is_removed: bool,
}

impl RouterState {
    /// An agent that knows nothing yet.
    #[must_use]
    pub fn new(settings: RouterSettings) -> Self {
        Self {
            settings,
            wall_ms: 0,
            identity: None,
            lost: Some("it has not answered yet".to_owned()),
            look: None,
            looked_at: None,
            unanswered: None,
            looking: false,
            vshard: Vshard::default(),
            told: None,
            told_at: Tick::default(),
            telling: None,
            is_telling: false,
            tell_retry_at: None,
            written: None,
            writing: None,
            write_retry_at: None,
            consul_fault: None,
            neighbours: None,
            stopping_at: None,
            is_removed: false,
        }
    }

    /// A turn begins at this time of day. Called by whoever owns the clock, before anything else of the turn.
    pub fn reads_wall_clock(&mut self, wall_ms: u64) {
        self.wall_ms = wall_ms;
    }

    /// What is not as it should be and no matter of the router's health, in words.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.neighbours.as_ref().and_then(Neighbours::about_router)
    }

    /// Takes note of what happened.
    pub fn apply(&mut self, event: RouterEvent, now: Tick) {
        match event {
            RouterEvent::Attached { identity, look } => {
                self.identity = Some(identity);
                self.lost = None;
                self.look = *look;
                self.looked_at = Some(now);
                self.unanswered = None;
                self.vshard.attached();
            }
            RouterEvent::Lost { why } => self.lost = Some(why),
            RouterEvent::Looked { result } => {
                self.looking = false;
                self.looked_at = Some(now);
                match result {
                    Ok(look) => {
                        self.look = *look;
                        self.unanswered = None;
                    }
                    Err(why) => self.unanswered = Some(why),
                }
            }
            RouterEvent::Vshard(event) => self.vshard_happened(event, now),
            RouterEvent::Told { result } => self.was_told(result, now),
            RouterEvent::KeyWritten { result } => {
                let writing = self.writing.take();
                match result {
                    Ok(()) => self.written = writing,
                    Err(fault) => {
                        self.write_retry_at = Some(now + CONSUL_RETRY * 5);
                        self.consul_fault = Some(fault.why);
                    }
                }
            }
            RouterEvent::StopRequested => self.stopping_at = self.stopping_at.or(Some(now)),
            RouterEvent::NeighboursSeen(seen) => self.neighbours = Some(seen),
            RouterEvent::Woke => {}
        }
    }

    fn vshard_happened(&mut self, event: VshardEvent, now: Tick) {
        match event {
            VshardEvent::MastersSeen { masters } => self.vshard.masters = Some(masters),
            VshardEvent::ConfigSeen { index } => self.vshard.config = index.or(self.vshard.config),
            VshardEvent::LoginChanged => self.vshard.login_changed(),
            VshardEvent::Applied { sequence, result } => {
                if let Some(look) = self.vshard.finished(sequence, result, now) {
                    self.look = look;
                }
            }
            VshardEvent::MasterWritten { .. } | VshardEvent::RouterFound => {}
        }
    }

    fn was_told(&mut self, result: Result<bool, ConsulFault>, now: Tick) {
        self.is_telling = false;
        let telling = self.telling.take();
        match result {
            Ok(true) if telling.is_some() => {
                self.told = telling;
                self.consul_fault = None;
                self.tell_retry_at = None;
            }
            Ok(_) if telling.is_none() => self.is_removed = true,
            // Consul does not know the service any more.
            Ok(_) => self.told = None,
            Err(fault) => {
                self.tell_retry_at = Some(now + CONSUL_RETRY * 5);
                self.consul_fault = Some(fault.why);
            }
        }
    }

    /// Takes note of what is being begun.
    pub fn begin(&mut self, action: &RouterAction, now: Tick) {
        match action {
            RouterAction::Look => self.looking = true,
            RouterAction::Apply(VshardAction::Apply { sequence, wanted }) => {
                self.vshard.sequence = *sequence;
                self.vshard.applying = Some(wanted.clone());
            }
            RouterAction::Apply(VshardAction::WriteMaster { .. }) | RouterAction::Exit { .. } => {}
            RouterAction::Tell { entry, .. } => {
                self.is_telling = true;
                self.telling = Some(entry.clone());
                self.told_at = now;
            }
            RouterAction::WriteKey { key } => self.writing = Some(key.clone()),
            RouterAction::Deregister => {
                self.is_telling = true;
                self.telling = None;
            }
        }
    }

    /// What operators know it by.
    pub(super) fn name(&self) -> &str {
        &self.settings.announce
    }

    /// Whether its agent was asked to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping_at.is_some()
    }

    fn routes(&self) -> &[Routes] {
        self.look.as_ref().map_or(&[][..], |look| &look.routers)
    }

    /// The replica sets to whose masters it has no way.
    fn without_way(&self) -> Vec<&str> {
        let routes = self.routes().iter();
        let lost = routes.flat_map(|router| router.unreachable.iter());
        lost.map(String::as_str).collect()
    }

    /// Why it does not reach every master; `None`: it does, as far as it said.
    pub(super) fn lacking(&self) -> Option<String> {
        if self.routes().is_empty() {
            return Some("no vshard router is configured in the instance".to_owned());
        }
        let lost = self.without_way();
        let words = || format!("no way to the master of replica set {}", lost.join(", "));
        (!lost.is_empty()).then(words)
    }

    /// Whether the router can be used, and why, in words.
    fn health(&self) -> (Health, String) {
        if let Some(why) = &self.lost {
            return (
                Health::Critical,
                format!("the router cannot be reached: {why}"),
            );
        }
        if let Some(why) = &self.unanswered {
            let words = format!("the router does not answer: {why}");
            return (Health::Critical, words);
        }
        if let Some(words) = self.lacking() {
            let routes = self.routes().iter();
            let sets: usize = routes.map(|router| router.masters.len()).sum();
            let all = self.without_way().len() >= sets;
            let health = if all {
                Health::Critical
            } else {
                Health::Warning
            };
            return (health, words);
        }
        match self.vshard.problem(self.look.as_ref()) {
            Some(problem) => (
                Health::Warning,
                format!("routes to every master it knows of; {problem}"),
            ),
            None => (
                Health::Passing,
                "routes to the master of every replica set".to_owned(),
            ),
        }
    }
}

/// Says what to do about `state` at `now`.
#[must_use]
pub fn decide(state: &RouterState, now: Tick) -> RouterPlan {
    let (health, words) = state.health();
    let mut planner = Planner {
        state,
        now,
        plan: RouterPlan {
            actions: Vec::new(),
            reason: words.clone(),
            wake_at: None,
        },
    };
    if state.look.as_ref().is_some_and(|look| look.storage) {
        planner.plan.reason =
            "the instance is a vshard storage; set ROLE to storage or auto".to_owned();
        planner.act(RouterAction::Exit {
            how: Ending::Unsuitable,
        });
        return planner.plan;
    }
    if let Some(since) = state.stopping_at {
        planner.stop(since);
        return planner.plan;
    }
    planner.look();
    planner.follow();
    planner.tell(health, words);
    planner.plan
}

struct Planner<'a> {
    state: &'a RouterState,
    now: Tick,
    plan: RouterPlan,
}

impl Planner<'_> {
    fn act(&mut self, action: RouterAction) {
        self.plan.actions.push(action);
    }

    fn wake(&mut self, at: Tick) {
        let earlier = self.plan.wake_at.filter(|known| *known < at);
        self.plan.wake_at = earlier.or(Some(at));
    }

    /// Whether the time has come; if not, sees to it that it will.
    fn is_due(&mut self, at: Option<Tick>) -> bool {
        match at {
            Some(at) if at > self.now => {
                self.wake(at);
                false
            }
            Some(_) | None => true,
        }
    }

    fn look(&mut self) {
        let state = self.state;
        if state.lost.is_some() || state.looking {
            return;
        }
        let due_at = state.looked_at.map(|at| at + state.settings.interval);
        if self.is_due(due_at) {
            self.act(RouterAction::Look);
        }
    }

    fn follow(&mut self) {
        let state = self.state;
        let (None, Some(masters)) = (&state.lost, &state.vshard.masters) else {
            return;
        };
        let named = |(replicaset, (_, master)): (&String, &(u64, _))| {
            (replicaset.clone(), Named::from(master))
        };
        let wanted = Wanted {
            masters: masters
                .iter()
                .filter(|(_, (_, master))| master.is_somebody())
                .map(named)
                .collect(),
            config: state.vshard.config,
        };
        if let Due::At(at) = state.vshard.due(state.look.as_ref(), &wanted)
            && state.vshard.applying.is_none()
            && self.is_due(at)
        {
            self.act(RouterAction::Apply(VshardAction::Apply {
                sequence: state.vshard.sequence + 1,
                wanted,
            }));
        }
    }

    fn tell(&mut self, health: Health, output: String) {
        let state = self.state;
        let Some(identity) = &state.identity else {
            return;
        };
        let problem = state.problem();
        let output = match &problem {
            Some(problem) => format!("{output}; problem: {problem}"),
            None => output,
        };
        let key = RouterKey {
            v: board::VERSION,
            instance: identity.uuid.clone(),
            name: state.settings.announce.clone(),
            health: health.name().to_owned(),
            reason: output.clone(),
            fingerprint: state
                .look
                .as_ref()
                .and_then(|look| look.fingerprint.clone()),
            vshard_version: state
                .look
                .as_ref()
                .and_then(|look| look.version.clone())
                .unwrap_or_default(),
            problem,
            service: None,
            written: state.wall_ms / 1000,
            written_ms: state.wall_ms,
            tarsec_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let same = |known: &RouterKey| {
            *known
                == RouterKey {
                    written: known.written,
                    written_ms: known.written_ms,
                    ..key.clone()
                }
        };
        if !state.written.as_ref().is_some_and(same)
            && state.writing.is_none()
            && self.is_due(state.write_retry_at)
        {
            self.act(RouterAction::WriteKey { key: key.clone() });
        }
        let entry = CatalogEntry {
            registered: Registered {
                role: Role::Router,
                instance: identity.uuid.clone(),
                replicaset: String::new(),
                term: Term::NONE,
                version: identity.version.clone(),
                ttl: TTL,
            },
            health,
            output,
        };
        let register = state.told.as_ref() != Some(&entry);
        let due_at = (!register).then(|| state.told_at + TTL / 3);
        if !state.is_telling && self.is_due(due_at.max(state.tell_retry_at)) {
            self.act(RouterAction::Tell { entry, register });
        }
    }

    /// Nobody is to be sent to a router whose routes nobody keeps.
    fn stop(&mut self, since: Tick) {
        let state = self.state;
        "stopping".clone_into(&mut self.plan.reason);
        let known = state.told.is_some() || state.is_telling;
        let late = self.now.since(since) >= STOP_PATIENCE;
        if state.is_removed || !known || late {
            let how = Ending::Stopped;
            self.act(RouterAction::Exit { how });
            return;
        }
        self.wake(since + STOP_PATIENCE);
        if !state.is_telling && self.is_due(state.tell_retry_at) {
            self.act(RouterAction::Deregister);
        }
    }
}
