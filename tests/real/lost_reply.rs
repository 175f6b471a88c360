//! Consul does what it was asked, and the answer is lost.

use std::time::{Duration, Instant};

use tarsec_harness::Fault;

use crate::cluster::Cluster;
use crate::support::{LEASE, SOON, world};

/// A reply is given up after a second, which leaves most of this.
const LONG_LEASE: &str = "8s";
/// A quarter of it.
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_refresh_whose_reply_is_lost_is_looked_for_and_not_repeated() {
    world()
        .story("lost-reply", async |world| {
            let cluster = Cluster::start_with(world, 2, |_, agent| {
                agent.linked().env("MASTER_LEASE", LONG_LEASE)
            })
            .await?;
            let agent = &cluster.agents[cluster.master.instance];
            let link = agent.consul_link().expect("the agent is linked");
            let before = cluster.lock(world).await?;
            let skip = agent.logs()?.len();

            link.set(Fault::MuteReplies).await?;
            let what = "the refresh to be done, unanswered";
            let refreshed = cluster
                .wait_for_record(world, what, |entry, _| {
                    entry.modify_index > before.modify_index
                })
                .await?;
            agent
                .wait_for_log(SOON, "the agent to miss the reply", skip, |line| {
                    line.message() == "lock step's outcome unknown"
                        && line.field("step") == "Refresh"
                })
                .await?;
            link.restore().await?;

            agent
                .wait_for_log(SOON, "the agent to serve on", skip, |line| {
                    line.field("to") == "master: writable, the lease is running"
                })
                .await?;
            // The record that it finds in the key is its own: it is not written a second time, and the next is one
            // more.
            let found = Instant::now();
            while found.elapsed() < REFRESH_INTERVAL / 2 {
                assert_eq!(cluster.lock(world).await?, refreshed);
            }
            let next = cluster
                .wait_for_record(world, "the next refresh", |entry, _| {
                    entry.modify_index > refreshed.modify_index
                })
                .await?;
            let (was, is) = (refreshed.json()?, next.json()?);
            assert_eq!(
                is["refresh"].as_u64(),
                was["refresh"].as_u64().map(|refresh| refresh + 1)
            );
            cluster.wait_until_masters_own_record_stands(world).await?;
            cluster.writers.wait_for_writes(100, SOON).await?;
            cluster.assert_undisturbed().await
        })
        .await;
}

#[tokio::test]
async fn an_acquisition_whose_reply_is_lost_is_found_in_the_key() {
    world()
        .story("lost-acquire", async |world| {
            let cluster = Cluster::start_with(world, 2, |_, agent| agent.linked()).await?;
            let (old, heir) = (
                cluster.master.instance,
                cluster.other_than(cluster.master.instance),
            );
            let agent = &cluster.agents[heir];
            let link = agent.consul_link().expect("the agent is linked");
            let skip = agent.logs()?.len();
            // Slow enough to be caught between question and answer.
            link.delay(Duration::from_millis(250)).await?;
            cluster.set[old].kill().await?;
            agent
                .wait_for_log(SOON, "the heir to ask for the lock", skip, |line| {
                    line.message() == "acquiring the lock"
                })
                .await?;
            link.set(Fault::MuteReplies).await?;
            let uuid = cluster.set[heir].uuid();
            cluster
                .wait_for_record(world, "the lock to be the heir's", |_, record| {
                    record["instance"] == uuid
                })
                .await?;
            agent
                .wait_for_log(SOON, "the heir to miss the reply", skip, |line| {
                    line.message() == "lock step's outcome unknown"
                        && line.field("step") == "Acquire"
                })
                .await?;
            link.restore().await?;
            let restored = Instant::now();

            assert_eq!(cluster.set.wait_for_new_master(old, SOON).await?, heir);
            // It remembers that its predecessor was fenced: no lease is waited for.
            assert!(restored.elapsed() < LEASE, "{:?}", restored.elapsed());
            let heir = cluster.wait_for_master().await?;
            assert_eq!(heir.term, cluster.master.term + 1);
            cluster.writers.wait_for_writes(50, SOON).await?;
            cluster.assert_handed_to(heir).await?;
            Ok(())
        })
        .await;
}
