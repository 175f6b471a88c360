//! A YAML cluster whose topology changes: an instance comes, an instance goes for good.

use std::time::Duration;

use tarsec_harness::{Agent, Consul, ReplicaSet, ReplicaSetOptions, Result, Value, World, json};

use crate::declared::calm;
use crate::operator::{order, wait_for_status};
use crate::scene::{Scene, wait_for_master};
use crate::support::{SOON, knows_no_declarations, world};
use crate::switchover::wait_for_followers;

/// The instance that comes later.
const NEW: usize = 3;

/// Of a member's line in `tarsec status`: its role and its health.
pub(crate) const LEFT: &str = " left - ";

/// What the configuration says of an instance.
fn entry(set: &ReplicaSet, index: usize) -> Value {
    json!({
        "database": {"instance_uuid": set[index].uuid()},
        "iproto": {"listen": [{"uri": set[index].addr()}]},
    })
}

async fn agent(world: &World, set: &ReplicaSet, consul: &Consul, index: usize) -> Result<Agent> {
    calm(index, world.agent(&set[index], consul)?).start().await
}

/// Three instances with agents under writers, and a fourth that no configuration names.
async fn three_of_four(world: &World) -> Result<Scene> {
    let unnamed =
        json!({"groups": {"storages": {"replicasets": {"a": {"instances": {"a3": null}}}}}});
    let consul = world.consul().await?;
    let set = world
        .replica_set_with(ReplicaSetOptions::of(4).declared(unnamed).unborn())
        .await?;
    for index in 0..NEW {
        set[index].launch()?;
    }
    for index in 0..NEW {
        set[index].wait_ready().await?;
    }
    set.wait_for_mesh(SOON).await?;
    let mut agents = Vec::new();
    for index in 0..NEW {
        agents.push(agent(world, &set, &consul, index).await?);
    }
    // The instance with the smallest name is born writable: no client is to write before the agents have it.
    wait_for_master(&set, |_| true, SOON).await?;
    Scene::with_agents(world, consul, set, agents, |writers| writers).await
}

#[tokio::test]
async fn an_instance_that_comes_becomes_master_and_one_that_goes_leaves_nothing_to_look_at() {
    if knows_no_declarations(
        "an_instance_that_comes_becomes_master_and_one_that_goes_leaves_nothing_to_look_at",
    ) {
        return;
    }
    world()
        .story("topology", async |world| {
            let mut scene = three_of_four(world).await?;
            let mut reigns = vec![scene.master];

            // It joins before the others are told of it, so that their reload finds it.
            let name = scene.set[NEW].name().to_owned();
            let new = entry(&scene.set, NEW);
            scene.set.declaration().change_instance(&name, &new)?;
            scene.set[NEW].start().await?;
            let newcomer = agent(world, &scene.set, &scene.consul, NEW).await?;
            scene.agents.push(newcomer);
            for index in 0..NEW {
                assert_eq!(scene.set[index].reload().await?, [""; 0]);
            }
            scene.set.wait_for_mesh(SOON).await?;
            wait_for_followers(&world.board(&scene.consul, &scene.set), 3).await?;
            wait_for_status(world, &scene, 0, |text| text.contains(&name)).await?;
            assert_eq!(
                wait_for_master(&scene.set, |_| true, SOON).await?,
                scene.master
            );

            scene.wait_for_refreshes().await?;
            order(
                world,
                &scene,
                &["switchover", "--to", &name],
                0,
                "is master",
            )
            .await?;
            scene.master = scene.wait_for_heir(SOON).await?;
            assert_eq!(scene.master.instance, NEW);
            reigns.push(scene.master);

            // The other way round: an instance that served before goes for good.
            let gone = reigns[0].instance;
            let gone_name = scene.set[gone].name().to_owned();
            scene.agents[gone].term(SOON).await?;
            scene.set[gone].stop().await?;
            scene
                .set
                .declaration()
                .change_instance(&gone_name, &Value::Null)?;
            for (index, instance) in scene.set.iter().enumerate() {
                if index != gone {
                    instance.reload().await?;
                }
            }
            let gone_for_good = "delete its row in _cluster";
            wait_for_status(world, &scene, 10, |text| text.contains(gone_for_good)).await?;
            let forget = ["forget", gone_name.as_str()];
            order(world, &scene, &forget, 6, "_cluster.index.uuid:delete").await?;
            let expel = "local name = ...
                for _, row in box.space._cluster:pairs() do
                    if row[3] == name then box.space._cluster:delete(row[1]) end
                end";
            scene.master().eval(expel, &[json!(gone_name)]).await?;
            wait_for_status(world, &scene, 0, |text| text.contains(LEFT)).await?;
            order(world, &scene, &forget, 0, "is forgotten").await?;
            wait_for_status(world, &scene, 0, |text| !text.contains(LEFT)).await?;
            assert_eq!(
                wait_for_master(&scene.set, |_| true, SOON).await?,
                scene.master
            );

            // No agent waits for the instance that went.
            scene.master().kill().await?;
            let dead = scene.master.instance;
            scene.master = scene.wait_for_heir(Duration::from_secs(5)).await?;
            reigns.push(scene.master);
            scene.set[dead].start().await?;
            let stayed = (0..scene.set.len()).filter(|index| *index != gone);
            scene.assert_whole(&reigns, stayed).await
        })
        .await;
}
