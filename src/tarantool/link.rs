//! The way to the instance: connect, attach, watch for silence and death, and start over.

mod failure;
mod proof;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use failure::{AttachFailure, peer};
use proof::find_process;

use super::conn::{Connection, Ended, RequestError};
use super::guard::{Answer, Guard, GuardError, ask_rule};
use super::iproto::code;
use super::vshard;
use crate::config::{GuardMode, Role, TarantoolConfig, VshardConfig};
use crate::decide::event::{Event, GuardCommandKind, KillResult};
use crate::decide::plan::Before;
use crate::decide::term::Term;
use crate::decide::timing::{InstanceTime, Timing};
use crate::decide::vshard::{Look, VshardEvent};
use crate::errors::with_causes;
use crate::process::Process;

/// A ping that takes this long is late, and the process is looked at: a round trip takes well under a millisecond.
const LATE: Duration = Duration::from_millis(5);
/// Where the process can be seen, a look at it stands in for most pings: it costs three system calls and the instance
/// nothing, and shows a death. Only silence needs the ping, and silence matters at the scale of the lease.
const LOOKS_PER_PING: u32 = 4;
/// How long an instance has at least for its last word before it is killed.
const LAST_WORD: Duration = Duration::from_millis(50);
/// `ROLE=auto`: how often the agent looks again at an instance that has loaded vshard and configured nothing yet, five
/// seconds in all. An `init.lua` that calls `box.cfg` before vshard takes moments for that.
const UNCONFIGURED_LOOKS: u32 = 50;
/// Between two tries to reach an instance that does not answer.
const RETRY: Duration = Duration::from_millis(100);

/// What commands need; `None` parts while there is nothing.
#[derive(Debug, Clone, Default)]
struct Shared {
    guard: Option<Guard>,
    /// The last guard, whose connection may have ended: its owner's name is what a question over another connection
    /// goes by.
    last: Option<Guard>,
    process: Option<Arc<Process>>,
}

/// For the executor: commands to the instance, whichever connection stands.
#[derive(Debug, Clone)]
pub struct Instance {
    shared: watch::Receiver<Shared>,
    guard_lost: Arc<Notify>,
    config: TarantoolConfig,
    liveness: Duration,
}

/// A command to the guard, or to the instance, with what it needs.
#[derive(Debug, Clone)]
pub enum Command {
    /// Ask for everything.
    Probe,
    /// Write the session down.
    Remember(String),
    /// Make the instance writable.
    Promote(Term, InstanceTime, Before, InstanceTime),
    /// Lengthen its lease.
    Grant(Term, InstanceTime),
    /// Make the instance read-only.
    Fence(String),
    /// Tell the guard of a term.
    Observe(Term),
    /// Let it stand down, or up again.
    StandDown(bool),
    /// Re-point replication: the URI with its password, and without.
    Follow {
        /// The URI for `box.cfg`, with the login.
        uri: String,
        /// The URI for logs and dumps, without the login.
        name: String,
        /// The instance is pointed there already; only the password may be another.
        again: bool,
    },
}

impl Command {
    fn kind(&self) -> GuardCommandKind {
        match self {
            Self::Probe => GuardCommandKind::Probe,
            Self::Remember(_) => GuardCommandKind::Remember,
            Self::Promote(..) => GuardCommandKind::Promote,
            Self::Grant(..) => GuardCommandKind::Grant,
            Self::Fence(_) => GuardCommandKind::Fence,
            Self::Observe(_) => GuardCommandKind::Observe,
            Self::StandDown(_) => GuardCommandKind::StandDown,
            Self::Follow { .. } => GuardCommandKind::Follow,
        }
    }
}

impl Instance {
    /// Carries a command out and says what came of it.
    pub async fn command(&self, command: Command) -> Event {
        let kind = command.kind();
        let guard = self.shared.borrow().guard.clone();
        let Some(guard) = guard else {
            return Event::GuardFailed {
                command: kind,
                why: "there is no connection to the instance".to_owned(),
            };
        };
        let result = match command {
            Command::Probe => guard.probe().await,
            Command::Remember(session) => guard.remember(&session).await,
            Command::Promote(term, deadline, before, t0) => {
                guard.promote(term, deadline, before, t0).await
            }
            Command::Grant(term, deadline) => guard.grant(term, deadline).await,
            Command::Fence(why) => guard.fence(&why).await,
            Command::Observe(term) => guard.observe(term).await,
            Command::StandDown(down) => guard.stand_down(down).await,
            Command::Follow { uri, name, again } => guard.follow(&uri, &name, again).await,
        };
        match result {
            Ok(Answer { probe, refused }) => Event::GuardAnswered {
                command: kind,
                probe: Box::new(probe),
                refused,
            },
            // A word of this agent's that was still on its way over an earlier connection.
            Err(GuardError::Superseded { by }) if guard.is_same_agent(&by) => {
                if guard.is_outlived_attach(&by) {
                    // Nothing over this connection would ever count again: attach anew.
                    self.guard_lost.notify_one();
                }
                Event::GuardFailed {
                    command: kind,
                    why: "this agent has attached anew since".to_owned(),
                }
            }
            Err(GuardError::Superseded { by }) => Event::Superseded { by },
            Err(
                error @ (GuardError::Request { .. }
                | GuardError::OwnRule { .. }
                | GuardError::Starting { .. }
                | GuardError::Lacks { .. }
                | GuardError::Empty),
            ) => {
                if error.code() == Some(code::NO_SUCH_PROC) {
                    // Somebody removed the guard's global, and with it the fencing: install it anew.
                    self.guard_lost.notify_one();
                }
                Event::GuardFailed {
                    command: kind,
                    why: with_causes(&error),
                }
            }
        }
    }

    /// Tells the instance what its vshard configuration is to say.
    pub(crate) async fn apply_vshard(&self, order: &vshard::Order<'_>) -> Event {
        let guard = self.shared.borrow().guard.clone();
        let Some(guard) = guard else {
            return applied(
                order,
                Err("there is no connection to the instance".to_owned()),
            );
        };
        match guard.apply_vshard(order).await {
            Ok(reply) => applied(order, Ok((reply.busy, Box::new(reply.vshard)))),
            Err(GuardError::Superseded { by }) if !guard.is_same_agent(&by) => {
                Event::Superseded { by }
            }
            Err(error) => applied(order, Err(with_causes(&error))),
        }
    }

    /// Ends the instance's process, unless its guard answers at once that it is read-only and its commits landed.
    pub async fn kill(&self) -> Event {
        let Shared {
            guard,
            last,
            process,
        } = self.shared.borrow().clone();
        let patience = self.liveness.max(LAST_WORD);
        // An agent that slept may have lost its connection meanwhile, and its instance to another agent.
        let guard = match (guard, last) {
            (None, Some(last)) => self.ask_anew(&last, patience).await,
            (guard, _) => guard,
        };
        if let Some(guard) = guard {
            match timeout(patience, guard.probe()).await {
                Ok(Ok(Answer { probe, .. }))
                    if probe.ro && !probe.guard.leased && !probe.is_landing() =>
                {
                    return Event::KillEnded {
                        result: KillResult::Spared(Box::new(probe)),
                    };
                }
                Ok(Err(GuardError::Superseded { by })) if !guard.is_same_agent(&by) => {
                    return Event::Superseded { by };
                }
                Ok(Ok(_) | Err(_)) | Err(_) => {}
            }
        }
        let result = match process {
            Some(process) => match process.kill() {
                Ok(()) => KillResult::Killed,
                Err(error) => {
                    KillResult::Failed(format!("could not kill process {}: {error}", process.pid()))
                }
            },
            None => KillResult::Failed("its process is not known".to_owned()),
        };
        Event::KillEnded { result }
    }

    /// Asks over a connection of its own, without attaching; `None`: the instance does not answer there.
    async fn ask_anew(&self, last: &Guard, patience: Duration) -> Option<Guard> {
        let opened = Connection::open(&self.config, patience).await;
        opened.ok().map(|conn| last.over(conn))
    }
}

/// Keeps the connection; runs until the events' receiver is gone.
pub struct Link {
    config: TarantoolConfig,
    agent: String,
    mode: GuardMode,
    vshard: Vshard,
    timing: Timing,
    events: mpsc::Sender<Event>,
    shared: watch::Sender<Shared>,
    guard_lost: Arc<Notify>,
    told: Option<Event>,
    attaches: u64,
}

impl Link {
    /// A link, and the handle for commands over it.
    #[must_use]
    pub fn new(
        config: TarantoolConfig,
        agent: String,
        mode: GuardMode,
        vshard: &VshardConfig,
        timing: Timing,
        events: mpsc::Sender<Event>,
    ) -> (Self, Instance) {
        let (sender, receiver) = watch::channel(Shared::default());
        let guard_lost = Arc::new(Notify::new());
        let instance = Instance {
            shared: receiver,
            guard_lost: Arc::clone(&guard_lost),
            config: config.clone(),
            liveness: timing.liveness_interval(),
        };
        (
            Self {
                config,
                agent,
                mode,
                vshard: Vshard::new(vshard),
                timing,
                events,
                shared: sender,
                guard_lost,
                told: None,
                attaches: 0,
            },
            instance,
        )
    }

    /// Attaches, watches, and starts over.
    pub async fn run(mut self) {
        let mut reset = false;
        let mut paused = true;
        while !self.events.is_closed() {
            match self.attach().await {
                Ok(guard) => {
                    reset = self.watch(guard).await;
                    // A connection that ended as a dying process's does: the agent knows once the next one is refused.
                    if reset && paused {
                        paused = false;
                        continue;
                    }
                }
                Err(event) => {
                    // Where a process is dead nothing listens: that is no news.
                    let refused = matches!(event, AttachFailure::Refused { .. });
                    let event = match event {
                        AttachFailure::Refused { why } if reset && self.process().is_none() => {
                            Event::Died {
                                proof: format!(
                                    "its connection was reset, the next one refused: {why}"
                                ),
                            }
                        }
                        AttachFailure::Refused { why } | AttachFailure::Other { why } => {
                            Event::Unreachable { why }
                        }
                        AttachFailure::Unsuitable { why } => Event::Unsuitable { why },
                        AttachFailure::Router => Event::Vshard(VshardEvent::RouterFound),
                    };
                    reset = reset && matches!(event, Event::Unreachable { .. });
                    if !(refused && matches!(self.told, Some(Event::Died { .. }))) {
                        self.tell(event).await;
                    }
                }
            }
            self.pause().await;
            paused = true;
        }
    }

    /// Waits before the next try, and meanwhile for the death of a process that we still see.
    async fn pause(&mut self) {
        let Some(process) = self.process() else {
            sleep(RETRY).await;
            return;
        };
        let death = match process.death() {
            Some(proof) => Some(proof),
            None => timeout(RETRY, process.exited()).await.ok(),
        };
        if let Some(proof) = death {
            self.shared.send_modify(|shared| shared.process = None);
            self.tell(Event::Died { proof }).await;
            sleep(RETRY).await;
        }
    }

    fn process(&self) -> Option<Arc<Process>> {
        self.shared.borrow().process.clone()
    }

    /// Tells the event once: an instance that stays unreachable for the same reason is no news.
    async fn tell(&mut self, event: Event) {
        if self.told.as_ref() != Some(&event) {
            self.told = Some(event.clone());
            // The receiver is gone only when the agent ends.
            let _ = self.events.send(event).await;
        }
    }

    async fn attach(&mut self) -> Result<Guard, AttachFailure> {
        let deadline = self.timing.healthcheck_timeout();
        let conn = Connection::open(&self.config, deadline)
            .await
            .map_err(|error| AttachFailure::from_open(error, &self.config))?;
        let rule = ask_rule(&conn, deadline)
            .await
            .map_err(|error| AttachFailure::from_guard(&error, &self.config))?;
        // A router needs no guard, and its rule stays as it is.
        self.look_at_vshard(&conn, deadline).await?;
        rule.check()
            .map_err(|error| AttachFailure::from_guard(&error, &self.config))?;
        // Each attach has a name of its own: words that are still on their way over an earlier connection must not
        // count.
        self.attaches += 1;
        let owner = format!("{}#{}", self.agent, self.attaches);
        let (guard, probe) = Guard::attach(conn, owner, self.mode, deadline)
            .await
            .map_err(|error| AttachFailure::from_guard(&error, &self.config))?;
        let (process, probe) = find_process(&guard, probe)
            .await
            .map_err(|error| AttachFailure::from_guard(&error, &self.config))?;
        let (process, lacking) = match process {
            Ok(process) => (Some(Arc::new(process)), Ok(())),
            Err(why) => (None, Err(why)),
        };
        self.shared.send_replace(Shared {
            guard: Some(guard.clone()),
            last: Some(guard.clone()),
            process,
        });
        self.tell(Event::Attached {
            probe: Box::new(probe),
            process: lacking,
        })
        .await;
        Ok(guard)
    }

    /// Looks before the guard is there: a guard would fence a router.
    async fn look_at_vshard(
        &mut self,
        conn: &Connection,
        deadline: Duration,
    ) -> Result<(), AttachFailure> {
        let attempted = "look at vshard in the instance";
        let failed = |source| GuardError::Request { attempted, source };
        let done = if self.vshard.on {
            vshard::install(conn, deadline).await.map(Some)
        } else {
            vshard::remove(conn, deadline).await.map(|()| None)
        };
        let kind =
            done.map_err(|source| AttachFailure::from_guard(&failed(source), &self.config))?;
        let Some(kind) = kind.filter(|_| self.vshard.undecided) else {
            return Ok(());
        };
        if kind.router && !kind.storage {
            return Err(AttachFailure::Router);
        }
        if kind.loaded && !kind.storage && self.vshard.looks < UNCONFIGURED_LOOKS {
            self.vshard.looks += 1;
            let why = "vshard is loaded there, and neither a storage nor a router is configured yet; set ROLE to what it will be";
            return Err(AttachFailure::Other {
                why: format!("{}: {why}", peer(&self.config)),
            });
        }
        self.vshard.undecided = false;
        Ok(())
    }

    /// Watches an attached instance until its connection ends; says whether it ended as a dying process ends it.
    async fn watch(&mut self, guard: Guard) -> bool {
        let process = self.process();
        let conn = guard.connection();
        let mut ticks = interval(self.timing.liveness_interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 0;
        let ended = loop {
            tokio::select! {
                ended = conn.closed() => break ended,
                proof = exited(process.as_deref()) => {
                    return self.died(conn, proof).await;
                }
                () = self.guard_lost.notified() => {
                    self.shared.send_modify(|shared| shared.guard = None);
                    return false;
                }
                _ = ticks.tick() => {
                    if let Some(process) = process.as_deref() {
                        if let Some(proof) = process.death() {
                            return self.died(conn, proof).await;
                        }
                        looks = (looks + 1) % LOOKS_PER_PING;
                        if looks != 0 {
                            continue;
                        }
                    }
                    if let Some(proof) = self.ping(conn, process.as_deref()).await {
                        return self.died(conn, proof).await;
                    }
                }
            }
        };
        if let Some(proof) = process.as_deref().and_then(Process::death) {
            return self.died(conn, proof).await;
        }
        self.shared.send_modify(|shared| shared.guard = None);
        let like_death = matches!(ended, Ended::Eof | Ended::Reset);
        if process.is_some() || !like_death {
            self.tell(Event::Unreachable {
                why: format!("its connection ended: {ended}"),
            })
            .await;
        }
        like_death
    }

    /// Tells of the death, and waits for the kernel to close the dead process's sockets: a large process takes its
    /// time.
    async fn died(&mut self, conn: &Connection, proof: String) -> bool {
        self.shared.send_replace(Shared::default());
        self.tell(Event::Died { proof }).await;
        // A proxy in between may keep the connection for ever.
        let _ = timeout(self.timing.healthcheck_timeout(), conn.closed()).await;
        false
    }

    /// One ping; returns when it is answered or timed out, or when the process is found dead, with the proof.
    async fn ping(&mut self, conn: &Connection, process: Option<&Process>) -> Option<String> {
        let mut ping = pin!(conn.ping(self.timing.healthcheck_timeout()));
        if let Ok(result) = timeout(LATE, &mut ping).await {
            self.ping_ended(result).await;
            return None;
        }
        loop {
            if let Some(proof) = process.and_then(Process::death) {
                return Some(proof);
            }
            match timeout(self.timing.liveness_interval(), &mut ping).await {
                Ok(result) => {
                    self.ping_ended(result).await;
                    return None;
                }
                Err(_) => self.tell(Event::FellSilent).await,
            }
        }
    }

    async fn ping_ended(&mut self, result: Result<(), RequestError>) {
        match (result, &self.told) {
            (Ok(()), Some(Event::FellSilent)) => self.tell(Event::SpokeAgain).await,
            (Ok(()), _) => {}
            // Whatever ended the ping, the connection's own end says it better; a time-out is silence.
            (Err(_), Some(Event::FellSilent | Event::Died { .. })) => {}
            (Err(_), _) => self.tell(Event::FellSilent).await,
        }
    }
}

async fn exited(process: Option<&Process>) -> String {
    match process {
        Some(process) => process.exited().await,
        None => std::future::pending().await,
    }
}

fn applied(order: &vshard::Order<'_>, result: Result<(bool, Box<Option<Look>>), String>) -> Event {
    Event::Vshard(VshardEvent::Applied {
        sequence: order.sequence,
        result,
    })
}

/// What is known of vshard in the instance, and what is wanted.
struct Vshard {
    on: bool,
    /// `ROLE=auto`, and it has not been seen to be a storage or an instance without vshard.
    undecided: bool,
    looks: u32,
}

impl Vshard {
    fn new(config: &VshardConfig) -> Self {
        Self {
            on: config.on,
            undecided: config.on && config.role == Role::Auto,
            looks: 0,
        }
    }
}
