//! A world: everything that one test starts, in one directory, gone when the test is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tokio::runtime::{Handle, Runtime};

use crate::agent::{Agent, AgentBuilder};
use crate::board::Board;
use crate::cli::Cli;
use crate::consul::{Consul, ConsulOptions};
use crate::error::{Error, Result, chain};
use crate::ports::{Port, reserve};
use crate::process::{Process, Recipe, lock};
use crate::proxy::Proxy;
use crate::tarantool::{Instance, ReplicaSet, ReplicaSetOptions};

/// How many lines of each log a failing test shows.
const EXPLAINED_LINES: usize = 15;

/// Tells apart the worlds of one process.
static WORLDS: AtomicU32 = AtomicU32::new(0);

/// What a world needs to know before it starts.
#[derive(Debug, Default)]
pub struct WorldBuilder {
    agent_binary: Option<PathBuf>,
    keep: bool,
}

/// Everything that one test starts.
///
/// When it is dropped all its processes are killed and its directory is removed, unless the test
/// panicked or `TARSEC_KEEP=1` is set: then [`World::explain`] is printed and the directory stays.
#[derive(Debug)]
pub struct World {
    shared: Arc<Shared>,
    /// Proxies and writers live here, so that a test that blocks does not disturb them.
    runtime: Option<Runtime>,
}

/// What the parts of a world share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) cluster: String,
    pub(crate) handle: Handle,
    agent_binary: Option<PathBuf>,
    ports: Mutex<Vec<Port>>,
    processes: Mutex<Vec<Process>>,
    sets: AtomicU32,
    consuls: AtomicU32,
    commands: AtomicU32,
}

impl WorldBuilder {
    /// The program that agents run.
    #[must_use]
    pub fn agent_binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.agent_binary = Some(path.into());
        self
    }

    /// Keeps the directory in any case, as `TARSEC_KEEP=1` does.
    #[must_use]
    pub fn keep(mut self) -> Self {
        self.keep = true;
        self
    }

    /// Makes the world's directory; nothing runs in it yet.
    ///
    /// # Errors
    /// When the directory or the background runtime cannot be made.
    pub fn start(self, name: &str) -> Result<World> {
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let cluster = format!("{name}-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(format!("tarsec-{cluster}"));
        std::fs::create_dir_all(&dir).map_err(Error::io(format!("create {}", dir.display())))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("harness")
            .enable_all()
            .build()
            .map_err(Error::io("start the background runtime"))?;
        // Installed already is as good as installed now.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let shared = Shared {
            dir,
            cluster,
            handle: runtime.handle().clone(),
            agent_binary: self.agent_binary,
            ports: Mutex::default(),
            processes: Mutex::default(),
            sets: AtomicU32::new(0),
            consuls: AtomicU32::new(0),
            commands: AtomicU32::new(0),
        };
        if self.keep {
            shared.keep_dir();
        }
        Ok(World {
            shared: Arc::new(shared),
            runtime: Some(runtime),
        })
    }

    /// Runs a test in a world of its own.
    ///
    /// # Panics
    /// When the story fails, with its error and [`World::explain`].
    #[allow(
        clippy::panic,
        reason = "an assert helper: its place is the end of a test"
    )]
    pub async fn story(self, name: &str, story: impl AsyncFnOnce(&World) -> Result<()>) {
        let world = match self.start(name) {
            Ok(world) => world,
            Err(error) => panic!("{name}: {}", chain(&error)),
        };
        if let Err(error) = story(&world).await {
            panic!("{name}: {}", chain(&error));
        }
    }
}

impl World {
    /// The way to a world.
    #[must_use]
    pub fn builder() -> WorldBuilder {
        WorldBuilder::default()
    }

    /// The directory that holds every log, configuration and data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// The `CLUSTER_NAME` of this world's agents.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.shared.cluster
    }

    /// Starts one Consul server and waits until it leads.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn consul(&self) -> Result<Consul> {
        self.consul_with(ConsulOptions::default()).await
    }

    /// Starts Consul servers and waits until they have a leader.
    ///
    /// # Errors
    /// When they do not come up.
    pub async fn consul_with(&self, options: ConsulOptions) -> Result<Consul> {
        Consul::start(&self.shared, options).await
    }

    /// Starts a replica set of so many instances: bootstrapped, replicating, all read-only.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn replica_set(&self, instances: usize) -> Result<ReplicaSet> {
        self.replica_set_with(ReplicaSetOptions::of(instances))
            .await
    }

    /// Starts a replica set with more wishes than a number.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn replica_set_with(&self, options: ReplicaSetOptions) -> Result<ReplicaSet> {
        ReplicaSet::start(&self.shared, options).await
    }

    /// An agent for an instance, to be given its settings and started.
    ///
    /// # Errors
    /// [`Error::NoAgentBinary`].
    pub fn agent(&self, instance: &Instance, consul: &Consul) -> Result<AgentBuilder> {
        AgentBuilder::new(&self.shared, instance, consul)
    }

    /// An agent that is told nothing of any instance or Consul: [`AgentBuilder::env`] does that, for surroundings
    /// that the harness does not know.
    ///
    /// # Errors
    /// [`Error::NoAgentBinary`].
    pub fn bare_agent(&self, name: &str) -> Result<AgentBuilder> {
        AgentBuilder::bare(&self.shared, name)
    }

    /// Starts one agent per instance with the test defaults.
    ///
    /// # Errors
    /// When one cannot be started.
    pub async fn agents(&self, set: &ReplicaSet, consul: &Consul) -> Result<Vec<Agent>> {
        self.agents_with(set, consul, |_, agent| agent).await
    }

    /// Starts one agent per instance; `adjust` gets each instance's index and builder.
    ///
    /// # Errors
    /// When one cannot be started.
    pub async fn agents_with(
        &self,
        set: &ReplicaSet,
        consul: &Consul,
        adjust: impl Fn(usize, AgentBuilder) -> AgentBuilder,
    ) -> Result<Vec<Agent>> {
        let mut agents = Vec::new();
        for (index, instance) in set.iter().enumerate() {
            agents.push(adjust(index, self.agent(instance, consul)?).start().await?);
        }
        Ok(agents)
    }

    /// A command of an operator: the agents' binary with arguments, told where Consul is and what the cluster is called.
    ///
    /// # Errors
    /// [`Error::NoAgentBinary`].
    pub fn command(&self, consul: &Consul, args: &[&str]) -> Result<Cli> {
        Cli::new(&self.shared, consul, args)
    }

    /// The keys of a replica set in Consul.
    #[must_use]
    pub fn board<'a>(&'a self, consul: &'a Consul, set: &'a ReplicaSet) -> Board<'a> {
        Board::new(consul, self.cluster(), set.uuid())
    }

    /// A link to `target` (`host:port`) that can be broken.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn proxy(&self, target: &str) -> Result<Proxy> {
        Proxy::start(&self.shared, target).await
    }

    /// Any other program, named, logged and ended like the rest.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, name: &str, program: impl Into<PathBuf>, args: &[&str]) -> Result<Process> {
        let recipe = Recipe {
            program: program.into(),
            args: args.iter().map(Into::into).collect(),
            env: Vec::new(),
            dir: self.shared.dir.clone(),
        };
        let process = self.shared.process(name, recipe);
        process.start()?;
        Ok(process)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// A port that no other world on this machine gets.
    ///
    /// # Errors
    /// [`Error::NoPort`].
    pub fn port(&self) -> Result<u16> {
        self.shared.port()
    }

    /// Keeps the directory and its logs when the world ends, as [`WorldBuilder::keep`] does from the start.
    pub fn keep(&self) {
        self.shared.keep_dir();
    }

    /// The pids of everything that runs in it now.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let processes = lock(&self.shared.processes);
        processes.iter().filter_map(Process::pid).collect()
    }

    /// Every process's state, where its logs are and how they end.
    #[must_use]
    pub fn explain(&self) -> String {
        let mut text = format!("world in {}\n", self.shared.dir.display());
        for process in lock(&self.shared.processes).iter() {
            text.push_str(&process.explain(EXPLAINED_LINES));
        }
        text
    }
}

impl Drop for World {
    #[allow(
        clippy::print_stderr,
        reason = "a failing test tells its reader where to look"
    )]
    fn drop(&mut self) {
        let keep = self.shared.is_kept();
        if std::thread::panicking() {
            eprintln!("{}", self.explain());
        } else if keep {
            eprintln!("kept {}", self.shared.dir.display());
        }
        for process in lock(&self.shared.processes).iter() {
            process.reap();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        if !std::thread::panicking() && !keep {
            // A directory left behind is not worth failing a test that passed.
            std::fs::remove_dir_all(&self.shared.dir).ok();
        }
    }
}

impl Shared {
    /// Registers a process; it is not started.
    pub(crate) fn process(&self, name: &str, recipe: Recipe) -> Process {
        let process = Process::new(name, recipe, &self.dir);
        lock(&self.processes).push(process.clone());
        process
    }

    pub(crate) fn port(&self) -> Result<u16> {
        let port = reserve()?;
        let number = port.number;
        lock(&self.ports).push(port);
        Ok(number)
    }

    pub(crate) fn agent_binary(&self) -> Result<&Path> {
        self.agent_binary.as_deref().ok_or(Error::NoAgentBinary)
    }

    /// The next replica set's letter.
    pub(crate) fn next_set(&self) -> char {
        let number = self.sets.fetch_add(1, Ordering::Relaxed);
        char::from(b'a' + (number % 26) as u8)
    }

    /// How the next Consul's servers are called, up to their number.
    pub(crate) fn next_consul(&self) -> String {
        match self.consuls.fetch_add(1, Ordering::Relaxed) {
            0 => "consul".to_owned(),
            more => format!("consul-{}-", char::from(b'a' + (more % 26) as u8)),
        }
    }

    /// How the next command is called.
    pub(crate) fn next_command(&self) -> String {
        format!("command-{}", self.commands.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a directory below the world's.
    pub(crate) fn subdir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).map_err(Error::io(format!("create {}", dir.display())))?;
        Ok(dir)
    }

    /// Writes a file below the world's directory.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        std::fs::write(&path, content).map_err(Error::io(format!("write {}", path.display())))?;
        Ok(path)
    }

    fn keep_dir(&self) {
        // The mark is only a convenience; a world without it is removed as usual.
        std::fs::write(self.dir.join("keep"), "").ok();
    }

    fn is_kept(&self) -> bool {
        std::env::var_os("TARSEC_KEEP").is_some_and(|value| value == "1")
            || self.dir.join("keep").exists()
    }
}
