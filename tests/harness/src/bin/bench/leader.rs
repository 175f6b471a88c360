//! The leader of three Consul servers dies under load.

use std::time::{Duration, Instant};

use tarsec_harness::{ConsulApi, ConsulOptions, Result, Value, Verdict, World, eventually};

use super::cluster::{Cluster, SOON, WRITE_PROBE, judge};
use super::{Options, report};

const WRITES_PER_SECOND: u32 = 200;
/// What Consul does by default.
const RAFT_MULTIPLIER: u8 = 5;
/// An election takes 13 to 18 s then.
const ELECTION: Duration = Duration::from_secs(60);
/// How long the writers are watched while nothing happens.
const QUIET: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// One leader's death; milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// The longest gap between accepted writes.
    pub(crate) gap: f64,
    /// The same while nothing happened.
    pub(crate) quiet_gap: f64,
    /// How long Consul took no write.
    pub(crate) outage: f64,
    /// Writes that the master refused or failed.
    pub(crate) refused: usize,
    /// Changes of hands.
    pub(crate) changes: usize,
}

/// All of them with one setting.
pub(crate) struct Deaths {
    pub(crate) failsafe: &'static str,
    pub(crate) runs: Vec<Run>,
}

/// Kills the leader again and again, with one setting of `FAILSAFE` after the other.
pub(crate) async fn run(options: &Options, world: &World) -> Result<Vec<Deaths>> {
    let consul = ConsulOptions::default()
        .servers(3)
        .raft_multiplier(RAFT_MULTIPLIER);
    let consul = world.consul_with(consul).await?;
    let cluster = Cluster::start(world, &consul, None, |_, agent| agent).await?;
    let mut all = Vec::new();
    // One death shows what it is like without; the rest would only take time.
    for (failsafe, runs) in [("on", options.runs_leader), ("off", 1)] {
        if failsafe == "off" {
            cluster.restart_agents_with("FAILSAFE", failsafe).await?;
        }
        let mut deaths = Deaths {
            failsafe,
            runs: Vec::new(),
        };
        let what = format!("dead Consul leader, FAILSAFE={failsafe},");
        for number in 0..runs {
            let run = kill_leader(&cluster).await?;
            report::progress(&what, number + 1, runs, run.gap);
            deaths.runs.push(run);
        }
        all.push(deaths);
    }
    Ok(all)
}

async fn kill_leader(cluster: &Cluster<'_>) -> Result<Run> {
    let consul = cluster.consul;
    let leader = eventually(SOON, "a leader", async || match consul.leader().await {
        Ok(Some(leader)) => Ok(leader),
        other => Err(format!("{other:?}")),
    })
    .await?;
    use_survivors(cluster, leader).await?;
    let master = cluster.rest().await?;

    let quiet = cluster.writers(WRITES_PER_SECOND, WRITE_PROBE).await?;
    tokio::time::sleep(QUIET).await;
    let quiet = judge(&quiet.stop().await?)?;

    let writers = cluster.writers(WRITES_PER_SECOND, WRITE_PROBE).await?;
    let survivor = consul.servers()[(leader + 1) % consul.servers().len()].api();
    let killed = Instant::now();
    consul.servers()[leader].kill().await?;
    let outage = wait_until_written(survivor, killed).await?;
    // With what the agents do once Consul is back.
    let new_master = cluster.rest().await?;
    let history = writers.stop().await?;
    let verdict = judge(&history)?;
    consul.start_all().await?;
    Ok(Run {
        gap: longest_gap_ms(&verdict),
        quiet_gap: longest_gap_ms(&quiet),
        outage,
        refused: history
            .writes
            .iter()
            .filter(|write| write.instance == master)
            .skip_while(|write| !write.is_accepted())
            .filter(|write| write.answered.is_some() && !write.is_accepted())
            .count(),
        changes: verdict.changes.len()
            + usize::from(new_master != master && verdict.changes.is_empty()),
    })
}

/// Agents that ask the leader are restarted to ask another server: an agent beside a Consul agent of its own does not
/// notice which server dies.
async fn use_survivors(cluster: &Cluster<'_>, leader: usize) -> Result<()> {
    let servers = cluster.consul.servers().len();
    for (index, agent) in cluster.agents.iter().enumerate() {
        let server = (leader + 1 + index % (servers - 1)) % servers;
        agent.set_env("CONSUL_HTTP_ADDR", &cluster.consul.agent_addr(server));
        agent.restart().await?;
    }
    Ok(())
}

/// Milliseconds since `killed` when Consul takes a write again.
async fn wait_until_written(api: &ConsulApi, killed: Instant) -> Result<f64> {
    loop {
        let written = api.kv_put("bench/outage", Value::Null.to_string()).await;
        if written.is_ok() {
            return Ok(killed.elapsed().as_secs_f64() * 1000.0);
        }
        if killed.elapsed() > ELECTION {
            return written.map(|()| 0.0);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn longest_gap_ms(verdict: &Verdict) -> f64 {
    let longest = verdict.longest_gap.map(|gap| gap.duration());
    longest.unwrap_or_default().as_secs_f64() * 1000.0
}
