//! The loop of a vshard router's agent, and its way to the router.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use signal_hook_tokio::Signals;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::clock::{self, Clock};
use crate::config::Config;
use crate::consul::Consul;
use crate::decide::check::Snapshot;
use crate::decide::plan::{Ending, Role};
use crate::decide::router::{
    Identity, RouterAction, RouterEvent, RouterKey, RouterPlan, RouterSettings, RouterState, decide,
};
use crate::decide::sight::ConsulFault;
use crate::decide::vshard::{VshardAction, VshardEvent};
use crate::dump::Dump;
use crate::errors::with_causes;
use crate::execute_catalog::{OwnService, deregister, service_ref, tell};
use crate::exit::Exit;
use crate::http::Display;
use crate::journal;
use crate::keys::json_bytes;
use crate::neighbours::NeighbourWatch;
use crate::setup::{Begin, Setup};
use crate::signals::{self, Asked};
use crate::tarantool::conn::Connection;
use crate::tarantool::vshard::{self, Order};
use crate::waiting::Waiting;
use crate::watch_vshard::{
    ConfigText, Watcher, note_refusal, watch_config, watch_login, watch_masters,
};

/// Between two tries to reach a router that does not answer.
const RETRY: Duration = Duration::from_millis(100);
/// Events wait here for their turn, which takes microseconds.
const EVENTS: usize = 64;
/// How long the loop waits at most while somebody may look whether it turns: a small part of any lease.
const BEAT: Duration = Duration::from_millis(250);

/// Runs a router's agent until it is asked to stop or has to.
pub(crate) async fn run(config: Arc<Config>, begin: Begin) -> Exit {
    match RouterAgent::start(config, begin) {
        Ok((agent, events, signals)) => agent.run(events, signals).await,
        Err(exit) => exit,
    }
}

/// What actions are carried out with.
#[derive(Clone)]
struct RouterExecutor {
    config: Arc<Config>,
    consul: Consul,
    consul_back: Arc<Notify>,
    config_text: ConfigText,
    service: OwnService,
    events: mpsc::Sender<RouterEvent>,
    conn: Option<Connection>,
}

struct RouterAgent {
    clock: Clock,
    state: RouterState,
    executor: RouterExecutor,
    connections: mpsc::Receiver<Option<Connection>>,
    plan: Option<RouterPlan>,
    said: journal::Said,
    dump: Dump,
    display: Display,
    waiting: Waiting,
}

impl RouterAgent {
    fn start(
        config: Arc<Config>,
        begin: Begin,
    ) -> Result<(Self, mpsc::Receiver<RouterEvent>, Signals), Exit> {
        let Setup {
            agent_id: agent,
            consul,
            signals,
        } = Setup::new(&config)?;
        let (sender, events) = mpsc::channel(EVENTS);
        let (connector, connections) = mpsc::channel(1);
        let executor = RouterExecutor {
            config: Arc::clone(&config),
            consul,
            consul_back: Arc::default(),
            config_text: ConfigText::default(),
            service: OwnService::default(),
            events: sender,
            conn: None,
        };
        tokio::spawn(executor.clone().keep_connected(connector));
        executor.watch();
        info!(
            agent,
            version = env!("CARGO_PKG_VERSION"),
            router = config.announce.id,
            "router's agent started"
        );
        let agent = Self {
            waiting: Waiting::start(&config, &executor.consul, &agent),
            clock: begin.clock,
            state: RouterState::new(RouterSettings {
                announce: config.announce.id.clone(),
                interval: config.timing.healthcheck_interval(),
            }),
            executor,
            connections,
            plan: None,
            said: journal::Said::default(),
            dump: Dump::new(agent, begin.output),
            display: begin.display,
        };
        Ok((agent, events, signals))
    }

    async fn run(mut self, mut events: mpsc::Receiver<RouterEvent>, mut signals: Signals) -> Exit {
        loop {
            let wake_at = self.plan.as_ref().and_then(|plan| plan.wake_at);
            let now = self.clock.now();
            self.display.ran(now);
            // Whoever looks at the loop sees that it turns.
            let beat_at = self.display.is_on().then(|| now + BEAT);
            let event = tokio::select! {
                biased;
                Some(signal) = signals.next() => match self.on_signal(signal) {
                    Ok(Some(event)) => event,
                    Ok(None) => continue,
                    Err(exit) => return exit,
                },
                Some(conn) = self.connections.recv() => {
                    self.executor.conn = conn;
                    continue;
                }
                Some(event) = events.recv() => event,
                () = self.clock.wake(wake_at) => RouterEvent::Woke,
                () = self.clock.wake(beat_at) => continue,
            };
            if let Some(exit) = self.step(event) {
                self.waiting.ends().await;
                return exit;
            }
        }
    }

    fn step(&mut self, event: RouterEvent) -> Option<Exit> {
        let now = self.clock.now();
        journal::vshard::router(&mut self.said, &event);
        let had_fault = self.state.consul_fault.is_some();
        self.state.reads_wall_clock(clock::wall_ms());
        self.state.apply(event, now);
        if had_fault && self.state.consul_fault.is_none() {
            self.executor.consul_back.notify_waiters();
        }
        journal::problems::of_router(&mut self.said, &self.state);
        let is_unseen = self.state.identity.is_none();
        self.waiting
            .says(self.state.lost.clone().filter(|_| is_unseen));
        let plan = decide(&self.state, now);
        let old = self.plan.as_ref().map(|plan| plan.reason.as_str());
        if old != Some(plan.reason.as_str()) {
            info!(to = plan.reason, "reason changed");
        }
        let mut ending = None;
        for action in &plan.actions {
            self.state.begin(action, now);
            if let RouterAction::Exit { how } = action {
                ending = Some(exit_of(*how, &plan));
            } else {
                let executor = self.executor.clone();
                let action = action.clone();
                tokio::spawn(async move {
                    if let Some(event) = executor.carry_out(action).await {
                        // The receiver is gone only when the agent ends.
                        let _ = executor.events.send(event).await;
                    }
                });
            }
        }
        let lease = self.executor.config.timing.lease();
        self.display
            .show(|| Snapshot::of_router(&self.state, &plan, lease));
        self.plan = Some(plan);
        ending
    }

    fn on_signal(&mut self, signal: i32) -> Result<Option<RouterEvent>, Exit> {
        match signals::asked(signal) {
            Asked::Look => self.print(false),
            Asked::LookAtAll => self.print(true),
            Asked::Nothing => {}
            Asked::Stop(signal) => {
                let plan = self.plan.as_ref();
                if plan.is_some_and(|plan| plan.reason == "stopping") {
                    warn!(signal, "second signal: stopped at once");
                    return Err(Exit::SecondSignal);
                }
                info!(signal, "asked to stop");
                return Ok(Some(RouterEvent::StopRequested));
            }
        }
        Ok(None)
    }

    fn print(&self, all: bool) {
        let plan = self.plan.as_ref();
        let now = self.clock.now();
        self.dump
            .print_router(&self.executor.config, &self.state, plan, now, all);
    }
}

fn exit_of(how: Ending, plan: &RouterPlan) -> Exit {
    match how {
        Ending::Stopped => {
            info!("stopped");
            Exit::Stopped
        }
        Ending::Superseded => {
            error!(reason = plan.reason, "stopped: this agent is one too many");
            Exit::Superseded
        }
        Ending::Unsuitable => {
            error!(reason = plan.reason, "stopped: waiting cannot mend this");
            Exit::Unsuitable
        }
    }
}

impl RouterExecutor {
    fn watch(&self) {
        let watcher = Watcher {
            consul: self.consul.clone(),
            consul_back: Arc::clone(&self.consul_back),
        };
        let neighbours = NeighbourWatch::new(&self.config, &self.consul, None);
        tokio::spawn(neighbours.watch(self.events.clone()));
        let keys = self.config.keys();
        let (own, events) = (watcher.clone(), self.events.clone());
        tokio::spawn(async move {
            watch_masters(&own, &keys, events).await;
        });
        if let Some(key) = self.config.vshard.config_key.clone() {
            tokio::spawn(watch_login(self.config.vshard.clone(), self.events.clone()));
            let (cell, events) = (self.config_text.clone(), self.events.clone());
            tokio::spawn(async move {
                watch_config(&watcher, &key, &cell, events).await;
            });
        }
    }

    /// One connection after the other, for as long as the agent runs.
    async fn keep_connected(self, connector: mpsc::Sender<Option<Connection>>) {
        while !self.events.is_closed() {
            let why = match self.attach().await {
                Ok((conn, event)) => {
                    // The receivers are gone only when the agent ends.
                    let _ = connector.send(Some(conn.clone())).await;
                    let _ = self.events.send(event).await;
                    let ended = conn.closed().await;
                    let _ = connector.send(None).await;
                    format!("its connection ended: {ended}")
                }
                Err(why) => why,
            };
            let _ = self.events.send(RouterEvent::Lost { why }).await;
            sleep(RETRY).await;
        }
    }

    async fn attach(&self) -> Result<(Connection, RouterEvent), String> {
        let deadline = self.config.timing.healthcheck_timeout();
        let conn = Connection::open(&self.config.tarantool, deadline)
            .await
            .map_err(|error| with_causes(&error))?;
        vshard::install(&conn, deadline)
            .await
            .map_err(|error| with_causes(&error))?;
        let identity: Identity = conn
            .eval(IDENTITY, &(), deadline)
            .await
            .map_err(|error| with_causes(&error))?;
        let look = vshard::look(&conn, deadline)
            .await
            .map_err(|error| with_causes(&error))?;
        let look = Box::new(look);
        Ok((conn, RouterEvent::Attached { identity, look }))
    }

    async fn carry_out(&self, action: RouterAction) -> Option<RouterEvent> {
        let deadline = self.config.timing.healthcheck_timeout();
        let no_connection = || "there is no connection to the router".to_owned();
        Some(match action {
            RouterAction::Look => {
                let result = match &self.conn {
                    Some(conn) => vshard::look(conn, deadline)
                        .await
                        .map(Box::new)
                        .map_err(|error| with_causes(&error)),
                    None => Err(no_connection()),
                };
                if let Ok(look) = &result {
                    note_refusal(&self.config.vshard, look.as_ref().as_ref());
                }
                RouterEvent::Looked { result }
            }
            RouterAction::Apply(VshardAction::Apply { sequence, wanted }) => {
                let text = self.config_text.get();
                let order = Order {
                    sequence,
                    wanted: &wanted,
                    config: text.as_deref(),
                    login: self.config.vshard.login.as_ref(),
                    is_router: true,
                    follows: false,
                };
                let result = match &self.conn {
                    Some(conn) => vshard::apply(conn, None, &order, deadline)
                        .await
                        .map(|reply| (reply.busy, Box::new(reply.vshard)))
                        .map_err(|error| with_causes(&error)),
                    None => Err(no_connection()),
                };
                RouterEvent::Vshard(VshardEvent::Applied { sequence, result })
            }
            RouterAction::Tell { entry, register } => RouterEvent::Told {
                result: tell(&self.config, &self.consul, &self.service, entry, register).await,
            },
            RouterAction::WriteKey { key } => RouterEvent::KeyWritten {
                result: self.write_key(&key).await,
            },
            RouterAction::Deregister => RouterEvent::Told {
                result: deregister(&self.consul, &self.service).await,
            },
            RouterAction::Apply(VshardAction::WriteMaster { .. }) | RouterAction::Exit { .. } => {
                return None;
            }
        })
    }

    async fn write_key(&self, key: &RouterKey) -> Result<(), ConsulFault> {
        let config = &self.config;
        let path = config.keys().router(&key.instance);
        let key = RouterKey {
            service: Some(service_ref(config, None, &key.instance, &[Role::Router])),
            ..key.clone()
        };
        let bytes = json_bytes(&key);
        let written = self.consul.put_key(&path, &bytes).await;
        written.map_err(ConsulFault::from)
    }
}

const IDENTITY: &str = "return {uuid = box.info.uuid, version = box.info.version}";
