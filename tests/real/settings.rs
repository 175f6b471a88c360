//! Settings that change which member may be master, and which instance replicas follow.

use std::time::Instant;

use tarsec_harness::{
    AgentBuilder, Instance, ReplicaSet, ReplicaSetOptions, Result, eventually, json,
};

use crate::scene::{SOME_WRITES, Scene, assert_reigns, tenures, wait_for_master};
use crate::support::{LEASE, SOON, world};

/// With all that a URI of the database carries beside letters and digits.
pub(crate) const FOLLOWER: &str = "follower-1.a_b~c";
const FOLLOWERS_PASSWORD: &str = "p!$&'()*+,;=-._~%40w";

/// Following takes one more right than guarding does. New fibers run as admin, who may grant it.
pub(crate) const CREATE_FOLLOWER: &str = "
local name, password = ...
local creating = require('fiber').new(function()
    box.schema.user.create(name, {password = password})
    box.schema.user.grant(name, 'execute', 'universe')
    box.schema.user.grant(name, 'replication')
end)
creating:set_joinable(true)
assert(creating:join())";

/// Waits until a replica follows this address and no other, and `box.cfg.replication` has nothing besides.
pub(crate) async fn wait_until_follows(instance: &Instance, master: &str) -> Result<()> {
    let lua = "
        local followed = setmetatable({}, {__serialize = 'seq'})
        for _, peer in pairs(box.info.replication) do
            if peer.upstream then
                table.insert(followed, peer.upstream.status .. ' ' .. peer.upstream.peer)
            end
        end
        return #(box.cfg.replication or {}), table.concat(followed, ', ')";
    let wanted = format!("follow {FOLLOWER}@{master}");
    let what = format!("{} to follow {master} alone", instance.name());
    eventually(SOON, &what, async || {
        let seen = instance.eval(lua, &[]).await;
        let seen = seen.map_err(|error| error.to_string())?;
        if seen == [json!(1), json!(wanted)] {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await
}

async fn wait_until_all_follow(set: &ReplicaSet, master: usize) -> Result<()> {
    for (index, instance) in set.iter().enumerate() {
        if index != master && instance.process().is_running() {
            wait_until_follows(instance, set[master].addr()).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn replicas_that_follow_are_pointed_at_the_new_master_alone() {
    world()
        .story("follow", async |world| {
            let consul = world.consul().await?;
            let set = world.replica_set(3).await?;
            set[0].set_writable(true).await?;
            let login = [json!(FOLLOWER), json!(FOLLOWERS_PASSWORD)];
            set[0].eval(CREATE_FOLLOWER, &login).await?;
            set[0].set_writable(false).await?;
            let follow = |_, agent: AgentBuilder| {
                let agent = agent.env("REPLICATION", "follow").env("LOG_LEVEL", "debug");
                // Everything that a URI carries beside letters and digits, and nothing in it is decoded.
                agent
                    .env("TARANTOOL_USER", FOLLOWER)
                    .env("TARANTOOL_PASSWORD", FOLLOWERS_PASSWORD)
            };
            let agents = world.agents_with(&set, &consul, follow).await?;
            let writers = set.writers().start();
            let old = wait_for_master(&set, |_| true, SOON).await?;
            writers.wait_for_writes(SOME_WRITES, SOON).await?;
            wait_until_all_follow(&set, old.instance).await?;

            set[old.instance].kill().await?;
            let fits = |seen: &tarsec_harness::Tenure| seen.term > old.term;
            let heir = wait_for_master(&set, fits, SOON).await?;
            wait_until_all_follow(&set, heir.instance).await?;
            writers.wait_for_writes(SOME_WRITES, SOON).await?;

            // The old one comes back with its old list of peers, and follows like the rest.
            set[old.instance].start().await?;
            wait_until_all_follow(&set, heir.instance).await?;
            let since = set.writers().start();
            since.wait_for_writes(SOME_WRITES, SOON).await?;
            let history = since.stop().await?;
            for index in 0..set.len() {
                set.wait_for_all_writes(index, &history, SOON).await?;
            }
            let verdict = writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            for line in agents.iter().map(|agent| agent.logs()) {
                let mut lines = line?.into_iter();
                let told = lines.find(|line| line.text.contains(FOLLOWERS_PASSWORD));
                assert!(told.is_none(), "a password in the log: {told:?}");
            }
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn an_instance_with_a_negative_priority_never_becomes_master() {
    world()
        .story("priority", async |world| {
            let negative = |index, agent: AgentBuilder| match index {
                0 => agent,
                _ => agent.env("PRIORITY", "-1"),
            };
            let options = ReplicaSetOptions::of(2);
            let scene = Scene::start_with(world, options, negative, |writers| writers).await?;
            let old = scene.master;
            assert_eq!(old.instance, 0);
            scene.master().kill().await?;
            scene
                .wait_for_check(
                    1,
                    "passing",
                    "there is no master and this instance cannot be it: PRIORITY is -1",
                )
                .await?;
            // Longer than any wait that ends in a promotion.
            let since = Instant::now();
            while since.elapsed() < LEASE * 3 / 2 {
                assert!(!scene.set[1].is_writable().await);
                assert_eq!(scene.lock().await?.session, None);
            }
            scene.master().start().await?;
            let fits = |seen: &tarsec_harness::Tenure| seen.term > old.term;
            let back = wait_for_master(&scene.set, fits, SOON).await?;
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            let verdict = scene.writers.verdict().await?;
            verdict.assert_safe();
            assert_eq!(tenures(&verdict), [old, back], "{verdict}");
            assert_eq!(back.instance, 0);
            Ok(())
        })
        .await;
}
