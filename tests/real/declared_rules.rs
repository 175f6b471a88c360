//! Rules of Tarantool 3's declarative configuration by which an agent goes: what decides about `read_only`, which
//! instance is isolated, which goes first.

use tarsec_harness::{
    LogLine, ReplicaSetOptions, Result, Tenure, Value, World, eventually, json, vshard_root,
};

use crate::declared::calm;
use crate::endings::{assert_within, ends, line_of};
use crate::scene::{SOME_WRITES, Scene, assert_reigns, guard};
use crate::support::{SOON, knows_no_declarations, world};

/// One instance of a set with these values; its agent ends at once and says this.
async fn assert_refused(world: &World, over: Value, words: &str) -> Result<()> {
    let consul = world.consul().await?;
    let set = world
        .replica_set_with(ReplicaSetOptions::of(1).declared(over))
        .await?;
    let agents = world.agents_with(&set, &consul, calm).await?;
    let status = agents[0].wait(SOON).await?;
    assert_eq!(status.code(), Some(3), "{}", agents[0].process().tail(9));
    let logs = agents[0].logs()?;
    let last = logs.last().expect("it has said something");
    let reason = last.field("reason").to_string();
    assert!(reason.contains(words), "{reason}");
    // A guard would stay behind, and fence a leader that is not ours to fence.
    let bare = set[0]
        .eval("return rawget(_G, 'tarsec_guard') == nil", &[])
        .await?;
    assert_eq!(bare, [Value::Bool(true)]);
    Ok(())
}

/// The master of before is a replica like any other, and no third instance was master besides these two.
async fn serves_no_more(scene: Scene, heir: Tenure) -> Result<()> {
    let index = scene.master.instance;
    scene
        .wait_for_check(index, "passing", "replica: the master is")
        .await?;
    assert_reigns(&scene.writers.verdict().await?, &[scene.master, heir]);
    Ok(())
}

#[tokio::test]
async fn who_decides_otherwise_is_refused_with_the_line_to_change() {
    if knows_no_declarations("who_decides_otherwise_is_refused_with_the_line_to_change") {
        return;
    }
    world()
        .story("declared-refused", async |world| {
            let leader = json!({"storages": {"replicasets": {"a": {"leader": "a0"}}}});
            for (over, words) in [
                (
                    json!({"replication": {"failover": "manual"}, "groups": leader}),
                    "replication.failover is 'manual' in the instance's configuration",
                ),
                (
                    json!({"replication": {"failover": "off"}, "database": {"mode": "rw"}}),
                    "replication.failover is 'off' in the instance's configuration",
                ),
                (
                    json!({"replication": {"failover": "election"}}),
                    "replication.failover is 'election' in the instance's configuration",
                ),
                (
                    json!({"failover": {"replicasets": {"d": {"synchro_mode": true}}}}),
                    "failover.replicasets.d.synchro_mode is true in the instance's configuration",
                ),
            ] {
                assert_refused(world, over, words).await?;
            }
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_reload_that_lets_somebody_else_decide_ends_a_masters_time_in_good_order() {
    if knows_no_declarations(
        "a_reload_that_lets_somebody_else_decide_ends_a_masters_time_in_good_order",
    ) {
        return;
    }
    world()
        .story("declared-rule-reloaded", async |world| {
            let options = ReplicaSetOptions::of(3).declared(json!({}));
            let scene = Scene::start_with(world, options, calm, |writers| writers).await?;
            let old = scene.master();
            // The others' agents see nothing of this before they are reloaded, too.
            let leader = scene.set[scene.replica()].name();
            let manual = json!({
                "replication": {"failover": "manual"},
                "groups": {"storages": {"replicasets": {"a": {"leader": leader}}}},
            });
            scene.set.declaration().change(&manual)?;
            old.reload().await?;
            let status = scene.master_agent().wait(SOON).await?;
            assert_eq!(status.code(), Some(3));
            let released = |line: &LogLine| {
                line.message() == "releasing the lock" && line.field("status") == "Fenced"
            };
            assert!(scene.master_agent().logs()?.iter().any(released));
            let heir = scene.wait_for_heir(SOON).await?;
            // Tarantool makes it read-only before the guard does.
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            let line = line_of(world, &scene, heir.term).await?;
            assert_within(&line, ends(&scene, heir));
            let words = "replication.failover is 'manual'";
            scene
                .wait_for_check(scene.master.instance, "critical", words)
                .await?;

            // An operator would have it writable; the guard that stayed behind would not.
            old.set_writable(true).await?;
            eventually(SOON, "the guard's word", async || {
                let state = guard(old).await.map_err(|error| error.to_string())?;
                let fenced = state["unleased"] == 1 && old.says_writable().await == Some(false);
                fenced.then_some(()).ok_or(state.to_string())
            })
            .await?;

            let supervised = json!({
                "replication": {"failover": "supervised"},
                "groups": {"storages": {"replicasets": {"a": {"leader": null}}}},
            });
            scene.set.declaration().change(&supervised)?;
            old.reload().await?;
            scene.master_agent().start()?;
            serves_no_more(scene, heir).await
        })
        .await;
}

#[tokio::test]
async fn an_isolated_master_gives_its_lock_up_and_is_not_killed() {
    if knows_no_declarations("an_isolated_master_gives_its_lock_up_and_is_not_killed") {
        return;
    }
    world()
        .story("declared-isolated", async |world| {
            let options = ReplicaSetOptions::of(3).declared(json!({}));
            let scene = Scene::start_with(world, options, calm, |writers| writers).await?;
            let old = scene.master();
            let pid = old.process().pid();
            let declaration = scene.set.declaration();
            declaration.change_instance(old.name(), &json!({"isolated": true}))?;
            // Its connections are dropped; the reply may or may not come before.
            old.reload().await.ok();
            let heir = scene.wait_for_heir(SOON).await?;
            let log = scene.master_agent().logs()?;
            let message = |words: &str| log.iter().filter(|line| line.message() == words).count();
            assert_eq!(message("releasing the lock"), 1);
            assert_eq!(message("killing the hung instance"), 0);
            scene
                .master_agent()
                .wait_for_log(SOON, "isolation", 0, |line| {
                    line.text.contains("isolated: true")
                })
                .await?;

            // An instance that hangs is killed before another is master.
            assert_eq!(old.process().pid(), pid, "it lives on");
            eventually(SOON, "a status that says so", async || {
                let output = world.command(&scene.consul, &["status"]);
                let output = output.map_err(|error| error.to_string())?.run(SOON).await;
                let text = output.map_err(|error| error.to_string())?.stdout;
                text.contains("isolated").then_some(()).ok_or(text)
            })
            .await?;

            declaration.change_instance(old.name(), &json!({"isolated": null}))?;
            old.restart().await?;
            serves_no_more(scene, heir).await
        })
        .await;
}

#[tokio::test]
async fn priorities_and_learners_of_the_configuration_count() {
    if knows_no_declarations("priorities_and_learners_of_the_configuration_count") {
        return;
    }
    world()
        .story("declared-priorities", async |world| {
            let section = json!({"priority": {"a1": 5}, "learners": ["a2"]});
            let over = json!({"failover": {"replicasets": {"a": section}}});
            let options = ReplicaSetOptions::of(3).declared(over);
            let scene = Scene::start_with(world, options, calm, |writers| writers).await?;
            let board = world.board(&scene.consul, &scene.set);
            eventually(SOON, "the members' priorities", async || {
                let members = board.members().await.map_err(|error| error.to_string())?;
                let said: Vec<_> = scene
                    .set
                    .iter()
                    .map(|it| {
                        let member = members.get(it.uuid());
                        member.map(|it| (it["name"].clone(), it["priority"].clone()))
                    })
                    .collect();
                let wanted = [("a0", 0), ("a1", 5), ("a2", -1)];
                let wanted = wanted.map(|(name, priority)| Some((json!(name), json!(priority))));
                (said == wanted).then_some(()).ok_or(format!("{said:?}"))
            })
            .await?;
            scene.wait_for_refreshes().await?;
            scene.master().kill().await?;
            let heir = scene.wait_for_heir(SOON).await?;
            let reigns = [scene.master, heir];
            assert!(
                reigns.iter().all(|tenure| tenure.instance != 2),
                "{reigns:?}"
            );
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_routers_agent_does_not_mind_who_decides_in_its_group() {
    let test = "a_routers_agent_does_not_mind_who_decides_in_its_group";
    if knows_no_declarations(test) {
        return;
    }
    let Some(root) = vshard_root(test) else {
        return;
    };
    world()
        .story("declared-router", async |world| {
            let storage = json!({"iproto": {"listen": [{"uri": "127.0.0.1:1"}]}});
            let over = json!({
                "credentials": {"users": {"storage": {"password": "secret", "roles": ["sharding"]}}},
                "iproto": {"advertise": {"sharding": {"login": "storage"}}},
                "sharding": {"bucket_count": 10},
                "replication": {"failover": "off"},
                "groups": {
                    "storages": {"sharding": {"roles": ["router"]}},
                    "others": {
                        "replication": {"failover": "supervised"},
                        "sharding": {"roles": ["storage"]},
                        "replicasets": {"s": {"instances": {"s0": storage}}},
                    },
                },
            });
            let sources = format!("{0}/?.lua;{0}/?/init.lua;;", root.display());
            let options = ReplicaSetOptions::of(1).declared(over);
            let set = world.replica_set_with(options.env("LUA_PATH", &sources)).await?;
            let consul = world.consul().await?;
            let agents = world.agents_with(&set, &consul, calm).await?;
            agents[0]
                .wait_for_log(SOON, "a router's agent", 0, |line| {
                    line.message() == "the instance is a vshard router: its agent takes no lock"
                })
                .await?;
            assert!(agents[0].process().is_running());
            Ok(())
        })
        .await;
}
