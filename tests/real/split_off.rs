//! An ex-master with rows that no other member had when its time was over. From 2.11 on the others refuse them for good
//! once a synchronous queue has been promoted elsewhere: such a member never becomes master, and every agent says how
//! to mend it.

use tarsec_harness::{Fault, Result, Tenure, Version, World, eventually};

use crate::scene::{Scene, assert_reigns, wait_for_master};
use crate::support::{SOON, world};
use crate::switchover::wait_for_followers;
use crate::sync::start;

const ALONE: &str = "
local space = box.schema.space.create('plain', {if_not_exists = true})
space:create_index('pk', {if_not_exists = true})";

/// Waits until the record says that these are split off.
async fn wait_for_split_off(world: &World, scene: &Scene, members: &[&str]) -> Result<()> {
    let board = world.board(&scene.consul, &scene.set);
    eventually(SOON, "whose rows are refused", async || {
        let record = board.record().await.map_err(|error| error.to_string())?;
        let found: Vec<&str> = record["split_off"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|uuid| uuid.as_str())
            .collect();
        if found == members {
            Ok(())
        } else {
            Err(record.to_string())
        }
    })
    .await
}

/// The old master dies with rows that it has alone, and comes back when another one is master.
async fn comes_back_with_rows_of_its_own(scene: &Scene) -> Result<Tenure> {
    scene.master().eval(ALONE, &[]).await?;
    scene.writers.keep_quiet(true);
    let old = scene.master.instance;
    let followers: Vec<usize> = (0..3).filter(|member| *member != old).collect();
    for follower in &followers {
        let lacks = async || match scene.set.rows_behind(*follower, old).await {
            Ok(0) => Ok(()),
            other => Err(format!("{other:?}")),
        };
        eventually(SOON, "all rows at the replica", lacks).await?;
    }
    let from_old = || followers.iter().filter_map(|it| scene.set.link(*it, old));
    for link in from_old() {
        link.set(Fault::Cut).await?;
    }
    let lua = "for i = 1, 5 do box.space.plain:insert{i} end";
    scene.master().eval(lua, &[]).await?;
    scene.master().kill().await?;
    let heir = wait_for_master(&scene.set, |seen| seen.instance != old, SOON).await?;
    for link in from_old() {
        link.restore().await?;
    }
    scene.set[old].start().await?;
    Ok(heir)
}

#[tokio::test]
async fn an_ex_master_whose_rows_are_refused_never_becomes_master_and_is_mended_as_is_said() {
    let test = "an_ex_master_whose_rows_are_refused_never_becomes_master_and_is_mended_as_is_said";
    let refuses = |version| version >= Version::new(2, 11, 0);
    if Version::skips(test, refuses, "such rows merge there") {
        return;
    }
    let story = async |world: &World| {
        let mut scene = start(world, |_, agent| agent).await?;
        let first = scene.master;
        wait_for_followers(&world.board(&scene.consul, &scene.set), 2).await?;
        let second = comes_back_with_rows_of_its_own(&scene).await?;
        scene.master = second;
        let old = first.instance;
        let board = world.board(&scene.consul, &scene.set);
        let uuid = scene.set[old].uuid().to_owned();
        wait_for_split_off(world, &scene, &[&uuid]).await?;

        let words = "refuses its rows for good";
        scene.wait_for_check(old, "critical", words).await?;
        let status = world.command(&scene.consul, &["status"])?;
        let status = status.run(SOON).await?;
        assert!(status.stdout.contains("joins anew"), "{}", status.stdout);
        let id = board.request_switchover(Some(&uuid), SOON).await?;
        let order = board.wait_for_switchover(&id, SOON).await?;
        assert_eq!(order["state"], "refused", "{order}");

        // It is the only member that is left, and does not run.
        let third = 3 - old - second.instance;
        scene.set[third].kill().await?;
        scene.master().kill().await?;
        scene.agents[old]
            .wait_for_log(SOON, "that it is no candidate", 0, |line| {
                line.message() == "reason changed" && line.field("to").to_string().contains(words)
            })
            .await?;
        scene.set[third].start().await?;
        scene.set[second.instance].start().await?;
        let heir = wait_for_master(&scene.set, |seen| seen.term > second.term, SOON).await?;
        assert_ne!(heir.instance, old);
        wait_for_split_off(world, &scene, &[&uuid]).await?;

        // As the words say.
        scene.set[old].kill().await?;
        scene.set[old].wipe(world)?;
        scene.set[old].start().await?;
        for other in (0..3).filter(|other| *other != old) {
            scene.set.unfollow(other).await?;
            scene.set.follow_again(other).await?;
        }
        wait_for_split_off(world, &scene, &[]).await?;
        scene.wait_for_check(old, "passing", "replica").await?;
        let id = board.request_switchover(Some(&uuid), SOON).await?;
        let order = board.wait_for_switchover(&id, SOON).await?;
        assert_eq!(order["state"], "done", "{order}");
        let last = wait_for_master(&scene.set, |seen| seen.term > heir.term, SOON).await?;
        assert_eq!(last.instance, old);
        scene.writers.keep_quiet(false);
        scene.writers.wait_for_writes(20, SOON).await?;
        let verdict = scene.writers.verdict().await?;
        assert_reigns(&verdict, &[first, last]);
        Ok(())
    };
    world().story("split-off", story).await;
}
