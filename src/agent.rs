//! The loop: select → apply → decide → execute. It owns the clock.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use signal_hook_tokio::Signals;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use crate::clock::{self, Clock, NAP};
use crate::config::{Config, ConsulConfig, HungInstanceAction, ReplicationMode};
use crate::consul::{LockView, LockWatch};
use crate::decide::board::{self, Switchover};
use crate::decide::check::{Snapshot, Trail};
use crate::decide::decide;
use crate::decide::event::Event;
use crate::decide::plan::{Ending, Plan};
use crate::decide::settings::Settings;
use crate::decide::state::State;
use crate::decide::timing::{Tick, Timing};
use crate::decide::vshard::VshardEvent;
use crate::dump::Dump;
use crate::errors::with_causes;
use crate::execute::{Executor, KnownIndex, lock_read};
use crate::execute_board::BoardReader;
use crate::execute_catalog::OwnService;
use crate::exit::Exit;
use crate::http::Display;
use crate::keys::json_bytes;
use crate::neighbours::NeighbourWatch;
use crate::setup::{Begin, Setup};
use crate::signals::{self, Asked};
use crate::tarantool::link::Link;
use crate::tarantool::peers::Peers;
use crate::waiting::Waiting;
use crate::watch_vshard::{ConfigText, Watcher, watch_config, watch_login, watch_masters};
use crate::{birth, journal};

/// Events wait here for their turn, which takes microseconds; more than one of each kind is never under way.
const EVENTS: usize = 64;

/// How long a watch on the switchover key is held: nothing but an order or the end of the connection ends it sooner.
const SWITCHOVER_WAIT: Duration = Duration::from_secs(23);
/// Two such watches are at least this far apart where the first of them is cut short.
const SWITCHOVER_PITCH: Duration = Duration::from_secs(1);

/// Between two looks at a key that is not there.
const MISSING_KEY_PAUSE: Duration = Duration::from_millis(100);

/// Runs an agent that runs for the lock until it is asked to stop, has to, or finds a router.
pub(crate) async fn run(config: &Arc<Config>, begin: Begin) -> End {
    match Agent::start(config, begin) {
        Ok(agent) => Box::pin(agent.run()).await,
        Err(exit) => End::Exit(exit),
    }
}

struct Agent {
    config: Arc<Config>,
    clock: Clock,
    state: State,
    executor: Executor,
    events: mpsc::Receiver<Event>,
    signals: Signals,
    dump: Dump,
    display: Display,
    trail: Trail,
    plan: Option<Plan>,
    said: journal::Said,
    waiting: Waiting,
    /// The masters of the cluster and the central configuration are being watched.
    follows_vshard: bool,
    /// The loop last took a turn, or looked whether there is one to take, then.
    ran_at: Tick,
}

/// How it ends.
pub(crate) enum End {
    /// The process ends.
    Exit(Exit),
    /// Its instance is a vshard router, for which another kind of agent is due.
    Router,
}

/// What decisions depend on, of what the operator set.
fn settings(config: &Config, agent: String) -> Settings {
    Settings {
        timing: config.timing,
        priority: config.priority,
        kill_hung: config.hung_instance == HungInstanceAction::Kill,
        follow: config.replication == ReplicationMode::Follow,
        elector: config.election.elector,
        sync_loss: config.election.sync_loss,
        election_window: config.election.window,
        max_lag_rows: config.election.max_lag_rows,
        max_idle: config.election.max_idle,
        replica_max_idle: config.catalog.replica_max_idle,
        failover_cooldown: config.election.cooldown,
        member_interval: config.member_interval,
        failsafe: config.failsafe,
        peer_addrs: config.peers.addrs.clone(),
        shared: config.shared(),
        announce: config.announce.id.clone(),
        agent,
    }
}

impl Agent {
    fn start(config: &Arc<Config>, begin: Begin) -> Result<Self, Exit> {
        let Begin {
            clock,
            output,
            display,
        } = begin;
        let Setup {
            agent_id,
            consul,
            signals,
        } = Setup::new(config)?;
        let (sender, events) = mpsc::channel(EVENTS);
        let (link, instance) = Link::new(
            config.tarantool.clone(),
            agent_id.clone(),
            config.guard,
            &config.vshard,
            config.timing,
            sender.clone(),
        );
        tokio::spawn(link.run());
        info!(
            agent = agent_id,
            version = env!("CARGO_PKG_VERSION"),
            instance = config.announce.id,
            "agent started"
        );
        let executor = Executor {
            config: Arc::clone(config),
            consul,
            instance,
            peers: Peers::new(
                config.tarantool.clone(),
                &config.peers,
                config.timing.promise_timeout(),
            ),
            events: sender,
            clock,
            keys: None,
            board: BoardReader::default(),
            config_text: ConfigText::default(),
            service: OwnService::default(),
            member_index: KnownIndex::default(),
            consul_back: Arc::default(),
        };
        birth::start(config, &executor.consul);
        let waiting = Waiting::start(config, &executor.consul, &agent_id);
        Ok(Self {
            config: Arc::clone(config),
            clock,
            waiting,
            state: State::new(settings(config, agent_id.clone())),
            executor,
            events,
            signals,
            dump: Dump::new(agent_id, output),
            display,
            trail: Trail::default(),
            plan: None,
            said: journal::Said::default(),
            follows_vshard: false,
            ran_at: clock.now(),
        })
    }

    async fn run(mut self) -> End {
        loop {
            let beat_at = self.ran_at + NAP;
            let wake_at = self.plan.as_ref().and_then(|plan| plan.wake_at);
            let event = tokio::select! {
                biased;
                Some(signal) = self.signals.next() => match self.on_signal(signal) {
                    Ok(event) => event,
                    Err(exit) => return End::Exit(exit),
                },
                Some(event) = self.events.recv() => Some(event),
                () = self.clock.wake(wake_at) => Some(Event::Woke),
                () = self.clock.wake(Some(beat_at)) => None,
            };
            let is_router = event == Some(Event::Vshard(VshardEvent::RouterFound));
            if is_router && self.executor.keys.is_none() {
                return End::Router;
            }
            // The core hears of it first, and concludes nothing from words that could not be heard meanwhile.
            for event in self.overslept().into_iter().chain(event) {
                if let Some(exit) = self.step(event) {
                    self.waiting.ends().await;
                    return End::Exit(exit);
                }
            }
            self.follow_vshard();
            self.display.ran(self.ran_at);
        }
    }

    /// Whether the loop stood still: the last time that it was at work is further back than any beat of it.
    fn overslept(&mut self) -> Option<Event> {
        let now = self.clock.now();
        let ran_until = std::mem::replace(&mut self.ran_at, now);
        (now.since(ran_until) > NAP + Timing::OVERSLEPT).then_some(Event::Overslept { ran_until })
    }

    /// One turn: what happened, what to do about it, and the start of that.
    fn step(&mut self, event: Event) -> Option<Exit> {
        let now = self.clock.now();
        journal::event(&mut self.said, &event);
        let event = self.check_replicaset(event);
        let before = journal::snapshot(&self.state);
        self.state.reads_wall_clock(clock::wall_ms());
        self.state.apply(event, now);
        journal::feed::say(&mut self.said, self.state.instance.feed.as_ref());
        let plan = decide(&self.state, now);
        self.dump.note(self.plan.as_ref(), &plan, now);
        if self
            .plan
            .as_ref()
            .is_none_or(|old| old.reason != plan.reason)
        {
            journal::reason(self.plan.as_ref().map(|old| &old.reason), &plan.reason);
        }
        let needs_all = self.state.rests_on_all_members();
        let known = self.state.known_members();
        self.executor.board.knows(known, needs_all);
        let mut ending = None;
        for action in &plan.actions {
            journal::action(&mut self.said, action);
            self.state.begin(action, now);
            self.trail.note(action, now);
            ending = ending.or(self.executor.start(action.clone()));
        }
        journal::silence::say(&mut self.said, &self.state, now);
        journal::problems::problems(&mut self.said, &self.state);
        let instance = &self.state.instance;
        let is_unseen = instance.probe.is_none() && self.state.stopping.is_none();
        self.waiting
            .says(is_unseen.then(|| instance.link.to_string()));
        journal::past::interruptions(&mut self.said, &self.state);
        journal::changes(before, &self.state);
        // What was begun in this turn is sent when it is over: no check goes by what was true before.
        self.display
            .show(|| Snapshot::of(&self.state, &plan, &self.trail, now));
        let exit = ending.map(|how| exit_of(how, &plan));
        self.plan = Some(plan);
        exit
    }

    /// Without vshard nothing of this costs a request.
    fn follow_vshard(&mut self) {
        let config = &self.config;
        let probe = self.state.instance.probe.as_ref();
        let has_vshard = probe.is_some_and(|probe| probe.vshard.is_some());
        let wants_it = config.vshard.on && (has_vshard || config.vshard.config_key.is_some());
        if self.follows_vshard || !wants_it {
            return;
        }
        self.follows_vshard = true;
        let watcher = Watcher {
            consul: self.executor.consul.clone(),
            consul_back: Arc::clone(&self.executor.consul_back),
        };
        let events = self.executor.events.clone();
        let keys = config.keys();
        let (own, sender) = (watcher.clone(), events.clone());
        tokio::spawn(async move {
            watch_masters(&own, &keys, sender).await;
        });
        if let Some(key) = config.vshard.config_key.clone() {
            tokio::spawn(watch_login(config.vshard.clone(), events.clone()));
            let cell = self.executor.config_text.clone();
            tokio::spawn(async move {
                watch_config(&watcher, &key, &cell, events).await;
            });
        }
    }

    /// The first word of the instance says which keys are ours; after that, another replica set is a mistake.
    fn check_replicaset(&mut self, event: Event) -> Event {
        let Event::Attached { probe, .. } = &event else {
            return event;
        };
        let config = &self.config;
        let keys = config.keys().replicaset(&probe.replicaset_uuid);
        match &self.executor.keys {
            None => {
                self.executor.keys = Some(keys.clone());
                info!(key = keys.lock(), "lock key");
                tokio::spawn(watch(self.executor.clone(), keys.lock()));
                tokio::spawn(watch_switchover(self.executor.clone(), keys.switchover()));
                tokio::spawn(self.executor.clone().watch_members());
                let replicaset = Some(probe.replicaset_uuid.as_str());
                let neighbours = NeighbourWatch::new(config, &self.executor.consul, replicaset);
                tokio::spawn(neighbours.watch(self.executor.events.clone()));
                event
            }
            Some(known) if *known == keys => event,
            Some(known) => Event::Unsuitable {
                why: format!(
                    "its replica set is now {}, this agent serves {}: restart the agent if that is meant",
                    probe.replicaset_uuid,
                    known.base()
                ),
            },
        }
    }

    fn on_signal(&mut self, signal: i32) -> Result<Option<Event>, Exit> {
        let (plan, now) = (self.plan.as_ref(), self.clock.now());
        let name = match signals::asked(signal) {
            Asked::Look => {
                self.dump
                    .print_outside(&self.config, &self.state, plan, now);
                return Ok(None);
            }
            Asked::LookAtAll => {
                self.dump.print_all(&self.config, &self.state, plan, now);
                return Ok(None);
            }
            Asked::Nothing => return Ok(None),
            Asked::Stop(name) => name,
        };
        if self.state.stopping.is_some() {
            warn!(
                signal = name,
                "second signal: stopped at once, the guard fences when the lease ends"
            );
            return Err(Exit::SecondSignal);
        }
        info!(signal = name, "asked to stop");
        Ok(Some(Event::StopRequested { signal: name }))
    }
}

fn exit_of(how: Ending, plan: &Plan) -> Exit {
    match how {
        Ending::Stopped => {
            info!("stopped");
            Exit::Stopped
        }
        Ending::Superseded => {
            error!(reason = %plan.reason, "stopped: this agent is one too many");
            Exit::Superseded
        }
        Ending::Unsuitable => {
            error!(reason = %plan.reason, "stopped: waiting cannot mend this");
            Exit::Unsuitable
        }
    }
}

/// Watches the lock key for as long as the agent runs. A look is held until just after the next refresh is due, and for
/// less while none comes: each answer is a word that Consul can be read, which R3's count rests on. A held look that fails
/// may have been ended by anything on its way. It is no news: the next one is not held, and decides.
async fn watch(executor: Executor, key: String) {
    let timing = &executor.config.timing;
    let mut lock = LockWatch::beating(key, timing.watch_hold(), timing.watch_beat());
    let mut failures = 0_u32;
    // Where held looks fail at once, two looks are still as far apart as two held ones.
    let mut pitch = None;
    while !executor.events.is_closed() {
        let started = sleep(timing.watch_beat());
        let asked_at = executor.clock.now();
        let result = lock.next(&executor.consul).await;
        if let Err(error) = &result
            && lock.was_held()
        {
            debug!(
                error = with_causes(error),
                "a held look at the lock was cut short: looking again at once"
            );
            pitch = Some(started);
            continue;
        }
        if lock.holds_nothing() {
            pitch = Some(started);
        }
        let failed = result.is_err();
        let missing = result.as_ref().is_ok_and(|view| view.key.is_none());
        // The receiver is gone only when the agent ends.
        let _ = executor
            .events
            .send(lock_read(asked_at, true, result))
            .await;
        if failed {
            failures = failures.saturating_add(1);
            if failures == executor.config.consul.monitor_retries {
                warn!(failures, "the lock cannot be watched");
            }
            sleep(retry_pause(failures, &executor.config.consul)).await;
        } else {
            if failures > 0 {
                executor.consul_back.notify_waiters();
            }
            failures = 0;
        }
        if let Some(pitch) = pitch.take() {
            pitch.await;
        }
        if missing {
            // A watch on a missing key wakes with every write anywhere in the store.
            sleep(MISSING_KEY_PAUSE).await;
        }
    }
}

/// Watches what operators ask for. The key is created where it is missing, so that the watch wakes for it alone.
async fn watch_switchover(executor: Executor, key: String) {
    let mut watch = LockWatch::new(key.clone(), SWITCHOVER_WAIT);
    let mut failures = 0_u32;
    while !executor.events.is_closed() {
        let pitch = sleep(SWITCHOVER_PITCH);
        let seen = match watch.next(&executor.consul).await {
            Ok(LockView { key: Some(key), .. }) => {
                Ok(board::parse(&key.value).map(|switchover| (key.modify_index, switchover)))
            }
            Ok(LockView { key: None, .. }) => {
                let nothing = json_bytes(&Switchover::nothing());
                let created = executor.consul.put_key_if(&key, 0, &nothing).await;
                created.map(|_| None)
            }
            Err(error) => Err(error),
        };
        match seen {
            Ok(seen) => {
                failures = 0;
                if let Some((index, switchover)) = seen {
                    // The receiver is gone only when the agent ends.
                    let _ = executor
                        .events
                        .send(Event::SwitchoverSeen { index, switchover })
                        .await;
                }
            }
            // Anything on its way may have ended the watch: the next question is not held, and decides.
            Err(_) if watch.was_held() => pitch.await,
            // The lock's own watch says what is wrong.
            Err(_) => {
                failures = failures.saturating_add(1);
                sleep(retry_pause(failures, &executor.config.consul)).await;
            }
        }
    }
}

/// A Consul agent that restarts is back within moments, so the first retries come quickly.
fn retry_pause(failures: u32, consul: &ConsulConfig) -> Duration {
    if failures <= consul.monitor_retries {
        consul.monitor_retry_interval / 10
    } else {
        consul.monitor_retry_interval
    }
}
