//! Another master at an operator's wish.

use std::time::Duration;

use tarsec_harness::{
    Board, ConsulOptions, Moment, ReplicaSetOptions, Result, Switch, Tenure, Value, World,
    eventually,
};

use crate::scene::{SOME_WRITES, Scene, assert_reigns, wait_for_master};
use crate::support::{LEASE, SOON, world};

/// Long enough for any replica that gets anything at all.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Asks, waits for the outcome, and returns the key's value.
async fn switch(board: &Board<'_>, target: Option<&str>, catch_up: Duration) -> Result<Value> {
    let id = board.request_switchover(target, catch_up).await?;
    board.wait_for_switchover(&id, SOON).await
}

/// Waits until the master's own probe shows that every other member follows it.
pub(crate) async fn wait_for_followers(board: &Board<'_>, followers: usize) -> Result<()> {
    eventually(SOON, "followers in the record", async || {
        let record = board.record().await.map_err(|error| error.to_string())?;
        match record["following"].as_array() {
            Some(following) if following.len() == followers => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// The outcome's state and words.
fn said(order: &Value) -> (&str, &str) {
    let text = |name: &str| order[name].as_str().unwrap_or_default();
    (text("state"), text("why"))
}

async fn assert_refused(board: &Board<'_>, target: &str, words: &str) -> Result<()> {
    let order = switch(board, Some(target), CATCH_UP).await?;
    let (state, why) = said(&order);
    assert_eq!(state, "refused", "{order}");
    assert!(why.contains(words), "'{why}' does not say '{words}'");
    Ok(())
}

/// The scene of three with full load, every member following.
async fn busy(world: &World) -> Result<Scene> {
    // Under this load a Consul that writes to the disk is silent for a second now and then, and a switchover is undone.
    let consul = world
        .consul_with(ConsulOptions::default().in_memory())
        .await?;
    let set = world.replica_set(3).await?;
    let scene = Scene::start_on(
        world,
        consul,
        set,
        |_, agent| agent.env("MASTER_LEASE", "10s"),
        |writers| writers.rate(500).probe_interval(Duration::from_millis(1)),
    )
    .await?;
    scene.set.wait_for_mesh(SOON).await?;
    wait_for_followers(&world.board(&scene.consul, &scene.set), 2).await?;
    Ok(scene)
}

#[tokio::test]
async fn fifty_switchovers_under_full_load_lose_no_write_and_show_no_error_but_read_only() {
    world()
        .story("switchover-50", async |world| {
            let scene = busy(world).await?;
            let board = world.board(&scene.consul, &scene.set);
            let mut reigns = vec![scene.master];
            let pair = [scene.master.instance, scene.replica()];
            for round in 1..=50_usize {
                let target = pair[round % 2];
                let order = switch(&board, Some(scene.set[target].uuid()), CATCH_UP).await?;
                assert_eq!(said(&order), ("done", ""), "{round}: {order}");
                let fits = |seen: &Tenure| seen.instance == target;
                reigns.push(wait_for_master(&scene.set, fits, SOON).await?);
                scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            }
            board.wait_for_history(reigns[50].term, SOON).await?;
            for line in board.history().await?.iter().skip(1) {
                assert_eq!(line["cause"], "switchover", "{line}");
                assert_eq!(line["rows_at_risk"], 0, "{line}");
            }

            let history = scene.writers.stop().await?;
            let verdict = history.judge();
            assert_reigns(&verdict, &reigns);
            assert_eq!((verdict.failed, verdict.unanswered), (0, 0), "{verdict}");
            let master = reigns[50].instance;
            assert_eq!(scene.set.missing_writes(master, &history).await?, 0);
            let mut gaps: Vec<Duration> = verdict
                .changes
                .iter()
                .map(|change| change.duration())
                .collect();
            gaps.sort_unstable();
            assert!(gaps[gaps.len() / 2] < LEASE / 10, "{gaps:?}");
            assert!(gaps.last() < Some(&LEASE), "{gaps:?}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_switchover_without_a_target_goes_to_a_follower_that_has_everything() {
    world()
        .story("switchover-best", async |world| {
            let options = ReplicaSetOptions::of(3).linked();
            let scene =
                Scene::start_with(world, options, |_, agent| agent, |writers| writers).await?;
            let board = world.board(&scene.consul, &scene.set);
            wait_for_followers(&board, 2).await?;
            let old = scene.master;
            let level = scene.replica();
            let behind = 3 - old.instance - level;
            scene.set.hold_back(behind).await?;
            scene
                .set
                .wait_for_lag(behind, old.instance, 100, SOON)
                .await?;
            let ordered = Moment::now();
            let order = switch(&board, None, CATCH_UP).await?;
            assert_eq!(said(&order), ("done", ""), "{order}");
            let heir = scene.wait_for_heir(SOON).await?;
            assert_eq!(heir.instance, level);
            let stages = eventually(SOON, "the stages, logged", async || {
                Switch::by_order(&scene.agents, old.instance, ordered)
            })
            .await?;
            assert_eq!(stages.winner, level);
            assert!(stages.fenced <= stages.released, "{stages:?}");
            scene.set.let_catch_up(behind).await?;
            let history = scene.writers.stop().await?;
            assert_reigns(&history.judge(), &[old, heir]);
            assert_eq!(scene.set.missing_writes(level, &history).await?, 0);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_target_that_does_not_catch_up_leaves_the_same_master_writable_and_nothing_lost() {
    world()
        .story("switchover-undone", async |world| {
            let options = ReplicaSetOptions::of(2).linked();
            let scene =
                Scene::start_with(world, options, |_, agent| agent, |writers| writers).await?;
            let board = world.board(&scene.consul, &scene.set);
            wait_for_followers(&board, 1).await?;
            let (old, target) = (scene.master, scene.replica());
            scene.set.hold_back(target).await?;
            scene
                .set
                .wait_for_lag(target, old.instance, 50, SOON)
                .await?;
            let short = Duration::from_millis(500);
            let order = switch(&board, Some(scene.set[target].uuid()), short).await?;
            let (state, why) = said(&order);
            assert_eq!(state, "undone", "{order}");
            assert!(
                why.contains("still lacked") && why.contains("500 ms"),
                "{why}"
            );
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            scene.set.let_catch_up(target).await?;
            eventually(SOON, "a record that names nobody", async || {
                let record = board.record().await.map_err(|error| error.to_string())?;
                if record["handover_to"].is_null() && record["status"] == "active" {
                    Ok(())
                } else {
                    Err(record.to_string())
                }
            })
            .await?;
            let history = scene.writers.stop().await?;
            let verdict = history.judge();
            assert_reigns(&verdict, &[old]);
            assert_eq!((verdict.failed, verdict.unanswered), (0, 0), "{verdict}");
            let pause = verdict.longest_gap.expect("a gap").inside();
            assert!(pause >= short && pause < LEASE, "{verdict}");
            scene
                .set
                .wait_until_level(target, old.instance, SOON)
                .await?;
            assert_eq!(scene.set.missing_writes(target, &history).await?, 0);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn the_unfit_are_refused_with_a_reason_and_cost_nothing() {
    world()
        .story("switchover-refused", async |world| {
            let options = ReplicaSetOptions::of(3);
            let scene = Scene::start_with(
                world,
                options,
                |index, agent| agent.env("PRIORITY", if index == 2 { "-1" } else { "0" }),
                |writers| writers,
            )
            .await?;
            let board = world.board(&scene.consul, &scene.set);
            wait_for_followers(&board, 2).await?;
            let (old, target) = (scene.master, scene.replica());
            let uuid = |index: usize| scene.set[index].uuid();
            assert_refused(&board, "nobody", "no member is called nobody").await?;
            assert_refused(&board, uuid(old.instance), "is the master already").await?;
            assert_refused(&board, scene.set[2].addr(), "its priority is -1").await?;

            board.pause("a story").await?;
            assert_refused(&board, uuid(target), "PAUSED by harness (a story)").await?;
            board.resume().await?;

            // The target's agent is dead and its key still says that all is well: no instance is fenced for it.
            scene.agents[target].kill().await?;
            let order = switch(&board, Some(uuid(target)), CATCH_UP).await?;
            let (state, why) = said(&order);
            assert_eq!(state, "undone", "{order}");
            assert!(why.contains("does not answer"), "{why}");
            let seen = scene.agents[target].logs()?.len();
            scene.agents[target].start()?;
            scene.agents[target]
                .wait_for_log(SOON, "the attached instance", seen, |line| {
                    line.message() == "instance attached"
                })
                .await?;

            scene.set[target].kill().await?;
            scene
                .wait_for_check(target, "critical", "its process is dead")
                .await?;
            let what = "the dead one's own word for it";
            eventually(SOON, what, async || {
                let members = board.members().await.map_err(|error| error.to_string())?;
                match members.get(uuid(target)) {
                    Some(member) if member["health"] == "critical" => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
            assert_refused(&board, uuid(target), "is critical").await?;
            let order = switch(&board, None, CATCH_UP).await?;
            let (state, why) = said(&order);
            assert_eq!(state, "refused", "{order}");
            assert!(why.contains("no member is fit"), "{why}");

            scene.assert_undisturbed().await
        })
        .await;
}

#[tokio::test]
async fn a_master_whose_agent_dies_in_the_middle_is_master_again_in_the_same_term() {
    world()
        .story("switchover-agent-dies", async |world| {
            let options = ReplicaSetOptions::of(2).linked();
            let scene =
                Scene::start_with(world, options, |_, agent| agent, |writers| writers).await?;
            let board = world.board(&scene.consul, &scene.set);
            wait_for_followers(&board, 1).await?;
            let (old, target) = (scene.master, scene.replica());
            scene.set.hold_back(target).await?;
            scene
                .set
                .wait_for_lag(target, old.instance, 20, SOON)
                .await?;
            let long = Duration::from_secs(60);
            let id = board
                .request_switchover(Some(scene.set[target].uuid()), long)
                .await?;
            scene.set.wait_for_no_master(SOON).await?;
            scene.master_agent().restart().await?;
            let again = wait_for_master(&scene.set, |_| true, LEASE).await?;
            assert_eq!(again, old);
            let order = board.wait_for_switchover(&id, SOON).await?;
            let (state, why) = said(&order);
            assert_eq!(state, "undone", "{order}");
            assert!(why.contains("agent restarted"), "{why}");
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            assert_reigns(&scene.writers.verdict().await?, &[old]);
            Ok(())
        })
        .await;
}
