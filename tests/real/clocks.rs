//! A machine that is suspended, whose `CLOCK_MONOTONIC` stands still meanwhile, and wall clocks that are set.

use std::time::{Duration, Instant};

use tarsec_harness::{
    AgentBuilder, Clocks, Machine, ReplicaSetOptions, Result, World, WritersBuilder,
};

use crate::scene::{Scene, assert_reigns, wait_until_fenced_or_gone};
use crate::strict::{EXACT_WRITES, assert_nothing_late};
use crate::support::{LEASE, SOON, world};

const HOUR_S: i64 = 3600;
/// A woken instance looks at its lease within that time, also where no agent tells it anything; far less than what was
/// left of its lease by a clock that had stood still.
const FENCED_WITHIN: Duration = Duration::from_millis(700);

/// Many writes stand in the queue of an instance that stops.
fn heavy(writers: WritersBuilder) -> WritersBuilder {
    writers.rate(2000).window(1024)
}

async fn scene(world: &World, guard: &str) -> Result<(Clocks, Scene)> {
    let clocks = Clocks::build(world)?;
    let options = clocks.instances(ReplicaSetOptions::of(3).extra_lua(EXACT_WRITES));
    let agent = |index, agent: AgentBuilder| clocks.agent(index, agent).env("GUARD", guard);
    let scene = Scene::start_with(world, options, agent, heavy).await?;
    Ok((clocks, scene))
}

/// Suspends the master's machine until its heir has accepted writes, and wakes the instance, its agent still asleep. Says
/// how long it took until the instance was fenced or gone.
async fn sleep_through_the_succession(scene: &Scene, clocks: &Clocks) -> Result<Duration> {
    scene.wait_for_refreshes().await?;
    let machine = Machine::of(scene.master(), scene.master_agent());
    let began = Instant::now();
    machine.freeze().await?;
    let heir = scene.wait_for_heir(LEASE * 2 + SOON).await?;
    assert_ne!(heir.instance, scene.master.instance);
    clocks.was_suspended(scene.master(), began.elapsed())?;
    let woken = Instant::now();
    scene.master().thaw()?;
    wait_until_fenced_or_gone(scene.master()).await?;
    let fenced_after = woken.elapsed();
    scene.master_agent().thaw()?;
    Ok(fenced_after)
}

#[tokio::test]
async fn a_suspended_machine_acknowledges_nothing_after_its_succession_under_strict() {
    world()
        .story("suspended-strict", async |world| {
            let (clocks, scene) = scene(world, "strict").await?;
            let old = scene.master;
            sleep_through_the_succession(&scene, &clocks).await?;
            scene.writers.wait_for_writes(100, SOON).await?;
            // It may have killed itself; either way it finds its way back.
            scene.set.start_all().await?;
            scene.set.wait_for_mesh(SOON).await?;
            let heir = scene.set.wait_for_new_master(old.instance, SOON).await?;
            scene.set.stays_master(heir, LEASE / 2).await?;
            let verdict = scene.writers.verdict().await?;
            assert!(
                verdict.unanswered + verdict.read_only >= 100,
                "little was queued:\n{verdict}"
            );
            verdict.assert_safe();
            assert_eq!(verdict.shares.len(), 2, "{verdict}");
            assert_nothing_late(&verdict);
            Ok(())
        })
        .await;
}

/// What was queued may be acknowledged late (docs/LIMITS.md), but nothing that comes later: the lease does not go on.
#[tokio::test]
async fn a_suspended_machine_is_fenced_as_soon_as_it_wakes() {
    world()
        .story("suspended-lease", async |world| {
            let (clocks, scene) = scene(world, "lease").await?;
            let pid = scene.master().process().pid();
            let old = scene.master.instance;
            let fenced_after = sleep_through_the_succession(&scene, &clocks).await?;
            assert!(fenced_after < FENCED_WITHIN, "{fenced_after:?}");
            let agent = scene.master_agent();
            let slept = "this agent did not run for a while";
            agent
                .wait_for_log(SOON, slept, 0, |line| line.message() == slept)
                .await?;
            scene.set.wait_for_mesh(SOON).await?;
            let heir = scene.set.wait_for_new_master(old, SOON).await?;
            scene.set.stays_master(heir, LEASE / 2).await?;
            assert_eq!(
                scene.master().process().pid(),
                pid,
                "a healthy instance was killed"
            );
            let after = scene.set.writers().start();
            after.wait_for_writes(100, SOON).await?;
            let verdict = after.verdict().await?;
            verdict.assert_safe();
            assert_eq!(verdict.shares.len(), 1, "{verdict}");
            Ok(())
        })
        .await;
}

/// Suspended while nothing is at stake: neither clock is mistaken for the other afterwards.
#[tokio::test]
async fn a_suspension_that_is_shorter_than_the_lease_changes_nothing() {
    world()
        .story("suspended-briefly", async |world| {
            let (clocks, scene) = scene(world, "strict").await?;
            for _ in 0..2 {
                scene.wait_for_refreshes().await?;
                let machine = Machine::of(scene.master(), scene.master_agent());
                let a_while = async || {
                    tokio::time::sleep(LEASE / 3).await;
                    Ok(())
                };
                clocks.suspend(machine, scene.master(), a_while).await?;
            }
            scene.wait_for_refreshes().await?;
            scene.set.stays_master(scene.master.instance, LEASE).await?;
            let master = scene.master;
            assert_reigns(&scene.writers.verdict().await?, &[master]);
            Ok(())
        })
        .await;
}

async fn set_by_an_hour(name: &str, guard: &str) {
    let story = async |world: &World| {
        let (clocks, scene) = scene(world, guard).await?;
        let master = scene.master.instance;
        // There and back, on one machine alone and on all.
        for (machines, ahead_s) in [
            (vec![master], HOUR_S),
            (vec![master], -HOUR_S),
            (vec![0, 1, 2], HOUR_S),
            (vec![0, 1, 2], -HOUR_S),
            (vec![0, 1, 2], 0),
        ] {
            for machine in machines {
                clocks.set_wall(&scene.set[machine], ahead_s)?;
            }
            scene.wait_for_refreshes().await?;
            scene.set.stays_master(master, LEASE * 3 / 2).await?;
        }
        scene.writers.wait_for_writes(100, SOON).await?;
        scene.assert_undisturbed().await
    };
    world().story(name, story).await;
}

#[tokio::test]
async fn a_wall_clock_that_is_set_by_an_hour_changes_nothing() {
    set_by_an_hour("wall-clock-lease", "lease").await;
}

#[tokio::test]
async fn a_wall_clock_that_is_set_by_an_hour_changes_nothing_under_strict() {
    set_by_an_hour("wall-clock-strict", "strict").await;
}
