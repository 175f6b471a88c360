//! Processes that die at once.

use std::time::Duration;

use tarsec_harness::{Change, Handover, Moment, Verdict, eventually, json};

use crate::scene::{SOME_WRITES, Scene, assert_reigns, wait_for_master};
use crate::support::{LEASE, SOON, world};

/// As long as any supervisor takes at least.
const SUPERVISOR_PAUSE: Duration = Duration::from_millis(20);

/// The one change of hands.
fn change(verdict: &Verdict) -> Change {
    match verdict.changes.as_slice() {
        [change] => *change,
        other => panic!("{other:?}:\n{verdict}"),
    }
}

#[tokio::test]
async fn a_killed_master_is_proven_dead_and_followed_without_waiting_for_its_lease() {
    world()
        .story("master-killed", async |world| {
            let scene = Scene::start(world, 3).await?;
            let old = scene.master;
            scene.wait_for_refreshes().await?;
            let killed = Moment::now();
            scene.master().process().kill_no_wait()?;
            let heir = scene.wait_for_heir(SOON).await?;
            let stages = eventually(SOON, "the stages, logged", async || {
                Handover::after_crash(&scene.agents, old.instance, killed)
            })
            .await?;
            assert_eq!(stages.winner, heir.instance);
            assert!(stages.death_seen <= stages.released, "{stages:?}");

            // The record that the dead instance's agent left in the key, in the words of its writer and of its reader.
            let released = scene.master_agent();
            released
                .wait_for_log(SOON, "the release", 0, |line| {
                    line.message() == "releasing the lock" && line.field("status") == "Fenced"
                })
                .await?;
            scene.agents[heir.instance]
                .wait_for_log(SOON, "the fenced record", 0, |line| {
                    line.message() == "lock seen free" && line.field("fenced") == &json!(true)
                })
                .await?;
            let record = scene.lock().await?.json()?;
            assert_eq!(record["reason"], "the master before gave the lock up");
            scene
                .wait_for_check(old.instance, "critical", "its process is dead")
                .await?;

            // It comes back as a replica.
            scene.master().start().await?;
            scene
                .wait_for_check(old.instance, "passing", "replica: the master is")
                .await?;
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            assert!(change(&verdict).duration() < LEASE, "{verdict}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_replica_whose_first_barrier_has_not_passed_is_promoted_and_not_killed() {
    world()
        .story("barrier-late", async |world| {
            let scene = Scene::start(world, 2).await?;
            let old = scene.master;
            let replica = &scene.set[scene.replica()];
            let pid = replica.process().pid();
            // The guard is as it is in the half second after the barrier's space has come from the master.
            let late = "tarsec_guard.passing = true tarsec_guard.state.barrier_epoch = -1";
            replica.eval(late, &[]).await?;
            let agent = &scene.agents[scene.replica()];
            eventually(SOON, "the agent to know", async || {
                let dump = agent.usr1().await.map_err(|error| error.to_string())?;
                let guard = &dump["tarantool"]["probe"]["guard"];
                if guard["barrier"] == true && guard["landed"] == false {
                    Ok(())
                } else {
                    Err(guard.to_string())
                }
            })
            .await?;

            scene.master().kill().await?;
            let heir = scene.wait_for_heir(SOON).await?;
            assert_eq!(replica.process().pid(), pid);
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            assert!(change(&verdict).duration() < LEASE, "{verdict}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn an_instance_that_its_supervisor_restarts_at_once_does_not_go_on_as_if_nothing_was() {
    world()
        .story("restarted-at-once", async |world| {
            let scene = Scene::start(world, 3).await?;
            let old = scene.master;
            scene.wait_for_refreshes().await?;
            scene.master().kill().await?;
            tokio::time::sleep(SUPERVISOR_PAUSE).await;
            scene.master().process().start()?;

            let next = wait_for_master(&scene.set, |seen| seen.term > old.term, SOON).await?;
            scene.master().wait_ready().await?;
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            scene.set.stays_master(next.instance, LEASE).await?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, next]);
            assert!(change(&verdict).duration() < LEASE, "{verdict}");
            Ok(())
        })
        .await;
}
