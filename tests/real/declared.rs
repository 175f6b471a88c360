//! Tarantool 3's declarative configuration (`tarantool --name … --config …`) under `replication.failover: supervised`:
//! changes of hands, restarts and reloads.

use tarsec_harness::{AgentBuilder, Instance, ReplicaSetOptions, Result, Value, World, json};

use crate::operator::order;
use crate::platform::CHANGES;
use crate::scene::{SOME_WRITES, Scene, assert_never_refused, assert_reigns, guard};
use crate::support::{SOON, knows_no_declarations, world};
use crate::switchover::wait_for_followers;

/// A reload that a busy machine is slow with is not to look like an instance that hangs.
pub(crate) fn calm(_: usize, agent: AgentBuilder) -> AgentBuilder {
    agent.env("MASTER_LEASE", "10s")
}

/// Three instances with agents, one of them master, under writers.
async fn scene(world: &World, over: Value) -> Result<Scene> {
    let options = ReplicaSetOptions::of(3).declared(over);
    Scene::start_with(world, options, calm, |writers| writers).await
}

/// The configuration is applied, nothing is wrong with it, and the instance is as its guard has it.
async fn assert_sound(instance: &Instance, writable: bool) -> Result<()> {
    let lua = "local info = require('config'):info()
        return info.status, #info.alerts, box.info.ro, box.cfg.read_only";
    let seen = instance.eval(lua, &[]).await?;
    let ro = !writable;
    let name = instance.name();
    assert_eq!(
        seen,
        [json!("ready"), json!(0), json!(ro), json!(ro)],
        "{name}"
    );
    Ok(())
}

/// How often the guard has fenced its instance, and how often because of another hand.
async fn fences(instance: &Instance) -> Result<(Value, Value)> {
    let state = guard(instance).await?;
    Ok((state["fences"].clone(), state["unleased"].clone()))
}

#[tokio::test]
async fn a_declared_replica_set_changes_hands_by_a_crash_by_order_and_over_restarts() {
    if knows_no_declarations(
        "a_declared_replica_set_changes_hands_by_a_crash_by_order_and_over_restarts",
    ) {
        return;
    }
    world()
        .story("declared-hands", async |world| {
            let mut scene = scene(world, json!({})).await?;
            let mut reigns = vec![scene.master];

            scene.master().kill().await?;
            let dead = scene.master.instance;
            scene.master = scene.wait_for_heir(SOON).await?;
            reigns.push(scene.master);
            scene.set[dead].start().await?;
            scene.set.wait_for_mesh(SOON).await?;

            // The instance that came back has all rows and is a replica as before.
            assert_sound(&scene.set[dead], false).await?;
            let board = world.board(&scene.consul, &scene.set);
            wait_for_followers(&board, 2).await?;
            // The master's agent has looked since.
            scene.wait_for_refreshes().await?;
            let to = scene.set[dead].name();
            order(world, &scene, &["switchover", "--to", to], 0, "is master").await?;
            scene.master = scene.wait_for_heir(SOON).await?;
            assert_eq!(scene.master.instance, dead);
            reigns.push(scene.master);

            // In good order: the master of before gave the lock up, so another instance has it.
            scene.master().stop().await?;
            let stopped = scene.master.instance;
            scene.master = scene.wait_for_heir(SOON).await?;
            reigns.push(scene.master);
            scene.set[stopped].start().await?;
            scene.set.wait_for_mesh(SOON).await?;

            for (index, instance) in scene.set.iter().enumerate() {
                assert_sound(instance, index == scene.master.instance).await?;
            }
            let members = 0..scene.set.len();
            scene.assert_whole(&reigns, members).await
        })
        .await;
}

#[tokio::test]
async fn a_reload_changes_nothing_about_who_is_writable_before_during_and_after_a_lease() {
    if knows_no_declarations(
        "a_reload_changes_nothing_about_who_is_writable_before_during_and_after_a_lease",
    ) {
        return;
    }
    world()
        .story("declared-reloads", async |world| {
            let scene = scene(world, json!({})).await?;
            let set = &scene.set;
            let declaration = set.declaration();
            let master = scene.master.instance;
            let mut before = Vec::new();
            for instance in set.iter() {
                before.push(fences(instance).await?);
            }

            // Under writes, with values that the configuration does change, on all of them.
            for round in 0..8 {
                declaration.change(&json!({
                    "log": {"level": 4 + round % 2},
                    "iproto": {"readahead": 16320 * (1 + round)},
                    "replication": {"timeout": 1 + round % 2},
                    "console": {"enabled": round % 2 == 0},
                    "vinyl": {"timeout": 60 + round},
                    "sql": {"cache_size": (5 + round) << 20},
                    "snapshot": {"count": 2 + round},
                }))?;
                for (index, instance) in set.iter().enumerate() {
                    assert_eq!(instance.reload().await?, [""; 0]);
                    let ro = json!(index != master);
                    let changed = instance.eval(CHANGES, &[]).await?;
                    assert_eq!(changed, [ro.clone(), ro, json!(0)]);
                    assert_sound(instance, index == master).await?;
                }
            }
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            for (instance, known) in set.iter().zip(&before) {
                assert_eq!(&fences(instance).await?, known, "{}", instance.name());
            }

            // Behind the lease: its agent gives the lock up and ends.
            scene.agents[master].term(SOON).await?;
            assert_eq!(set[master].reload().await?, [""; 0]);
            assert_sound(&set[master], false).await?;
            let heir = scene.wait_for_heir(SOON).await?;
            let reigns = [scene.master, heir];
            let history = scene.writers.stop().await?;
            assert_never_refused(&history, heir.instance);
            assert_reigns(&history.judge(), &reigns);
            Ok(())
        })
        .await;
}
