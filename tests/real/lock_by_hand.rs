//! An operator's hand on the session or on the lock itself, under a running master.

use std::time::Duration;

use tarsec_harness::{KvEntry, Machine, Result, World, json};

use crate::cluster::Cluster;
use crate::scene::{Scene, assert_reigns};
use crate::support::{LEASE, SOON, world};

/// Each hand is laid on so often: what happens next is a race against the replicas.
const TIMES: usize = 2;
/// How much longer the master's way to Consul is than the replicas', so that it loses every race on equal terms.
const BEHIND: Duration = Duration::from_millis(50);

/// Lays a hand on the lock, and waits each time until the master has it again.
async fn unnoticed(name: &str, hand: impl AsyncFn(&Cluster, &KvEntry) -> Result<()>) {
    let story = async |world: &World| {
        let cluster = Cluster::start_with(world, 3, |_, agent| agent.linked()).await?;
        let link = cluster.agents[cluster.master.instance].consul_link();
        link.expect("the agent is linked").delay(BEHIND).await?;
        for _ in 0..TIMES {
            let before = cluster.lock(world).await?;
            hand(&cluster, &before).await?;
            cluster.wait_until_masters_own_record_stands(world).await?;
        }
        cluster.writers.wait_for_writes(100, SOON).await?;
        cluster.assert_undisturbed().await
    };
    world().story(name, story).await;
}

fn session_of(lock: &KvEntry) -> &str {
    lock.session
        .as_deref()
        .expect("a running master's lock is held")
}

#[tokio::test]
async fn a_session_destroyed_by_an_operator_is_replaced_unnoticed() {
    unnoticed("session-destroyed", async |cluster, lock| {
        let session = session_of(lock);
        cluster.consul.api()?.destroy_session(session).await
    })
    .await;
}

#[tokio::test]
async fn a_lock_key_deleted_by_an_operator_is_written_again_unnoticed() {
    unnoticed("key-deleted", async |cluster, lock| {
        cluster.consul.api()?.kv_delete(&lock.key).await
    })
    .await;
}

#[tokio::test]
async fn a_lock_released_by_an_operator_is_taken_again_unnoticed() {
    unnoticed("lock-released", async |cluster, lock| {
        let path = format!("/v1/kv/{}?release={}", lock.key, session_of(lock));
        // The value goes with the release, so a careful operator hands the old one over.
        let released = cluster
            .consul
            .api()?
            .call("PUT", &path, Some(lock.value.clone()));
        assert_eq!(released.await?, true);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_lock_released_with_an_empty_value_is_taken_again_unnoticed() {
    unnoticed("lock-emptied", async |cluster, lock| {
        let path = format!("/v1/kv/{}?release={}", lock.key, session_of(lock));
        let released = cluster.consul.api()?.call("PUT", &path, Some(""));
        assert_eq!(released.await?, true);
        Ok(())
    })
    .await;
}

/// No lock protects a member's key. Any client with the right to write there can say any term, and none of these
/// may be the last term.
#[tokio::test]
async fn a_term_that_somebody_made_up_in_a_members_key_ends_no_change_of_hands() {
    let story = async |world: &World| {
        let scene = Scene::start(world, 3).await?;
        let old = scene.master;
        let board = world.board(&scene.consul, &scene.set);
        let absurd = [u64::MAX, (1 << 53) - 1, 1 << 52];
        for (index, term) in absurd.into_iter().enumerate() {
            let member = json!({
                "v": 1, "instance": format!("nobody-{index}"), "replicaset": scene.set.uuid(), "name": "nobody",
                "uri": "127.0.0.1:1", "role": "replica", "health": "passing", "term": term, "lease_ms": 3000,
            });
            board
                .put(&format!("members/nobody-{index}"), &member)
                .await?;
        }
        scene.wait_for_refreshes().await?;
        Machine::of(scene.master(), scene.master_agent()).kill_no_wait()?;
        let heir = scene.wait_for_heir(LEASE * 2 + SOON).await?;
        assert_eq!(heir.term, old.term + 1);
        assert_reigns(&scene.writers.verdict().await?, &[old, heir]);
        Ok(())
    };
    world().story("made-up-term", story).await;
}
