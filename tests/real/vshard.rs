//! vshard clusters, with writers through the routers. Without `VSHARD_ROOT` each story says that it is skipped.

use std::path::Path;
use std::time::Duration;

use tarsec_harness::{
    Agent, Consul, ConsulOptions, Instance, Machine, Result, RouterWriters, VshardCluster,
    VshardOptions, World, Writers, eventually, json, vshard_root,
};

use crate::support::{SOON, world};

/// Long enough for a replica set without an agent to give its lease up, on a busy machine.
pub(crate) const LATE: Duration = Duration::from_secs(40);

/// How long a target may take to catch up.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that a story has.
pub(crate) struct Shards {
    pub(crate) consul: Consul,
    pub(crate) cluster: VshardCluster,
    /// By replica set.
    pub(crate) agents: Vec<Vec<Agent>>,
    pub(crate) router_agents: Vec<Agent>,
    /// Against each instance of each replica set, for the oracle.
    pub(crate) direct: Vec<Writers>,
    pub(crate) routed: RouterWriters,
    /// By replica set.
    pub(crate) masters: Vec<usize>,
}

/// Runs a story, or says why not.
pub(crate) async fn story(name: &str, story: impl AsyncFnOnce(&World, &Path) -> Result<()>) {
    let Some(root) = vshard_root(name) else {
        return;
    };
    world()
        .story(name, async |world| story(world, &root).await)
        .await;
}

impl Shards {
    /// Two replica sets of three, two routers, an agent beside each, writers everywhere.
    pub(crate) async fn start(world: &World, root: &Path) -> Result<Self> {
        Self::start_with(world, &VshardOptions::of(root), &[]).await
    }

    /// The same with other options, and variables for all agents.
    pub(crate) async fn start_with(
        world: &World,
        options: &VshardOptions,
        env: &[(&str, &str)],
    ) -> Result<Self> {
        let consul = world.consul_with(ConsulOptions::default()).await?;
        let cluster = VshardCluster::start(world, options).await?;
        let mut agents = Vec::new();
        for set in &cluster.sets {
            let mut own = Vec::new();
            for instance in set.iter() {
                own.push(start_agent(world, instance, &consul, env).await?);
            }
            agents.push(own);
        }
        let mut router_agents = Vec::new();
        for (index, router) in cluster.routers.iter().enumerate() {
            // One router's agent is told what it is, the other sees for itself.
            let role = if index == 0 { "router" } else { "auto" };
            let env: Vec<_> = env.iter().copied().chain([("ROLE", role)]).collect();
            router_agents.push(start_agent(world, router, &consul, &env).await?);
        }
        let masters = cluster.wait_for_masters(SOON).await?;
        cluster.bootstrap(&masters, SOON).await?;
        let direct = cluster
            .sets
            .iter()
            .map(|set| set.writers().rate(100).start())
            .collect();
        let routed = cluster.writers(world, &masters).await?;
        routed.wait_for_writes(10, SOON).await?;
        Ok(Self {
            consul,
            cluster,
            agents,
            router_agents,
            direct,
            routed,
            masters,
        })
    }

    /// The instance that is master of a replica set.
    pub(crate) fn master(&self, set: usize) -> &Instance {
        &self.cluster.sets[set][self.masters[set]]
    }

    /// Waits for another master of a replica set than before, and for writes through every router to every replica set.
    pub(crate) async fn wait_for_new_master(&mut self, set: usize) -> Result<()> {
        let old = self.masters[set];
        let found = &self.cluster.sets[set];
        self.masters[set] = found.wait_for_new_master(old, LATE).await?;
        self.wait_for_writes().await
    }

    /// Lets a replica set have that master, and waits for writes through every router to every replica set.
    pub(crate) async fn switch_to(
        &mut self,
        world: &World,
        set: usize,
        target: usize,
    ) -> Result<()> {
        let replica_set = &self.cluster.sets[set];
        let board = world.board(&self.consul, replica_set);
        self.wait_until_fit(world, set, target).await?;
        let name = replica_set[target].addr();
        let id = board.request_switchover(Some(name), SWITCH_TIMEOUT).await?;
        let order = board.wait_for_switchover(&id, LATE).await?;
        assert_eq!(order["state"], "done", "{order}");
        self.masters[set] = replica_set.wait_for_master(LATE).await?;
        assert_eq!(self.masters[set], target);
        self.wait_for_writes().await
    }

    /// Waits until a master's record says that a member follows it, and the member's agent that it is healthy: an order
    /// that comes sooner is refused, and rightly.
    async fn wait_until_fit(&self, world: &World, set: usize, target: usize) -> Result<()> {
        let replica_set = &self.cluster.sets[set];
        let board = world.board(&self.consul, replica_set);
        let uuid = replica_set[target].uuid();
        let cluster = world.cluster();
        let key = format!("tarsec/{cluster}/{}/members/{uuid}", replica_set.uuid());
        eventually(LATE, "a member that can become master", async || {
            let record = board.record().await.map_err(|error| error.to_string())?;
            let following = record["following"].as_array();
            let follows = following.is_some_and(|all| all.iter().any(|one| one == uuid));
            let api = self.consul.api().map_err(|error| error.to_string())?;
            let entry = api.kv(&key).await.map_err(|error| error.to_string())?;
            let member = entry
                .and_then(|entry| entry.json().ok())
                .unwrap_or_default();
            if follows && member["health"] == "passing" && member["role"] == "replica" {
                Ok(())
            } else {
                Err(format!("{record} {member}"))
            }
        })
        .await
    }

    /// Waits for writes through every router to every replica set.
    pub(crate) async fn wait_for_writes(&self) -> Result<()> {
        self.routed.wait_for_writes(10, LATE).await
    }

    /// The end of every story: one writer at a time in each replica set, and every key and bucket there once.
    pub(crate) async fn assert_whole(self) -> Result<Vec<usize>> {
        for writers in self.direct {
            let verdict = writers.verdict().await?;
            verdict.assert_safe();
        }
        let writes = self.routed.stop().await?;
        let accepted = writes.iter().filter(|write| write.accepted.is_some());
        assert!(accepted.count() > 100, "{} writes", writes.len());
        let whole = self.cluster.wait_until_whole(&self.masters, &writes, LATE);
        whole.await
    }
}

/// With these variables besides the harness's own.
pub(crate) async fn start_agent(
    world: &World,
    instance: &Instance,
    consul: &Consul,
    env: &[(&str, &str)],
) -> Result<Agent> {
    let mut agent = world.agent(instance, consul)?;
    for (name, value) in env {
        agent = agent.env(name, value);
    }
    agent.start().await
}

async fn master_killed(world: &World, root: &Path) -> Result<()> {
    let mut shards = Shards::start(world, root).await?;
    let old = shards.masters[0];
    shards.master(0).kill().await?;
    shards.wait_for_new_master(0).await?;
    // The ex-master comes back as a replica, its configuration says so, and it can be master again.
    shards.cluster.sets[0][old].start().await?;
    shards.cluster.sets[0].wait_for_mesh(LATE).await?;
    shards.switch_to(world, 0, old).await?;
    shards.assert_whole().await?;
    Ok(())
}

#[tokio::test]
async fn writes_go_on_through_the_routers_when_a_master_is_killed_and_comes_back() {
    story("vshard-killed", master_killed).await;
}

async fn master_frozen(world: &World, root: &Path) -> Result<()> {
    let mut shards = Shards::start(world, root).await?;
    // Its agent lives: the instance is killed when its lease is over (R5).
    shards.master(1).freeze().await?;
    shards.wait_for_new_master(1).await?;
    shards.assert_whole().await?;
    Ok(())
}

#[tokio::test]
async fn writes_go_on_through_the_routers_when_a_master_is_frozen() {
    story("vshard-frozen", master_frozen).await;
}

async fn machine_lost(world: &World, root: &Path) -> Result<()> {
    let mut shards = Shards::start(world, root).await?;
    let old = shards.masters[0];
    let machine = Machine::of(&shards.cluster.sets[0][old], &shards.agents[0][old]);
    machine.kill().await?;
    shards.wait_for_new_master(0).await?;
    let machine = Machine::of(&shards.cluster.sets[0][old], &shards.agents[0][old]);
    machine.start().await?;
    shards.cluster.sets[0].wait_for_mesh(LATE).await?;
    shards.wait_for_writes().await?;
    shards.assert_whole().await?;
    Ok(())
}

#[tokio::test]
async fn writes_go_on_through_the_routers_when_a_machine_is_lost() {
    story("vshard-machine", machine_lost).await;
}

async fn both_at_once(world: &World, root: &Path) -> Result<()> {
    let mut shards = Shards::start(world, root).await?;
    for set in 0..2 {
        shards.master(set).process().kill_no_wait()?;
    }
    for set in 0..2 {
        shards.wait_for_new_master(set).await?;
    }
    shards.assert_whole().await?;
    Ok(())
}

#[tokio::test]
async fn both_replica_sets_lose_their_masters_at_once() {
    story("vshard-both", both_at_once).await;
}

async fn rebalancing(world: &World, root: &Path) -> Result<()> {
    let options = VshardOptions::of(root).weights(&[1, 1, 0]).instances(2);
    let mut shards = Shards::start_with(world, &options, &[]).await?;
    // A third of the buckets has to move, while masters are switched over on both sides.
    let mut config = shards.cluster.config().clone();
    let third = shards.cluster.sets[2].uuid().to_owned();
    config["sharding"][&third]["weight"] = json!(1);
    shards.cluster.set_config(config)?;
    shards.cluster.configure_again().await?;
    for set in [0, 2, 1] {
        let target = (shards.masters[set] + 1) % 2;
        shards.switch_to(world, set, target).await?;
    }
    let masters = shards.masters.clone();
    shards.cluster.wait_for_balance(&masters, LATE * 2).await?;
    let counts = shards.assert_whole().await?;
    assert_eq!(counts, [20, 20, 20]);
    Ok(())
}

#[tokio::test]
async fn no_bucket_and_no_key_is_lost_or_doubled_when_masters_change_while_buckets_move() {
    story("vshard-rebalancing", rebalancing).await;
}
