//! Three instances and three agents, used by one measurement after the other.

use std::time::Duration;

use tarsec_harness::{
    Agent, AgentBuilder, Board, Consul, Error, History, Instance, Machine, Moment, ReplicaSet,
    ReplicaSetOptions, Result, Value, Verdict, World, Writers, eventually,
};

pub(crate) const SOON: Duration = Duration::from_secs(30);
/// How often an instance that refuses writes is tried: half of it is how late the first write is seen on average.
pub(crate) const WRITE_PROBE: Duration = Duration::from_millis(2);
/// Accepted writes that make sure that a master is at work.
pub(crate) const SOME_WRITES: u64 = 50;

pub(crate) struct Cluster<'a> {
    world: &'a World,
    pub(crate) consul: &'a Consul,
    pub(crate) set: ReplicaSet,
    pub(crate) agents: Vec<Agent>,
    large_mib: Option<u64>,
}

impl<'a> Cluster<'a> {
    /// With agents at default settings but for what `adjust` changes; `large_mib` is what each instance is filled with.
    pub(crate) async fn start(
        world: &'a World,
        consul: &'a Consul,
        large_mib: Option<u64>,
        adjust: impl Fn(usize, AgentBuilder) -> AgentBuilder,
    ) -> Result<Self> {
        let options = ReplicaSetOptions::of(3).memtx_memory(memory_for(large_mib));
        let set = world.replica_set_with(options).await?;
        for instance in set.iter() {
            fill(instance, large_mib).await?;
        }
        let agents = world
            .agents_with(&set, consul, |index, agent| {
                adjust(index, with_default_settings(agent))
            })
            .await?;
        let cluster = Self {
            world,
            consul,
            set,
            agents,
            large_mib,
        };
        cluster.rest().await?;
        Ok(cluster)
    }

    /// The replica set's keys.
    pub(crate) fn board(&self) -> Board<'_> {
        self.world.board(self.consul, &self.set)
    }

    /// The machine that an instance stands on.
    pub(crate) fn machine(&self, index: usize) -> Machine<'_> {
        Machine::of(&self.set[index], &self.agents[index])
    }

    /// Starts all agents anew with a variable set.
    pub(crate) async fn restart_agents_with(&self, name: &str, value: &str) -> Result<()> {
        for agent in &self.agents {
            agent.term(SOON).await?;
            agent.set_env(name, value);
        }
        for agent in &self.agents {
            agent.start()?;
        }
        self.rest().await.map(|_| ())
    }

    /// Waits until nothing is left to do: a master whose record says that both others follow it, and two refreshes
    /// of that record. Returns the master.
    pub(crate) async fn rest(&self) -> Result<usize> {
        self.set.wait_for_mesh(SOON).await?;
        let master = self.set.wait_for_master(SOON).await?;
        let refresh = self.settled_record(master, 0).await?;
        self.settled_record(master, refresh + 1).await?;
        Ok(master)
    }

    async fn settled_record(&self, master: usize, least_refresh: u64) -> Result<u64> {
        let own = self.set[master].uuid();
        eventually(SOON, "a record of a replica set at rest", async || {
            let record = self.board().record().await;
            let record = record.map_err(|error| error.to_string())?;
            let refresh = record["refresh"].as_u64().unwrap_or(0);
            let follows = |uuid: &str| {
                let following = record["following"].as_array();
                following.is_some_and(|all| all.contains(&Value::from(uuid)))
            };
            let others = self.set.iter().map(|instance| instance.uuid());
            let settled = record["instance"] == own
                && record["status"] == "active"
                && refresh >= least_refresh
                && others.filter(|uuid| *uuid != own).all(follows);
            settled.then_some(refresh).ok_or(record.to_string())
        })
        .await
    }

    /// Writers at a rate, once the master has accepted some writes.
    pub(crate) async fn writers(&self, per_second: u32, probe: Duration) -> Result<Writers> {
        let writers = self.set.writers().rate(per_second);
        let writers = writers.probe_interval(probe).start();
        writers.wait_for_writes(SOME_WRITES, SOON).await?;
        Ok(writers)
    }

    /// Waits until an instance other than `old` has accepted a write; returns it.
    pub(crate) async fn wait_for_heir(&self, writers: &Writers, old: usize) -> Result<usize> {
        eventually(SOON, "a write accepted by another instance", async || {
            let accepted = writers.accepted();
            let mut others = (0..self.set.len()).filter(|index| *index != old);
            let heir = others.find(|index| accepted[*index] > 0);
            heir.ok_or_else(|| format!("accepted so far: {accepted:?}"))
        })
        .await
    }

    /// Waits until the process of an instance that was killed is gone: the kernel gives its memory back first.
    pub(crate) async fn wait_gone(&self, index: usize) -> Result<()> {
        eventually(SOON, "the killed process to be gone", async || {
            let gone = !self.set[index].process().is_running();
            gone.then_some(()).ok_or("it runs")
        })
        .await
    }

    /// Fills an instance as far as all are filled.
    pub(crate) async fn fill(&self, index: usize) -> Result<()> {
        fill(&self.set[index], self.large_mib).await
    }
}

async fn fill(instance: &Instance, large_mib: Option<u64>) -> Result<()> {
    match large_mib {
        Some(mib) => instance.fill(mib).await,
        None => Ok(()),
    }
}

/// `memtx_memory` for an instance that is filled so far.
pub(crate) fn memory_for(large_mib: Option<u64>) -> u64 {
    (large_mib.unwrap_or(0) + large_mib.unwrap_or(0) / 6 + 64) << 20
}

/// Every setting as an operator gets it who sets nothing; only the logs are for us.
pub(crate) fn with_default_settings(agent: AgentBuilder) -> AgentBuilder {
    agent
        .without_env("MASTER_LEASE")
        .without_env("CONSUL_LOCK_TTL")
        .without_env("HEALTHCHECK_INTERVAL")
        .without_env("HEALTHCHECK_TIMEOUT")
}

/// Where in an interval run `number` is to strike: the golden ratio spreads any number of runs evenly.
pub(crate) fn phase(number: u32, interval: Duration) -> Duration {
    interval.mul_f64((f64::from(number) * 0.618_033_988_749_895).fract())
}

/// The oracle's verdict, which must be that the history is safe.
pub(crate) fn judge(history: &History) -> Result<Verdict> {
    let verdict = history.judge();
    if verdict.is_safe() {
        Ok(verdict)
    } else {
        Err(wrong(format!("how there could be two masters:\n{verdict}")))
    }
}

/// When the first answer came, after `after`, to a write that `instance` accepted.
pub(crate) fn first_accepted(
    history: &History,
    began: Moment,
    instance: usize,
    after: Moment,
) -> Result<Moment> {
    let accepted = history
        .writes
        .iter()
        .filter(|write| write.is_accepted() && write.instance == instance);
    let answered = accepted.filter_map(|write| Some(began + write.answered?));
    answered
        .filter(|moment| *moment > after)
        .min()
        .ok_or_else(|| wrong("who accepted the first write: it was not the lock's holder"))
}

/// Something that is not as the measurement takes it for granted.
pub(crate) fn wrong(what: impl Into<String>) -> Error {
    Error::Malformed { what: what.into() }
}
