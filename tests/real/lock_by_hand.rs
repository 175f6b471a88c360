//! An operator's hand on the session or on the lock itself, under a running master.

use std::time::Duration;

use tarsec_harness::{KvEntry, Result, World};

use crate::cluster::Cluster;
use crate::support::{SOON, world};

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
