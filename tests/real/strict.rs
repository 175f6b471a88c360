//! `GUARD=strict`: a machine that is frozen as a whole, agent and instance, and wakes up after its succession.

use std::os::unix::process::ExitStatusExt;

use tarsec_harness::{
    AgentBuilder, Machine, ReplicaSetOptions, Result, Value, Verdict, World, WritersBuilder,
    eventually,
};

use crate::pause::wait_until_stood_down;
use crate::scene::{
    Scene, assert_never_refused, assert_reigns, wait_for_master, wait_until_fenced_or_gone,
};
use crate::support::{LEASE, SOON, world};

/// A write whose end is taken when it has landed. A write that landed in time may be acknowledged at any time: a
/// process can be frozen between the commit and the reply, or the network be slow, and its reader cannot tell.
pub(crate) const EXACT_WRITES: &str = "
function journal_write(writer, seq)
    local began, ended, deadline = host_now(), nil, nil
    local term = tarsec_guard and tarsec_guard.term()
    box.begin()
    box.on_commit(function() ended = host_now() end)
    local ok, err = pcall(function()
        box.space.journal:insert{writer, seq, os.getenv('INSTANCE_NAME'), term or 0}
        deadline = tarsec_guard and tonumber(tarsec_guard.deadline())
        box.commit()
    end)
    if not ok then
        if box.is_in_txn() then box.rollback() end
        error(err)
    end
    local later = tarsec_guard and tonumber(tarsec_guard.deadline())
    if deadline and later > deadline and tarsec_guard.term() == term then deadline = later end
    return term, began, ended, deadline and deadline - tonumber(ended), box.info.lsn
end
";

fn strict(_: usize, agent: AgentBuilder) -> AgentBuilder {
    agent.env("GUARD", "strict")
}

/// Many writes stand in the queue of an instance that stops.
fn heavy(writers: WritersBuilder) -> WritersBuilder {
    writers.rate(2000).window(1024)
}

async fn under_load(world: &World) -> Result<Scene> {
    let options = ReplicaSetOptions::of(3).extra_lua(EXACT_WRITES);
    Scene::start_with(world, options, strict, heavy).await
}

pub(crate) fn assert_nothing_late(verdict: &Verdict) {
    assert_eq!(verdict.past_deadline.writes, 0, "{verdict}");
    assert_eq!(verdict.committed_late.writes, 0, "{verdict}");
}

/// Freezes the master's machine, waits for its heir, and wakes it.
async fn sleep_through_the_succession(scene: Scene) -> Result<Verdict> {
    let old = scene.master;
    let machine = Machine::of(scene.master(), scene.master_agent());
    machine.freeze().await?;
    let heir = scene.wait_for_heir(SOON).await?;

    // First the instance alone: it has the processor before anybody could end it.
    scene.master().thaw()?;
    wait_until_fenced_or_gone(scene.master()).await?;
    scene.master_agent().thaw()?;
    scene.writers.wait_for_writes(100, SOON).await?;
    // It may have killed itself; either way it finds its way back.
    scene.set.start_all().await?;
    scene.set.wait_for_mesh(SOON).await?;
    scene.set.stays_master(heir.instance, LEASE / 2).await?;
    let verdict = scene.writers.verdict().await?;
    assert!(
        verdict.unanswered + verdict.read_only >= 100,
        "little was queued:\n{verdict}"
    );
    assert_reigns(&verdict, &[old, heir]);
    Ok(verdict)
}

#[tokio::test]
async fn a_machine_woken_after_its_succession_acknowledges_nothing_late() {
    world()
        .story("strict-machine", async |world| {
            let scene = under_load(world).await?;
            let verdict = sleep_through_the_succession(scene).await?;
            assert_nothing_late(&verdict);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn an_ordinary_end_of_the_lease_under_load_kills_nothing() {
    world()
        .story("strict-lease-end", async |world| {
            let scene = under_load(world).await?;
            let pid = scene.master().process().pid();
            scene.master_agent().freeze().await?;
            scene.set.wait_for_no_master(SOON).await?;
            scene.master_agent().thaw()?;
            let master = wait_for_master(&scene.set, |_| true, SOON).await?;
            assert_eq!(master, scene.master, "nobody else could take the lock");
            scene.writers.wait_for_writes(100, SOON).await?;
            assert_eq!(
                scene.master().process().pid(),
                pid,
                "a healthy instance was killed"
            );
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[scene.master]);
            assert_nothing_late(&verdict);
            Ok(())
        })
        .await;
}

/// In one turn of the event loop, so that no fiber can fence: a write that begins in time and lands late, and a write
/// that begins late.
const LATE_WRITES: &str = "
local log = require('log')
box.session.su('admin', function()
    local journal, term = box.space.journal, tarsec_guard.term()
    box.begin()
    journal:insert{'late', 1, 'the story', term}
    while tarsec_guard.now() < tarsec_guard.deadline() do end
    local ok = pcall(journal.insert, journal, {'late', 2, 'the story', term})
    log.info('story: what began late was %s', ok and 'accepted' or 'refused')
    box.commit()
end)
return 'acknowledged'
";

const PAST_DEADLINE: &str = "
return tarsec_guard.deadline() < tarsec_guard.now() and box.space.journal:on_replace()[1] ~= nil";

#[tokio::test]
async fn a_paused_master_writes_on_past_its_lease_and_is_held_to_it_again_afterwards() {
    world()
        .story("strict-pause", async |world| {
            let options = ReplicaSetOptions::of(3).extra_lua(EXACT_WRITES);
            // No promises: the lease is to end.
            let alone = |at, agent: AgentBuilder| strict(at, agent).env("FAILSAFE", "off");
            let mut scene = Scene::start_with(world, options, alone, |writers| writers).await?;
            let old = scene.master;
            scene.set.wait_for_mesh(SOON).await?;
            let board = world.board(&scene.consul, &scene.set);
            board.pause("a story").await?;
            wait_until_stood_down(&scene, true).await?;
            scene.consul.kill().await?;
            eventually(SOON, "a strict guard past its deadline", async || {
                let said = scene.master().eval(PAST_DEADLINE, &[]).await;
                match said.as_deref() {
                    Ok([Value::Bool(true)]) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
            scene.set.stays_master(old.instance, LEASE).await?;
            scene.writers.wait_for_writes(200, SOON).await?;
            scene.consul.restart().await?;
            scene.consul.wait_for_leader(SOON).await?;
            board.resume().await?;
            wait_until_stood_down(&scene, false).await?;
            scene.wait_for_refreshes().await?;

            let after = scene.set.writers().start();
            let before = std::mem::replace(&mut scene.writers, after);
            let history = before.stop().await?;
            assert_reigns(&history.judge(), &[old]);
            assert_never_refused(&history, old.instance);

            scene.writers.wait_for_writes(100, SOON).await?;
            scene.master_agent().freeze().await?;
            let answer = scene.master().eval(LATE_WRITES, &[]).await;
            assert!(answer.is_err(), "{answer:?}");
            let status = scene.master().process().wait(SOON).await?;
            assert_eq!(status.signal(), Some(9), "{status}");
            let log = scene.master().process().stderr()?;
            assert!(log.contains("what began late was refused"), "{log}");
            scene.master_agent().thaw()?;
            scene.set.start_all().await?;
            let heir = wait_for_master(&scene.set, |seen| seen.term >= old.term, SOON).await?;
            scene.writers.wait_for_writes(100, SOON).await?;
            scene.set.wait_for_mesh(SOON).await?;
            let late = "return box.space.journal:get{'late', 2} == nil";
            let is_absent = scene.set[heir.instance].eval(late, &[]).await?;
            assert_eq!(is_absent, [Value::Bool(true)]);
            let verdict = scene.writers.verdict().await?;
            verdict.assert_safe();
            assert_nothing_late(&verdict);
            Ok(())
        })
        .await;
}
