//! Crash failovers, one after the other, with writers on every instance.

use std::time::Duration;

use tarsec_harness::{
    Agent, Consul, Error, Handover, History, Instance, Moment, ReplicaSet, ReplicaSetOptions,
    Result, Usage, World, eventually,
};

use super::{Options, report};

const SOON: Duration = Duration::from_secs(30);
/// How often an instance that refuses writes is tried: half of it is how late the first write is seen on average.
const WRITE_PROBE: Duration = Duration::from_millis(2);
/// Kills are spread over this time after everything has come to rest: the longest interval of an idle replica set's
/// pings, probes and refreshes at default settings.
const PHASES_MS: f64 = 2500.0;

/// One failover: milliseconds from the kill to the end of each stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) death_seen: f64,
    pub(crate) released: f64,
    pub(crate) woken: f64,
    pub(crate) acquired: f64,
    pub(crate) promoted: f64,
    pub(crate) first_write: f64,
    /// What the killed process had resident.
    pub(crate) resident_kib: u64,
}

/// All failovers at one size.
pub(crate) struct Failovers {
    pub(crate) runs: Vec<Run>,
    /// Each agent's costs after the last of them.
    pub(crate) agents: Vec<Usage>,
    /// Writes that were accepted, over all runs.
    pub(crate) accepted: usize,
}

/// Kills the master's process again and again.
pub(crate) async fn run(
    options: &Options,
    world: &World,
    consul: &Consul,
    large_mib: Option<u64>,
) -> Result<Failovers> {
    let memory = large_mib.unwrap_or(0) + large_mib.unwrap_or(0) / 6 + 64;
    let set = world
        .replica_set_with(ReplicaSetOptions::of(3).memtx_memory(memory << 20))
        .await?;
    for instance in set.iter() {
        fill(instance, large_mib).await?;
    }
    let agents = world
        .agents_with(&set, consul, |_, agent| with_default_settings(agent))
        .await?;
    set.wait_for_master(SOON).await?;
    let mut failovers = Failovers {
        runs: Vec::new(),
        agents: Vec::new(),
        accepted: 0,
    };
    for number in 0..options.runs {
        let (run, accepted) = fail_over(&set, &agents, number).await?;
        report::progress(large_mib.is_some(), number + 1, options.runs, &run);
        failovers.runs.push(run);
        failovers.accepted += accepted;
        bring_back(&set, &agents, large_mib).await?;
    }
    for agent in &agents {
        failovers.agents.push(agent.process().usage()?);
    }
    Ok(failovers)
}

/// Everything as an operator gets it who sets nothing; only the logs are for us.
pub(crate) fn with_default_settings(
    agent: tarsec_harness::AgentBuilder,
) -> tarsec_harness::AgentBuilder {
    agent
        .without_env("MASTER_LEASE")
        .without_env("CONSUL_LOCK_TTL")
        .without_env("HEALTHCHECK_INTERVAL")
        .without_env("HEALTHCHECK_TIMEOUT")
}

async fn fill(instance: &Instance, large_mib: Option<u64>) -> Result<()> {
    match large_mib {
        Some(mib) => instance.fill(mib).await,
        None => Ok(()),
    }
}

async fn fail_over(set: &ReplicaSet, agents: &[Agent], number: u32) -> Result<(Run, usize)> {
    let old = set.wait_for_master(SOON).await?;
    let writers = set.writers().probe_interval(WRITE_PROBE).start();
    writers.wait_for_writes(50, SOON).await?;
    // The golden ratio spreads any number of kills evenly.
    let phase = (f64::from(number) * 0.618_033_988_749_895).fract();
    tokio::time::sleep(Duration::from_secs_f64(phase * PHASES_MS / 1000.0)).await;
    let resident_kib = set[old].process().usage()?.resident_kib;
    let killed = Moment::now();
    set[old].process().kill_no_wait()?;
    eventually(SOON, "a write accepted by another instance", async || {
        let accepted = writers.accepted();
        let others = (0..set.len()).filter(|index| *index != old);
        if others.clone().any(|index| accepted[index] > 0) {
            Ok(())
        } else {
            Err(format!("accepted so far: {accepted:?}"))
        }
    })
    .await?;
    let began = writers.began_at();
    let history = writers.stop().await?;
    let verdict = history.judge();
    if !verdict.is_safe() {
        return Err(Error::Malformed {
            what: format!("how there could be two masters:\n{verdict}"),
        });
    }
    let handover = eventually(SOON, "the agents to have logged it all", async || {
        Handover::after_crash(agents, old, killed)
    })
    .await?;
    let first_write =
        first_accepted(&history, began, handover.winner, killed).ok_or_else(|| {
            Error::Malformed {
                what: "who accepted the first write: it was not the lock's holder".to_owned(),
            }
        })?;
    let ms = |moment: Moment| moment.ms_since(killed);
    let run = Run {
        death_seen: ms(handover.death_seen),
        released: ms(handover.released),
        woken: ms(handover.woken),
        acquired: ms(handover.acquired),
        promoted: ms(handover.promoted),
        first_write: ms(first_write),
        resident_kib,
    };
    Ok((run, verdict.accepted()))
}

/// When the first answer came to a write that `instance` accepted.
fn first_accepted(
    history: &History,
    began: Moment,
    instance: usize,
    after: Moment,
) -> Option<Moment> {
    let accepted = history
        .writes
        .iter()
        .filter(|write| write.is_accepted() && write.instance == instance);
    let answered = accepted.filter_map(|write| Some(began + write.answered?));
    answered.filter(|moment| *moment > after).min()
}

/// Starts what was killed, as large as before, and waits until all is as it was.
async fn bring_back(set: &ReplicaSet, agents: &[Agent], large_mib: Option<u64>) -> Result<()> {
    let dead = set
        .iter()
        .position(|instance| !instance.process().is_running());
    let dead = match dead {
        Some(dead) => dead,
        // The kernel is still giving its memory back.
        None => {
            eventually(SOON, "the killed process to be gone", async || {
                let gone = set
                    .iter()
                    .position(|instance| !instance.process().is_running());
                gone.ok_or("all run")
            })
            .await?
        }
    };
    let restarted = Moment::now();
    set[dead].start().await?;
    fill(&set[dead], large_mib).await?;
    set.wait_for_mesh(SOON).await?;
    eventually(SOON, "the agent to be attached again", async || {
        let lines = agents[dead]
            .logs_since(restarted)
            .map_err(|error| error.to_string())?;
        let attached = lines
            .iter()
            .any(|line| line.message() == "instance attached");
        attached.then_some(()).ok_or_else(|| "it is not".to_owned())
    })
    .await
}
