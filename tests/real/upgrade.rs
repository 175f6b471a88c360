//! Agents of an older build and of this one side by side: `OLD_TARSEC=path/to/tarsec` names the older one.

use std::path::PathBuf;

use tarsec_harness::{AgentBuilder, Moment, eventually};

use crate::scene::{SOME_WRITES, assert_never_refused};
use crate::support::{SOON, world};
use crate::sync;

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
            let agent = &scene.agents[index];
            let since = Moment::now();
            agent.set_program(std::path::Path::new(env!("CARGO_BIN_EXE_tarsec")));
            agent.kill().await?;
            agent.start()?;
            eventually(SOON, "the new build's agent to be attached", async || {
                let lines = agent.logs_since(since).map_err(|error| error.to_string())?;
                let attached = lines
                    .iter()
                    .any(|line| line.message() == "instance attached");
                attached
                    .then_some(())
                    .ok_or_else(|| format!("{} lines", lines.len()))
            })
            .await?;
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
