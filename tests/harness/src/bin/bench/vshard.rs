//! Crash failovers in a vshard cluster: the first write that the new master accepts, and the first one through a router.

use std::path::Path;
use std::time::{Duration, Instant};

use tarsec_harness::{
    Agent, Consul, Error, Moment, Result, VshardCluster, VshardOptions, World, eventually,
};

use super::cluster::{
    SOON, WRITE_PROBE, first_accepted, judge, phase, with_default_settings, wrong,
};
use super::report;

/// Kills are spread over this time after everything has come to rest.
const PHASES: Duration = Duration::from_millis(2500);
const WRITES_PER_SECOND: u32 = 200;
/// Writes through each router before a kill.
const SOME_WRITES: usize = 20;

/// Milliseconds since the kill.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// The first write that the new master accepted from a client of its own.
    pub(crate) direct: f64,
    /// The first one through a router.
    pub(crate) routed: f64,
    /// The first one through the slowest router.
    pub(crate) every_router: f64,
}

/// Two replica sets of three, two routers, an agent beside each, at default settings.
pub(crate) async fn run(
    world: &World,
    consul: &Consul,
    root: &Path,
    runs: u32,
) -> Result<Vec<Run>> {
    let cluster = VshardCluster::start(world, &VshardOptions::of(root)).await?;
    let mut agents: Vec<Vec<Agent>> = Vec::new();
    for set in &cluster.sets {
        let mut own = Vec::new();
        for instance in set.iter() {
            own.push(
                with_default_settings(world.agent(instance, consul)?)
                    .start()
                    .await?,
            );
        }
        agents.push(own);
    }
    for router in &cluster.routers {
        let agent = with_default_settings(world.agent(router, consul)?);
        agents.push(vec![agent.env("ROLE", "router").start().await?]);
    }
    let masters = cluster.wait_for_masters(SOON).await?;
    cluster.bootstrap(&masters, SOON).await?;
    let mut measured = Vec::new();
    for number in 0..runs {
        let run = fail_over(world, &cluster, &agents[0], number).await?;
        report::progress("vshard", number + 1, runs, run.routed);
        measured.push(run);
    }
    Ok(measured)
}

async fn fail_over(
    world: &World,
    cluster: &VshardCluster,
    agents: &[Agent],
    number: u32,
) -> Result<Run> {
    let masters = cluster.wait_for_masters(SOON).await?;
    let set = &cluster.sets[0];
    let old = masters[0];
    let direct = set
        .writers()
        .rate(WRITES_PER_SECOND)
        .probe_interval(WRITE_PROBE)
        .start();
    let routed = cluster.writers(world, &masters).await?;
    routed.wait_for_writes(SOME_WRITES, SOON).await?;
    tokio::time::sleep(phase(number, PHASES)).await;
    let (killed, killed_at) = (Moment::now(), Instant::now());
    set[old].process().kill_no_wait()?;
    let firsts = eventually(SOON, "a write through each router", async || {
        let firsts = routed.firsts_after(killed_at, 0, set[old].name());
        let all = firsts.len() == cluster.routers.len();
        all.then_some(firsts).ok_or("not yet")
    })
    .await?;
    let heir = set.wait_for_new_master(old, SOON).await?;
    let (began, history) = (direct.began_at(), direct.stop().await?);
    judge(&history)?;
    let writes = routed.stop().await?;
    let direct = first_accepted(&history, began, heir, killed)?.ms_since(killed);
    let ms = |at: &Instant| at.duration_since(killed_at).as_secs_f64() * 1e3;
    let times: Vec<f64> = firsts.values().map(ms).collect();
    let routed = times.iter().copied().min_by(f64::total_cmp);
    let every = times.iter().copied().max_by(f64::total_cmp);
    let run = Run {
        direct,
        routed: routed.ok_or_else(|| wrong("the routers' writes"))?,
        every_router: every.ok_or_else(|| wrong("the routers' writes"))?,
    };
    let restarted = Moment::now();
    eventually(SOON, "the killed process to be gone", async || {
        (!set[old].process().is_running())
            .then_some(())
            .ok_or("it runs")
    })
    .await?;
    set[old].start().await?;
    set.wait_for_mesh(SOON).await?;
    eventually(SOON, "the agent to be attached again", async || {
        let lines = agents[old].logs_since(restarted);
        let lines = lines.map_err(|error: Error| error.to_string())?;
        let attached = lines
            .iter()
            .any(|line| line.message() == "instance attached");
        attached.then_some(()).ok_or_else(|| "it is not".to_owned())
    })
    .await?;
    let masters = cluster.wait_for_masters(SOON).await?;
    cluster.wait_until_whole(&masters, &writes, SOON).await?;
    Ok(run)
}
