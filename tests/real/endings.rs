//! What is said of a change of hands afterwards: how the last master's time ended, for how long nothing could be written,
//! and what may be missing, each compared with what the story did and its writers saw.

use std::time::Duration;

use rustix::process::Signal;
use tarsec_harness::{
    AgentBuilder, Fault, Machine, Moment, ReplicaSetOptions, Result, Tenure, Value, Verdict, World,
    eventually, json,
};
use tokio::time::sleep;

use crate::pause::wait_until_stood_down;
use crate::scene::{SOME_WRITES, Scene, assert_reigns};
use crate::support::{LEASE, SOON, world};
use crate::switchover::wait_for_followers;

/// Between two accepted writes on a busy machine, and for writers to find a new master.
const WRITERS_MS: u64 = 700;

/// A bound of the outage, as the line has it.
fn bound(line: &Value, name: &str) -> u64 {
    let found = line["outage"][name].as_u64();
    found.unwrap_or_else(|| panic!("no {name} in {line}"))
}

/// The line that `tarsec history --json` prints of this term.
pub(crate) async fn line_of(world: &World, scene: &Scene, term: u64) -> Result<Value> {
    let board = world.board(&scene.consul, &scene.set);
    board.wait_for_history(term, SOON).await?;
    let said = world
        .command(&scene.consul, &["history", "--json"])?
        .run(SOON)
        .await?;
    let all: Value = serde_json::from_str(&said.stdout).unwrap_or(Value::Null);
    let lines = all[scene.set.uuid()].as_array();
    let mut lines = lines.into_iter().flatten();
    let line = lines.find(|line| line["term"] == term);
    Ok(line.cloned().unwrap_or_else(|| panic!("{said:?}")))
}

/// The line once the ex-master's agent has completed it.
async fn completed(world: &World, scene: &Scene, term: u64) -> Result<Value> {
    eventually(SOON, "the ex-master's word", async || {
        let line = line_of(world, scene, term).await;
        let line = line.map_err(|error| error.to_string())?;
        if line["returned"].is_null() {
            Err(line.to_string())
        } else {
            Ok(line)
        }
    })
    .await
}

/// For how long no write began inside an instance at the one change of hands, in milliseconds.
fn gap_ms(verdict: &Verdict) -> u64 {
    let [change] = verdict.changes.as_slice() else {
        panic!("{verdict}");
    };
    u64::try_from(change.inside().as_millis()).unwrap_or(u64::MAX)
}

/// The bounds hold against what the writers saw: each write was accepted within the time of being writable, and was
/// tried again and again.
pub(crate) fn assert_within(line: &Value, gap_ms: u64) {
    let (least, most) = (bound(line, "at_least_ms"), bound(line, "at_most_ms"));
    assert!(least <= most, "{line}");
    assert!(least <= gap_ms, "the writers saw {gap_ms} ms: {line}");
    assert!(
        most + WRITERS_MS >= gap_ms,
        "the writers saw {gap_ms} ms: {line}"
    );
}

pub(crate) fn ends(scene: &Scene, heir: Tenure) -> u64 {
    let verdict = scene.writers.so_far().judge();
    assert_reigns(&verdict, &[scene.master, heir]);
    gap_ms(&verdict)
}

async fn start(world: &World) -> Result<Scene> {
    let scene = Scene::start(world, 3).await?;
    wait_for_followers(&world.board(&scene.consul, &scene.set), 2).await?;
    Ok(scene)
}

#[tokio::test]
async fn a_crash_says_so_and_that_rows_may_be_missing() {
    world()
        .story("ending-crash", async |world| {
            let scene = start(world).await?;
            // Its last words have a rate.
            scene.wait_for_refreshes().await?;
            scene.master().kill().await?;
            let heir = scene.wait_for_heir(SOON).await?;
            let line = line_of(world, &scene, heir.term).await?;
            assert_eq!(line["ended"], "crash", "{line}");
            assert_eq!(line["risk_known"], "at_least", "{line}");
            assert!(line["rate_rows_per_s"].as_u64() > Some(0), "{line}");
            assert!(line["last_word_age_ms"].as_u64().is_some(), "{line}");
            // It was looked at every 25 ms or so, and not only once a second.
            assert!(bound(&line, "at_most_ms") < 1_000, "{line}");
            assert_within(&line, ends(&scene, heir));
            let said = world
                .command(&scene.consul, &["history"])?
                .run(SOON)
                .await?;
            assert!(said.stdout.contains("crash: "), "{said:?}");
            assert!(
                said.stdout.contains("rows at risk unknown: at least"),
                "{said:?}"
            );
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_hung_master_was_not_writable_for_the_whole_lease_that_it_hung() {
    world()
        .story("ending-hang", async |world| {
            let scene = start(world).await?;
            scene.master().freeze().await?;
            let frozen = Moment::now();
            let heir = scene.wait_for_heir(SOON).await?;
            let line = line_of(world, &scene, heir.term).await?;
            assert_eq!(line["ended"], "hang_killed", "{line}");
            let at_ms = line["at_ms"].as_u64().unwrap_or(0);
            let hung_ms = at_ms.saturating_sub(frozen.epoch_ms());
            assert!(bound(&line, "at_most_ms") >= hung_ms, "{hung_ms}: {line}");
            assert_within(&line, ends(&scene, heir));
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_stop_and_a_switchover_know_their_outage_and_that_nothing_is_missing() {
    world()
        .story("ending-planned", async |world| {
            let scene = start(world).await?;
            let board = world.board(&scene.consul, &scene.set);
            let target = scene.set[scene.replica()].uuid().to_owned();
            let id = board
                .request_switchover(Some(&target), Duration::from_secs(5))
                .await?;
            assert_eq!(board.wait_for_switchover(&id, SOON).await?["state"], "done");
            let heir = scene.wait_for_heir(SOON).await?;
            let line = line_of(world, &scene, heir.term).await?;
            assert_eq!(line["ended"], "switchover", "{line}");
            assert_eq!(line["by"], "harness", "{line}");
            assert_eq!(line["outage"]["known"], "exact", "{line}");
            assert_eq!(line["risk_known"], "exact", "{line}");
            assert_eq!(line["rows_at_risk"], 0, "{line}");
            assert_within(&line, ends(&scene, heir));

            scene.agents[heir.instance].process().signal(Signal::TERM)?;
            let third = eventually(SOON, "a third master", async || {
                let lines = board.history().await.map_err(|error| error.to_string())?;
                let found = lines.iter().filter_map(|line| line["term"].as_u64()).max();
                found
                    .filter(|term| *term > heir.term)
                    .ok_or_else(|| format!("{lines:?}"))
            })
            .await?;
            let line = line_of(world, &scene, third).await?;
            assert_eq!(line["ended"], "stop", "{line}");
            assert_eq!(line["by"], "SIGTERM", "{line}");
            assert_eq!(line["outage"]["known"], "exact", "{line}");
            assert_eq!(line["risk_known"], "exact", "{line}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_lost_machine_was_not_writable_for_up_to_a_lease_and_a_margin() {
    world()
        .story("ending-machine", async |world| {
            let scene = start(world).await?;
            scene.wait_for_refreshes().await?;
            Machine::of(scene.master(), scene.master_agent())
                .kill()
                .await?;
            let heir = scene.wait_for_heir(SOON).await?;
            let line = line_of(world, &scene, heir.term).await?;
            assert_eq!(line["ended"], "machine_lost", "{line}");
            assert_eq!(line["risk_known"], "at_least", "{line}");
            assert_within(&line, ends(&scene, heir));
            Machine::of(scene.master(), scene.master_agent())
                .start()
                .await?;
            let line = completed(world, &scene, heir.term).await?;
            assert_eq!(line["ended"], "machine_lost", "{line}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_master_that_was_cut_off_tells_it_when_it_is_back() {
    world()
        .story("ending-cut", async |world| {
            let off = |_, agent: AgentBuilder| agent.linked().env("FAILSAFE", "off");
            let options = ReplicaSetOptions::of(2);
            let scene = Scene::start_with(world, options, off, |writers| writers).await?;
            scene.wait_for_refreshes().await?;
            let link = scene.master_agent().consul_link().expect("it is linked");
            link.set(Fault::Cut).await?;
            let heir = scene.wait_for_heir(SOON).await?;
            let line = line_of(world, &scene, heir.term).await?;
            assert_eq!(line["ended"], "agent_lost", "its instance answers: {line}");
            let gap_ms = ends(&scene, heir);
            assert_within(&line, gap_ms);
            link.restore().await?;
            let line = completed(world, &scene, heir.term).await?;
            assert_eq!(line["ended"], "cut_off", "{line}");
            // `between`, where the cut fell between a word and the answer to it.
            let known = &line["outage"]["known"];
            assert!(known == "exact" || known == "between", "{line}");
            assert_within(&line, gap_ms);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn an_agent_that_was_lost_is_told_from_a_machine() {
    world()
        .story("ending-agent", async |world| {
            let scene = start(world).await?;
            scene.wait_for_refreshes().await?;
            scene.master_agent().kill().await?;
            let heir = scene.wait_for_heir(SOON).await?;
            let line = line_of(world, &scene, heir.term).await?;
            assert_eq!(line["ended"], "agent_lost", "{line}");
            let gap_ms = ends(&scene, heir);
            assert_within(&line, gap_ms);
            scene.master_agent().start()?;
            let line = completed(world, &scene, heir.term).await?;
            assert_eq!(line["ended"], "agent_lost", "{line}");
            // It died with or without having given its guard the lease of its last word.
            assert_eq!(line["outage"]["known"], "between", "{line}");
            assert_within(&line, gap_ms);
            Ok(())
        })
        .await;
}

/// What the line of the story's first term says of the times in which its master was read-only.
async fn interruptions(world: &World, scene: &Scene, count: usize) -> Result<Vec<Value>> {
    eventually(SOON, "the interruptions", async || {
        let line = line_of(world, scene, scene.master.term).await;
        let line = line.map_err(|error| error.to_string())?;
        match line["interruptions"].as_array() {
            Some(list) if list.len() == count => Ok(list.clone()),
            _ => Err(line.to_string()),
        }
    })
    .await
}

#[tokio::test]
async fn a_master_that_was_read_only_within_its_term_leaves_a_trace() {
    world()
        .story("interrupted", async |world| {
            let scene = start(world).await?;
            // The guard finds its lease over, and its agent, which has the lock, has it promoted again.
            let end = "tarsec_guard.state.times.deadline = 0ULL; tarsec_guard.changed:broadcast()";
            scene.master().eval(end, &[]).await?;
            let list = interruptions(world, &scene, 1).await?;
            assert_eq!(list[0]["why"], "its lease ended", "{list:?}");
            assert_eq!(list[0]["outage"]["known"], "exact", "{list:?}");
            let fenced_ms = list[0]["outage"]["at_most_ms"].as_u64();
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            let longest = scene.writers.so_far().judge().longest_gap;
            let longest = longest.map_or(0, |gap| {
                u64::try_from(gap.inside().as_millis()).unwrap_or(0)
            });
            assert!(fenced_ms <= Some(longest), "{longest}: {list:?}");

            scene
                .master()
                .eval("box.cfg{read_only = true}", &[])
                .await?;
            let list = interruptions(world, &scene, 2).await?;
            let why = list[1]["why"].as_str().unwrap_or_default();
            assert!(why.contains("somebody made it read-only"), "{list:?}");
            assert!(
                list[1]["outage"]["at_most_ms"].as_u64() > Some(0),
                "{list:?}"
            );
            let said =
                "the master here was read-only for a while, and is writable again in the same term";
            scene
                .master_agent()
                .wait_for_log(SOON, said, 0, |line| line.message() == said)
                .await?;
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            assert_reigns(&scene.writers.so_far().judge(), &[scene.master]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_death_in_a_pause_names_the_pause() {
    world()
        .story("ending-pause", async |world| {
            let scene = start(world).await?;
            let board = world.board(&scene.consul, &scene.set);
            board.pause("a story").await?;
            wait_until_stood_down(&scene, true).await?;
            scene.master().kill().await?;
            sleep(LEASE).await;
            board.resume().await?;
            let heir = scene.wait_for_heir(SOON).await?;
            let line = line_of(world, &scene, heir.term).await?;
            assert_eq!(line["ended"], "pause_ended", "{line}");
            assert_eq!(line["by"], "harness", "{line}");
            assert_eq!(line["from"]["instance"], json!(scene.master().uuid()));
            let dead_ms = u64::try_from(LEASE.as_millis()).unwrap_or(0);
            assert!(bound(&line, "at_least_ms") >= dead_ms, "{line}");
            assert_within(&line, ends(&scene, heir));
            Ok(())
        })
        .await;
}
