//! A replica set whose master serves under writers: where the stories about the lives of processes begin.

use std::time::Duration;

use tarsec_harness::{
    Agent, AgentBuilder, Consul, History, Instance, KvEntry, Outcome, ReplicaSet,
    ReplicaSetOptions, Result, ServiceEntry, Tenure, Value, Verdict, World, Writers,
    WritersBuilder, eventually,
};

use crate::support::SOON;

/// Accepted writes that make sure that a master is at work.
pub(crate) const SOME_WRITES: u64 = 50;
/// A dead session's lock is free after one to two of its TTLs, which is 10 s here; then the lease is waited out.
pub(crate) const SESSION_EXPIRY: Duration = Duration::from_secs(45);

/// Everything that a story has, and the master with which it began.
pub(crate) struct Scene {
    pub(crate) consul: Consul,
    pub(crate) set: ReplicaSet,
    pub(crate) agents: Vec<Agent>,
    pub(crate) writers: Writers,
    pub(crate) master: Tenure,
    pub(crate) key: String,
}

impl Scene {
    /// So many instances with their agents, one of them master.
    pub(crate) async fn start(world: &World, instances: usize) -> Result<Self> {
        let options = ReplicaSetOptions::of(instances);
        Self::start_with(world, options, |_, agent| agent, |writers| writers).await
    }

    /// The same with other wishes; `agent` gets each instance's index and the builder of its agent.
    pub(crate) async fn start_with(
        world: &World,
        options: ReplicaSetOptions,
        agent: impl Fn(usize, AgentBuilder) -> AgentBuilder,
        writers: impl FnOnce(WritersBuilder) -> WritersBuilder,
    ) -> Result<Self> {
        let consul = world.consul().await?;
        let set = world.replica_set_with(options).await?;
        Self::start_on(world, consul, set, agent, writers).await
    }

    /// The same on a Consul and a replica set that run.
    pub(crate) async fn start_on(
        world: &World,
        consul: Consul,
        set: ReplicaSet,
        agent: impl Fn(usize, AgentBuilder) -> AgentBuilder,
        writers: impl FnOnce(WritersBuilder) -> WritersBuilder,
    ) -> Result<Self> {
        let agents = world.agents_with(&set, &consul, agent).await?;
        Self::with_agents(world, consul, set, agents, writers).await
    }

    /// The same where the agents that there are to be have been started.
    pub(crate) async fn with_agents(
        world: &World,
        consul: Consul,
        set: ReplicaSet,
        agents: Vec<Agent>,
        writers: impl FnOnce(WritersBuilder) -> WritersBuilder,
    ) -> Result<Self> {
        let writers = writers(set.writers()).start();
        let master = wait_for_master(&set, |_| true, SOON).await?;
        writers.wait_for_writes(SOME_WRITES, SOON).await?;
        let key = lock_key(world, &set);
        Ok(Self {
            consul,
            set,
            agents,
            writers,
            master,
            key,
        })
    }

    pub(crate) fn master(&self) -> &Instance {
        &self.set[self.master.instance]
    }

    pub(crate) fn master_agent(&self) -> &Agent {
        &self.agents[self.master.instance]
    }

    /// Some instance that is not the master.
    pub(crate) fn replica(&self) -> usize {
        usize::from(self.master.instance == 0)
    }

    /// What is in the lock key.
    pub(crate) async fn lock(&self) -> Result<KvEntry> {
        lock_entry(&self.consul, &self.key).await
    }

    /// Waits until another instance is master, and accepts writes, under a higher term.
    pub(crate) async fn wait_for_heir(&self, deadline: Duration) -> Result<Tenure> {
        let old = self.master;
        let fits = |seen: &Tenure| seen.instance != old.instance && seen.term > old.term;
        let heir = wait_for_master(&self.set, fits, deadline).await?;
        self.writers.wait_for_writes(SOME_WRITES, SOON).await?;
        Ok(heir)
    }

    /// Waits until the master's record has been renewed twice: the agent that keeps it is at work.
    pub(crate) async fn wait_for_refreshes(&self) -> Result<()> {
        let before = self.lock().await?.json()?["refresh"].as_u64().unwrap_or(0);
        eventually(SOON, "two refreshes", async || {
            let entry = self.lock().await.map_err(|error| error.to_string())?;
            let record = entry.json().map_err(|error| error.to_string())?;
            if entry.session.is_some() && record["refresh"].as_u64() >= Some(before + 2) {
                Ok(())
            } else {
                Err(entry.value)
            }
        })
        .await
    }

    /// The master that the story began with was the only one, and from its first accepted write on refused none.
    pub(crate) async fn assert_undisturbed(self) -> Result<()> {
        let history = self.writers.stop().await?;
        assert_reigns(&history.judge(), &[self.master]);
        assert_never_refused(&history, self.master.instance);
        Ok(())
    }

    /// These were masters one after the other, and these members have every acknowledged write.
    pub(crate) async fn assert_whole(
        self,
        reigns: &[Tenure],
        members: impl IntoIterator<Item = usize>,
    ) -> Result<()> {
        let history = self.writers.stop().await?;
        for index in members {
            self.set.wait_for_all_writes(index, &history, SOON).await?;
        }
        assert_reigns(&history.judge(), reigns);
        Ok(())
    }

    /// The catalog's entry for an instance, if there is one.
    pub(crate) async fn service(&self, index: usize) -> Result<Option<ServiceEntry>> {
        let port = self.set[index].addr().rsplit(':').next();
        for name in ["tarantool-master", "tarantool-replica"] {
            let all = self.consul.api()?.service(name).await?;
            let mut own = all.into_iter();
            if let Some(entry) = own.find(|entry| Some(entry.port.to_string().as_str()) == port) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Waits until the check of an instance says so, and returns the entry.
    pub(crate) async fn wait_for_check(
        &self,
        index: usize,
        status: &str,
        words: &str,
    ) -> Result<ServiceEntry> {
        let what = format!("a {status} check that says '{words}'");
        eventually(SOON, &what, async || match self.service(index).await {
            Ok(Some(entry)) if entry.status == status && entry.output.contains(words) => Ok(entry),
            other => Err(format!("{other:?}")),
        })
        .await
    }
}

/// The lock key, as the agents derive it.
pub(crate) fn lock_key(world: &World, set: &ReplicaSet) -> String {
    format!("tarsec/{}/{}/leader", world.cluster(), set.uuid())
}

/// What is in a lock key; waits until there is one.
pub(crate) async fn lock_entry(consul: &Consul, key: &str) -> Result<KvEntry> {
    eventually(SOON, "the lock key", async || {
        let api = consul.api().map_err(|error| error.to_string())?;
        let entry = api.kv(key).await.map_err(|error| error.to_string())?;
        entry.ok_or_else(|| "there is none".to_owned())
    })
    .await
}

/// Waits until one instance alone is writable, under a term, and fits.
pub(crate) async fn wait_for_master(
    set: &ReplicaSet,
    fits: impl Fn(&Tenure) -> bool,
    deadline: Duration,
) -> Result<Tenure> {
    eventually(deadline, "one fitting master", async || {
        let writable = set.writable().await;
        let [instance] = *writable.as_slice() else {
            return Err(format!("writable: {writable:?}"));
        };
        let standing = set[instance].standing().await;
        let term = standing.map_err(|error| error.to_string())?.term;
        let seen = Tenure {
            instance,
            term: term.unwrap_or(0),
        };
        if term.is_some() && fits(&seen) {
            Ok(seen)
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await
}

/// Waits until an instance that was woken after its lease is read-only, or ended itself.
pub(crate) async fn wait_until_fenced_or_gone(instance: &Instance) -> Result<()> {
    eventually(
        SOON,
        "the woken instance to be fenced or gone",
        async || {
            if !instance.process().is_running() {
                return Ok(());
            }
            match guard(instance).await {
                Ok(guard) if guard["leased"] == false => Ok(()),
                other => Err(format!("{other:?}")),
            }
        },
    )
    .await
}

/// The guard's own state, read inside the instance.
pub(crate) async fn guard(instance: &Instance) -> Result<Value> {
    let lua = "local s = tarsec_guard.state
        return {term = s.term, leased = s.leased, deadline = s.times.deadline, owner = s.agent,
            fences = s.fences, unleased = s.unleased, last_fence = s.last_fence}";
    let values = instance.eval(lua, &[]).await?;
    Ok(values.into_iter().next().unwrap_or(Value::Null))
}

/// The tenures that accepted writes, in the order of the first.
pub(crate) fn tenures(verdict: &Verdict) -> Vec<Tenure> {
    verdict.shares.iter().map(|share| share.tenure).collect()
}

/// One master at a time, and exactly these, one after the other, under rising terms.
pub(crate) fn assert_reigns(verdict: &Verdict, expected: &[Tenure]) {
    verdict.assert_safe();
    assert_eq!(tenures(verdict), expected, "{verdict}");
    let rises = expected.windows(2).all(|pair| pair[0].term < pair[1].term);
    assert!(rises, "terms do not rise:\n{verdict}");
}

/// From its first accepted write on, an instance has refused none and left none without an answer.
pub(crate) fn assert_never_refused(history: &History, instance: usize) {
    let own = history.writes.iter();
    let since = own
        .filter(|write| write.instance == instance)
        .skip_while(|write| !write.is_accepted());
    let refused = since
        .filter(|write| matches!(write.outcome, Outcome::ReadOnly | Outcome::Failed(_)))
        .count();
    assert_eq!(refused, 0, "writes were refused:\n{}", history.judge());
}
