//! Replicas at which the master's rows do not arrive: readers leave them, operators see why, and no switchover goes to
//! them.

use std::time::Duration;

use tarsec_harness::{ReplicaSetOptions, Result, Tenure, World, eventually};

use crate::scene::{Scene, assert_reigns};
use crate::support::{SOON, world};
use crate::switchover::wait_for_followers;

/// A scene of three, every member following, with agents that give replicas a second.
async fn three(world: &World) -> Result<Scene> {
    let scene = Scene::start_with(
        world,
        ReplicaSetOptions::of(3),
        |_, agent| agent.env("REPLICA_MAX_IDLE", "1s"),
        |writers| writers,
    )
    .await?;
    scene.set.wait_for_mesh(SOON).await?;
    wait_for_followers(&world.board(&scene.consul, &scene.set), 2).await?;
    scene
        .wait_for_check(scene.replica(), "passing", "the master is")
        .await?;
    Ok(scene)
}

/// The catalog's words of a replica at which all is well.
fn following(scene: &Scene) -> String {
    format!("replica: the master is {}", scene.master().addr())
}

/// Waits until the check passes and says nothing but which instance is master.
async fn wait_until_mended(scene: &Scene, replica: usize) -> Result<()> {
    eventually(
        SOON,
        "a check that passes as before",
        async || match scene.service(replica).await {
            Ok(Some(entry)) if entry.status == "passing" && entry.output == following(scene) => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        },
    )
    .await
}

/// Stops a replica's applier by a row that it has already, and waits until its agent has said so.
pub(crate) async fn stop_applier(scene: &Scene, replica: usize) -> Result<()> {
    let create = "box.schema.space.create('conflict'):create_index('pk')";
    scene.master().eval(create, &[]).await?;
    scene.set.wait_for_mesh(SOON).await?;
    eventually(SOON, "the space at the replica", async || {
        let seen = scene.set[replica].eval("return box.space.conflict ~= nil", &[]);
        match seen.await {
            Ok(found) if found == [true] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    for instance in scene
        .set
        .iter()
        .filter(|it| it.uuid() != scene.set[replica].uuid())
    {
        let lua = "box.cfg{replication_skip_conflict = true}";
        instance.eval(lua, &[]).await?;
    }
    // A writer that tried the replica while that is writable by hand would be accepted.
    scene.writers.keep_quiet(true);
    scene.set.unfollow(replica).await?;
    let insert = "box.space.conflict:insert({1})";
    scene.master().eval(insert, &[]).await?;
    // Its guard fences in the turn after this, too late for a row that is on its way.
    let lua = format!("box.cfg{{read_only = false}} {insert}");
    scene.set[replica].eval(&lua, &[]).await?;
    scene.writers.keep_quiet(false);
    scene.set.follow_again(replica).await?;
    let words = format!(
        "replication from {} has stopped: Duplicate key exists in unique index",
        scene.master().addr()
    );
    scene.wait_for_check(replica, "critical", &words).await?;
    Ok(())
}

/// Ends [`stop_applier`].
pub(crate) async fn start_applier(scene: &Scene, replica: usize) -> Result<()> {
    let lua = "local all = box.cfg.replication
        box.cfg{replication_skip_conflict = true}
        box.cfg{replication = {}}
        box.cfg{replication = all}";
    scene.set[replica].eval(lua, &[]).await.map(|_| ())
}

async fn assert_no_target(world: &World, scene: &Scene, replica: usize) -> Result<()> {
    let board = world.board(&scene.consul, &scene.set);
    let target = scene.set[replica].uuid();
    let id = board
        .request_switchover(Some(target), Duration::from_secs(2))
        .await?;
    let order = board.wait_for_switchover(&id, SOON).await?;
    assert_eq!(order["state"], "refused", "{order}");
    let why = order["why"].as_str().unwrap_or_default();
    assert!(why.contains("rows do not arrive"), "{order}");
    Ok(())
}

#[tokio::test]
async fn a_replica_without_replication_is_critical_until_it_has_it_again() {
    world()
        .story("broken-none", async |world| {
            let scene = three(world).await?;
            let replica = scene.replica();
            scene.set.unfollow(replica).await?;
            let words = format!("it does not replicate from {}", scene.master().addr());
            scene.wait_for_check(replica, "critical", &words).await?;
            assert_no_target(world, &scene, replica).await?;
            let other = 3 - scene.master.instance - replica;
            assert_eq!(scene.service(other).await?.unwrap().status, "passing");
            scene.set.follow_again(replica).await?;
            wait_until_mended(&scene, replica).await?;
            scene.assert_undisturbed().await
        })
        .await;
}

/// The applier's own words; and the key still says that it is healthy, since elections wait for the healthy.
#[tokio::test]
async fn a_replica_whose_applier_stopped_is_critical_with_the_appliers_words() {
    world()
        .story("broken-applier", async |world| {
            let scene = three(world).await?;
            let replica = scene.replica();
            stop_applier(&scene, replica).await?;
            let board = world.board(&scene.consul, &scene.set);
            let key = &board.members().await?[scene.set[replica].uuid()];
            assert_eq!(key["health"], "passing", "{key}");
            assert!(
                key["cut_off"].as_str().unwrap().contains("Duplicate key"),
                "{key}"
            );
            assert_no_target(world, &scene, replica).await?;
            scene.agents[replica]
                .wait_for_log(SOON, "a warning", 0, |line| {
                    line.message().contains("rows do not arrive")
                })
                .await?;

            start_applier(&scene, replica).await?;
            wait_until_mended(&scene, replica).await?;
            scene.assert_undisturbed().await
        })
        .await;
}

/// Its rows arrive by way of another replica: it says so, and readers stay.
#[tokio::test]
async fn a_replica_that_follows_another_replica_passes_and_says_so() {
    world()
        .story("broken-chain", async |world| {
            let scene = three(world).await?;
            let replica = scene.replica();
            let other = 3 - scene.master.instance - replica;
            let lua = format!(
                "box.cfg{{replication = {{box.cfg.replication[{}]}}}}",
                other + 1
            );
            scene.set[replica].eval(&lua, &[]).await?;
            let words = format!("it does not replicate from {}", scene.master().addr());
            scene.wait_for_check(replica, "passing", &words).await?;
            let has = scene.set[replica].standing().await?.vclock;
            // Longer than REPLICA_MAX_IDLE and two refreshes.
            scene.wait_for_refreshes().await?;
            scene.wait_for_refreshes().await?;
            assert_ne!(scene.set[replica].standing().await?.vclock, has);
            assert_eq!(scene.service(replica).await?.unwrap().status, "passing");
            // The replica in between gets nothing any more.
            scene.set.unfollow(other).await?;
            scene.wait_for_check(replica, "critical", &words).await?;
            scene.wait_for_check(other, "critical", &words).await?;
            scene.assert_undisturbed().await
        })
        .await;
}

/// Readers keep their replicas while no agent knows of a master.
#[tokio::test]
async fn replicas_of_a_master_that_is_lost_pass_until_there_is_another() {
    world()
        .story("broken-by-loss", async |world| {
            let scene = three(world).await?;
            let old = scene.master.instance;
            scene.agents[old].kill().await?;
            scene.set[old].kill().await?;
            let heir = loop {
                for replica in (0..3).filter(|index| *index != old) {
                    if let Some(entry) = scene.service(replica).await? {
                        assert_ne!(entry.status, "critical", "{entry:?}");
                    }
                }
                if let [instance] = *scene.set.writable().await.as_slice() {
                    break instance;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            };
            let fits = |seen: &Tenure| seen.instance == heir;
            let heir = crate::scene::wait_for_master(&scene.set, fits, SOON).await?;
            let other = 3 - old - heir.instance;
            let words = format!("the master is {}", scene.set[heir.instance].addr());
            scene.wait_for_check(other, "passing", &words).await?;
            let history = scene.writers.stop().await?;
            assert_reigns(&history.judge(), &[scene.master, heir]);
            Ok(())
        })
        .await;
}
