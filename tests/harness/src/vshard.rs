//! vshard clusters: replica sets, routers, and writers that go through the routers.
//!
//! vshard itself is not ours to carry along: `VSHARD_ROOT` names a directory with its sources.

mod writers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Error, Result, chain};
use crate::process::Recipe;
use crate::tarantool::{Instance, ReplicaSet, ReplicaSetOptions, make_uuid};
use crate::wait::eventually;
use crate::world::{Shared, World};

pub use writers::{RouterWrite, RouterWriters};

const STORAGE_LUA: &str = include_str!("../lua/vshard_storage.lua");
const ROUTER_LUA: &str = include_str!("../lua/vshard_router.lua");
/// Few, so that a census is quick; more than any test moves.
const BUCKETS: u64 = 60;
/// Where vshard's sources are; without them a line says that the story is skipped, and why.
#[must_use]
pub fn vshard_root(story: &str) -> Option<PathBuf> {
    let root = std::env::var_os("VSHARD_ROOT").filter(|root| !root.is_empty());
    let found = root.map(PathBuf::from).filter(|root| {
        let is_there = root.join("vshard").join("init.lua").is_file();
        if !is_there {
            crate::say_skipped(&format!(
                "{story}: VSHARD_ROOT is {}, where there is no vshard/init.lua",
                root.display()
            ));
        }
        is_there
    });
    if found.is_none() {
        crate::say_skipped(&format!(
            "{story}: it needs vshard, whose sources' directory VSHARD_ROOT names"
        ));
    }
    found
}

/// What a vshard cluster should be like.
#[derive(Debug, Clone)]
pub struct VshardOptions {
    root: PathBuf,
    weights: Vec<u64>,
    instances: usize,
    routers: usize,
    flags: bool,
}

impl VshardOptions {
    /// Two replica sets of three, two routers.
    #[must_use]
    pub fn of(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            weights: vec![1, 1],
            instances: 3,
            routers: 2,
            flags: false,
        }
    }

    /// One replica set for each weight.
    #[must_use]
    pub fn weights(mut self, weights: &[u64]) -> Self {
        self.weights = weights.to_vec();
        self
    }

    /// Instances in each replica set.
    #[must_use]
    pub fn instances(mut self, instances: usize) -> Self {
        self.instances = instances;
        self
    }

    /// A configuration with a master in each replica set, as a static cluster has it.
    #[must_use]
    pub fn flagged(mut self) -> Self {
        self.flags = true;
        self
    }
}

/// A vshard cluster. Its instances start read-only; agents are the story's business.
#[derive(Debug)]
pub struct VshardCluster {
    /// Its replica sets.
    pub sets: Vec<ReplicaSet>,
    /// Its routers.
    pub routers: Vec<Instance>,
    topology: PathBuf,
    storage_lua: PathBuf,
    options: VshardOptions,
    config: Value,
}

impl VshardCluster {
    /// Starts everything and configures vshard, with no master anywhere unless asked for.
    ///
    /// # Errors
    /// When something does not come up.
    pub async fn start(world: &World, options: &VshardOptions) -> Result<Self> {
        let shared = world.shared();
        let topology = shared.dir.join("vshard.json");
        let storage_lua = shared.write("vshard_storage.lua", STORAGE_LUA)?;
        let mut sets = Vec::new();
        for _ in &options.weights {
            let set = storages(options, &topology, &storage_lua);
            sets.push(world.replica_set_with(set).await?);
        }
        let config = configuration(&sets, &options.weights, options.flags);
        let mut cluster = Self {
            sets,
            routers: Vec::new(),
            topology,
            storage_lua: storage_lua.clone(),
            options: options.clone(),
            config,
        };
        cluster.write_topology()?;
        for instance in cluster.sets.iter().flat_map(|set| set.iter()) {
            let path = Value::from(storage_lua.display().to_string());
            // It runs as init.lua does, not as the user that sends this: vshard grants roles.
            instance
                .eval("box.session.su('admin', dofile, ...)", &[path])
                .await?;
        }
        for number in 0..options.routers {
            let router = router(shared, &options.root, &cluster.topology, number)?;
            router.start().await?;
            cluster.routers.push(router);
        }
        Ok(cluster)
    }

    /// Starts one more replica set, with vshard loaded and not configured.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn add_set(&self, world: &World, instances: usize) -> Result<ReplicaSet> {
        let options = self.options.clone().instances(instances);
        let set = storages(&options, &self.topology, &self.storage_lua)
            .env("VSHARD_UNCONFIGURED", "true");
        world.replica_set_with(set).await
    }

    /// A configuration with every replica set that there is now.
    #[must_use]
    pub fn all_of_it(&self, weights: &[u64]) -> Value {
        configuration(&self.sets, weights, false)
    }

    /// The configuration with which every instance started, without flags.
    #[must_use]
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Every instance of a replica set, and every router, starts with this from now on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_config(&mut self, config: Value) -> Result<()> {
        self.config = config;
        self.write_topology()
    }

    fn write_topology(&self) -> Result<()> {
        let what = format!("write {}", self.topology.display());
        std::fs::write(&self.topology, self.config.to_string()).map_err(Error::io(what))
    }

    /// Calls vshard's `cfg` everywhere with the configuration as it is now, as an operator does who changes it; the
    /// masters stay what they are.
    ///
    /// # Errors
    /// When an instance does not take it.
    pub async fn configure_again(&self) -> Result<()> {
        let config = [Value::from(self.config.to_string())];
        for instance in self.sets.iter().flat_map(|set| set.iter()) {
            instance.eval(STORAGE_CFG, &config).await?;
        }
        for router in &self.routers {
            router.eval(ROUTER_CFG, &config).await?;
        }
        Ok(())
    }

    /// Waits until no replica set has more buckets than another.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub async fn wait_for_balance(&self, masters: &[usize], deadline: Duration) -> Result<()> {
        eventually(deadline, "as many buckets everywhere", async || {
            let mut counts = BTreeSet::new();
            for (set, master) in self.sets.iter().zip(masters) {
                let census = census(&set[*master]).await.map_err(|error| chain(&error))?;
                counts.insert(census.active.len());
            }
            (counts.len() == 1)
                .then_some(())
                .ok_or(format!("{counts:?}"))
        })
        .await
    }

    /// Waits until each replica set has a member that is writable under a lease, in the replica sets' order, which vshard
    /// calls master, too.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub async fn wait_for_masters(&self, deadline: Duration) -> Result<Vec<usize>> {
        let mut masters = Vec::new();
        for set in &self.sets {
            let what = "a master by its lease and by vshard's flag";
            let master = eventually(deadline, what, async || {
                for (index, instance) in set.iter().enumerate() {
                    if let Ok([Value::Bool(true)]) = instance.eval(REIGNS, &[]).await.as_deref() {
                        return Ok(index);
                    }
                }
                Err("nobody is")
            });
            masters.push(master.await?);
        }
        Ok(masters)
    }

    /// Creates the spaces to which the writers write, and gives each replica set its buckets.
    ///
    /// # Errors
    /// When that fails.
    pub async fn bootstrap(&self, masters: &[usize], deadline: Duration) -> Result<()> {
        for (set, master) in self.sets.iter().zip(masters) {
            set[*master].eval("shard_create()", &[]).await?;
        }
        for router in &self.routers {
            self.wait_for_routes(router, masters, deadline).await?;
        }
        let mut connection = self.routers[0].connect().await?;
        let answer = connection
            .eval("return router_bootstrap()", &[], deadline)
            .await?;
        if answer != [json!(true)] {
            return Err(Error::malformed(format!("vshard's bootstrap: {answer:?}")));
        }
        Ok(())
    }

    /// Waits until a router routes to these masters.
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub async fn wait_for_routes(
        &self,
        router: &Instance,
        masters: &[usize],
        deadline: Duration,
    ) -> Result<()> {
        let wanted: BTreeMap<String, String> = self
            .sets
            .iter()
            .zip(masters)
            .map(|(set, master)| (set.uuid().to_owned(), set[*master].uuid().to_owned()))
            .collect();
        let what = format!("{} to route to the masters", router.name());
        eventually(deadline, &what, async || {
            let routes = router
                .eval(ROUTES, &[])
                .await
                .map_err(|error| chain(&error))?;
            let found: BTreeMap<String, String> = routes
                .first()
                .and_then(|routes| serde_json::from_value(routes.clone()).ok())
                .unwrap_or_default();
            (found == wanted).then_some(()).ok_or(format!("{found:?}"))
        })
        .await
    }

    /// Writers through every router to the buckets of every replica set.
    ///
    /// # Errors
    /// When a replica set's buckets cannot be asked for.
    pub async fn writers(&self, world: &World, masters: &[usize]) -> Result<RouterWriters> {
        let mut buckets = Vec::new();
        for (set, master) in self.sets.iter().zip(masters) {
            buckets.push(census(&set[*master]).await?.active);
        }
        Ok(RouterWriters::start(world, &self.routers, &buckets))
    }

    /// Waits until all buckets are at rest, each in one place, and every acknowledged key is there once.
    ///
    /// # Errors
    /// [`Error::Timeout`], with what is wrong.
    pub async fn wait_until_whole(
        &self,
        masters: &[usize],
        writes: &[RouterWrite],
        deadline: Duration,
    ) -> Result<Vec<usize>> {
        eventually(
            deadline,
            "every bucket and every key to be there once",
            async || {
                let mut counts = Vec::new();
                let mut buckets: BTreeMap<u64, usize> = BTreeMap::new();
                let mut keys: BTreeMap<String, usize> = BTreeMap::new();
                for (set, master) in self.sets.iter().zip(masters) {
                    let census = census(&set[*master]).await.map_err(|error| chain(&error))?;
                    if census.moving > 0 {
                        return Err(format!("{} buckets are not at rest", census.moving));
                    }
                    counts.push(census.active.len());
                    for bucket in census.active {
                        *buckets.entry(bucket).or_default() += 1;
                    }
                    for key in census.keys {
                        *keys.entry(key).or_default() += 1;
                    }
                }
                let wrong: Vec<_> = (1..=BUCKETS)
                    .map(|bucket| (bucket, buckets.get(&bucket).copied().unwrap_or(0)))
                    .filter(|(_, count)| *count != 1)
                    .collect();
                let twice: Vec<_> = keys.iter().filter(|(_, count)| **count > 1).collect();
                let lost: Vec<_> = writes
                    .iter()
                    .filter(|write| write.accepted.is_some() && !keys.contains_key(&write.key))
                    .map(|write| &write.key)
                    .collect();
                if wrong.is_empty() && twice.is_empty() && lost.is_empty() {
                    return Ok(counts);
                }
                Err(format!(
                    "buckets {wrong:?}, keys twice {twice:?}, keys lost {lost:?}"
                ))
            },
        )
        .await
    }
}

/// Waits until vshard in an instance calls it master.
///
/// # Errors
/// [`Error::Timeout`].
pub async fn wait_for_flag(instance: &Instance, deadline: Duration) -> Result<()> {
    let what = format!("{} to be master in vshard", instance.name());
    eventually(deadline, &what, async || {
        match instance.eval(FLAG, &[]).await.as_deref() {
            Ok([Value::Bool(true)]) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

fn storages(options: &VshardOptions, topology: &Path, lua: &Path) -> ReplicaSetOptions {
    ReplicaSetOptions::of(options.instances)
        .env("VSHARD_ROOT", &options.root.display().to_string())
        .env("VSHARD_TOPOLOGY", &topology.display().to_string())
        .extra_lua(&format!("dofile('{}')", lua.display()))
}

struct Census {
    keys: Vec<String>,
    active: BTreeSet<u64>,
    moving: u64,
}

async fn census(master: &Instance) -> Result<Census> {
    let mut connection = master.connect().await?;
    let found = connection
        .eval("return shard_census()", &[], Duration::from_secs(10))
        .await?;
    let found = found.first().cloned().unwrap_or_default();
    let numbers = found["active"].as_array().cloned().unwrap_or_default();
    let texts = found["keys"].as_array().cloned().unwrap_or_default();
    Ok(Census {
        keys: texts
            .iter()
            .filter_map(|key| key.as_str().map(str::to_owned))
            .collect(),
        active: numbers.iter().filter_map(Value::as_u64).collect(),
        moving: found["moving"].as_u64().unwrap_or(u64::MAX),
    })
}

fn configuration(sets: &[ReplicaSet], weights: &[u64], flags: bool) -> Value {
    let login = Instance::login();
    let mut sharding = serde_json::Map::new();
    for (set, weight) in sets.iter().zip(weights) {
        let mut replicas = serde_json::Map::new();
        for (index, instance) in set.iter().enumerate() {
            let uri = format!("{}:{}@{}", login.user, login.password, instance.addr());
            let mut replica = json!({"uri": uri, "name": instance.name()});
            if flags && index == 0 {
                replica["master"] = json!(true);
            }
            replicas.insert(instance.uuid().to_owned(), replica);
        }
        let entry = json!({"weight": weight, "replicas": replicas});
        sharding.insert(set.uuid().to_owned(), entry);
    }
    json!({
        "bucket_count": BUCKETS,
        "rebalancer_disbalance_threshold": 1,
        "rebalancer_max_receiving": 10,
        "sharding": sharding,
    })
}

fn router(shared: &Shared, root: &Path, topology: &Path, number: usize) -> Result<Instance> {
    let name = format!("router{number}");
    let port = shared.port()?;
    let addr = format!("127.0.0.1:{port}");
    let (uuid, own) = (make_uuid(port, 0), make_uuid(port, 1));
    let lua = shared.write("vshard_router.lua", ROUTER_LUA)?;
    let (agent, harness) = (Instance::agent_login(), Instance::login());
    let dir = shared.subdir(&name)?.display().to_string();
    let env = [
        ("INSTANCE_NAME", name.as_str()),
        ("INSTANCE_UUID", &own),
        ("LISTEN", &addr),
        ("WORK_DIR", &dir),
        ("AGENT_USER", &agent.user),
        ("AGENT_PASSWORD", &agent.password),
        ("HARNESS_PASSWORD", &harness.password),
        ("VSHARD_ROOT", &root.display().to_string()),
        ("VSHARD_TOPOLOGY", &topology.display().to_string()),
    ];
    let recipe = Recipe {
        program: crate::tarantool::tarantool(),
        args: vec![lua.into()],
        env: env
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
        dir: shared.dir.clone(),
    };
    let process = shared.process(&name, recipe);
    Ok(Instance {
        index: number,
        name,
        uuid: own,
        replicaset_uuid: uuid,
        addr,
        process,
        links: Vec::new(),
    })
}

const FLAG: &str = "
local internal = vshard.storage.internal
return internal.this_replicaset.master == internal.this_replica";

/// A static cluster's master is writable without a lease until its agent has come.
const REIGNS: &str = "
local internal, guard = vshard.storage.internal, rawget(_G, 'tarsec_guard')
local leased = guard ~= nil and guard.state.leased and not box.info.ro
return leased and internal.this_replicaset.master == internal.this_replica";

/// With the flags that there are.
const STORAGE_CFG: &str = "
local cfg = require('json').decode(...)
local old = vshard.storage.internal.current_cfg
for id, replicaset in pairs(cfg.sharding) do
    for uuid, replica in pairs(replicaset.replicas) do
        local known = old.sharding[id] and old.sharding[id].replicas[uuid]
        replica.master = known and known.master or nil
    end
end
cfg.listen, cfg.replication, cfg.read_only = box.cfg.listen, box.cfg.replication, box.cfg.read_only
vshard.storage.cfg(cfg, box.info.uuid)";

const ROUTER_CFG: &str = "
local cfg = require('json').decode(...)
local old = vshard.router.internal.static_router.current_cfg
for id, replicaset in pairs(cfg.sharding) do
    for uuid, replica in pairs(replicaset.replicas) do
        local known = old.sharding[id] and old.sharding[id].replicas[uuid]
        replica.master = known and known.master or nil
    end
end
vshard.router.cfg(cfg)";

const ROUTES: &str = "
local routes = setmetatable({}, {__serialize = 'map'})
local internal = vshard.router.internal
for id, replicaset in pairs(internal.static_router.replicasets) do
    local master = replicaset.master
    if master ~= nil and master.conn ~= nil and master.conn:is_connected() then
        routes[id] = master.id or master.uuid
    end
end
return routes";
