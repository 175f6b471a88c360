//! How long a crash failover takes, stage by stage, beside the floor of the bare operations; and what an agent costs.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a program for people that measures real time"
)]

mod failover;
mod floor;
mod idle;
mod report;
mod strict;

use std::process::ExitCode;
use std::time::Duration;

use tarsec_harness::{Consul, ConsulOptions, Error, Result, World};

const HELP: &str = "\
Measures crash failovers and the agent's idle costs on this machine.

Usage: TARSEC_BIN=path/to/tarsec bench [--help]

Small and large runs: three instances and three agents at tarsec's default settings,
one Consul that keeps its state in memory (as 'consul agent -dev' does), writers on
every instance. Each run kills the master's process (SIGKILL) at another phase of the
agents' intervals and follows the agents' logs and the writers to the first write that
the next master accepts. Then the dead instance is started again and, in large runs,
filled again, so that every instance is large at every kill. It is filled with a space
that is neither logged nor replicated, so that a restart costs no recovery.

The floor is measured in the same run: the same operations, one after the other, by a
plain client and with no agent. Idle costs: fresh agents at default settings, their
requests counted by a proxy in front of Consul. What GUARD=strict adds to each write.

Variables:
  TARSEC_BIN     the agent's binary; required
  RUNS           kills at either size, 30
  LARGE_GIB      resident memory of each instance in large runs, 3; needs three
                 times that and a little
  SKIP_LARGE=1   small runs only
  IDLE_SECONDS   how long idle agents are watched, 60
  CONSUL_DISK=1  Consul writes to disk; the targets are for one that does not

A target that is missed is marked 'missed'; the exit code is 0 all the same, and 1 when
something could not be measured or the writers saw two masters.
";

/// What the environment asks for.
struct Options {
    binary: String,
    runs: u32,
    large_mib: Option<u64>,
    idle: Duration,
    consul_on_disk: bool,
}

impl Options {
    fn from_env() -> Result<Self, String> {
        let binary = std::env::var("TARSEC_BIN")
            .map_err(|_| "TARSEC_BIN is not set, it is to be the agent's binary".to_owned())?;
        let skip_large = number("SKIP_LARGE", 0)? != 0;
        let large_gib = number("LARGE_GIB", 3)?.max(1);
        Ok(Self {
            binary,
            runs: u32::try_from(number("RUNS", 30)?.max(1)).map_err(|error| error.to_string())?,
            large_mib: (!skip_large).then_some(large_gib * 1024),
            idle: Duration::from_secs(number("IDLE_SECONDS", 60)?.max(1)),
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
        Ok(runtime) => runtime.block_on(measure(&options)),
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
    let small = options.world("bench-small")?;
    measure_size(options, &small, None).await?;
    drop(small);
    if let Some(mib) = options.large_mib {
        let large = options.world("bench-large")?;
        measure_size(options, &large, Some(mib)).await?;
    }
    let world = options.world("bench-idle")?;
    let costs = idle::watch(options, &world).await?;
    report::costs(&costs, options.idle);
    strict::measure(&options.world("bench-strict")?).await?;
    report::ending();
    Ok(())
}

/// Failovers at one size, and the floor measured right after them.
async fn measure_size(options: &Options, world: &World, large_mib: Option<u64>) -> Result<()> {
    let consul = options.consul(world).await?;
    let failovers = failover::run(options, world, &consul, large_mib).await?;
    let floor = floor::measure(world, &consul, large_mib).await?;
    report::failovers(&failovers, &floor, large_mib.is_some());
    Ok(())
}
