//! Crash failovers, one after the other, with writers on every instance.

use std::time::Duration;

use tarsec_harness::{Handover, Moment, Result, Usage, eventually};

use super::cluster::{Cluster, SOON, WRITE_PROBE, first_accepted, judge, phase};
use super::report;

const WRITES_PER_SECOND: u32 = 200;
/// Kills are spread over this time after everything has come to rest: the longest interval of an idle replica set's
/// pings, probes and refreshes at default settings.
const PHASES: Duration = Duration::from_millis(2500);

/// One failover: milliseconds from the kill to the end of each stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) death_seen: f64,
    pub(crate) released: f64,
    pub(crate) woken: f64,
    pub(crate) elected: f64,
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
pub(crate) async fn run(cluster: &Cluster<'_>, what: &str, runs: u32) -> Result<Failovers> {
    let mut failovers = Failovers {
        runs: Vec::new(),
        agents: Vec::new(),
        accepted: 0,
    };
    for number in 0..runs {
        let (run, accepted) = fail_over(cluster, number).await?;
        report::progress(what, number + 1, runs, run.first_write);
        failovers.runs.push(run);
        failovers.accepted += accepted;
    }
    for agent in &cluster.agents {
        failovers.agents.push(agent.process().usage()?);
    }
    Ok(failovers)
}

async fn fail_over(cluster: &Cluster<'_>, number: u32) -> Result<(Run, usize)> {
    let Cluster { set, agents, .. } = cluster;
    let old = set.wait_for_master(SOON).await?;
    let writers = cluster.writers(WRITES_PER_SECOND, WRITE_PROBE).await?;
    tokio::time::sleep(phase(number, PHASES)).await;
    let resident_kib = set[old].process().usage()?.resident_kib;
    let killed = Moment::now();
    set[old].process().kill_no_wait()?;
    cluster.wait_for_heir(&writers, old).await?;
    let began = writers.began_at();
    let history = writers.stop().await?;
    let verdict = judge(&history)?;
    let handover = eventually(SOON, "the agents to have logged it all", async || {
        Handover::after_crash(agents, old, killed)
    })
    .await?;
    let first_write = first_accepted(&history, began, handover.winner, killed)?;
    let ms = |moment: Moment| moment.ms_since(killed);
    let run = Run {
        death_seen: ms(handover.death_seen),
        released: ms(handover.released),
        woken: ms(handover.woken),
        elected: ms(handover.elected),
        acquired: ms(handover.acquired),
        promoted: ms(handover.promoted),
        first_write: ms(first_write),
        resident_kib,
    };
    bring_back(cluster, old).await?;
    Ok((run, verdict.accepted()))
}

/// Starts the instance that was killed, as large as before, and waits until all is as it was.
async fn bring_back(cluster: &Cluster<'_>, dead: usize) -> Result<()> {
    cluster.wait_gone(dead).await?;
    let restarted = Moment::now();
    cluster.set[dead].start().await?;
    cluster.fill(dead).await?;
    eventually(SOON, "the agent to be attached again", async || {
        let lines = cluster.agents[dead]
            .logs_since(restarted)
            .map_err(|error| error.to_string())?;
        let attached = lines
            .iter()
            .any(|line| line.message() == "instance attached");
        attached.then_some(()).ok_or_else(|| "it is not".to_owned())
    })
    .await?;
    cluster.rest().await.map(|_| ())
}
