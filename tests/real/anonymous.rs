//! An anonymous replica with an agent of its own: it is shown as what it is, nothing is wrong with it, and it never becomes master.

use tarsec_harness::{AgentBuilder, ReplicaSetOptions, Result, World, eventually, json};

use crate::operator::order;
use crate::scene::{Scene, assert_reigns};
use crate::support::{SOON, world};
use crate::switchover::wait_for_followers;

const ANONYMOUS: usize = 2;

/// It would go first if it were asked.
fn preferred(index: usize, agent: AgentBuilder) -> AgentBuilder {
    agent.env("PRIORITY", if index == ANONYMOUS { "9" } else { "0" })
}

/// `tarsec status` ends with this code and has these words in the anonymous replica's line.
async fn wait_for_status(world: &World, scene: &Scene, code: i32, words: &[&str]) -> Result<()> {
    let name = scene.set[ANONYMOUS].addr();
    eventually(SOON, "the anonymous replica in status", async || {
        let command = world.command(&scene.consul, &["status"]);
        let command = command.map_err(|error| error.to_string())?;
        let output = command.run(SOON).await.map_err(|error| error.to_string())?;
        let shown = |line: &str| words.iter().all(|word| line.contains(word));
        let mut lines = output.stdout.lines().filter(|line| line.contains(name));
        if output.code == Some(code) && lines.any(shown) {
            Ok(())
        } else {
            Err(format!("{:?}: {}", output.code, output.stdout))
        }
    })
    .await
}

#[tokio::test]
async fn an_anonymous_replica_is_shown_as_such_and_never_becomes_master() {
    world()
        .story("anonymous", async |world| {
            let options = ReplicaSetOptions::of(3).anonymous_last();
            let mut scene = Scene::start_with(world, options, preferred, |writers| writers).await?;
            scene.set.wait_for_mesh(SOON).await?;
            wait_for_followers(&world.board(&scene.consul, &scene.set), 1).await?;
            let known = "return box.cfg.replication_anon, box.space._cluster:count()";
            let known = scene.set[ANONYMOUS].eval(known, &[]).await?;
            assert_eq!(known, [json!(true), json!(2)]);
            scene
                .wait_for_check(ANONYMOUS, "passing", "replica: the master is")
                .await?;
            wait_for_status(world, &scene, 0, &["anonymous", "passing", "0 rows"]).await?;

            let to = scene.set[ANONYMOUS].addr();
            let words = "is an anonymous replica, it never becomes master";
            order(world, &scene, &["switchover", "--to", to], 6, words).await?;

            scene.master().kill().await?;
            let heir = scene.wait_for_heir(SOON).await?;
            assert_ne!(heir.instance, ANONYMOUS);
            let reigns = [scene.master, heir];
            scene.master = heir;
            let writes = scene.writers.stop().await?;
            scene
                .set
                .wait_for_all_writes(ANONYMOUS, &writes, SOON)
                .await?;
            assert_reigns(&writes.judge(), &reigns);
            Ok(())
        })
        .await;
}
