//! Routers and their agents come and go.

use std::path::Path;

use tarsec_harness::{Result, Value, World, eventually};

use crate::support::SOON;
use crate::vshard::{LATE, Shards, story};

/// What an agent says of its router.
async fn router_key(shards: &Shards, world: &World, router: usize) -> Result<Value> {
    let uuid = shards.cluster.routers[router].uuid();
    let key = format!("tarsec/{}/routers/{uuid}", world.cluster());
    let entry = shards.consul.api()?.kv(&key).await?;
    entry.map_or(Ok(Value::Null), |entry| entry.json())
}

async fn wait_for_health(
    shards: &Shards,
    world: &World,
    router: usize,
    health: &str,
    words: &str,
) -> Result<()> {
    eventually(LATE, &format!("a router that is {health}"), async || {
        let key = router_key(shards, world, router).await;
        let key = key.map_err(|error| error.to_string())?;
        let reason = key["reason"].as_str().unwrap_or_default();
        if key["health"] == health && reason.contains(words) {
            Ok(())
        } else {
            Err(key.to_string())
        }
    })
    .await
}

async fn router_killed(world: &World, root: &Path) -> Result<()> {
    let mut shards = Shards::start(world, root).await?;
    wait_for_health(&shards, world, 1, "passing", "every replica set").await?;
    eventually(LATE, "both routers in the catalog", async || {
        let api = shards.consul.api().map_err(|error| error.to_string())?;
        let services = api.service("tarantool-router").await;
        let services = services.map_err(|error| error.to_string())?;
        (services.len() == 2)
            .then_some(())
            .ok_or_else(|| format!("{services:?}"))
    })
    .await?;

    shards.cluster.routers[1].kill().await?;
    wait_for_health(&shards, world, 1, "critical", "cannot be reached").await?;
    // It comes back with a configuration that knows of no master, or of another one.
    shards.master(0).kill().await?;
    let old = shards.masters[0];
    shards.masters[0] = shards.cluster.sets[0]
        .wait_for_new_master(old, LATE)
        .await?;
    shards.cluster.routers[1].start().await?;
    let masters = shards.masters.clone();
    for router in &shards.cluster.routers {
        shards
            .cluster
            .wait_for_routes(router, &masters, LATE)
            .await?;
    }
    wait_for_health(&shards, world, 1, "passing", "every replica set").await?;
    shards.wait_for_writes().await?;
    shards.assert_whole().await?;
    Ok(())
}

#[tokio::test]
async fn a_router_that_comes_back_is_told_the_masters() {
    story("vshard-router", router_killed).await;
}

async fn agent_killed(world: &World, root: &Path) -> Result<()> {
    let mut shards = Shards::start(world, root).await?;
    shards.router_agents[0].kill().await?;
    shards.master(0).kill().await?;
    let old = shards.masters[0];
    shards.masters[0] = shards.cluster.sets[0]
        .wait_for_new_master(old, LATE)
        .await?;
    let masters = shards.masters.clone();
    let routers = &shards.cluster.routers;
    shards
        .cluster
        .wait_for_routes(&routers[1], &masters, LATE)
        .await?;
    // No agent told the other router; its own agent does when it is back.
    shards.router_agents[0].start()?;
    shards
        .cluster
        .wait_for_routes(&routers[0], &masters, LATE)
        .await?;
    shards.wait_for_writes().await?;
    let dump = shards.router_agents[0].usr2().await?;
    assert_eq!(dump["role"], "router", "{dump}");
    assert!(dump["state"]["vshard"]["masters"].is_object(), "{dump}");
    // It leaves the catalog when it is stopped.
    shards.router_agents[0].term(SOON).await?;
    let services = shards.consul.api()?.service("tarantool-router").await?;
    assert_eq!(services.len(), 1, "{services:?}");
    shards.assert_whole().await?;
    Ok(())
}

#[tokio::test]
async fn a_routers_agent_that_comes_back_tells_it_what_it_missed() {
    story("vshard-router-agent", agent_killed).await;
}

async fn cut_off(world: &World, root: &Path) -> Result<()> {
    let shards = Shards::start(world, root).await?;
    let masters = shards.masters.clone();
    // An operator configures the router by hand, with an instance as master that is not master.
    let wrong = (masters[1] + 1) % 3;
    let lua = "
local rs, instance = ...
local cfg = table.deepcopy(vshard.router.internal.static_router.current_cfg)
for id, replica in pairs(cfg.sharding[rs].replicas) do replica.master = id == instance or nil end
vshard.router.cfg(cfg)";
    let set = &shards.cluster.sets[1];
    let args = [set.uuid().into(), set[wrong].uuid().into()];
    shards.cluster.routers[0].eval(lua, &args).await?;
    shards
        .cluster
        .wait_for_routes(&shards.cluster.routers[0], &masters, LATE)
        .await?;
    shards.wait_for_writes().await?;
    shards.assert_whole().await?;
    Ok(())
}

#[tokio::test]
async fn a_router_that_somebody_points_elsewhere_is_pointed_back() {
    story("vshard-router-by-hand", cut_off).await;
}
