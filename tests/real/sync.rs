//! Synchronous spaces: an acknowledged write is on the next master, however the master before it went.

use tarsec_harness::{
    AgentBuilder, History, Machine, ReplicaSet, ReplicaSetOptions, Result, Tenure, Value, Version,
    World, WritersBuilder, eventually, json,
};

use crate::scene::{SOME_WRITES, Scene, assert_reigns, wait_for_master, wait_until_fenced_or_gone};
use crate::strict::{EXACT_WRITES, assert_nothing_late};
use crate::support::{SOON, world};

/// The journal becomes synchronous on the instance where the set is born, before there is an agent.
pub(crate) const SYNCHRONOUS: &str = "
box.cfg{replication_synchro_quorum = 2, replication_synchro_timeout = 5}
if os.getenv('BOOTSTRAP') == 'true' and not box.space.journal.is_sync then
    box.cfg{read_only = false}
    box.space._space:update(box.space.journal.id, {{'=', 6, {is_sync = true}}})
    box.cfg{read_only = true}
end
";

fn synchronous() -> ReplicaSetOptions {
    ReplicaSetOptions::of(3).linked().extra_lua(SYNCHRONOUS)
}

fn busy(writers: WritersBuilder) -> WritersBuilder {
    writers.rate(1000).window(256)
}

pub(crate) async fn start(
    world: &World,
    agent: impl Fn(usize, AgentBuilder) -> AgentBuilder,
) -> Result<Scene> {
    start_on(world, synchronous(), agent).await
}

async fn start_on(
    world: &World,
    options: ReplicaSetOptions,
    agent: impl Fn(usize, AgentBuilder) -> AgentBuilder,
) -> Result<Scene> {
    let scene = Scene::start_with(world, options, agent, busy).await?;
    let lua = "return box.space.journal.is_sync, box.cfg.replication_synchro_quorum";
    for instance in scene.set.iter() {
        eventually(SOON, "a synchronous journal", async || {
            match instance.eval(lua, &[]).await.as_deref() {
                Ok([Value::Bool(true), quorum]) if *quorum == 2 => Ok(()),
                other => Err(format!("{}: {other:?}", instance.name())),
            }
        })
        .await?;
    }
    Ok(scene)
}

/// The end of a story: the heir alone came after the story's master, and has every acknowledged write.
pub(crate) async fn assert_succeeded(scene: Scene, heir: Tenure) -> Result<()> {
    let history = scene.writers.stop().await?;
    assert_reigns(&history.judge(), &[scene.master, heir]);
    assert_nothing_lost(&scene.set, &history, heir).await
}

/// Every write that was acknowledged is at the new master, and the settings are what they were.
async fn assert_nothing_lost(set: &ReplicaSet, history: &History, master: Tenure) -> Result<()> {
    let missing = set.missing_writes(master.instance, history).await?;
    assert_eq!(missing, 0, "acknowledged writes lost:\n{}", history.judge());
    let lua = "return box.cfg.replication_synchro_quorum, box.cfg.replication_synchro_timeout";
    let settings = set[master.instance].eval(lua, &[]).await?;
    assert_eq!(settings, [json!(2), json!(5)]);
    Ok(())
}

#[tokio::test]
async fn what_a_killed_master_acknowledged_is_on_the_next_one() {
    world()
        .story("sync-kill", async |world| {
            let scene = start(world, |_, agent| agent).await?;
            scene.master().kill().await?;
            let heir = scene.wait_for_heir(SOON).await?;
            assert_succeeded(scene, heir).await
        })
        .await;
}

#[tokio::test]
async fn a_quorum_by_formula_and_a_small_queue_lose_nothing_and_stay_as_they_were() {
    let test = "a_quorum_by_formula_and_a_small_queue_lose_nothing_and_stay_as_they_were";
    let knows = |version| version > Version::new(2, 6, 0);
    if Version::skips(test, knows, "its quorum is a number") {
        return;
    }
    // The size has a setting since 3.3; a small one makes writers wait for the queue.
    let lua = format!(
        "{SYNCHRONOUS}
        box.cfg{{replication_synchro_quorum = 'N / 2 + 1'}}
        pcall(box.cfg, {{replication_synchro_queue_max_size = 2048}})"
    );
    let options = ReplicaSetOptions::of(3).linked().extra_lua(&lua);
    let settings =
        "return box.cfg.replication_synchro_quorum, box.cfg.replication_synchro_queue_max_size";
    let story = async |world: &World| {
        let scene = Scene::start_with(world, options, |_, agent| agent, busy).await?;
        let before = scene.master().eval(settings, &[]).await?;
        assert_eq!(before[0], "N / 2 + 1");
        let old = scene.master;
        scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
        scene.master().kill().await?;
        let heir = scene.wait_for_heir(SOON).await?;
        let history = scene.writers.stop().await?;
        assert_reigns(&history.judge(), &[old, heir]);
        let missing = scene.set.missing_writes(heir.instance, &history).await?;
        assert_eq!(missing, 0, "acknowledged writes lost:\n{}", history.judge());
        let after = scene.set[heir.instance].eval(settings, &[]).await?;
        assert_eq!(after, before);
        Ok(())
    };
    world().story("sync-formula", story).await;
}

#[tokio::test]
async fn what_a_frozen_master_acknowledged_is_on_the_next_one_and_it_wakes_no_more() {
    world()
        .story("sync-freeze", async |world| {
            let scene = start(world, |_, agent| agent).await?;
            let old = scene.master;
            scene.master().freeze().await?;
            let heir = scene.wait_for_heir(SOON).await?;
            // R5: it was killed before its lock moved, so that it cannot be woken to acknowledge what waits in it.
            scene.master().thaw().ok();
            scene.master().process().wait(SOON).await?;
            let history = scene.writers.stop().await?;
            let verdict = history.judge();
            assert_reigns(&verdict, &[old, heir]);
            assert_eq!(verdict.committed_late.writes, 0, "{verdict}");
            assert_nothing_lost(&scene.set, &history, heir).await
        })
        .await;
}

#[tokio::test]
async fn what_a_machine_acknowledged_before_it_froze_is_on_the_next_master_and_strict_ends_the_rest()
 {
    world()
        .story("sync-machine", async |world| {
            let strict = |_, agent: AgentBuilder| agent.env("GUARD", "strict");
            // It may freeze between a commit in time and the reply.
            let options = synchronous().extra_lua(EXACT_WRITES);
            let scene = start_on(world, options, strict).await?;
            let old = scene.master;
            Machine::of(scene.master(), scene.master_agent())
                .freeze()
                .await?;
            let heir = scene.wait_for_heir(SOON).await?;
            scene.master().thaw()?;
            wait_until_fenced_or_gone(scene.master()).await?;
            scene.master_agent().thaw()?;
            // Not that the next master can go on: 2.6.0's replication does not always survive what the old one sends.
            let history = scene.writers.stop().await?;
            let verdict = history.judge();
            assert_reigns(&verdict, &[old, heir]);
            assert_nothing_late(&verdict);
            assert_nothing_lost(&scene.set, &history, heir).await
        })
        .await;
}

#[tokio::test]
async fn what_a_master_acknowledged_before_it_was_cut_from_its_replicas_is_on_the_next_one() {
    world()
        .story("sync-cut", async |world| {
            let scene = start(world, |_, agent| agent).await?;
            let old = scene.master;
            for follower in (0..3).filter(|follower| *follower != old.instance) {
                let link = scene.set.link(follower, old.instance);
                link.expect("the set is linked").cut().await?;
            }
            // Writes wait for a quorum that does not come.
            eventually(SOON, "writes that wait", async || {
                let waiting = scene.writers.so_far().judge().unanswered;
                if waiting >= 200 {
                    Ok(())
                } else {
                    Err(waiting.to_string())
                }
            })
            .await?;
            scene.master().kill().await?;
            let heir = scene.wait_for_heir(SOON).await?;
            assert_succeeded(scene, heir).await
        })
        .await;
}

/// From 2.10 on an owner of the queue that was started again stays read-only until it has promoted itself anew.
#[tokio::test]
async fn a_master_that_was_started_again_owns_its_queue_anew_and_goes_on() {
    world()
        .story("sync-restart", async |world| {
            let options = ReplicaSetOptions::of(1)
                .extra_lua(SYNCHRONOUS)
                .extra_lua("box.cfg{replication_synchro_quorum = 1}");
            let scene = Scene::start_with(world, options, |_, agent| agent, busy).await?;
            scene.set[0].restart().await?;
            let after = |seen: &Tenure| seen.term > scene.master.term;
            wait_for_master(&scene.set, after, SOON).await?;
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await
        })
        .await;
}
