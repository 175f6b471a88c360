//! A member that replicates from the others while none of them replicates from it: were it master, every write would
//! exist once.

use std::time::Duration;

use tarsec_harness::{Result, Tenure, World, eventually};

use crate::scene::{Scene, assert_reigns, wait_for_master};
use crate::support::{SOON, world};
use crate::switchover::wait_for_followers;

/// Until it is a problem, and the next refresh of the lock.
const LASTED: Duration = Duration::from_secs(40);

/// Takes a member out of `box.cfg.replication` of all others, whose list is in the order of their indexes.
async fn nobody_follows(scene: &Scene, member: usize) -> Result<()> {
    let lua = format!(
        "local all = box.cfg.replication
        table.remove(all, {})
        box.cfg{{replication = {{}}}}
        box.cfg{{replication = all}}",
        member + 1
    );
    for instance in scene.set.iter() {
        if instance.uuid() != scene.set[member].uuid() {
            instance.eval(&lua, &[]).await?;
        }
    }
    Ok(())
}

/// A scene of three, of which the last one has the highest priority and is not master.
async fn three(world: &World) -> Result<Scene> {
    let consul = world.consul().await?;
    let set = world.replica_set(3).await?;
    let scene = Scene::start_on(
        world,
        consul,
        set,
        |index, agent| agent.env("PRIORITY", if index == 2 { "9" } else { "0" }),
        |writers| writers,
    )
    .await?;
    scene.set.wait_for_mesh(SOON).await?;
    wait_for_followers(&world.board(&scene.consul, &scene.set), 2).await?;
    Ok(scene)
}

#[tokio::test]
async fn a_member_that_nobody_follows_is_a_problem_no_target_and_elected_last() {
    world()
        .story("unfollowed", async |world| {
            let mut scene = three(world).await?;
            let board = world.board(&scene.consul, &scene.set);
            let member = 2;
            if scene.master.instance == member {
                let target = scene.set[0].uuid();
                let id = board.request_switchover(Some(target), SOON).await?;
                board.wait_for_switchover(&id, SOON).await?;
                scene.master = scene.wait_for_heir(SOON).await?;
                wait_for_followers(&board, 2).await?;
            }
            let old = scene.master;
            let other = 1 - old.instance;
            nobody_follows(&scene, member).await?;
            wait_for_followers(&board, 2).await?;

            let known = async || {
                let members = board.members().await.map_err(|error| error.to_string())?;
                let uuid = scene.set[member].uuid();
                let mut keys = members.iter().filter(|(own, _)| *own != uuid);
                match keys.find(|(_, key)| key["upstreams"].get(uuid).is_some()) {
                    None => Ok(()),
                    Some((_, key)) => Err(key.to_string()),
                }
            };
            eventually(SOON, "the members' keys to know it", known).await?;
            let words = format!("nobody replicates from {}", scene.set[member].addr());
            let target = Some(scene.set[member].uuid());
            let id = board.request_switchover(target, SOON).await?;
            let order = board.wait_for_switchover(&id, SOON).await?;
            assert_eq!(order["state"], "refused", "{order}");
            assert!(
                order["why"].as_str().unwrap().starts_with(&words),
                "{order}"
            );

            // Long before a failover every check, every log and `status` say so.
            eventually(LASTED, "a problem in every check", async || {
                for index in 0..3 {
                    match scene.service(index).await {
                        Ok(Some(it)) if it.output.contains(&words) && it.status == "passing" => {}
                        other => return Err(format!("{other:?}")),
                    }
                }
                Ok(())
            })
            .await?;
            scene
                .master_agent()
                .wait_for_log(SOON, "a warning", 0, |line| {
                    let problem = line.field("problem").as_str();
                    problem.is_some_and(|problem| problem.starts_with(&words))
                })
                .await?;
            let status = world.command(&scene.consul, &["status", "--json"])?;
            let status = status.run(Duration::from_secs(60)).await?;
            assert_eq!(status.code, Some(10), "{}", status.stdout);
            assert!(status.stdout.contains(&words), "{}", status.stdout);

            // Nothing is on its way, so the two others have the same rows, and it has the higher priority.
            let history = scene.writers.stop().await?;
            for replica in [member, other] {
                scene
                    .set
                    .wait_for_all_writes(replica, &history, SOON)
                    .await?;
            }
            scene.set[old.instance].kill().await?;
            let heir = wait_for_master(&scene.set, |seen| seen.instance != old.instance, SOON);
            assert_eq!(heir.await?.instance, other);
            let first: Vec<Tenure> = crate::scene::tenures(&history.judge());
            assert_reigns(&history.judge(), &first);
            Ok(())
        })
        .await;
}
