//! The central configuration: a key in Consul.

use std::path::Path;

use tarsec_harness::{
    Agent, Consul, ConsulOptions, Instance, Result, Value, VshardCluster, VshardOptions, World,
    eventually, json,
};

use crate::secrets::{change_password, wait_until_replicated, wait_until_taken};
use crate::support::SOON;
use crate::vshard::{LATE, Shards, start_agent, story};

const KEY: &str = "shop/vshard";

/// What vshard in an instance has of its configuration.
const SHAPE: &str = "
local internal = vshard.storage.internal
local cfg = internal.current_cfg or vshard.router.internal.static_router.current_cfg
local weights, instances = {}, 0
for id, replicaset in pairs(cfg.sharding) do
    weights[id] = replicaset.weight
    for _ in pairs(replicaset.replicas) do instances = instances + 1 end
end
return {weights = weights, instances = instances}";

async fn wait_for_shape(
    instance: &Instance,
    what: &str,
    fits: impl Fn(&Value) -> bool,
) -> Result<()> {
    eventually(
        LATE,
        &format!("{what} in {}", instance.name()),
        async || {
            let shape = instance.eval(SHAPE, &[]).await;
            let shape = shape.map_err(|error| error.to_string())?;
            if fits(&shape[0]) {
                Ok(())
            } else {
                Err(shape[0].to_string())
            }
        },
    )
    .await
}

fn everybody(cluster: &VshardCluster) -> Vec<&Instance> {
    let storages = cluster.sets.iter().flat_map(|set| set.iter());
    storages.chain(&cluster.routers).collect()
}

/// autovshard's form of a configuration: addresses without a login, flags, weights and delays.
fn autovshards(config: &Value) -> Value {
    let mut config = config.clone();
    for replicaset in config["sharding"].as_object_mut().into_iter().flatten() {
        let replicas = replicaset.1["replicas"].as_object_mut();
        for (_, replica) in replicas.into_iter().flatten() {
            let uri = replica["uri"].as_str().unwrap_or_default().to_owned();
            let address = uri.split('@').next_back().unwrap_or_default();
            *replica = json!({
                "address": address, "name": replica["name"], "master": false,
                "master_weight": 10, "switchover_delay": 0,
            });
        }
    }
    config
}

async fn put(consul: &Consul, value: &str) -> Result<()> {
    consul.api()?.kv_put(KEY, value.to_owned()).await
}

fn env() -> [(&'static str, &'static str); 3] {
    [
        ("VSHARD_CONFIG_KEY", KEY),
        ("VSHARD_USER", "harness"),
        ("VSHARD_PASSWORD", "harness-secret"),
    ]
}

/// Every mistake that a key can hold, with a word of the reason.
fn mistakes(good: &Value) -> Vec<(String, &'static str)> {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut config = good.clone();
        change(&mut config);
        config.to_string()
    };
    let first = good["sharding"]
        .as_object()
        .and_then(|sets| sets.keys().next());
    let first = first.cloned().unwrap_or_default();
    let replica = |config: &mut Value, change: &dyn Fn(&mut Value)| {
        let replicas = config["sharding"][&first]["replicas"].as_object_mut();
        change(replicas.unwrap().values_mut().next().unwrap());
    };
    vec![
        ("sharding: [".to_owned(), "neither YAML nor JSON"),
        ("just words".to_owned(), "no map 'sharding'"),
        (
            with(&|c| c["bucket_cuont"] = json!(1)),
            "unknown option 'bucket_cuont'",
        ),
        (
            with(&|c| c["bucket_count"] = json!(77)),
            "bucket_count cannot be reconfigured",
        ),
        (
            with(&|c| c["bucket_count"] = json!("many")),
            "Bucket count must be",
        ),
        (
            with(&|c| c["sharding"][&first]["weight"] = json!(-1)),
            "Weight must be",
        ),
        (
            with(&|c| c["sharding"][&first]["wieght"] = json!(1)),
            "unknown option 'wieght'",
        ),
        (
            with(&|c| replica(c, &|r| r["adress"] = json!("h:1"))),
            "unknown option 'adress'",
        ),
        (
            with(&|c| replica(c, &|r| r["address"] = Value::Null)),
            "URI must be specified",
        ),
        (
            with(&|c| replica(c, &|r| r["master_weight"] = json!("much"))),
            "master_weight",
        ),
        (
            with(&|c| c["sharding"] = swapped(&c["sharding"])),
            "belongs to replica set",
        ),
    ]
}

/// The replica sets' UUIDs exchanged.
fn swapped(sharding: &Value) -> Value {
    let sets = sharding.as_object().cloned().unwrap_or_default();
    let (ids, bodies): (Vec<_>, Vec<_>) = sets.into_iter().unzip();
    let turned = bodies.into_iter().rev();
    ids.into_iter()
        .zip(turned)
        .collect::<serde_json::Map<_, _>>()
        .into()
}

async fn wrong(world: &World, root: &Path) -> Result<()> {
    let options = VshardOptions::of(root).instances(2);
    let shards = Shards::start_with(world, &options, &env()).await?;
    let good = autovshards(shards.cluster.config());
    put(&shards.consul, &good.to_string()).await?;
    let master = shards.master(0);
    let count = |shape: &Value| shape["instances"] == 4;
    wait_for_shape(master, "the configuration of the key", count).await?;
    shards.wait_for_writes().await?;
    for (text, words) in mistakes(&good) {
        put(&shards.consul, &text).await?;
        wait_for_refusal(world, &shards, words).await?;
        let found = master.eval(SHAPE, &[]).await?;
        assert!(count(&found[0]), "{words}: {found:?}");
    }
    // The next good one is taken over.
    let first = shards.cluster.sets[0].uuid().to_owned();
    let mut better = good.clone();
    better["sharding"][&first]["weight"] = json!(3);
    put(&shards.consul, &better.to_string()).await?;
    for instance in everybody(&shards.cluster) {
        let what = "the weight of the key";
        wait_for_shape(instance, what, |shape| shape["weights"][&first] == 3).await?;
    }
    shards.wait_for_writes().await?;
    shards.assert_whole().await?;
    Ok(())
}

/// Until `tarsec status` says so, of a storage and of a router.
async fn wait_for_refusal(world: &World, shards: &Shards, words: &str) -> Result<()> {
    eventually(LATE, &format!("a refusal: {words}"), async || {
        let command = world.command(&shards.consul, &["status", "--no-wait", "--json"]);
        let output = match command {
            Ok(command) => command.run(SOON).await.map_err(|error| error.to_string())?,
            Err(error) => return Err(error.to_string()),
        };
        let text = output.stdout;
        let view: Value = serde_json::from_str(&text).unwrap_or_default();
        let notes = view["replicasets"][0]["notes"].to_string();
        let routers = view["notes"].to_string();
        let seen = |notes: &str| notes.contains("is refused") && notes.contains(words);
        if seen(&notes) && seen(&routers) {
            Ok(())
        } else {
            Err(format!("{notes} {routers}"))
        }
    })
    .await
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_the_reason_and_changes_nothing() {
    story("vshard-config-wrong", wrong).await;
}

async fn grows(world: &World, root: &Path) -> Result<()> {
    let options = VshardOptions::of(root).instances(2);
    let mut shards = Shards::start_with(world, &options, &env()).await?;
    put(
        &shards.consul,
        &autovshards(shards.cluster.config()).to_string(),
    )
    .await?;

    // A replica set of which no instance has heard, and whose init.lua knows nothing of vshard's configuration.
    let third = shards.cluster.add_set(world, 2).await?;
    let mut agents = Vec::new();
    for instance in third.iter() {
        agents.push(start_agent(world, instance, &shards.consul, &env()).await?);
    }
    let master = third.wait_for_master(LATE).await?;
    third[master].eval("shard_create()", &[]).await?;
    shards.agents.push(agents);
    shards.cluster.sets.push(third);
    shards.masters.push(master);
    let mut config = shards.cluster.all_of_it(&[1, 1, 1]);
    put(&shards.consul, &autovshards(&config).to_string()).await?;
    for instance in everybody(&shards.cluster) {
        wait_for_shape(instance, "three replica sets", |shape| {
            shape["instances"] == 6
        })
        .await?;
    }
    let masters = shards.masters.clone();
    shards.cluster.wait_for_balance(&masters, LATE * 2).await?;

    // An instance that is preferred becomes master by itself.
    let preferred = (shards.masters[0] + 1) % 2;
    let set = &shards.cluster.sets[0];
    config = autovshards(&config);
    config["sharding"][set.uuid()]["replicas"][set[preferred].uuid()]["master_weight"] = json!(99);
    put(&shards.consul, &config.to_string()).await?;
    shards.masters[0] = set.wait_for_new_master(shards.masters[0], LATE).await?;
    assert_eq!(shards.masters[0], preferred);
    shards.wait_for_writes().await?;
    shards.assert_whole().await?;
    Ok(())
}

#[tokio::test]
async fn a_cluster_grows_and_prefers_masters_by_the_key() {
    story("vshard-config-grows", grows).await;
}

async fn absent(world: &World, root: &Path) -> Result<()> {
    let consul = world.consul_with(ConsulOptions::default()).await?;
    let cluster = VshardCluster::start(world, &VshardOptions::of(root).instances(1)).await?;
    let mut config = autovshards(cluster.config());
    let first = cluster.sets[0].uuid().to_owned();
    config["sharding"].as_object_mut().unwrap().remove(&first);
    config["rebalancer_max_receiving"] = json!(7);
    put(&consul, &config.to_string()).await?;
    let mut agents = Vec::new();
    for set in &cluster.sets {
        agents.push(start_agent(world, &set[0], &consul, &env()).await?);
    }
    wait_for_shape(&cluster.sets[1][0], "the key's configuration", |shape| {
        shape["instances"] == 1
    })
    .await?;
    // The instance that it does not name follows the locks, and nothing else of its configuration has changed.
    tarsec_harness::wait_for_flag(&cluster.sets[0][0], SOON).await?;
    let found = cluster.sets[0][0].eval(SHAPE, &[]).await?;
    assert_eq!(found[0]["instances"], 2, "{found:?}");
    Ok(())
}

#[tokio::test]
async fn an_instance_that_the_key_does_not_name_is_left_alone() {
    story("vshard-config-absent", absent).await;
}

/// The logins with which vshard in an instance connects.
const LOGINS: &str = "
local internal = vshard.storage.internal
local cfg = internal.current_cfg or vshard.router.internal.static_router.current_cfg
local logins = {}
for _, replicaset in pairs(cfg.sharding) do
    for _, replica in pairs(replicaset.replicas) do logins[replica.uri:match('^[^@]*')] = true end
end
return logins";

async fn wait_for_login(shards: &Shards, password: &str) -> Result<()> {
    let login = format!("sharder:{password}");
    for instance in everybody(&shards.cluster) {
        let what = format!("{login} alone in {}", instance.name());
        eventually(LATE, &what, async || {
            let found = instance.eval(LOGINS, &[]).await;
            let found = found.map_err(|error| error.to_string())?;
            if found == [json!({&login: true})] {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        })
        .await?;
    }
    Ok(())
}

/// A master's agent refuses a successor from which no member replicates, and of two members only the master can replicate
/// from it.
async fn wait_until_seen_followed(agent: &Agent, uuid: &str) -> Result<()> {
    eventually(LATE, "the master seen to follow", async || {
        let state = agent.usr2().await.map_err(|error| error.to_string())?;
        let peers = state["state"]["probe"]["replication"].as_array().cloned();
        let mut peers = peers.unwrap_or_default().into_iter();
        let peer = peers.find(|peer| peer["uuid"] == uuid).unwrap_or_default();
        if peer["upstream"]["status"] == "follow" {
            Ok(())
        } else {
            Err(peer.to_string())
        }
    })
    .await
}

/// vshard connects in the instances, not the agents, which learn from it that it is refused.
async fn rotated(world: &World, root: &Path) -> Result<()> {
    let file = world.dir().join("sharder");
    let path = file.display().to_string();
    let holds =
        |password: &str| std::fs::write(&file, password).expect("the world can be written to");
    holds("of.yesterday");
    let env = [
        ("VSHARD_CONFIG_KEY", KEY),
        ("VSHARD_USER", "sharder"),
        ("VSHARD_PASSWORD_FILE", path.as_str()),
    ];
    let options = VshardOptions::of(root).instances(2);
    let mut shards = Shards::start_with(world, &options, &env).await?;
    // New fibers run as admin, who may grant it.
    let create = "
        local creating = require('fiber').new(function()
            box.schema.user.create('sharder', {password = 'of.yesterday'})
            box.schema.user.grant('sharder', 'super')
        end)
        creating:set_joinable(true)
        assert(creating:join())";
    for set in 0..2 {
        shards.master(set).eval(create, &[]).await?;
        wait_until_replicated(&shards.cluster.sets[set], shards.masters[set], "sharder").await?;
    }
    let config = autovshards(shards.cluster.config()).to_string();
    put(&shards.consul, &config).await?;
    wait_for_login(&shards, "of.yesterday").await?;
    shards.wait_for_writes().await?;

    for set in 0..2 {
        change_password(shards.master(set), "sharder", "of.today").await?;
        wait_until_replicated(&shards.cluster.sets[set], shards.masters[set], "sharder").await?;
    }
    holds("of.today");
    // Connections that stand stay so; an instance that comes back refuses the login of before.
    let old = shards.masters[0];
    shards.master(0).kill().await?;
    shards.wait_for_new_master(0).await?;
    shards.cluster.sets[0][old].start().await?;
    shards.cluster.sets[0].wait_for_mesh(LATE).await?;
    wait_until_seen_followed(
        &shards.agents[0][shards.masters[0]],
        shards.cluster.sets[0][old].uuid(),
    )
    .await?;
    shards.switch_to(world, 0, old).await?;
    for agent in &shards.router_agents {
        wait_until_taken(agent, "VSHARD_PASSWORD_FILE", 1).await?;
    }
    shards.assert_whole().await?;
    Ok(())
}

#[tokio::test]
async fn a_rotated_password_is_taken_by_routers_to_whom_it_is_refused() {
    story("vshard-config-rotated", rotated).await;
}
