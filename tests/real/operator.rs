//! The operator's commands as processes, against real agents under writers: what they wait for has come when they end.

use std::time::Duration;

use tarsec_harness::{
    AgentBuilder, CliOutput, ConsulOptions, Machine, Process, ReplicaSetOptions, Result, Tenure,
    World, eventually,
};

use crate::cluster::stays_read_only;
use crate::pause::wait_until_stood_down;
use crate::scene::{SOME_WRITES, Scene, assert_reigns, wait_for_master};
use crate::support::{LEASE, SOON, world};
use crate::switchover::wait_for_followers;

/// Longer than any of the commands' own deadlines.
const COMMAND: Duration = Duration::from_secs(90);
/// Enough for any change of hands.
const LONG_ENOUGH: Duration = Duration::from_secs(8);
/// The member that may never be master, where there is one.
const EXCLUDED: usize = 2;

async fn tarsec(world: &World, scene: &Scene, args: &[&str]) -> Result<CliOutput> {
    world.command(&scene.consul, args)?.run(COMMAND).await
}

/// Runs a command that acts; it must end with this code and say this.
pub(crate) async fn order(
    world: &World,
    scene: &Scene,
    args: &[&str],
    code: i32,
    words: &str,
) -> Result<()> {
    let args = [args, &["--yes"]].concat();
    let output = tarsec(world, scene, &args).await?;
    let text = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, Some(code), "{args:?}: {text}");
    assert!(
        text.contains(words),
        "{args:?}: {words:?} is not in\n{text}"
    );
    Ok(())
}

/// `tarsec status` ends with this code, and its text fits.
pub(crate) async fn wait_for_status(
    world: &World,
    scene: &Scene,
    code: i32,
    fits: impl Fn(&str) -> bool,
) -> Result<()> {
    eventually(SOON, &format!("a status of {code}"), async || {
        let command = world.command(&scene.consul, &["status"]);
        let command = command.map_err(|error| error.to_string())?;
        let output = command.run(SOON).await.map_err(|error| error.to_string())?;
        let words: Vec<&str> = output.stdout.split_whitespace().collect();
        let wanted = output.code == Some(code) && fits(&words.join(" "));
        wanted
            .then_some(())
            .ok_or(format!("{:?}: {}", output.code, output.stdout))
    })
    .await
}

/// Waits until a `tarsec status --watch` has shown this somewhere behind `after` bytes; returns where that ended.
async fn wait_until_shown(watch: &Process, words: &str, after: usize) -> Result<usize> {
    eventually(SOON, &format!("a screen with '{words}'"), async || {
        let text = watch.stdout().map_err(|error| error.to_string())?;
        let found = text[after..].find(words);
        found
            .map(|at| after + at + words.len())
            .ok_or_else(|| text[after..].to_owned())
    })
    .await
}

/// A lease that a busy machine does not miss, and one of three that is excluded.
fn calm(index: usize, agent: AgentBuilder) -> AgentBuilder {
    let priority = if index == EXCLUDED { "-1" } else { "0" };
    agent.env("MASTER_LEASE", "10s").env("PRIORITY", priority)
}

#[tokio::test]
async fn a_switchover_has_come_about_or_not_when_its_command_ends_and_a_watch_shows_each() {
    world()
        .story("operator-switchover", async |world| {
            let consul = world
                .consul_with(ConsulOptions::default().in_memory())
                .await?;
            let set = world
                .replica_set_with(ReplicaSetOptions::of(3).linked())
                .await?;
            let scene = Scene::start_on(world, consul, set, calm, |writers| writers).await?;
            let board = world.board(&scene.consul, &scene.set);
            wait_for_followers(&board, 2).await?;
            let (one, other) = (scene.master.instance, scene.replica());
            let addr = |index: usize| scene.set[index].addr();
            let reign = |instance: usize, changes: u64| Tenure {
                instance,
                term: scene.master.term + changes,
            };
            let named = |reign: Tenure| format!("{}, term {}", addr(reign.instance), reign.term);
            let is_master = |reign: Tenure| {
                format!(
                    "done: {} is master, term {}",
                    addr(reign.instance),
                    reign.term
                )
            };
            let reigns = [
                reign(one, 0),
                reign(other, 1),
                reign(one, 2),
                reign(other, 3),
            ];
            let watch = world
                .command(&scene.consul, &["status", "--watch"])?
                .start()?;
            let shown = wait_until_shown(&watch, &named(reigns[0]), 0).await?;

            let to_other = ["switchover", "--to", addr(other)];
            order(world, &scene, &to_other, 0, &is_master(reigns[1])).await?;
            assert_eq!(scene.set.writable().await, [other]);
            let shown = wait_until_shown(&watch, &named(reigns[1]), shown).await?;
            wait_for_followers(&board, 2).await?;

            let to_excluded = ["switchover", "--to", addr(EXCLUDED)];
            order(world, &scene, &to_excluded, 6, "its priority is -1").await?;
            assert_eq!(scene.set.writable().await, [other]);

            scene.set.hold_back(one).await?;
            scene.set.wait_for_lag(one, other, 50, SOON).await?;
            let too_short = ["switchover", "--to", addr(one), "--timeout", "500ms"];
            let undone = format!("undone, {} is master as before", addr(other));
            order(world, &scene, &too_short, 7, &undone).await?;
            let again = wait_for_master(&scene.set, |_| true, SOON).await?;
            assert_eq!(again, reigns[1]);
            scene.set.let_catch_up(one).await?;
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            scene.set.wait_for_mesh(SOON).await?;
            wait_for_followers(&board, 2).await?;

            // The best of two other members, of which one is excluded.
            order(world, &scene, &["switchover"], 0, &is_master(reigns[2])).await?;
            assert_eq!(scene.set.writable().await, [one]);
            let shown = wait_until_shown(&watch, &named(reigns[2]), shown).await?;
            wait_for_followers(&board, 2).await?;

            // The master's agent cannot take notice, and this command does not wait for it.
            scene.agents[one].freeze().await?;
            order(world, &scene, &["switchover", "--no-wait"], 0, "asked").await?;
            let asked = board.switchover().await?;
            assert_eq!(asked["state"], "requested", "{asked}");
            scene.agents[one].thaw()?;
            let id = asked["id"].as_str().unwrap_or_default();
            let end = board.wait_for_switchover(id, SOON).await?;
            assert_eq!(end["state"], "done", "{end}");
            wait_until_shown(&watch, &named(reigns[3]), shown).await?;
            assert!(
                watch.is_running(),
                "a watch goes on until it is interrupted"
            );
            watch.kill().await?;
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            let history = scene.writers.stop().await?;
            assert_reigns(&history.judge(), &reigns);
            assert_eq!(scene.set.missing_writes(other, &history).await?, 0);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn pauses_of_the_replica_set_and_of_the_cluster_hold_until_they_are_resumed() {
    world()
        .story("operator-pause", async |world| {
            let scene = Scene::start(world, 3).await?;
            scene.set.wait_for_mesh(SOON).await?;
            let (old, name) = (scene.master, scene.master().addr());
            let paused = format!("is paused: {name} is master");
            order(world, &scene, &["pause", "--why", "racks"], 0, &paused).await?;
            let record = world.board(&scene.consul, &scene.set).record().await?;
            assert_eq!(record["paused"], true, "{record}");
            wait_until_stood_down(&scene, true).await?;
            let status = tarsec(world, &scene, &["status"]).await?;
            assert!(
                status.stdout.contains("PAUSED") && status.stdout.contains("racks"),
                "{status:?}"
            );
            order(world, &scene, &["switchover"], 6, "PAUSED by ").await?;
            let resumed = format!("has no more pause: {name} is master");
            order(world, &scene, &["resume"], 0, &resumed).await?;
            let record = world.board(&scene.consul, &scene.set).record().await?;
            assert_eq!(record["paused"], false, "{record}");
            wait_until_stood_down(&scene, false).await?;

            order(world, &scene, &["pause", "--cluster"], 0, &paused).await?;
            wait_until_stood_down(&scene, true).await?;
            scene.master().kill().await?;
            scene
                .wait_for_check(old.instance, "critical", "LEFT AS IT IS")
                .await?;
            stays_read_only(&scene.set, LONG_ENOUGH).await?;
            order(world, &scene, &["resume"], 6, "tarsec resume --cluster").await?;
            stays_read_only(&scene.set, LEASE).await?;
            order(
                world,
                &scene,
                &["resume", "--cluster"],
                0,
                "has no more pause",
            )
            .await?;
            let heir = scene.wait_for_heir(SOON).await?;
            assert_reigns(&scene.writers.verdict().await?, &[old, heir]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_machine_lost_in_a_pause_is_succeeded_at_the_operators_word_and_not_while_it_lives() {
    world()
        .story("operator-down", async |world| {
            let scene = Scene::start(world, 3).await?;
            scene.set.wait_for_mesh(SOON).await?;
            let old = scene.master;
            order(world, &scene, &["pause"], 0, "is paused").await?;
            wait_until_stood_down(&scene, true).await?;
            let declare = ["resume", "--master-is-down"];
            order(world, &scene, &declare, 6, "it runs and knows better").await?;
            assert_eq!(scene.set.writable().await, [old.instance]);

            let machine = Machine::of(scene.master(), scene.master_agent());
            machine.kill().await?;
            stays_read_only(&scene.set, LONG_ENOUGH).await?;
            let over = format!("is master, term {}", old.term + 1);
            order(world, &scene, &declare, 0, &over).await?;
            let heir = |seen: &Tenure| seen.instance != old.instance;
            wait_for_master(&scene.set, heir, SOON).await?;
            let heir = scene.wait_for_heir(SOON).await?;
            machine.start().await?;
            scene
                .wait_for_check(old.instance, "passing", "replica: the master is")
                .await?;
            assert_reigns(&scene.writers.verdict().await?, &[old, heir]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_dead_agent_beside_a_living_replica_is_seen_and_its_return_too() {
    world()
        .story("operator-dead-agent", async |world| {
            let consul = world
                .consul_with(ConsulOptions::default().in_memory())
                .await?;
            let set = world
                .replica_set_with(ReplicaSetOptions::of(2).linked())
                .await?;
            let quiet = |_: usize, agent: AgentBuilder| agent.env("MASTER_LEASE", "10s");
            let scene = Scene::start_on(world, consul, set, quiet, |writers| writers).await?;
            let replica = scene.replica();
            let words = format!("the agent of {} is not", scene.set[replica].addr());
            wait_until_status(world, &scene, 0, |text| !text.contains(&words)).await?;
            scene.agents[replica].kill().await?;
            wait_until_status(world, &scene, 10, |text| {
                text.contains(&words) && text.contains("no agent")
            })
            .await?;
            scene.agents[replica].restart().await?;
            wait_until_status(world, &scene, 0, |text| !text.contains(&words)).await?;
            scene.assert_undisturbed().await
        })
        .await;
}

/// Waits until `tarsec status` ends with this code and shows what is wanted.
async fn wait_until_status(
    world: &World,
    scene: &Scene,
    code: i32,
    wanted: impl Fn(&str) -> bool,
) -> Result<()> {
    eventually(
        SOON,
        &format!("a status that ends with {code}"),
        async || {
            let output = tarsec(world, scene, &["status", "--no-wait"]).await;
            let output = output.map_err(|error| error.to_string())?;
            let text = format!("{}{}", output.stdout, output.stderr);
            (output.code == Some(code) && wanted(&text))
                .then_some(())
                .ok_or(text)
        },
    )
    .await
}
