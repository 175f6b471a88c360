//! The leader of three Consul servers dies.

use tarsec_harness::{Consul, ConsulOptions, Result, World};

use crate::cluster::Cluster;
use crate::support::{SOON, world};

/// Two instances, and an agent for each that talks to a server that does not lead.
async fn start(world: &World, lease: &str, ttl: &str) -> Result<Cluster> {
    let consul = world
        .consul_with(ConsulOptions::default().servers(3))
        .await?;
    let leader = leader_of(&consul).await?;
    let addrs: Vec<String> = (0..consul.servers().len())
        .filter(|server| *server != leader)
        .map(|server| consul.agent_addr(server))
        .collect();
    Cluster::start_on(world, consul, addrs.len(), |index, agent| {
        agent
            .env("CONSUL_HTTP_ADDR", &addrs[index])
            .env("MASTER_LEASE", lease)
            .env("CONSUL_LOCK_TTL", ttl)
            // With promises no instance would be read-only: see `failsafe`.
            .env("FAILSAFE", "off")
    })
    .await
}

async fn leader_of(consul: &Consul) -> Result<usize> {
    Ok(consul.leader().await?.expect("three servers have a leader"))
}

#[tokio::test]
async fn the_death_of_consuls_leader_within_the_lease_goes_unnoticed() {
    world()
        .story("leader-long", async |world| {
            let cluster = start(world, "15s", "15s").await?;
            cluster.consul.kill_leader().await?;
            cluster.consul.wait_for_leader(SOON).await?;
            cluster.wait_until_masters_own_record_stands(world).await?;
            cluster.assert_undisturbed().await
        })
        .await;
}

#[tokio::test]
async fn an_election_in_consul_longer_than_the_lease_changes_no_master() {
    world()
        .story("leader-short", async |world| {
            let cluster = start(world, "2s", "10s").await?;
            cluster.consul.kill_leader().await?;
            cluster.consul.wait_for_leader(SOON).await?;
            assert_eq!(cluster.wait_for_master().await?, cluster.master);
            cluster.wait_until_masters_own_record_stands(world).await?;
            cluster.writers.wait_for_writes(50, SOON).await?;
            cluster.assert_same_master().await
        })
        .await;
}
