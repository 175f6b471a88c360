//! A master whose `memtx_memory` is used up answers, and is fenced like any other: its barrier needs no memory.

use std::time::{Duration, Instant};

use tarsec_harness::{Agent, AgentBuilder, ReplicaSetOptions, Result, World, eventually};

use crate::scene::{Scene, guard, wait_for_master};
use crate::support::{SOON, world};

/// Long enough to tell a release at once from a release that waits for the lease.
const LONG_LEASE: Duration = Duration::from_secs(10);

/// Writes rows of ever smaller size until not even the smallest has room. In a local space, so that the others have
/// theirs.
const FILL: &str = "
    local space = box.schema.space.create('fill', {is_local = true, if_not_exists = true})
    space:create_index('primary', {if_not_exists = true})
    local id, text = 0, string.rep('x', 4096)
    while true do
        id = id + 1
        local ok, err = pcall(space.replace, space, {id, text})
        if not ok and #text == 0 then
            return tostring(err)
        elseif not ok then
            text = text:sub(1, #text / 2)
        end
        if id % 1000 == 0 then
            require('fiber').yield()
        end
    end";

/// Three instances, the master's memory full to the last row.
async fn full(world: &World, agent: fn(AgentBuilder) -> AgentBuilder) -> Result<Scene> {
    let options = ReplicaSetOptions::of(3).memtx_memory(32 << 20);
    let scene = Scene::start_with(
        world,
        options,
        |_, builder| agent(builder),
        |writers| writers.rate(50),
    )
    .await?;
    let mut session = scene.master().connect().await?;
    let said = session.eval(FILL, &[], SOON).await?;
    let said = said.first().and_then(|said| said.as_str()).unwrap_or("");
    assert!(said.contains("Failed to allocate"), "{said}");
    let write = scene.master().eval("box.space.fill:replace{0}", &[]).await;
    assert!(write.is_err(), "there is still room");
    Ok(scene)
}

fn long_lease(agent: AgentBuilder) -> AgentBuilder {
    agent.env("MASTER_LEASE", "10s")
}

/// The old master answers, is read-only by its guard, and its agent has killed nothing.
async fn assert_spared(scene: &Scene, agents: &[Agent], why: &str) -> Result<()> {
    assert!(scene.master().process().is_running());
    let guard = guard(scene.master()).await?;
    assert_eq!(
        (&guard["leased"], guard["last_fence"].as_str()),
        (&false.into(), Some(why))
    );
    for agent in agents {
        let lines = agent.logs()?;
        let kill = lines
            .iter()
            .find(|line| line.message() == "hung instance killed");
        assert!(kill.is_none(), "{kill:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_stopped_agent_of_a_master_with_full_memory_releases_at_once() {
    world()
        .story("full-stopped", async |world| {
            let scene = full(world, long_lease).await?;
            let asked_at = Instant::now();
            let status = scene.master_agent().term(SOON).await?;
            let took = asked_at.elapsed();
            assert_eq!(status.code(), Some(0));
            assert!(took < LONG_LEASE / 2, "the stop took {took:?}");
            wait_for_heir(&scene).await?;
            assert_spared(&scene, &scene.agents, "its agent was asked to stop").await?;
            scene.writers.verdict().await?.assert_safe();
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_switchover_from_a_master_with_full_memory_is_done() {
    world()
        .story("full-switchover", async |world| {
            let scene = full(world, long_lease).await?;
            let board = world.board(&scene.consul, &scene.set);
            let id = board.request_switchover(None, SOON / 4).await?;
            let order = board.wait_for_switchover(&id, SOON).await?;
            assert_eq!(order["state"], "done", "{order}");
            wait_for_heir(&scene).await?;
            assert!(scene.master().process().is_running());
            scene.writers.verdict().await?.assert_safe();
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_master_with_full_memory_that_loses_consul_is_fenced_and_not_killed() {
    world()
        .story("full-cut-off", async |world| {
            let scene = full(world, |agent| agent.linked().env("FAILSAFE", "off")).await?;
            let link = scene.master_agent().consul_link();
            link.unwrap_or_else(|| panic!("the agent is linked"))
                .cut()
                .await?;
            wait_for_heir(&scene).await?;
            // The kill, were there one, comes before another instance may be writable by time.
            assert_spared(&scene, &scene.agents, "its lease ended").await?;
            eventually(SOON, "a passed barrier", async || {
                let lua = "local s = tarsec_guard.state return s.barrier_epoch == s.epoch";
                let passed = scene.master().eval(lua, &[]).await;
                let passed = passed.map_err(|error| error.to_string())?;
                passed[0]
                    .as_bool()
                    .filter(|it| *it)
                    .ok_or("none".to_owned())
            })
            .await?;
            scene.writers.verdict().await?.assert_safe();
            Ok(())
        })
        .await;
}

/// Waits until another instance is writable, whose memory is not used up.
async fn wait_for_heir(scene: &Scene) -> Result<()> {
    let old = scene.master;
    let fits = |seen: &tarsec_harness::Tenure| seen.instance != old.instance;
    wait_for_master(&scene.set, fits, SOON * 2).await?;
    scene.writers.wait_for_writes(20, SOON).await
}
