//! Two of a kind: two agents at one instance, two replica sets on one Consul.

use tarsec_harness::{AgentBuilder, ReplicaSetOptions, Tenure, eventually};

use crate::scene::{
    SOME_WRITES, Scene, assert_never_refused, assert_reigns, lock_entry, wait_for_master,
};
use crate::support::{LEASE, SOON, world};

#[tokio::test]
async fn the_later_of_two_agents_at_one_instance_stays_and_the_earlier_says_why_it_ends() {
    world()
        .story("two-agents", async |world| {
            let scene = Scene::start(world, 3).await?;
            let Tenure { instance, term } = scene.master;
            let later = world.agent(scene.master(), &scene.consul)?;
            let later = later.name("agent-later").start().await?;
            let status = scene.master_agent().wait(SOON).await?;
            assert_eq!(status.code(), Some(4));
            let last = scene.master_agent().logs()?.pop();
            let last = last.unwrap_or_else(|| panic!("it logged nothing"));
            assert_eq!(last.level(), "ERROR");
            assert!(
                last.text
                    .contains("attached to this instance and owns it now"),
                "{last}"
            );
            scene.wait_for_refreshes().await?;
            scene.set.stays_master(instance, LEASE * 5 / 4).await?;
            assert_eq!(scene.lock().await?.json()?["term"], term);
            assert_eq!(later.usr1().await?["consul"]["holds_lock"], true);
            scene.assert_undisturbed().await
        })
        .await;
}

#[tokio::test]
async fn an_agent_that_slept_and_lost_its_connection_does_not_kill_what_another_looks_after() {
    world()
        .story("two-agents-asleep", async |world| {
            let linked = |_, agent: AgentBuilder| agent.linked();
            let options = ReplicaSetOptions::of(2);
            let scene = Scene::start_with(world, options, linked, |writers| writers).await?;
            let (old, pid) = (scene.master_agent(), scene.master().process().pid());
            let link = old.instance_link().expect("the agent is linked");
            old.freeze().await?;
            let later = world.agent(scene.master(), &scene.consul)?;
            let later = later.name("agent-later").start().await?;
            // The agent that writes the record now is the later one.
            scene.wait_for_refreshes().await?;
            link.cut().await?;
            link.restore().await?;
            scene
                .set
                .stays_master(scene.master.instance, LEASE * 5 / 4)
                .await?;

            old.thaw()?;
            let ended = eventually(SOON, "one of two agents to give way", async || {
                let codes = [old, &later].map(|agent| agent.process().exit_status());
                codes
                    .into_iter()
                    .flatten()
                    .next()
                    .ok_or(format!("{codes:?}"))
            })
            .await?;
            assert_eq!(ended.code(), Some(4));
            scene
                .set
                .stays_master(scene.master.instance, LEASE * 5 / 4)
                .await?;
            assert_eq!(
                scene.master().process().pid(),
                pid,
                "a healthy instance was killed"
            );
            scene.assert_undisturbed().await
        })
        .await;
}

#[tokio::test]
async fn a_failover_in_one_cluster_is_no_news_to_another_on_the_same_consul() {
    world()
        .story("two-clusters", async |world| {
            let scene = Scene::start(world, 2).await?;
            let set = world.replica_set_with(ReplicaSetOptions::of(2)).await?;
            let other = |_, agent: AgentBuilder| agent.env("CLUSTER_NAME", "other");
            let agents = world.agents_with(&set, &scene.consul, other).await?;
            let writers = set.writers().start();
            let master = wait_for_master(&set, |_| true, SOON).await?;
            writers.wait_for_writes(SOME_WRITES, SOON).await?;
            let key = format!("tarsec/other/{}/leader", set.uuid());
            let before = lock_entry(&scene.consul, &key).await?;

            scene.master().kill().await?;
            let heir = scene.wait_for_heir(SOON).await?;
            scene.agents[heir.instance].restart().await?;
            scene.wait_for_refreshes().await?;
            set.stays_master(master.instance, LEASE).await?;

            let after = lock_entry(&scene.consul, &key).await?;
            assert_eq!(after.session, before.session);
            let record = after.json()?;
            assert_eq!(
                (&record["term"], &record["instance"]),
                (&before.json()?["term"], &set[master.instance].uuid().into())
            );
            for agent in &agents {
                let dump = agent.usr1().await?;
                let seen = &dump["consul"]["lock"]["unchanged"]["record"]["replicaset"];
                assert_eq!(seen, set.uuid());
            }
            let history = writers.stop().await?;
            assert_reigns(&history.judge(), &[master]);
            assert_never_refused(&history, master.instance);
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[scene.master, heir]);
            Ok(())
        })
        .await;
}
