//! What is not as it should be in a replica set is said by everybody: in `tarsec status`, in every check and in every log,
//! long before a failover has to show it.

use std::time::Duration;

use tarsec_harness::{AgentBuilder, CliOutput, LogLine, Result, ServiceEntry, World, eventually};

use crate::cluster::Cluster;
use crate::support::{SOON, world};

/// Longer than any of the commands' own deadlines.
const COMMAND: Duration = Duration::from_secs(60);
/// `tarsec status`: there is a master, and something is not as it should be.
const UNWELL: i32 = 10;

async fn status(world: &World, cluster: &Cluster) -> Result<CliOutput> {
    world
        .command(&cluster.consul, &["status"])?
        .run(COMMAND)
        .await
}

/// The text without the line breaks of a narrow screen.
fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How often an agent has logged these words at this level.
fn logged(cluster: &Cluster, index: usize, level: &str, words: &str) -> Result<usize> {
    let lines = cluster.agents[index].logs()?;
    let fits = |line: &&LogLine| line.level() == level && line.text.contains(words);
    Ok(lines.iter().filter(fits).count())
}

/// Waits until every agent's check and log, and `status`, have said this; no check is less than passing for it.
async fn wait_until_all_say(world: &World, cluster: &Cluster, words: &str) -> Result<()> {
    for index in 0..cluster.agents.len() {
        let is_master = index == cluster.master.instance;
        let name = if is_master {
            "tarantool-master"
        } else {
            "tarantool-replica"
        };
        let uuid = cluster.set[index].uuid();
        let says = |entry: &ServiceEntry| {
            entry.meta["instance_uuid"] == uuid
                && entry.output.contains(words)
                && entry.status == "passing"
        };
        let what = format!("the check of {name} with '{words}'");
        eventually(SOON, &what, async || {
            let api = cluster.consul.api().map_err(|error| error.to_string())?;
            let all = api.service(name).await.map_err(|error| error.to_string())?;
            if all.iter().any(says) {
                Ok(())
            } else {
                Err(format!("{all:?}"))
            }
        })
        .await?;
        // Once each time it begins: a connection between members that breaks may end it for a moment.
        let begun = logged(cluster, index, "WARN", words)?;
        let ended = logged(cluster, index, "INFO", words)?;
        assert_eq!(begun, ended + 1, "agent {index}");
    }
    let output = status(world, cluster).await?;
    assert_eq!(output.code, Some(UNWELL), "{}", output.stdout);
    let said = unwrapped(&output.stdout);
    assert!(said.contains(words), "{words:?} is not in {said}");
    Ok(())
}

#[tokio::test]
async fn different_leases_and_failsafe_are_said_by_all_agents_and_by_status() {
    let different = |index: usize, agent: AgentBuilder| match index {
        0 => agent.env("MASTER_LEASE", "3s").env("FAILSAFE", "on"),
        _ => agent.env("MASTER_LEASE", "4s").env("FAILSAFE", "off"),
    };
    world()
        .story("problems-settings", async |world| {
            let cluster = Cluster::start_with(world, 2, different).await?;
            let [one, other] = [0, 1].map(|index| cluster.set[index].addr());
            let lease = format!("MASTER_LEASE differs: 3s at {one}; 4s at {other}");
            wait_until_all_say(world, &cluster, &lease).await?;
            let failsafe = format!("FAILSAFE differs: off at {other}; on at {one}");
            wait_until_all_say(world, &cluster, &failsafe).await?;
            // The operator mends it.
            let agent = &cluster.agents[1 - cluster.master.instance];
            let [lease, failsafe] = match cluster.master.instance {
                0 => ["3s", "on"],
                _ => ["4s", "off"],
            };
            agent.set_env("MASTER_LEASE", lease);
            agent.set_env("FAILSAFE", failsafe);
            agent.restart().await?;
            eventually(SOON, "a status without complaints", async || {
                let output = status(world, &cluster).await;
                let output = output.map_err(|error| error.to_string())?;
                if output.code == Some(0) {
                    Ok(())
                } else {
                    Err(output.stdout)
                }
            })
            .await?;
            cluster.assert_undisturbed().await
        })
        .await;
}
