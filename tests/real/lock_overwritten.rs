//! Something else than the master's record in the lock key, put there by a plain write, which asks no session.

use std::time::Instant;

use tarsec_harness::{Result, World, eventually, json};

use crate::cluster::{Cluster, stays_read_only};
use crate::support::{LEASE, SOON, world};

/// Overwrites the lock key under a running master, and sees the master write its own record again.
async fn heals(name: &str, value: impl AsyncFn(&Cluster, &World) -> Result<Vec<u8>>) {
    let story = async |world: &World| {
        let cluster = Cluster::start(world, 3).await?;
        let value = value(&cluster, world).await?;
        for _ in 0..2 {
            cluster.put(world, value.clone()).await?;
            cluster.wait_until_masters_own_record_stands(world).await?;
        }
        cluster.writers.wait_for_writes(50, SOON).await?;
        cluster.assert_undisturbed().await
    };
    world().story(name, story).await;
}

#[tokio::test]
async fn garbage_over_a_running_masters_record_is_overwritten() {
    heals("garbage", async |_, _| Ok(b"not a record".to_vec())).await;
}

#[tokio::test]
async fn bytes_that_are_no_text_over_a_running_masters_record_are_overwritten() {
    heals("bytes", async |_, _| Ok(b"\xff\xfe\x00{\x80".to_vec())).await;
}

#[tokio::test]
async fn an_old_copy_of_a_running_masters_record_is_overwritten() {
    heals("old-copy", async |cluster, world| {
        let old = cluster.lock(world).await?;
        let newer = |entry: &tarsec_harness::KvEntry, _: &_| entry.modify_index > old.modify_index;
        cluster.wait_for_record(world, "a refresh", newer).await?;
        Ok(old.value.into_bytes())
    })
    .await;
}

#[tokio::test]
async fn a_record_of_another_instance_over_a_running_masters_is_overwritten() {
    heals("another", async |cluster, world| {
        let mut record = cluster.lock(world).await?.json()?;
        let other = &cluster.set[cluster.other_than(cluster.master.instance)];
        record["instance"] = json!(other.uuid());
        record["name"] = json!(other.addr());
        record["uri"] = json!(other.addr());
        record["refresh"] = json!(1);
        Ok(record.to_string().into_bytes())
    })
    .await;
}

#[tokio::test]
async fn a_record_of_another_version_over_a_running_masters_changes_no_hands() {
    heals("version", async |cluster, world| {
        let mut record = cluster.lock(world).await?.json()?;
        record["v"] = json!(2);
        Ok(record.to_string().into_bytes())
    })
    .await;
}

/// Stops every agent, so that the lock is free, and puts something into it before they start again.
async fn start_with_free_lock(world: &World, value: impl Fn(&str) -> Vec<u8>) -> Result<Cluster> {
    let cluster = Cluster::start(world, 2).await?;
    for agent in &cluster.agents {
        agent.process().signal(rustix::process::Signal::TERM)?;
    }
    for agent in &cluster.agents {
        agent.wait(SOON).await?;
    }
    let free = cluster.lock(world).await?;
    assert_eq!(
        (free.session.as_deref(), free.json()?["status"].as_str()),
        (None, Some("fenced"))
    );
    cluster.put(world, value(&free.value)).await?;
    for agent in &cluster.agents {
        agent.start()?;
    }
    Ok(cluster)
}

#[tokio::test]
async fn garbage_in_a_free_lock_costs_a_whole_lease_before_anyone_is_writable() {
    world()
        .story("garbage-free", async |world| {
            let cluster = start_with_free_lock(world, |_| b"\xffgarbage".to_vec()).await?;
            let what = "the lock to be taken from the garbage";
            cluster.wait_for_record(world, what, |_, _| true).await?;
            let taken = Instant::now();
            let heir = cluster.wait_for_master().await?;
            // Seen taken a little after it was; the margin is 310 ms.
            assert!(taken.elapsed() >= LEASE, "{:?}", taken.elapsed());
            cluster.writers.wait_for_writes(50, SOON).await?;
            assert!(heir.term > cluster.master.term, "{heir:?}");
            cluster.outlook().await?.assert_safe();
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_free_lock_with_a_record_of_another_version_is_left_alone_and_said_so() {
    world()
        .story("version-free", async |world| {
            let version_2 = |fenced: &str| fenced.replace("\"v\":1", "\"v\":2").into_bytes();
            let cluster = start_with_free_lock(world, version_2).await?;
            let before = cluster.lock(world).await?;
            let words = "does nothing about the lock: the record has v=2, this version knows v=1";
            for (index, agent) in cluster.agents.iter().enumerate() {
                let what = "the check to say why nobody acts";
                cluster
                    .wait_for_service("tarantool-replica", index, what, |entry| {
                        entry.output == words
                    })
                    .await?;
                eventually(SOON, "both dumps to say why", async || {
                    let outside = agent.usr1().await.map_err(|error| error.to_string())?;
                    let whole = agent.usr2().await.map_err(|error| error.to_string())?;
                    let said = outside["reason"] == words
                        && whole["reason"] == words
                        && whole["plan"]["reason"]["kind"] == "unknown_record_version";
                    if said {
                        Ok(())
                    } else {
                        Err(format!("{} {}", outside["reason"], whole["plan"]))
                    }
                })
                .await?;
            }
            stays_read_only(&cluster.set, LEASE * 2).await?;
            assert_eq!(cluster.lock(world).await?, before);

            // Waiting was all that was wrong: a record of this version is taken up at once.
            cluster
                .put(
                    world,
                    before.value.replace("\"v\":2", "\"v\":1").into_bytes(),
                )
                .await?;
            let heir = cluster.wait_for_master().await?;
            assert!(heir.term > cluster.master.term, "{heir:?}");
            cluster.writers.wait_for_writes(50, SOON).await?;
            cluster.outlook().await?.assert_safe();
            Ok(())
        })
        .await;
}
