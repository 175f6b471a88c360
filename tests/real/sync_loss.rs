//! `SYNC_LOSS`: what is done where nobody can tell whether a member has every acknowledged synchronous row (R7).

use tarsec_harness::{AgentBuilder, Machine, Result, ServiceEntry, Value, World, eventually};

use crate::cluster::stays_read_only;
use crate::scene::{SOME_WRITES, Scene, lock_entry};
use crate::support::{LEASE, SOON, world};
use crate::sync;

/// Three members, of which one has missed what the two others have acknowledged since; these two are gone at once, the
/// master with its machine.
struct Left {
    scene: Scene,
    /// The member that is left.
    stale: usize,
    /// The member that has what was acknowledged, and is away.
    fresh: usize,
}

async fn left(world: &World, sync_loss: &'static str) -> Result<Left> {
    let agent = move |_, agent: AgentBuilder| agent.env("SYNC_LOSS", sync_loss);
    let scene = sync::start(world, agent).await?;
    let master = scene.master.instance;
    let [stale, fresh] = [(master + 1) % 3, (master + 2) % 3];
    scene.set.cut_off(stale).await?;
    scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
    let machines = [master, fresh].map(|at| Machine::of(&scene.set[at], &scene.agents[at]));
    for machine in &machines {
        machine.kill_no_wait()?;
    }
    for machine in &machines {
        machine.wait_gone().await?;
    }
    scene.set.let_catch_up(stale).await?;
    Ok(Left {
        scene,
        stale,
        fresh,
    })
}

#[tokio::test]
async fn a_member_that_may_lack_acknowledged_rows_waits_for_the_votes_and_for_the_rows() {
    world()
        .story("sync-refuse", async |world| {
            let Left {
                scene,
                stale,
                fresh,
            } = left(world, "refuse").await?;
            let words = "(SYNC_LOSS is refuse): 2 members must say what they have, 1 did";
            let check = scene.wait_for_check(stale, "passing", words).await?;
            assert!(check.output.contains("missing: "), "{}", check.output);
            // By its name, once the members' keys were read.
            let named = scene.set[fresh].addr();
            let is_named = |check: &ServiceEntry| {
                let missing = check.output.split_once("missing: ");
                missing.is_some_and(|(_, missing)| missing.contains(named))
            };
            eventually(SOON, "the missing member's name", async || {
                match scene.service(stale).await {
                    Ok(Some(check)) if is_named(&check) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
            stays_read_only(&scene.set, LEASE * 2).await?;

            // Whichever of the two it is, it has the rows of both.
            Machine::of(&scene.set[fresh], &scene.agents[fresh])
                .start()
                .await?;
            let heir = scene.wait_for_heir(SOON).await?;
            sync::assert_succeeded(scene, heir).await
        })
        .await;
}

#[tokio::test]
async fn where_loss_is_accepted_a_member_goes_on_and_says_what_may_be_lost() {
    world()
        .story("sync-accept", async |world| {
            let Left { scene, stale, .. } = left(world, "accept").await?;
            let gained = |record: &Value| {
                record["instance"] == scene.set[stale].uuid()
                    && record["term"].as_u64() > Some(scene.master.term)
            };
            let record = eventually(SOON, "a successor's record", async || {
                let entry = lock_entry(&scene.consul, &scene.key).await;
                let entry = entry.map_err(|error| error.to_string())?;
                let record: Value = serde_json::from_str(&entry.value).unwrap_or_default();
                if gained(&record) {
                    Ok(record)
                } else {
                    Err(record.to_string())
                }
            })
            .await?;
            let reason = record["reason"].as_str().unwrap_or_default();
            let words = "synchronous rows may be lost: 2 members must say what they have, 1 did";
            assert!(reason.contains(words), "{reason}");
            Ok(())
        })
        .await;
}
