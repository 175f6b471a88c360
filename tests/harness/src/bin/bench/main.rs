//! How long each change of hands takes, stage by stage, beside the floor of the bare operations; and what an agent costs.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program for people that measures real time"
)]

mod cluster;
mod failover;
mod floor;
mod idle;
mod leader;
mod lost;
mod report;
mod switchover;
mod vshard;
mod writes;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tarsec_harness::{
    Consul, ConsulOptions, Error, INTERRUPTED, Result, World, unless_interrupted, vshard_root,
};

use cluster::Cluster;

const HELP: &str = "\
Measures changes of hands and the agent's idle costs on this machine.

Usage: TARSEC_BIN=path/to/tarsec bench [--help]

Crash failovers, lost machines and switchovers: three instances and three agents at
tarsec's default settings, one Consul that keeps its state in memory (as 'consul agent
-dev' does), writers on every instance. Each run strikes at another phase of the agents'
intervals, once everything has come to rest, and follows the agents' logs and the writers
to the first write that the next master accepts:
  crash failover  SIGKILL to the master's process, with small and with large instances.
                  What was killed is started again and filled again, so that every
                  instance is large at every kill: with a space that is neither logged
                  nor replicated, so that a restart costs no recovery
  lost machine    SIGKILL to the master's process and its agent together, at leases of
                  10 s and 3 s
  switchover      an order in Consul, as 'tarsec switchover' gives it; the gap is the
                  time between two accepted writes of a writer that writes 1000 times
                  a second to whoever is master
vshard: two replica sets of three and two routers, an agent beside each; SIGKILL to a
master's process, and the first write that the next one accepts from a client of its own
and through a router. Runs where VSHARD_ROOT names a directory with vshard's sources.

Dead Consul leader: three Consul servers on disk with the default raft_multiplier, agents
at servers that survive, writers; the longest gap between accepted writes.

The floor is measured in the same run: the same operations, one after the other, by a
plain client and with no agent. Idle costs: fresh agents at default settings, their
requests counted by a proxy in front of Consul. What the guard adds to each
write, with GUARD=strict and where memtx has its transaction manager.

Variables:
  TARSEC_BIN     the agent's binary; required
  RUNS           crash failovers at either size, 30
  RUNS_LOST      lost machines at either lease, 10
  SWITCHOVERS    switchovers, 50
  RUNS_VSHARD    crash failovers in a vshard cluster, 20
  VSHARD_ROOT    vshard's sources, a directory with vshard/init.lua
  RUNS_LEADER    dead Consul leaders with FAILSAFE=on, 3; one more with FAILSAFE=off
  IDLE_SECONDS   how long idle agents are watched, 60
  LARGE_GIB      resident memory of each instance in large runs, 3; needs three
                 times that and a little
  SKIP_LARGE=1   small instances only
  CONSUL_DISK=1  Consul writes to disk; the targets are for one that does not
A number of 0 leaves that part out.

A target that is missed is marked 'missed'; the exit code is 0 all the same, and 1 when
something could not be measured or the writers saw two masters.
";

/// The leases under which machines are lost.
const LEASES: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(3)];

/// What the environment asks for.
struct Options {
    binary: PathBuf,
    runs: u32,
    runs_lost: u32,
    switchovers: u32,
    runs_vshard: u32,
    runs_leader: u32,
    large_mib: Option<u64>,
    idle: Duration,
    consul_on_disk: bool,
}

impl Options {
    fn from_env() -> Result<Self, String> {
        let binary = std::env::var("TARSEC_BIN")
            .map_err(|_| "TARSEC_BIN is not set, it is to be the agent's binary".to_owned())?;
        // Agents run in a directory of their own.
        let binary = std::fs::canonicalize(&binary)
            .map_err(|error| format!("TARSEC_BIN is '{binary}': {error}"))?;
        let skip_large = number("SKIP_LARGE", 0)? != 0;
        let large_gib = number("LARGE_GIB", 3)?.max(1);
        Ok(Self {
            binary,
            runs: count("RUNS", 30)?,
            runs_lost: count("RUNS_LOST", 10)?,
            switchovers: count("SWITCHOVERS", 50)?,
            runs_vshard: count("RUNS_VSHARD", 20)?,
            runs_leader: count("RUNS_LEADER", 3)?,
            large_mib: (!skip_large).then_some(large_gib * 1024),
            idle: Duration::from_secs(number("IDLE_SECONDS", 60)?),
            consul_on_disk: number("CONSUL_DISK", 0)? != 0,
        })
    }

    fn world(&self, name: &str) -> Result<World> {
        World::builder().agent_binary(&self.binary).start(name)
    }

    async fn consul(&self, world: &World) -> Result<Consul> {
        let options = ConsulOptions::default();
        let options = if self.consul_on_disk {
            options
        } else {
            options.in_memory()
        };
        world.consul_with(options).await
    }
}

fn number(name: &str, default: u64) -> Result<u64, String> {
    match std::env::var(name) {
        Ok(value) => value
            .parse()
            .map_err(|_| format!("{name} is '{value}', allowed is a whole number")),
        Err(_) => Ok(default),
    }
}

fn count(name: &str, default: u64) -> Result<u32, String> {
    u32::try_from(number(name, default)?).map_err(|error| format!("{name}: {error}"))
}

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None => {}
        Some("--help" | "-h") => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprintln!("bench: unknown argument '{other}', try --help");
            return ExitCode::from(2);
        }
    }
    let options = match Options::from_env() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("bench: {why}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let measured = match runtime {
        Ok(runtime) => match runtime.block_on(unless_interrupted(measure(&options))) {
            Ok(measured) => measured,
            Err(signal) => {
                eprintln!("bench: {signal}: everything is ended and removed");
                return ExitCode::from(INTERRUPTED);
            }
        },
        Err(error) => Err(Error::Io {
            action: "start the runtime".to_owned(),
            source: error,
        }),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {}", report::chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn measure(options: &Options) -> Result<()> {
    report::heading(options.consul_on_disk);
    if options.runs + options.runs_lost + options.switchovers > 0 {
        measure_small(options).await?;
    }
    if let (Some(mib), 1..) = (options.large_mib, options.runs) {
        measure_large(options, mib).await?;
    }
    if options.runs_vshard > 0
        && let Some(root) = vshard_root("the vshard cluster")
    {
        let world = options.world("bench-vshard")?;
        let consul = options.consul(&world).await?;
        let runs = vshard::run(&world, &consul, &root, options.runs_vshard).await?;
        report::vshard(&runs);
    }
    if options.runs_leader > 0 {
        let world = options.world("bench-leader")?;
        let deaths = leader::run(options, &world).await?;
        report::leaders(&deaths);
    }
    if !options.idle.is_zero() {
        let world = options.world("bench-idle")?;
        let costs = idle::watch(options, &world).await?;
        report::costs(&costs, options.idle);
    }
    writes::measure(&options.world("bench-writes")?).await?;
    report::ending();
    Ok(())
}

/// The floor, and every change of hands in one cluster.
async fn measure_small(options: &Options) -> Result<()> {
    let world = options.world("bench-small")?;
    let consul = options.consul(&world).await?;
    let floor = floor::measure(&world, &consul, None).await?;
    let cluster = Cluster::start(&world, &consul, None, |_, agent| agent).await?;
    if options.runs > 0 {
        let failovers = failover::run(&cluster, "small", options.runs).await?;
        report::failovers(&failovers, &floor, false);
    }
    if options.switchovers > 0 {
        let switchovers = switchover::run(&cluster, options.switchovers).await?;
        report::switchovers(&switchovers, &floor);
    }
    if options.runs_lost > 0 {
        for lease in LEASES {
            let text = format!("{}s", lease.as_secs());
            cluster.restart_agents_with("MASTER_LEASE", &text).await?;
            let losses = lost::run(&cluster, lease, options.runs_lost).await?;
            report::losses(&losses, &floor);
        }
    }
    Ok(())
}

/// The floor and crash failovers with large instances.
async fn measure_large(options: &Options, mib: u64) -> Result<()> {
    let world = options.world("bench-large")?;
    let consul = options.consul(&world).await?;
    let floor = floor::measure(&world, &consul, Some(mib)).await?;
    let cluster = Cluster::start(&world, &consul, Some(mib), |_, agent| agent).await?;
    let failovers = failover::run(&cluster, "large", options.runs).await?;
    report::failovers(&failovers, &floor, true);
    Ok(())
}
