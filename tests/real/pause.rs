//! Operators pause everything that agents do by themselves.

use std::time::Duration;

use tarsec_harness::{Machine, Result, Value, World, eventually};
use tokio::time::sleep;

use crate::scene::{SOME_WRITES, Scene, assert_reigns, guard, wait_for_master};
use crate::support::{LEASE, SOON, world};

/// Enough for any change of hands.
const LONG_ENOUGH: Duration = Duration::from_secs(8);

/// Three instances under writers, paused, the master's guard standing down.
async fn paused(world: &World) -> Result<Scene> {
    let scene = Scene::start(world, 3).await?;
    scene.set.wait_for_mesh(SOON).await?;
    world
        .board(&scene.consul, &scene.set)
        .pause("a story")
        .await?;
    wait_until_stood_down(&scene, true).await?;
    Ok(scene)
}

pub(crate) async fn wait_until_stood_down(scene: &Scene, down: bool) -> Result<()> {
    // Where a refresh got no answer before the pause, it may still be carried out, and the guard waits a minute for that.
    let patience = SOON + Duration::from_secs(60);
    eventually(patience, "the guard and the pause", async || {
        let record = scene.lock().await.map_err(|error| error.to_string())?;
        let record = record.json().map_err(|error| error.to_string())?;
        let lua = "return tarsec_guard.state.stood_down or false";
        let said = scene.master().eval(lua, &[]).await;
        let said = said.map_err(|error| error.to_string())?;
        if said.first() == Some(&Value::Bool(down)) && record["paused"] == Value::Bool(down) {
            Ok(())
        } else {
            Err(format!("{said:?}, {record}"))
        }
    })
    .await
}

#[tokio::test]
async fn a_master_that_dies_in_a_pause_has_no_successor_before_it_ends() {
    world()
        .story("pause-kill", async |world| {
            let scene = paused(world).await?;
            let old = scene.master;
            scene
                .wait_for_check(old.instance, "warning", "PAUSED by harness (a story)")
                .await?;
            scene
                .wait_for_check(scene.replica(), "warning", "PAUSED")
                .await?;
            scene.master().kill().await?;
            scene
                .wait_for_check(old.instance, "critical", "LEFT AS IT IS")
                .await?;
            // The member's key is written a moment after the check.
            eventually(SOON, "a status that calls the master dead", async || {
                let status = world.command(&scene.consul, &["status", "--no-wait"]);
                let status = status.map_err(|error| error.to_string())?.run(SOON).await;
                let status = status.map_err(|error| error.to_string())?;
                if status.code == Some(9) && status.stdout.contains("and is dead") {
                    Ok(())
                } else {
                    Err(status.stdout)
                }
            })
            .await?;
            sleep(LONG_ENOUGH).await;
            assert!(scene.set.writable().await.is_empty());
            let board = world.board(&scene.consul, &scene.set);
            assert_eq!(board.record().await?["term"].as_u64(), Some(old.term));

            board.resume().await?;
            let heir = scene.wait_for_heir(SOON).await?;
            let line = board.wait_for_history(heir.term, SOON).await?;
            assert_eq!(line["cause"], "released");
            assert_reigns(&scene.writers.verdict().await?, &[old, heir]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_master_that_dies_in_a_pause_and_comes_back_goes_on_in_its_term() {
    world()
        .story("pause-restart", async |world| {
            let scene = paused(world).await?;
            let old = scene.master;
            scene.master().restart().await?;
            let again = wait_for_master(&scene.set, |_| true, SOON).await?;
            assert_eq!(again, old);
            wait_until_stood_down(&scene, true).await?;
            let board = world.board(&scene.consul, &scene.set);
            board.resume().await?;
            wait_until_stood_down(&scene, false).await?;
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            assert_reigns(&scene.writers.verdict().await?, &[old]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_paused_master_is_writable_through_a_consul_outage_longer_than_its_lease() {
    world()
        .story("pause-consul-away", async |world| {
            let scene = paused(world).await?;
            scene.consul.kill().await?;
            sleep(LONG_ENOUGH).await;
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            scene.consul.restart().await?;
            scene.consul.wait_for_leader(SOON).await?;
            let board = world.board(&scene.consul, &scene.set);
            board.resume().await?;
            wait_until_stood_down(&scene, false).await?;
            scene.wait_for_refreshes().await?;
            scene.assert_undisturbed().await
        })
        .await;
}

#[tokio::test]
async fn an_agent_that_is_stopped_in_a_pause_leaves_its_master_writable() {
    world()
        .story("pause-stop", async |world| {
            let scene = paused(world).await?;
            let old = scene.master;
            assert!(scene.master_agent().term(SOON).await?.success());
            // Longer than the lease, and than the session: its lock is free, and no agent takes it.
            scene.set.stays_master(old.instance, LONG_ENOUGH).await?;
            scene.master_agent().start()?;
            wait_until_stood_down(&scene, true).await?;
            world.board(&scene.consul, &scene.set).resume().await?;
            wait_until_stood_down(&scene, false).await?;
            scene.wait_for_refreshes().await?;
            scene.assert_undisturbed().await
        })
        .await;
}

#[tokio::test]
async fn a_machine_lost_in_a_pause_is_not_succeeded_by_time() {
    world()
        .story("pause-machine", async |world| {
            let scene = paused(world).await?;
            let old = scene.master;
            let machine = Machine::of(scene.master(), scene.master_agent());
            machine.kill().await?;
            sleep(LONG_ENOUGH + LEASE).await;
            assert!(scene.set.writable().await.is_empty());
            machine.start().await?;
            let board = world.board(&scene.consul, &scene.set);
            board.resume().await?;
            let again = wait_for_master(&scene.set, |seen| seen.term > old.term, SOON * 3).await?;
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            assert_reigns(&scene.writers.verdict().await?, &[old, again]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn what_an_operator_does_by_hand_in_a_pause_stays_until_it_ends() {
    world()
        .story("pause-by-hand", async |world| {
            let scene = paused(world).await?;
            let fences = guard(scene.master()).await?["fences"].clone();
            scene.master().set_writable(false).await?;
            sleep(LEASE * 2).await;
            assert!(scene.set.writable().await.is_empty());
            scene.master().set_writable(true).await?;
            sleep(LEASE * 2).await;
            assert_eq!(scene.set.writable().await, [scene.master.instance]);
            assert_eq!(guard(scene.master()).await?["fences"], fences);
            let board = world.board(&scene.consul, &scene.set);
            board.resume().await?;
            wait_until_stood_down(&scene, false).await?;
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            assert_reigns(&scene.writers.verdict().await?, &[scene.master]);
            Ok(())
        })
        .await;
}
