//! How far behind its master a member is, as `tarsec status` and the dumps tell it: in rows of one moment, and in time.

use std::time::Duration;

use tarsec_harness::{CliOutput, ReplicaSetOptions, Result, Value, World, eventually};

use crate::replica_broken::{start_applier, stop_applier};
use crate::scene::Scene;
use crate::support::{SOON, world};
use crate::switchover::wait_for_followers;

/// Longer than any of the command's own deadlines.
const COMMAND: Duration = Duration::from_secs(60);
const WRITES_PER_SECOND: u32 = 200;
/// A healthy member may be so many rows behind on a machine that has much else to do: some writes of one moment.
const FEW_ROWS: u64 = 100;
/// Likewise, in milliseconds.
const SHORTLY: u64 = 1_000;

async fn status(world: &World, scene: &Scene, args: &[&str]) -> Result<CliOutput> {
    let args = [&["status", "--no-wait"], args].concat();
    world.command(&scene.consul, &args)?.run(COMMAND).await
}

/// A member's `arrival`, `behind_rows` and `behind_ms`.
async fn lag(world: &World, scene: &Scene, index: usize) -> Result<(String, u64, u64)> {
    let output = status(world, scene, &["--json"]).await?;
    let view: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
    let members = view["replicasets"][0]["members"].as_array();
    let uuid = scene.set[index].uuid();
    let found = members.and_then(|all| all.iter().find(|it| it["instance"] == uuid));
    let member = found.cloned().unwrap_or_default();
    let number = |name: &str| member[name].as_u64().unwrap_or(u64::MAX);
    Ok((
        member["arrival"].as_str().unwrap_or_default().to_owned(),
        number("behind_rows"),
        number("behind_ms"),
    ))
}

/// Waits until it is shown like that, and returns rows and milliseconds.
async fn wait_for_lag(
    world: &World,
    scene: &Scene,
    index: usize,
    arrival: &str,
    fits: impl Fn(u64, u64) -> bool,
) -> Result<(u64, u64)> {
    let what = format!("member {index} to be {arrival}");
    eventually(SOON, &what, async || match lag(world, scene, index).await {
        Ok((is, rows, ms)) if is == arrival && fits(rows, ms) => Ok((rows, ms)),
        other => Err(format!("{other:?}")),
    })
    .await
}

async fn wait_until_healthy(world: &World, scene: &Scene, index: usize) -> Result<()> {
    let small = |rows, ms| rows <= FEW_ROWS && ms <= SHORTLY;
    wait_for_lag(world, scene, index, "arriving", small)
        .await
        .map(|_| ())
}

/// It lacks more and more, for longer and longer.
async fn wait_until_it_grows(
    world: &World,
    scene: &Scene,
    index: usize,
    arrival: &str,
) -> Result<()> {
    let much = |rows, ms| rows > FEW_ROWS && ms > SHORTLY;
    let (rows, ms) = wait_for_lag(world, scene, index, arrival, much).await?;
    let more = |later_rows, later_ms| later_rows > rows && later_ms > ms;
    wait_for_lag(world, scene, index, arrival, more).await?;
    let shown = status(world, scene, &[]).await?;
    let words = format!("{arrival} for ");
    assert!(shown.stdout.contains(&words), "{}", shown.stdout);
    // What the dump says is as old as the last look.
    let behind = scene.agents[index].usr1().await?["tarantool"]["behind"].clone();
    assert_eq!(behind["arrival"], arrival, "{behind}");
    assert_eq!(behind["of"], scene.master().uuid(), "{behind}");
    assert!(behind["rows"].as_u64() > Some(rows), "{behind}");
    Ok(())
}

#[tokio::test]
async fn members_show_no_lag_under_writes_and_a_growing_one_where_nothing_arrives() {
    world()
        .story("lag", async |world| {
            let scene = Scene::start_with(
                world,
                ReplicaSetOptions::of(3),
                |_, agent| {
                    let agent = agent.env("MEMBER_INTERVAL", "1s");
                    agent.env("REPLICA_MAX_IDLE", "1s")
                },
                |writers| writers.rate(WRITES_PER_SECOND),
            )
            .await?;
            scene.set.wait_for_mesh(SOON).await?;
            wait_for_followers(&world.board(&scene.consul, &scene.set), 2).await?;
            let stopped = scene.replica();
            let frozen = 3 - scene.master.instance - stopped;
            for index in [stopped, frozen] {
                wait_until_healthy(world, &scene, index).await?;
            }
            let shown = status(world, &scene, &[]).await?.stdout;
            assert!(shown.contains(" rows, 0."), "{shown}");

            stop_applier(&scene, stopped).await?;
            wait_until_it_grows(world, &scene, stopped, "stopped").await?;
            wait_until_healthy(world, &scene, frozen).await?;
            start_applier(&scene, stopped).await?;
            wait_until_healthy(world, &scene, stopped).await?;

            scene.set[frozen].freeze().await?;
            wait_until_it_grows(world, &scene, frozen, "silent").await?;
            scene.set[frozen].thaw()?;
            wait_until_healthy(world, &scene, frozen).await?;
            scene.assert_undisturbed().await
        })
        .await;
}
