//! The agent dies, the instance lives.

use tarsec_harness::{Tenure, Value};

use crate::scene::{SESSION_EXPIRY, SOME_WRITES, Scene, assert_reigns, guard};
use crate::support::{LEASE, SOON, world};

/// Notes, on the instance's own clock, when it turns read-only.
const NOTE_THE_FENCE: &str = "
require('fiber').create(function()
    box.ctl.wait_ro()
    fenced_at = host_now()
end)";

#[tokio::test]
async fn an_agent_restarted_within_the_lease_goes_on_without_a_refused_write() {
    world()
        .story("agent-restarted", async |world| {
            let scene = Scene::start(world, 3).await?;
            let Tenure { instance, term } = scene.master;
            let session = scene.lock().await?.session;
            let owner = guard(scene.master()).await?["owner"].clone();
            for _ in 0..3 {
                scene.master_agent().restart().await?;
                scene.wait_for_refreshes().await?;
            }
            // Longer than any lease that the first agent gave.
            scene.set.stays_master(instance, LEASE * 5 / 4).await?;
            let entry = scene.lock().await?;
            assert_eq!(entry.json()?["term"], term);
            assert_eq!(entry.session, session, "the session was taken over too");
            assert_ne!(guard(scene.master()).await?["owner"], owner);
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            scene.assert_undisturbed().await
        })
        .await;
}

#[tokio::test]
async fn an_instance_whose_agent_is_gone_for_good_fences_itself_in_time() {
    world()
        .story("agent-gone", async |world| {
            let scene = Scene::start(world, 3).await?;
            let old = scene.master;
            scene.master().eval(NOTE_THE_FENCE, &[]).await?;
            scene.master_agent().kill().await?;
            let deadline = guard(scene.master()).await?["deadline"].as_u64();
            let heir = scene.wait_for_heir(SESSION_EXPIRY).await?;

            let guard = guard(scene.master()).await?;
            assert_eq!(guard["last_fence"], "its lease ended");
            assert_eq!(guard["unleased"], 0);
            let noted = scene.master().eval("return fenced_at", &[]).await?;
            let fenced_at = noted.first().and_then(Value::as_u64);
            let (Some(deadline), Some(fenced_at)) = (deadline, fenced_at) else {
                panic!("deadline {deadline:?}, fenced at {fenced_at:?}");
            };
            // A successor counts this much on top of the lease (R3).
            let margin = LEASE / 50 + std::time::Duration::from_millis(250);
            assert!(
                fenced_at.saturating_sub(deadline) < margin.as_nanos() as u64,
                "the lease ended at {deadline}, fenced at {fenced_at}"
            );
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            Ok(())
        })
        .await;
}
