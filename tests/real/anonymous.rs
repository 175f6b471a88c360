//! An anonymous replica with an agent of its own: it is shown as what it is, nothing is wrong with it, and it never becomes master.

use tarsec_harness::{AgentBuilder, ReplicaSetOptions, json};

use crate::operator::{order, wait_for_status};
use crate::scene::Scene;
use crate::support::{SOON, world};
use crate::switchover::wait_for_followers;

const ANONYMOUS: usize = 2;

/// An anonymous replica would go first by priority, if priority counted.
fn preferred(index: usize, agent: AgentBuilder) -> AgentBuilder {
    agent.env("PRIORITY", if index == ANONYMOUS { "9" } else { "0" })
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
            let to = scene.set[ANONYMOUS].addr();
            let line = format!("{to} anonymous passing 0 rows");
            wait_for_status(world, &scene, 0, |text| text.contains(&line)).await?;

            let words = "is an anonymous replica, it never becomes master";
            order(world, &scene, &["switchover", "--to", to], 6, words).await?;

            scene.master().kill().await?;
            let heir = scene.wait_for_heir(SOON).await?;
            assert_ne!(heir.instance, ANONYMOUS);
            let reigns = [scene.master, heir];
            scene.master = heir;
            scene.assert_whole(&reigns, [ANONYMOUS]).await
        })
        .await;
}
