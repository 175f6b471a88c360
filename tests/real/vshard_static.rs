//! A running static cluster is taken over as it is, and what vshard itself does to `read_only` is caught.

use std::path::Path;

use tarsec_harness::{Result, VshardOptions, World, eventually};

use crate::support::SOON;
use crate::vshard::{LATE, Shards, story};

/// vshard's own way to make a member master: by its flag alone, `read_only` follows.
const BY_HAND: &str = "
local own = box.info.uuid
local cfg = table.deepcopy(vshard.storage.internal.current_cfg)
local listen, replication = box.cfg.listen, box.cfg.replication
cfg.read_only, cfg.listen, cfg.replication = nil, listen, replication
for _, replicaset in pairs(cfg.sharding) do
    if replicaset.replicas[own] ~= nil then
        for id, replica in pairs(replicaset.replicas) do replica.master = id == own or nil end
    end
end
vshard.storage.internal.current_cfg.read_only = nil
vshard.storage.cfg(cfg, own)";

async fn adopted(world: &World, root: &Path) -> Result<()> {
    let options = VshardOptions::of(root).flagged();
    let mut shards = Shards::start_with(world, &options, &[]).await?;
    // A replica is made master by hand, behind its agent's back: its guard fences it in the same moment, and its agent
    // puts the flags right.
    let replica = (shards.masters[0] + 1) % 3;
    let instance = &shards.cluster.sets[0][replica];
    // vshard fails half-way where the schema is written by an instance that has just been fenced.
    instance.eval(BY_HAND, &[]).await.ok();
    eventually(SOON, "the flags to be put right", async || {
        let lua = "
local internal = vshard.storage.internal
return internal.this_replicaset.master ~= internal.this_replica, box.info.ro, tarsec_guard.state.unleased";
        let found = instance.eval(lua, &[]).await;
        let found = found.map_err(|error| error.to_string())?;
        let right = found[0] == true && found[1] == true && found[2].as_u64() > Some(0);
        right.then_some(()).ok_or(format!("{found:?}"))
    })
    .await?;
    assert_eq!(
        shards.cluster.sets[0].wait_for_master(LATE).await?,
        shards.masters[0]
    );
    shards.wait_for_writes().await?;
    shards.master(0).kill().await?;
    shards.wait_for_new_master(0).await?;
    shards.assert_whole().await?;
    Ok(())
}

#[tokio::test]
async fn a_cluster_with_flags_is_taken_over_and_a_flag_by_hand_makes_nobody_writable() {
    story("vshard-static", adopted).await;
}
