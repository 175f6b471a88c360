//! The instance with the smallest name of a YAML cluster loses its disk and comes back, with its UUID or with another. Where
//! Tarantool would have it bootstrap the replica set, it starts writable, also though the others are alive.

use tarsec_harness::{Instance, ReplicaSetOptions, Result, Tenure, World, eventually, json};

use crate::declared::calm;
use crate::operator::{order, wait_for_status};
use crate::scene::{SOME_WRITES, Scene, assert_reigns};
use crate::support::{SOON, knows_no_declarations, world};
use crate::switchover::wait_for_followers;
use crate::topology::LEFT;

/// The smallest name, and the first row of `_cluster`.
const FIRST: usize = 0;

/// A scene of three whose configuration was changed to `supervised` while it served, and whose master is another.
async fn scene(world: &World, strategy: &str) -> Result<(Scene, Vec<Tenure>)> {
    let options = ReplicaSetOptions::of(3).declared(json!({}));
    let mut scene = Scene::start_with(world, options, calm, |writers| writers).await?;
    let mut reigns = vec![scene.master];
    wait_for_followers(&world.board(&scene.consul, &scene.set), 2).await?;
    if scene.master.instance == FIRST {
        scene.wait_for_refreshes().await?;
        order(world, &scene, &["switchover", "--to", "a1"], 0, "is master").await?;
        scene.master = scene.wait_for_heir(SOON).await?;
        reigns.push(scene.master);
    }
    let strategy = json!({"replication": {"bootstrap_strategy": strategy}});
    scene.set.declaration().change(&strategy)?;
    for instance in scene.set.iter() {
        assert_eq!(instance.reload().await?, [""; 0]);
    }
    Ok((scene, reigns))
}

/// Whether new members join from this instance.
async fn wait_until_joined_from(instance: &Instance) -> Result<()> {
    eventually(SOON, "the master to be joined from", async || {
        let lua = "local row = box.space._schema:get({'bootstrap_leader_uuid'})
            return row ~= nil and row[2] == box.info.uuid";
        let leads = instance.eval(lua, &[]).await;
        let leads = leads.map_err(|error| error.to_string())?;
        (leads == [json!(true)])
            .then_some(())
            .ok_or(format!("{leads:?}"))
    })
    .await
}

#[tokio::test]
async fn a_wiped_instance_with_the_smallest_name_is_never_writable_under_a_supervised_bootstrap() {
    if knows_no_declarations(
        "a_wiped_instance_with_the_smallest_name_is_never_writable_under_a_supervised_bootstrap",
    ) {
        return;
    }
    world()
        .story("wiped-supervised", async |world| {
            let (scene, reigns) = scene(world, "supervised").await?;
            wait_until_joined_from(scene.master()).await?;
            let first = &scene.set[FIRST];
            for pinned in [true, false] {
                if !pinned {
                    let declaration = scene.set.declaration();
                    declaration.change_instance(first.name(), &json!({"database": null}))?;
                }
                first.kill().await?;
                first.wipe(world)?;
                first.start().await?;
                let uuid = first.eval("return box.info.uuid, box.info.id", &[]).await?;
                assert_eq!(uuid[0] == first.uuid(), pinned, "{uuid:?}");
                // By this Tarantool knows a bootstrap leader.
                assert_eq!(uuid[1], json!(1));
                scene
                    .wait_for_check(FIRST, "passing", "replica: the master is")
                    .await?;
                wait_for_status(world, &scene, 0, |text| text.contains(LEFT) != pinned).await?;
            }
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            let history = scene.writers.stop().await?;
            scene.set.wait_for_all_writes(FIRST, &history, SOON).await?;
            assert_reigns(&history.judge(), &reigns);
            Ok(())
        })
        .await;
}
