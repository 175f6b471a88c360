//! The cluster that things are done to, and the supervisor that starts what died.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use tarsec_harness::{
    Agent, Consul, ConsulOptions, Error, Process, ReplicaSet, ReplicaSetOptions, Result, Server,
    Value, World, Writers, eventually,
};

use super::journal::Journal;
use super::schedule::{Kind, MEMBERS, SETS, Strike, Target};

/// For what takes moments on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// How long a supervisor takes to start what died.
const RESTART_DELAY: Duration = Duration::from_millis(300);
const SIGKILL: i32 = 9;
/// Registers and all.
const BACKTRACE_LINES: usize = 100;
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// A server that is frozen does not answer.
const SERVER_TIMEOUT: Duration = Duration::from_millis(500);
const WRITES_PER_SECOND: u32 = 100;
const PROBE_INTERVAL: Duration = Duration::from_millis(10);

/// The journal becomes synchronous on the instance that the set is born on, before there is an agent.
const SYNCHRONOUS: &str = "
box.cfg{replication_synchro_quorum = 2, replication_synchro_timeout = 5}
if os.getenv('BOOTSTRAP') == 'true' and not box.space.journal.is_sync then
    box.cfg{read_only = false}
    box.space._space:update(box.space.journal.id, {{'=', 6, {is_sync = true}}})
    box.cfg{read_only = true}
end
";

/// Everything that runs.
pub(crate) struct Stage<'a> {
    pub(crate) world: &'a World,
    pub(crate) journal: &'a Journal,
    pub(crate) consul: Consul,
    pub(crate) sides: Vec<Side>,
    /// What a fault keeps down, and by how many faults.
    held: RefCell<BTreeMap<String, usize>>,
    /// The kinds of faults that are under way.
    under_way: RefCell<BTreeSet<Kind>>,
}

/// A replica set with its agents and writers.
pub(crate) struct Side {
    pub(crate) set: ReplicaSet,
    pub(crate) agents: Vec<Agent>,
    pub(crate) writers: Writers,
    pub(crate) synchronous: bool,
    /// Whether somebody deleted or overwrote the lock key.
    pub(crate) lock_touched: Cell<bool>,
}

/// How a replica set is called; the same as in its instances' names.
pub(crate) fn letter(set: usize) -> char {
    if set == 0 { 'a' } else { 'b' }
}

impl<'a> Stage<'a> {
    pub(crate) async fn start(world: &'a World, journal: &'a Journal, guard: &str) -> Result<Self> {
        let consul = world
            .consul_with(ConsulOptions::default().servers(3))
            .await?;
        let mut sides = Vec::new();
        for index in 0..SETS {
            let synchronous = index == 1;
            let mut options = ReplicaSetOptions::of(MEMBERS)
                .linked()
                .memtx_memory(512 << 20);
            if synchronous {
                options = options.extra_lua(SYNCHRONOUS);
            }
            let set = world.replica_set_with(options).await?;
            // Born once: one that comes back with an empty disk joins.
            set[0].set_env("BOOTSTRAP", "false");
            let agents = world
                .agents_with(&set, &consul, |_, agent| {
                    agent.linked().announced().env("GUARD", guard)
                })
                .await?;
            set.wait_for_master(SOON).await?;
            let writers = set
                .writers()
                .rate(WRITES_PER_SECOND)
                .probe_interval(PROBE_INTERVAL)
                .start();
            writers.wait_for_writes(20, SOON).await?;
            sides.push(Side {
                set,
                agents,
                writers,
                synchronous,
                lock_touched: Cell::new(false),
            });
        }
        Ok(Self {
            world,
            journal,
            consul,
            sides,
            held: RefCell::default(),
            under_way: RefCell::default(),
        })
    }

    /// All processes that a supervisor looks after.
    pub(crate) fn processes(&self) -> Vec<&Process> {
        let servers = self.consul.servers().iter().map(Server::process);
        let members = self.sides.iter().flat_map(|side| {
            let instances = side.set.iter().map(tarsec_harness::Instance::process);
            instances.chain(side.agents.iter().map(Agent::process))
        });
        servers.chain(members).collect()
    }

    /// Starts what died and is not held down, for ever.
    pub(crate) async fn supervise(&self) -> std::convert::Infallible {
        let mut dead_since: BTreeMap<String, Instant> = BTreeMap::new();
        loop {
            for process in self.processes() {
                if process.is_running() || self.is_held(process) {
                    dead_since.remove(process.name());
                    continue;
                }
                let since = *dead_since
                    .entry(process.name().to_owned())
                    .or_insert_with(Instant::now);
                if since.elapsed() >= RESTART_DELAY {
                    self.start_again(process);
                    dead_since.remove(process.name());
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn start_again(&self, process: &Process) {
        let ended = process.exit_status().map(|status| status.to_string());
        let (name, ended) = (process.name(), ended.unwrap_or_default());
        self.note_crash(process);
        match process.start() {
            Ok(()) => {
                self.journal.restarted();
                self.journal
                    .say(&format!("    started again: {name} ({ended})"));
            }
            Err(error) => self.journal.say(&format!("    {name}: {}", chain(&error))),
        }
    }

    /// Whoever dies of a signal that nobody sent has crashed. 2.6.0 is known to, when a replica acknowledges a row that
    /// waits in its queue since before it started.
    fn note_crash(&self, process: &Process) {
        let signal = process.exit_status().and_then(|status| status.signal());
        let Some(signal) = signal.filter(|signal| *signal != SIGKILL) else {
            return;
        };
        let what = format!("{} crashed with signal {signal}", process.name());
        if process.tail(BACKTRACE_LINES).contains("txn_limbo_ack") {
            self.journal.known(format!("{what} in txn_limbo_ack"));
        } else {
            self.journal.violation(what);
        }
    }

    /// Keeps a process down, until [`Stage::release`].
    pub(crate) fn hold(&self, process: &Process) {
        *self
            .held
            .borrow_mut()
            .entry(process.name().to_owned())
            .or_default() += 1;
    }

    pub(crate) fn release(&self, process: &Process) {
        if let Some(count) = self.held.borrow_mut().get_mut(process.name()) {
            *count = count.saturating_sub(1);
        }
    }

    fn is_held(&self, process: &Process) -> bool {
        let held = self.held.borrow();
        held.get(process.name()).is_some_and(|count| *count > 0)
    }

    /// Waits until no fault of this kind is under way, and notes that one is.
    pub(crate) async fn wait_until_over(&self, kind: Kind) {
        while !self.under_way.borrow_mut().insert(kind) {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    pub(crate) fn is_over(&self, kind: Kind) {
        self.under_way.borrow_mut().remove(&kind);
    }

    /// A server that knows a leader, and which one that is.
    pub(crate) async fn server(&self) -> Result<(usize, Option<usize>)> {
        for (index, server) in self.consul.servers().iter().enumerate() {
            let asked = server.api().get("/v1/status/leader");
            let Ok(Ok(Value::String(leader))) = tokio::time::timeout(SERVER_TIMEOUT, asked).await
            else {
                continue;
            };
            if !leader.is_empty() {
                return Ok((index, self.consul.server_at(&leader)));
            }
        }
        Err(Error::NotRunning {
            name: "a Consul server with a leader".to_owned(),
        })
    }

    /// Whom a fault hits.
    pub(crate) async fn member(&self, strike: &Strike) -> usize {
        match strike.target {
            Target::Member(index) => index,
            Target::Master => {
                let writable = self.sides[strike.set].set.writable().await;
                writable.first().copied().unwrap_or(0)
            }
        }
    }

    /// Runs an operator's command against a server that answers; its exit code and last line.
    pub(crate) async fn order(&self, args: &[&str], deadline: Duration) -> Result<(bool, String)> {
        let (server, _) = self.server().await?;
        // There is no terminal to ask at.
        let args = [args, &["--yes"]].concat();
        let command = self
            .world
            .command(&self.consul, &args)?
            .env("CONSUL_HTTP_ADDR", &self.consul.agent_addr(server));
        let output = command.run(deadline).await?;
        let words = output.stdout.lines().chain(output.stderr.lines()).last();
        let code = output.code.map_or("-".to_owned(), |code| code.to_string());
        let words = format!("exit code {code}: {}", words.unwrap_or("").trim());
        Ok((output.code == Some(0), words))
    }

    /// Whether somebody has ordered a pause of a replica set.
    pub(crate) async fn is_pause_ordered(&self, set: usize) -> Result<bool> {
        let board = self.world.board(&self.consul, &self.sides[set].set);
        let (server, _) = self.server().await?;
        let api = self.consul.servers()[server].api();
        Ok(api.kv(&board.key("pause")).await?.is_some())
    }

    /// Ends a replica set's pause, whatever it takes.
    pub(crate) async fn resume(&self, set: usize) -> Result<()> {
        eventually(SOON, "the end of the pause", async || {
            let args = ["resume", "--replicaset", self.sides[set].set.uuid()];
            let words = match self.order(&args, Duration::from_secs(10)).await {
                Ok((_, words)) => words,
                Err(error) => chain(&error),
            };
            // The command also waits for the agents, who may be down.
            match self.is_pause_ordered(set).await {
                Ok(false) => Ok(()),
                Ok(true) => Err(words),
                Err(error) => Err(chain(&error)),
            }
        })
        .await
    }
}

/// An error and what caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
