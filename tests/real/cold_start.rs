//! No record names the last master: the first holder waits until any lease that may be running is over, unless every
//! member answers that it is read-only (`first_start`).

use std::time::{Duration, Instant};

use tarsec_harness::{Consul, Result, Tenure, Verdict, eventually, json};

use crate::scene::{
    SOME_WRITES, Scene, assert_reigns, lock_entry, lock_key, tenures, wait_for_master,
};
use crate::support::{LEASE, SOON, world};

/// Waits until the lock is held, and returns a moment at which it was not yet.
async fn wait_until_held(consul: &Consul, key: &str) -> Result<Instant> {
    let mut free_at = Instant::now();
    eventually(SOON, "somebody to hold the lock", async || {
        let asked_at = Instant::now();
        let api = consul.api().map_err(|error| error.to_string())?;
        let entry = api.kv(key).await.map_err(|error| error.to_string())?;
        match entry {
            Some(entry) if entry.session.is_some() => Ok(()),
            other => {
                free_at = asked_at;
                Err(format!("{other:?}"))
            }
        }
    })
    .await?;
    Ok(free_at)
}

/// The first write under this tenure began a full lease after a moment before the lock was gained.
fn assert_waited(verdict: &Verdict, tenure: Tenure, writers_since: Instant, free_at: Instant) {
    let share = verdict.shares.iter().find(|share| share.tenure == tenure);
    let began = share.map_or(Duration::ZERO, |share| share.first_began);
    let free_until = free_at.duration_since(writers_since);
    assert!(
        began >= free_until + LEASE,
        "first write {began:?}, lock still free {free_until:?}:\n{verdict}"
    );
}

#[tokio::test]
async fn where_one_member_does_not_answer_the_first_master_comes_a_lease_after_the_lock_was_gained()
{
    world()
        .story("cold-start", async |world| {
            let consul = world.consul().await?;
            let set = world.replica_set(3).await?;
            let key = lock_key(world, &set);
            let writers_since = Instant::now();
            let writers = set.writers().start();
            // For all that the other agents know it may be writable, and come back any moment.
            set[2].freeze().await?;
            let mut agents = Vec::new();
            for index in 0..2 {
                agents.push(world.agent(&set[index], &consul)?.start().await?);
            }
            let free_at = wait_until_held(&consul, &key).await?;
            let master = wait_for_master(&set, |_| true, SOON).await?;
            set.stays_master(master.instance, LEASE).await?;
            writers.wait_for_writes(SOME_WRITES, SOON).await?;

            let entry = lock_entry(&consul, &key).await?;
            let record = entry.json()?;
            assert!(entry.session.is_some(), "{entry:?}");
            assert_eq!(
                (&record["v"], &record["term"], &record["status"]),
                (&json!(1), &json!(1), &json!("active"))
            );
            assert_eq!(record["instance"], set[master.instance].uuid());
            assert_eq!(record["lease_ms"], json!(LEASE.as_millis() as u64));
            for (index, agent) in agents.iter().enumerate() {
                let dump = agent.usr1().await?;
                assert_eq!(
                    dump["consul"]["holds_lock"],
                    json!(index == master.instance)
                );
            }
            set[2].thaw()?;
            let history = writers.stop().await?;
            let verdict = history.judge();
            assert_reigns(&verdict, &[Tenure { term: 1, ..master }]);
            assert_waited(&verdict, master, writers_since, free_at);
            for index in 0..set.len() {
                set.wait_for_all_writes(index, &history, SOON).await?;
            }
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_missing_record_does_not_shorten_the_lease_of_the_master_that_it_named() {
    world()
        .story("record-missing", async |world| {
            let scene = Scene::start(world, 3).await?;
            let old = scene.master;
            // All agents gone at once; the old master goes on under its lease, and nothing tells of it any more.
            scene.wait_for_refreshes().await?;
            for agent in &scene.agents {
                agent.process().kill_no_wait()?;
            }
            for agent in &scene.agents {
                agent.wait(SOON).await?;
            }
            scene.consul.api()?.kv_delete(&scene.key).await?;
            assert!(scene.master().is_writable().await, "its lease still runs");
            for (index, agent) in scene.agents.iter().enumerate() {
                if index != old.instance {
                    agent.start()?;
                }
            }
            let heir = scene.wait_for_heir(SOON).await?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_replica_set_with_data_whose_record_is_missing_goes_on_with_a_higher_term() {
    world()
        .story("data-no-record", async |world| {
            let scene = Scene::start(world, 3).await?;
            let old = scene.master;
            for agent in &scene.agents {
                agent.kill().await?;
            }
            let before = scene.writers.stop().await?;
            for instance in scene.set.iter() {
                instance.stop().await?;
            }
            scene.consul.api()?.kv_delete(&scene.key).await?;
            // The guards have forgotten everything; only the members' keys still tell of terms.
            scene.set.start_all().await?;
            let writers = scene.set.writers().start();
            for agent in &scene.agents {
                agent.start()?;
            }
            let master = wait_for_master(&scene.set, |_| true, SOON).await?;
            writers.wait_for_writes(SOME_WRITES, SOON).await?;
            let verdict = writers.verdict().await?;
            assert_eq!(tenures(&verdict), [master], "{verdict}");
            verdict.assert_safe();
            assert!(master.term > old.term, "{master:?} after {old:?}");
            scene
                .set
                .wait_for_all_writes(master.instance, &before, SOON)
                .await?;
            Ok(())
        })
        .await;
}
