//! An operator's hand on the instance: the guard lets nothing be writable without a lease.

use std::time::Duration;

use tarsec_harness::{Instance, ReplicaSetOptions, Result, eventually};

use crate::scene::{SESSION_EXPIRY, SOME_WRITES, Scene, assert_reigns, guard, wait_for_master};
use crate::support::{LEASE, SOON, world};

const UNLEASED: &str = "somebody made it writable without a lease";
/// Rare enough that no write stands in the same turn of the event loop as the operator's command.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until the guard has counted so many times of being writable without a lease, and the instance is read-only.
async fn wait_until_fenced(instance: &Instance, unleased: u64) -> Result<()> {
    eventually(SOON, "the guard to have fenced", async || {
        let guard = guard(instance).await.map_err(|error| error.to_string())?;
        if guard["unleased"] == unleased && !instance.is_writable().await {
            Ok(())
        } else {
            Err(guard.to_string())
        }
    })
    .await
}

#[tokio::test]
async fn a_replica_made_writable_by_hand_is_fenced_at_once_and_it_shows() {
    world()
        .story("by-hand", async |world| {
            let options = ReplicaSetOptions::of(3);
            let slow =
                |writers: tarsec_harness::WritersBuilder| writers.probe_interval(PROBE_INTERVAL);
            let scene = Scene::start_with(world, options, |_, agent| agent, slow).await?;
            let index = scene.replica();
            let replica = &scene.set[index];
            for times in 1..=3 {
                replica.set_writable(true).await?;
                wait_until_fenced(replica, times).await?;
            }
            let agent = &scene.agents[index];
            eventually(SOON, "the dump to show it", async || {
                let dump = agent.usr1().await.map_err(|error| error.to_string())?;
                let guard = &dump["tarantool"]["probe"]["guard"];
                if guard["unleased"] == 3 && guard["last_fence"] == UNLEASED {
                    Ok(())
                } else {
                    Err(guard.to_string())
                }
            })
            .await?;
            scene.wait_for_refreshes().await?;
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[scene.master]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn an_ex_master_that_starts_writable_is_fenced_when_its_agent_attaches() {
    world()
        .story("writable-init", async |world| {
            let scene = Scene::start(world, 3).await?;
            let old = scene.master;
            scene.master().kill().await?;
            let heir = scene.wait_for_heir(SOON).await?;
            let set = scene.set;
            // Before the guard is there nothing refuses a write, so the first oracle ends here.
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);

            let instance = &set[old.instance];
            instance.set_env("EXTRA_LUA", "box.cfg{read_only = false}");
            instance.process().start()?;
            wait_until_fenced(instance, 1).await?;
            let writers = set.writers().start();
            writers.wait_for_writes(SOME_WRITES, SOON).await?;
            assert_eq!(guard(instance).await?["last_fence"], UNLEASED);
            set.stays_master(heir.instance, LEASE / 2).await?;
            let verdict = writers.verdict().await?;
            assert_reigns(&verdict, &[heir]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_guard_that_was_deleted_on_the_master_is_installed_anew() {
    world()
        .story("guard-deleted", async |world| {
            let scene = Scene::start(world, 3).await?;
            scene.master().eval("tarsec_guard = nil", &[]).await?;
            eventually(SOON, "another guard", async || {
                guard(scene.master())
                    .await
                    .map_err(|error| error.to_string())
            })
            .await?;
            let same = wait_for_master(&scene.set, |seen| *seen == scene.master, SOON).await?;
            scene.set.stays_master(same.instance, LEASE * 3 / 2).await?;
            scene.wait_for_refreshes().await?;
            let verdict = scene.writers.verdict().await?;
            verdict.assert_safe();
            let elsewhere = verdict
                .shares
                .iter()
                .find(|share| share.tenure.instance != same.instance);
            assert!(elsewhere.is_none(), "{verdict}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_guard_that_was_deleted_still_fences_when_the_agent_is_gone_too() {
    world()
        .story("guard-and-agent-gone", async |world| {
            let scene = Scene::start(world, 3).await?;
            let old = scene.master;
            scene.master_agent().kill().await?;
            scene.master().eval("tarsec_guard = nil", &[]).await?;
            let heir = scene.wait_for_heir(SESSION_EXPIRY).await?;
            let verdict = scene.writers.verdict().await?;
            verdict.assert_safe();
            assert!(!scene.set[old.instance].is_writable().await);
            assert!(heir.term > old.term);
            Ok(())
        })
        .await;
}
