//! Consul goes away for all agents and comes back.

use std::time::Instant;

use tarsec_harness::AgentBuilder;

use crate::cluster::{Cluster, slack, stays_read_only};
use crate::support::{LEASE, SOON, world};

/// Longer than a Consul server takes to start and to elect itself.
fn with_long_lease(agent: AgentBuilder) -> AgentBuilder {
    agent
        .env("MASTER_LEASE", "15s")
        .env("CONSUL_LOCK_TTL", "15s")
}

#[tokio::test]
async fn a_consul_restarted_within_the_lease_goes_unnoticed() {
    world()
        .story("consul-restarted", async |world| {
            let cluster = Cluster::start_with(world, 2, |_, agent| with_long_lease(agent)).await?;
            let master = cluster.master.instance;
            let before = cluster.lock(world).await?;

            cluster.consul.kill().await?;
            // Its services and checks are lost; the keys and sessions are not.
            for kept in ["services", "checks"] {
                let dir = world.dir().join("consul0.data").join(kept);
                std::fs::remove_dir_all(&dir).unwrap_or_else(|error| panic!("{dir:?}: {error}"));
            }
            cluster.consul.start_all().await?;

            let tags = [("master", master), ("replica", cluster.other_than(master))];
            for (tag, index) in tags {
                let what = format!("the {tag} to be registered again");
                cluster
                    .wait_for_service(&format!("tarantool-{tag}"), index, &what, |entry| {
                        entry.status == "passing"
                    })
                    .await?;
            }
            let after = cluster
                .wait_for_record(world, "a refresh after the restart", |entry, _| {
                    entry.modify_index > before.modify_index
                })
                .await?;
            assert_eq!(after.json()?["term"], cluster.master.term);
            cluster.writers.wait_for_writes(100, SOON).await?;
            cluster.assert_undisturbed().await
        })
        .await;
}

#[tokio::test]
async fn a_consul_gone_for_longer_than_the_lease_finds_the_same_master_again() {
    world()
        .story("consul-gone", async |world| {
            // With promises it would go on: see `failsafe`.
            let off = |_, agent: AgentBuilder| agent.env("FAILSAFE", "off");
            let cluster = Cluster::start_with(world, 3, off).await?;
            cluster.consul.kill().await?;
            let gone = Instant::now();
            cluster.set.wait_for_no_master(SOON).await?;
            assert!(gone.elapsed() < LEASE + slack(), "{:?}", gone.elapsed());
            stays_read_only(&cluster.set, LEASE).await?;

            cluster.consul.start_all().await?;
            assert_eq!(cluster.wait_for_master().await?, cluster.master);
            cluster.writers.wait_for_writes(100, SOON).await?;
            cluster.wait_until_masters_own_record_stands(world).await?;
            cluster.assert_same_master().await
        })
        .await;
}
