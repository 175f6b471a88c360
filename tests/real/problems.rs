//! Every agent and `tarsec status` say what is not as it should be in a replica set: `status`, every check and every
//! log tell of it long before a failover has to show it.

use std::time::Duration;

use tarsec_harness::{
    AgentBuilder, CliOutput, Instance, LogLine, Result, ServiceEntry, World, eventually, json,
};

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
        eventually(SOON, "the agent's log to say it", async || {
            let count = |level| logged(cluster, index, level, words);
            let begun = count("WARN").map_err(|error| error.to_string())?;
            let ended = count("INFO").map_err(|error| error.to_string())?;
            (begun == ended + 1)
                .then_some(())
                .ok_or_else(|| format!("agent {index}: {begun} and {ended}"))
        })
        .await?;
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

/// Containers with one Consul agent on their host announce one address by default.
#[tokio::test]
async fn two_agents_that_announce_one_address_are_both_in_the_catalog_and_it_is_a_problem() {
    let same = |_, agent: AgentBuilder| agent.env("ANNOUNCE_ADDR", "127.0.0.1:3301");
    world()
        .story("problems-address", async |world| {
            let cluster = Cluster::start_with(world, 2, same).await?;
            let mut uuids = [0, 1].map(|index| cluster.set[index].uuid());
            uuids.sort_unstable();
            let twins = format!(
                "2 members announce the same address, 127.0.0.1:3301 (instances {}, {})",
                uuids[0], uuids[1]
            );
            wait_until_all_say(world, &cluster, &twins).await?;
            let output = status(world, &cluster).await?;
            for uuid in uuids {
                let label = format!("127.0.0.1:3301 ({}", &uuid[..8]);
                assert!(output.stdout.contains(&label), "{}", output.stdout);
            }
            cluster.assert_undisturbed().await
        })
        .await;
}

/// What an agent of a version whose ids had no UUID leaves when it is killed for an upgrade.
#[tokio::test]
async fn an_older_registration_of_the_same_instance_is_removed_and_another_instances_stays() {
    world()
        .story("problems-upgrade", async |world| {
            let cluster = Cluster::start(world, 2).await?;
            let replica = 1 - cluster.master.instance;
            let [own, other] = [replica, cluster.master.instance].map(|at| cluster.set[at].uuid());
            cluster.agents[replica].kill().await?;
            let api = cluster.consul.api()?;
            for (id, uuid) in [("tarantool@own", own), ("tarantool@other", other)] {
                let service = json!({
                    "ID": id, "Name": "tarantool-master", "Port": 1,
                    "Meta": {"instance_uuid": uuid, "tarsec_version": "0.1.0"},
                    "Check": {"CheckID": format!("service:{id}"), "TTL": "60s", "Status": "passing"},
                });
                let path = "/v1/agent/service/register";
                api.call("PUT", path, Some(service.to_string())).await?;
            }
            cluster.agents[replica].start()?;
            eventually(SOON, "the older registration to be gone", async || {
                let found = api.call("GET", "/v1/agent/services", None::<String>).await;
                let found = found.map_err(|error| error.to_string())?;
                assert!(found["tarantool@other"].is_object(), "{found}");
                if found["tarantool@own"].is_null() {
                    Ok(())
                } else {
                    Err(found.to_string())
                }
            })
            .await?;
            let sound = |entry: &ServiceEntry| {
                entry.meta["instance_uuid"] == own && entry.status == "passing"
            };
            let name = "tarantool-replica";
            let what = "the agent's own registration";
            cluster.wait_for_service(name, replica, what, sound).await?;
            cluster.assert_undisturbed().await
        })
        .await;
}

/// Both have the default prefix, on one Consul.
#[tokio::test]
async fn another_clusters_master_under_the_same_name_is_said_by_both_until_the_names_have_the_cluster_in_them()
 {
    let curious = |_, agent: AgentBuilder| agent.env("MEMBER_INTERVAL", "1s");
    world()
        .story("problems-foreign", async |world| {
            let cluster = Cluster::start_with(world, 2, curious).await?;
            let second = world.replica_set(1).await?;
            let elsewhere = world
                .agents_with(&second, &cluster.consul, |_, agent| {
                    agent
                        .env("MEMBER_INTERVAL", "1s")
                        .env("CLUSTER_NAME", "elsewhere")
                })
                .await?;
            let foreign = |addr: &str, name: &str, uuid: &str| {
                format!("also find {addr}, of cluster {name}, replica set {uuid}: put")
            };
            let theirs = foreign(second[0].addr(), "elsewhere", second.uuid());
            wait_until_all_say(world, &cluster, &theirs).await?;
            let master = cluster.set[cluster.master.instance].addr();
            let ours = foreign(master, world.cluster(), cluster.set.uuid());
            let warned = |line: &LogLine| line.level() == "WARN" && line.text.contains(&ours);
            elsewhere[0]
                .wait_for_log(SOON, "the other's warning", 0, warned)
                .await?;

            // The operator of the other one gives it a name of its own.
            elsewhere[0].set_env("CONSUL_SERVICE_PREFIX", "tarantool-{cluster}");
            elsewhere[0].restart().await?;
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
            let found = cluster
                .consul
                .api()?
                .service("tarantool-elsewhere-master")
                .await?;
            assert_eq!(found.len(), 1, "{found:?}");
            let id = format!(
                "tarantool-elsewhere@{}@{}",
                second[0].addr(),
                second[0].uuid()
            );
            assert_eq!(found[0].id, id);
            cluster.assert_undisturbed().await
        })
        .await;
}

/// Such an agent knows no replica set, so it has no member's key.
#[tokio::test]
async fn an_agent_that_cannot_log_in_is_shown_until_it_can() {
    world()
        .story("problems-waiting", async |world| {
            let consul = world.consul().await?;
            let set = world.replica_set(1).await?;
            let right = Instance::agent_login().password;
            let agent = world.agent(&set[0], &consul)?;
            let agent = agent.env("TARANTOOL_PASSWORD", "wrong").start().await?;
            let shows = async |code: i32, words: &str| {
                eventually(SOON, words, async || {
                    let command = world.command(&consul, &["status"]);
                    let output = command
                        .map_err(|error| error.to_string())?
                        .run(COMMAND)
                        .await;
                    let output = output.map_err(|error| error.to_string())?;
                    let said = unwrapped(&output.stdout);
                    if output.code == Some(code) && said.contains(words) {
                        Ok(said)
                    } else {
                        Err(said)
                    }
                })
                .await
            };
            let said = shows(9, "has not seen its instance yet").await?;
            assert!(
                said.contains(set[0].addr()) && said.contains("error 47: "),
                "{said}"
            );
            agent.set_env("TARANTOOL_PASSWORD", &right);
            agent.term(SOON).await?;
            agent.start()?;
            let said = shows(0, "MASTER").await?;
            assert!(!said.contains("has not seen its instance"), "{said}");
            Ok(())
        })
        .await;
}
