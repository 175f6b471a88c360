//! Asked to stop: the lock is given up in order, or at once when asked twice.

use std::time::Duration;

use rustix::process::Signal;
use tarsec_harness::{ReplicaSetOptions, eventually};

use crate::scene::{SOME_WRITES, Scene, assert_reigns, guard};
use crate::support::{LEASE, SOON, world};

/// A replica that is that much behind must be waited for.
const REPLICATION_DELAY: Duration = Duration::from_millis(150);

#[tokio::test]
async fn a_stopped_agent_hands_over_and_leaves_nothing_behind() {
    world()
        .story("stopped", async |world| {
            let scene = Scene::start(world, 3).await?;
            let old = scene.master;
            let session = scene.lock().await?.session;
            scene
                .wait_for_check(old.instance, "passing", "master")
                .await?;
            let status = scene.master_agent().term(SOON).await?;
            assert_eq!(status.code(), Some(0));
            let sessions = scene.consul.api()?.sessions().await?;
            let left = sessions
                .iter()
                .find(|left| left["ID"].as_str() == session.as_deref());
            assert_eq!(left, None);
            eventually(SOON, "the service to be gone", async || {
                match scene.service(old.instance).await {
                    Ok(None) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
            let heir = scene.wait_for_heir(SOON).await?;
            let guard = guard(scene.master()).await?;
            assert_eq!(guard["last_fence"], "its agent was asked to stop");
            let record = scene.lock().await?.json()?;
            assert_eq!(record["reason"], "the master before gave the lock up");

            // The instance lives on as a replica, and its next agent finds it as one.
            scene.master_agent().start()?;
            scene
                .wait_for_check(old.instance, "passing", "replica: the master is")
                .await?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            assert!(verdict.changes[0].duration() < LEASE, "{verdict}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_stopped_agent_waits_for_a_replica_so_that_no_acknowledged_write_is_lost() {
    world()
        .story("stopped-behind", async |world| {
            let options = ReplicaSetOptions::of(2).linked();
            let agent = |_, agent| agent;
            let scene = Scene::start_with(world, options, agent, |writers| writers).await?;
            let old = scene.master;
            let link = scene.set.link(scene.replica(), old.instance);
            let link = link.unwrap_or_else(|| panic!("the set is linked"));
            link.delay(REPLICATION_DELAY).await?;
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;

            let status = scene.master_agent().term(SOON).await?;
            // From here on the old master has nothing more to tell.
            link.cut().await?;
            scene.master().process().kill_no_wait()?;
            assert_eq!(status.code(), Some(0));
            let heir = scene.wait_for_heir(SOON).await?;
            let set = scene.set;
            let history = scene.writers.stop().await?;
            assert_reigns(&history.judge(), &[old, heir]);
            assert_eq!(set.missing_writes(heir.instance, &history).await?, 0);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_second_signal_ends_the_agent_at_once_and_gives_nothing_up() {
    world()
        .story("stopped-twice", async |world| {
            let scene = Scene::start(world, 2).await?;
            let old = scene.master;
            let agent = scene.master_agent();
            let session = scene.lock().await?.session;
            // While the instance does not answer, the first signal cannot end anything.
            scene.master().freeze().await?;
            agent.process().signal(Signal::TERM)?;
            let asked = "asked to stop";
            agent
                .wait_for_log(SOON, asked, 0, |line| line.message() == asked)
                .await?;
            agent.process().signal(Signal::TERM)?;
            let status = agent.wait(LEASE / 3).await?;
            assert_eq!(status.code(), Some(5));
            let entry = scene.lock().await?;
            assert_eq!(entry.session, session, "nothing was given up");
            assert_ne!(entry.json()?["status"], "fenced");

            scene.master().thaw()?;
            scene.set.wait_for_no_master(SOON).await?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn an_agent_and_its_instance_stopped_together_hand_over_quickly() {
    world()
        .story("both-stopped", async |world| {
            let scene = Scene::start(world, 3).await?;
            let old = scene.master;
            scene.master_agent().process().signal(Signal::TERM)?;
            scene.master().process().signal(Signal::TERM)?;
            let status = scene.master_agent().wait(SOON).await?;
            assert_eq!(status.code(), Some(0));
            scene.master().process().wait(SOON).await?;
            let heir = scene.wait_for_heir(SOON).await?;
            let record = scene.lock().await?.json()?;
            assert_eq!(record["reason"], "the master before gave the lock up");
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            assert!(verdict.changes[0].duration() < LEASE, "{verdict}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_hang_up_changes_nothing_but_is_answered_in_the_log() {
    world()
        .story("hung-up", async |world| {
            let scene = Scene::start(world, 2).await?;
            let router = world.agent(&scene.set[scene.replica()], &scene.consul)?;
            let router = router.name("router").env("ROLE", "router").start().await?;
            let started = "router's agent started";
            router
                .wait_for_log(SOON, started, 0, |line| line.message() == started)
                .await?;
            for agent in scene.agents.iter().chain([&router]) {
                agent.process().signal(Signal::HUP)?;
                let answer = "SIGHUP ignored";
                agent
                    .wait_for_log(SOON, answer, 0, |line| line.message().starts_with(answer))
                    .await?;
            }
            scene.wait_for_refreshes().await?;
            assert_eq!(router.term(SOON).await?.code(), Some(0));
            scene.assert_undisturbed().await
        })
        .await;
}

/// From 3.0 on an instance that stops waits for all fibers: the guard's end with it.
#[tokio::test]
async fn an_instance_that_is_stopped_does_not_wait_for_its_guard() {
    world()
        .story("instance-stopped", async |world| {
            let mut scene = Scene::start(world, 2).await?;
            let replica = scene.replica();
            scene.set[replica].stop().await?;
            scene.set[replica].start().await?;
            scene.set.wait_for_mesh(SOON).await?;
            scene
                .wait_for_check(replica, "passing", "replica: the master is")
                .await?;
            let old = scene.master;
            scene.master().stop().await?;
            scene.master = scene.wait_for_heir(SOON).await?;
            for instance in scene.set.iter() {
                let log = instance.process().stderr()?;
                for words in ["cannot gracefully shutdown", "the guard stumbled"] {
                    assert!(!log.contains(words), "{}: {words}", instance.name());
                }
            }
            let heir = scene.master;
            assert_reigns(&scene.writers.verdict().await?, &[old, heir]);
            Ok(())
        })
        .await;
}
