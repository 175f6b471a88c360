//! Agents of an older build and of this one side by side: `OLD_TARSEC=path/to/tarsec` names the older one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tarsec_harness::{Agent, AgentBuilder, Clocks, Moment, ReplicaSetOptions, Result, eventually};

use crate::scene::{SOME_WRITES, Scene, assert_never_refused, wait_for_master};
use crate::support::{SOON, world};
use crate::sync;

/// Older than any lease or promise, and younger than any machine that has built this test.
const SUSPENDED: Duration = Duration::from_secs(90);

/// Another build takes the place of an agent's, as an operator would replace it.
async fn replace(agent: &Agent, build: &Path) -> Result<()> {
    let since = Moment::now();
    agent.set_program(build);
    agent.kill().await?;
    agent.start()?;
    eventually(SOON, "the other build's agent to be attached", async || {
        let lines = agent.logs_since(since).map_err(|error| error.to_string())?;
        let attached = lines
            .iter()
            .any(|line| line.message() == "instance attached");
        attached
            .then_some(())
            .ok_or_else(|| format!("{} lines", lines.len()))
    })
    .await
}

#[tokio::test]
async fn an_upgrade_under_writers_changes_no_master_and_the_next_failover_loses_nothing() {
    let test = "an_upgrade_under_writers_changes_no_master_and_the_next_failover_loses_nothing";
    let Some(old_build) = std::env::var_os("OLD_TARSEC").map(PathBuf::from) else {
        tarsec_harness::say_skipped(&format!("{test}: OLD_TARSEC names no older build"));
        return;
    };
    let story = async |world: &tarsec_harness::World| {
        let agent = |_, agent: AgentBuilder| agent.program(&old_build);
        let scene = sync::start(world, agent).await?;
        let old = scene.master;
        // The master's last, as docs/DEPLOYMENT.md says.
        for index in [(old.instance + 1) % 3, (old.instance + 2) % 3, old.instance] {
            let new_build = Path::new(env!("CARGO_BIN_EXE_tarsec"));
            replace(&scene.agents[index], new_build).await?;
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
        }
        assert_never_refused(&scene.writers.so_far(), old.instance);
        let says_quorum = async || {
            let record = scene.lock().await.map_err(|error| error.to_string())?;
            let record = record.json().map_err(|error| error.to_string())?;
            let size = record["quorum"]["size"].as_u64();
            (size == Some(2))
                .then_some(())
                .ok_or_else(|| record.to_string())
        };
        eventually(SOON, "a record with the quorum", says_quorum).await?;
        scene.master().kill().await?;
        let heir = scene.wait_for_heir(SOON).await?;
        sync::assert_succeeded(scene, heir).await
    };
    world().story("upgrade", story).await;
}

/// Guards of two versions in one process may go by clocks of which one is behind.
#[tokio::test]
async fn an_upgrade_and_the_way_back_keep_one_master_on_machines_that_were_suspended_before() {
    let test = "an_upgrade_and_the_way_back_keep_one_master_on_machines_that_were_suspended_before";
    let Some(old_build) = std::env::var_os("OLD_TARSEC").map(PathBuf::from) else {
        tarsec_harness::say_skipped(&format!("{test}: OLD_TARSEC names no older build"));
        return;
    };
    let story = async |world: &tarsec_harness::World| {
        let clocks = Clocks::after_suspensions(world, SUSPENDED)?;
        let agent = |index, agent: AgentBuilder| {
            let agent = clocks.agent(index, agent).program(&old_build);
            agent.env("GUARD", "strict")
        };
        let options = clocks.instances(ReplicaSetOptions::of(3));
        let scene = Scene::start_with(world, options, agent, |writers| writers).await?;
        let new_build = Path::new(env!("CARGO_BIN_EXE_tarsec"));
        for build in [new_build, &old_build, new_build] {
            let master = wait_for_master(&scene.set, |_| true, SOON).await?.instance;
            for index in [(master + 1) % 3, (master + 2) % 3, master] {
                replace(&scene.agents[index], build).await?;
                wait_for_master(&scene.set, |_| true, SOON).await?;
                scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            }
        }
        let last = wait_for_master(&scene.set, |_| true, SOON).await?;
        scene.set[last.instance].kill().await?;
        let next = |seen: &tarsec_harness::Tenure| seen.term > last.term;
        wait_for_master(&scene.set, next, SOON * 2).await?;
        scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
        scene.writers.verdict().await?.assert_safe();
        Ok(())
    };
    world().story("upgrade-suspended", story).await;
}
