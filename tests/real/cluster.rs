//! A replica set with its agents and a master, under writers: where the stories about Consul begin.

use std::time::Duration;

use tarsec_harness::{
    Agent, AgentBuilder, Consul, ConsulOptions, History, KvEntry, Outcome, ReplicaSet, Result,
    ServiceEntry, Tenure, Value, World, Writers, eventually,
};

use crate::support::{LEASE, SOON};

/// Everything that a story has, and the master with which it began.
pub(crate) struct Cluster {
    pub(crate) consul: Consul,
    pub(crate) set: ReplicaSet,
    pub(crate) agents: Vec<Agent>,
    pub(crate) writers: Writers,
    /// The first master.
    pub(crate) master: Tenure,
}

/// The tail of a story: what the writers saw.
pub(crate) struct Outlook {
    history: History,
}

impl Cluster {
    /// So many instances, each with its agent, one Consul.
    pub(crate) async fn start(world: &World, instances: usize) -> Result<Self> {
        Self::start_with(world, instances, |_, agent| agent).await
    }

    /// The same with agents of another kind.
    pub(crate) async fn start_with(
        world: &World,
        instances: usize,
        adjust: impl Fn(usize, AgentBuilder) -> AgentBuilder,
    ) -> Result<Self> {
        let consul = world.consul_with(ConsulOptions::default()).await?;
        Self::start_on(world, consul, instances, adjust).await
    }

    /// The same with a Consul of another kind.
    pub(crate) async fn start_on(
        world: &World,
        consul: Consul,
        instances: usize,
        adjust: impl Fn(usize, AgentBuilder) -> AgentBuilder,
    ) -> Result<Self> {
        let set = world.replica_set(instances).await?;
        let agents = world.agents_with(&set, &consul, adjust).await?;
        let mut cluster = Self {
            master: Tenure {
                instance: 0,
                term: 0,
            },
            writers: set.writers().start(),
            consul,
            set,
            agents,
        };
        cluster.master = cluster.wait_for_master().await?;
        cluster.writers.wait_for_writes(50, SOON).await?;
        Ok(cluster)
    }

    /// The lock key, as the agents derive it.
    pub(crate) fn key(&self, world: &World) -> String {
        format!("tarsec/{}/{}/leader", world.cluster(), self.set.uuid())
    }

    /// What is in the lock key.
    pub(crate) async fn lock(&self, world: &World) -> Result<KvEntry> {
        let key = self.key(world);
        let entry = self.consul.api()?.kv(&key).await?;
        Ok(entry.unwrap_or_else(|| panic!("{key} is missing")))
    }

    /// A plain write to the lock key, of any bytes.
    pub(crate) async fn put(&self, world: &World, value: Vec<u8>) -> Result<()> {
        self.consul.api()?.kv_put(&self.key(world), value).await
    }

    /// Waits until one instance is writable under a term.
    pub(crate) async fn wait_for_master(&self) -> Result<Tenure> {
        eventually(SOON, "a master with a term", async || {
            let writable = self.set.writable().await;
            let [instance] = writable.as_slice() else {
                return Err(format!("writable: {writable:?}"));
            };
            let standing = self.set[*instance].standing().await;
            match standing.map(|standing| standing.term) {
                Ok(Some(term)) => Ok(Tenure {
                    instance: *instance,
                    term,
                }),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Waits until the lock's record is sound and fits, and a session holds the lock.
    pub(crate) async fn wait_for_record(
        &self,
        world: &World,
        what: &str,
        fits: impl Fn(&KvEntry, &Value) -> bool,
    ) -> Result<KvEntry> {
        let key = self.key(world);
        eventually(SOON, what, async || {
            let api = self.consul.api().map_err(|error| error.to_string())?;
            let entry = api.kv(&key).await.map_err(|error| error.to_string())?;
            match entry {
                Some(entry)
                    if entry.session.is_some()
                        && entry.json().is_ok_and(|record| fits(&entry, &record)) =>
                {
                    Ok(entry)
                }
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Waits until the first master's record is back in the key, held, with its own term, and renewed again since.
    pub(crate) async fn wait_until_masters_own_record_stands(&self, world: &World) -> Result<()> {
        let uuid = self.set[self.master.instance].uuid();
        let own = |record: &Value| {
            record["instance"] == uuid
                && record["term"] == self.master.term
                && record["status"] == "active"
        };
        let seen = self
            .wait_for_record(world, "the master's own record", |_, record| own(record))
            .await?;
        let what = "the master to refresh its record";
        self.wait_for_record(world, what, |entry, record| {
            own(record) && entry.modify_index > seen.modify_index
        })
        .await?;
        Ok(())
    }

    /// Any instance but this one.
    pub(crate) fn other_than(&self, index: usize) -> usize {
        usize::from(index == 0)
    }

    /// Waits for an entry in the catalog, looked for by the service's name and the instance's port.
    pub(crate) async fn wait_for_service(
        &self,
        name: &str,
        index: usize,
        what: &str,
        fits: impl Fn(&ServiceEntry) -> bool,
    ) -> Result<ServiceEntry> {
        eventually(SOON, what, async || {
            let api = self.consul.api().map_err(|error| error.to_string())?;
            let all = api.service(name).await.map_err(|error| error.to_string())?;
            let found = all.iter().find(|entry| {
                self.set[index]
                    .addr()
                    .ends_with(&format!(":{}", entry.port))
                    && fits(entry)
            });
            found.cloned().ok_or_else(|| format!("{all:?}"))
        })
        .await
    }

    /// Waits until an agent's own account of itself is this, with nothing to complain about in Consul.
    pub(crate) async fn wait_for_reason(&self, index: usize, words: &str) -> Result<()> {
        eventually(SOON, words, async || {
            let dump = self.agents[index].usr1().await;
            let dump = dump.map_err(|error| error.to_string())?;
            if dump["reason"] == words && dump["consul"]["fault"].is_null() {
                Ok(())
            } else {
                Err(format!("{} ({})", dump["reason"], dump["consul"]["fault"]))
            }
        })
        .await
    }

    /// What the guard inside an instance knows and has counted.
    pub(crate) async fn guard(&self, index: usize) -> Result<Value> {
        let lua = "
local state = tarsec_guard.state
return {term = state.term, leased = state.leased, fences = state.fences, last_fence = state.last_fence}";
        let values = self.set[index].eval(lua, &[]).await?;
        Ok(values.into_iter().next().unwrap_or_default())
    }

    /// Stops the writers.
    pub(crate) async fn outlook(self) -> Result<Outlook> {
        let history = self.writers.stop().await?;
        Ok(Outlook { history })
    }

    /// The end of a story in which no client may have noticed anything: one master, one term, no write refused.
    pub(crate) async fn assert_undisturbed(self) -> Result<()> {
        let master = self.master;
        let outlook = self.outlook().await?;
        outlook.assert_only(master);
        outlook.assert_never_refused(master.instance);
        Ok(())
    }

    /// The end of a story with read-only time, and the same master under the same term after it.
    pub(crate) async fn assert_same_master(self) -> Result<()> {
        let master = self.master;
        let outlook = self.outlook().await?;
        outlook.assert_only(master);
        Ok(())
    }

    /// The end of a story with one change of hands, to a higher term.
    pub(crate) async fn assert_handed_to(self, heir: Tenure) -> Result<Outlook> {
        let master = self.master;
        let outlook = self.outlook().await?;
        let verdict = outlook.history.judge();
        verdict.assert_safe();
        let tenures: Vec<Tenure> = verdict.shares.iter().map(|share| share.tenure).collect();
        assert_eq!(tenures, [master, heir], "{verdict}");
        assert!(heir.term > master.term, "{verdict}");
        Ok(outlook)
    }
}

impl Outlook {
    /// One master at a time.
    pub(crate) fn assert_safe(&self) {
        self.history.judge().assert_safe();
    }

    /// No instance but this master, under this term, has accepted anything.
    pub(crate) fn assert_only(&self, master: Tenure) {
        let verdict = self.history.judge();
        verdict.assert_safe();
        let tenures: Vec<Tenure> = verdict.shares.iter().map(|share| share.tenure).collect();
        assert_eq!(tenures, [master], "{verdict}");
    }

    /// Since its first accepted write this instance has accepted all of them.
    pub(crate) fn assert_never_refused(&self, instance: usize) {
        let own = self.history.writes.iter();
        let mut own = own.filter(|write| write.instance == instance);
        let refused = own
            .by_ref()
            .skip_while(|write| !write.is_accepted())
            .filter(|write| matches!(write.outcome, Outcome::ReadOnly | Outcome::Failed(_)))
            .count();
        assert_eq!(refused, 0, "writes refused:\n{}", self.history.judge());
    }
}

/// How late a guard may be seen to fence on a busy machine.
pub(crate) fn slack() -> Duration {
    LEASE / 6
}

/// Every instance stays read-only for so long.
pub(crate) async fn stays_read_only(set: &ReplicaSet, duration: Duration) -> Result<()> {
    let started = std::time::Instant::now();
    while started.elapsed() < duration {
        let writable = set.writable().await;
        assert!(
            writable.is_empty(),
            "{writable:?} writable after {:?}",
            started.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
