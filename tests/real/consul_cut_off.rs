//! One agent loses its way to Consul, the others keep theirs.

use std::time::{Duration, Instant};

use tarsec_harness::{Agent, AgentBuilder, Fault, Proxy, Result, World};

use crate::cluster::{Cluster, slack};
use crate::support::{LEASE, SOON, world};

/// A session of 10 s lives for up to 20 s after its last renewal, which may be half its TTL ago; then R3's wait.
const SESSION_EXPIRY: Duration = Duration::from_secs(40);

#[tokio::test]
async fn a_master_whose_agent_is_cut_off_is_read_only_in_time_and_follows_its_heir() {
    world()
        .story("master-cut", async |world| {
            master_loses_consul(world, Fault::Cut).await
        })
        .await;
}

#[tokio::test]
async fn a_master_whose_agents_words_vanish_is_read_only_in_time_and_follows_its_heir() {
    world()
        .story("master-hole", async |world| {
            master_loses_consul(world, Fault::BlackHole).await
        })
        .await;
}

async fn master_loses_consul(world: &World, fault: Fault) -> Result<()> {
    // With the other's promise it would go on: see `failsafe`.
    let off = |_, agent: AgentBuilder| agent.linked().env("FAILSAFE", "off");
    let cluster = Cluster::start_with(world, 2, off).await?;
    let old = cluster.master.instance;
    let heir = cluster.other_than(old);
    let link = consul_link(&cluster.agents[old]);

    link.set(fault).await?;
    let cut = Instant::now();
    cluster.set.wait_for_no_master(SOON).await?;
    assert!(cut.elapsed() < LEASE + slack(), "{:?}", cut.elapsed());
    assert_eq!(
        cluster.set.wait_for_new_master(old, SESSION_EXPIRY).await?,
        heir
    );
    let heir = cluster.wait_for_master().await?;
    cluster.writers.wait_for_writes(50, SOON).await?;

    link.restore().await?;
    let words = format!(
        "replica: the master is {}",
        cluster.set[heir.instance].addr()
    );
    cluster.wait_for_reason(old, &words).await?;
    cluster
        .wait_for_service(
            "tarantool-replica",
            old,
            "the old master as a passing replica",
            |entry| entry.status == "passing" && entry.output == words,
        )
        .await?;
    cluster.writers.wait_for_writes(100, SOON).await?;
    cluster.assert_handed_to(heir).await?;
    Ok(())
}

#[tokio::test]
async fn a_replica_whose_agent_is_cut_off_changes_nothing() {
    world()
        .story("replica-cut", async |world| {
            let cluster = Cluster::start_with(world, 2, |_, agent| agent.linked()).await?;
            let replica = cluster.other_than(cluster.master.instance);
            let link = consul_link(&cluster.agents[replica]);
            let words = format!(
                "replica: the master is {}",
                cluster.set[cluster.master.instance].addr()
            );
            for fault in [Fault::Cut, Fault::BlackHole] {
                cluster.wait_for_reason(replica, &words).await?;
                link.set(fault).await?;
                cluster
                    .set
                    .stays_master(cluster.master.instance, LEASE + LEASE / 2)
                    .await?;
                link.restore().await?;
            }
            cluster.wait_for_reason(replica, &words).await?;
            cluster.wait_until_masters_own_record_stands(world).await?;
            cluster.assert_undisturbed().await
        })
        .await;
}

/// Linked agents have one.
fn consul_link(agent: &Agent) -> &Proxy {
    agent.consul_link().expect("the agent is linked")
}

#[tokio::test]
async fn a_slow_consul_is_lived_with_and_failed_over_with() {
    let slow = Fault::Delay {
        to_target: Duration::from_millis(100),
        to_client: Duration::from_millis(100),
    };
    world()
        .story("consul-slow", async |world| {
            let linked = |_, agent: AgentBuilder| agent.linked();
            let cluster = Cluster::start_with(world, 2, linked).await?;
            let (old, heir) = (
                cluster.master.instance,
                cluster.other_than(cluster.master.instance),
            );
            for agent in &cluster.agents {
                consul_link(agent).set(slow).await?;
            }
            cluster.set.stays_master(old, LEASE * 2).await?;

            cluster.set[old].kill().await?;
            let killed = Instant::now();
            assert_eq!(cluster.set.wait_for_new_master(old, SOON).await?, heir);
            // Proven dead and released: no lease is waited for.
            assert!(killed.elapsed() < LEASE, "{:?}", killed.elapsed());
            let heir = cluster.wait_for_master().await?;
            cluster.writers.wait_for_writes(100, SOON).await?;

            let outlook = cluster.assert_handed_to(heir).await?;
            outlook.assert_never_refused(heir.instance);
            Ok(())
        })
        .await;
}
