//! What the guard needs of the database, and where Tarantool's versions differ in it.

use tarsec_harness::{Value, Version, World, json, sources};

use crate::cluster::Cluster;
use crate::support::{SOON, world};

const SHAPES: &str = include_str!("lua/platform_shapes.lua");

/// A case that vanishes is a case that does not fail.
const CASES: usize = 12;

#[tokio::test]
async fn boxes_shaped_like_each_versions_and_the_one_that_runs_meet_the_guards_needs() {
    let story = async |world: &World| {
        let set = world.replica_set(1).await?;
        let ran = set[0].eval(SHAPES, &[json!(sources::PLATFORM)]).await?;
        let ran = ran.first().and_then(|names| names.as_array());
        assert_eq!(ran.map_or(0, Vec::len), CASES, "{ran:?}");
        Ok(())
    };
    world().story("platform-shapes", story).await;
}

/// Settings that an operator changes at run time; each is set to another value and back.
pub(crate) const CHANGES: &str = "
local changes = {too_long_threshold = 0.7, replication_timeout = 1.5, checkpoint_count = 3, log_level = 4,
    replication_connect_timeout = 2, snap_io_rate_limit = 100, readahead = 32640, net_msg_max = 1024,
    replication_sync_lag = 11, checkpoint_interval = 7200}
for name, value in pairs(changes) do
    local before = box.cfg[name]
    box.cfg{[name] = value}
    assert(box.cfg[name] == value, name)
    box.cfg{[name] = before}
end
box.cfg{}
return box.info.ro, box.cfg.read_only and true or false, tarsec_guard.state.unleased";

#[tokio::test]
async fn box_cfg_stays_usable_before_during_and_after_a_lease() {
    let story = async |world: &World| {
        let cluster = Cluster::start(world, 2).await?;
        let (master, replica) = (cluster.master.instance, 1 - cluster.master.instance);
        let change = async |instance: usize| cluster.set[instance].eval(CHANGES, &[]).await;
        assert_eq!(change(replica).await?, [json!(true), json!(true), json!(0)]);
        assert_eq!(
            change(master).await?,
            [json!(false), json!(false), json!(0)]
        );
        cluster.agents[master].term(SOON).await?;
        assert_eq!(change(master).await?, [json!(true), json!(true), json!(0)]);
        cluster.wait_for_master().await.map(|_| ())
    };
    world().story("platform-box-cfg", story).await;
}

/// An instance that lacks something is refused in words that name it, and waiting for it would not help.
async fn refused(name: &str, taken_away: &str, lacks: &str) {
    let story = async |world: &World| {
        let consul = world.consul().await?;
        let set = world.replica_set(1).await?;
        set[0].eval(taken_away, &[]).await?;
        let agents = world.agents_with(&set, &consul, |_, agent| agent).await?;
        let status = agents[0].wait(SOON).await?;
        assert_eq!(status.code(), Some(3), "{}", agents[0].process().tail(9));
        let logs = agents[0].logs()?;
        let last = logs.last().expect("it has said something");
        let sentence =
            format!("cannot run this instance: the instance lacks what the guard needs: {lacks}");
        assert_eq!(last.field("reason"), &sentence);
        let guard = set[0]
            .eval("return rawget(_G, 'tarsec_guard') == nil", &[])
            .await?;
        assert_eq!(guard, [Value::Bool(true)]);
        Ok(())
    };
    world().story(name, story).await;
}

#[tokio::test]
async fn an_instance_without_the_setter_of_read_only_is_refused() {
    refused(
        "platform-internal",
        "rawset(box, 'internal', nil)",
        "box.internal.cfg_set_read_only, to switch read_only without waiting",
    )
    .await;
}

#[tokio::test]
async fn an_instance_whose_synchronous_queue_cannot_be_owned_is_refused() {
    let test = "an_instance_whose_synchronous_queue_cannot_be_owned_is_refused";
    let has_owner = |version| version >= Version::new(2, 10, 0);
    if Version::skips(test, has_owner, "its queue has no owner") {
        return;
    }
    refused(
        "platform-promote",
        "box.ctl.promote = nil",
        "box.ctl.promote, to own the queue of synchronous transactions",
    )
    .await;
}
