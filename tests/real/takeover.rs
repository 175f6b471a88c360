//! A holder that is not heard of for a lease loses the lock, whatever Consul's sessions do; a holder that is heard
//! keeps it.

use std::time::{Duration, Instant};

use tarsec_harness::{
    Change, ConsulOptions, Fault, Machine, Moment, ReplicaSetOptions, Result, TakeOver, Tenure,
    Value, Verdict, eventually, json,
};

use crate::scene::{SOME_WRITES, Scene, assert_reigns, lock_entry, lock_key, wait_for_master};
use crate::support::{LEASE, SOON, world};

/// R3's margin for this lease: 2 % and 250 ms.
const MARGIN: Duration = Duration::from_millis(310);
/// For the election and the promotion, on a busy machine.
const REST: Duration = Duration::from_secs(1);

fn change(verdict: &Verdict) -> Change {
    match verdict.changes.as_slice() {
        [change] => *change,
        other => panic!("{other:?}:\n{verdict}"),
    }
}

#[tokio::test]
async fn a_lost_machine_is_succeeded_after_a_lease_and_comes_back_as_a_replica() {
    world()
        .story("machine-lost", async |world| {
            let scene = Scene::start(world, 3).await?;
            let old = scene.master;
            let machine = Machine::of(scene.master(), scene.master_agent());
            let killed = Moment::now();
            machine.kill_no_wait()?;
            let heir = scene.wait_for_heir(SOON).await?;
            machine.wait_gone().await?;
            let stages = eventually(SOON, "the stages, logged", async || {
                TakeOver::after_loss(&scene.agents, old.instance, killed)
            })
            .await?;
            assert_eq!(stages.winner, heir.instance);
            assert!(stages.elected <= stages.acquired, "{stages:?}");
            assert_eq!(scene.lock().await?.json()?["cause"], "taken_over");

            machine.start().await?;
            scene
                .wait_for_check(old.instance, "passing", "replica: the master is")
                .await?;
            scene.set.stays_master(heir.instance, LEASE).await?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            // No agent could prove that it was dead, and its last refresh may have been a quarter of a lease before.
            let took = change(&verdict).duration();
            assert!(
                took > LEASE / 2 && took < LEASE + MARGIN + REST,
                "{verdict}"
            );
            Ok(())
        })
        .await;
}

/// Each of an agent's calls to Consul takes 200 ms.
const SLOW: Fault = Fault::Delay {
    to_target: Duration::from_millis(100),
    to_client: Duration::from_millis(100),
};

#[tokio::test]
async fn with_a_slow_consul_it_takes_a_few_calls_longer() {
    world()
        .story("machine-lost-slow", async |world| {
            let options = ReplicaSetOptions::of(3);
            let scene = Scene::start_with(world, options, |_, agent| agent.linked(), |w| w).await?;
            let old = scene.master;
            for agent in &scene.agents {
                agent.consul_link().unwrap().set(SLOW).await?;
            }
            scene.wait_for_refreshes().await?;
            scene.set.stays_master(old.instance, LEASE * 2).await?;
            Machine::of(scene.master(), scene.master_agent()).kill_no_wait()?;
            let heir = scene.wait_for_heir(SOON).await?;
            scene.set.stays_master(heir.instance, LEASE).await?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            let took = change(&verdict).duration();
            // A look, a session, the board and the ballots side by side, the lock: seven calls one after the other.
            let calls = Duration::from_millis(200) * 7;
            assert!(took < LEASE + MARGIN + REST + calls, "{verdict}");
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn across_the_death_of_consuls_leader_there_is_one_heir() {
    world()
        .story("machine-lost-leader", async |world| {
            let options = ConsulOptions::default().servers(3);
            let consul = world.consul_with(options).await?;
            let leader = consul.leader().await?.unwrap();
            // Every agent's own server lives on.
            let others: Vec<String> = (0..3)
                .filter(|server| *server != leader)
                .map(|server| consul.agent_addr(server))
                .collect();
            let set = world.replica_set(3).await?;
            let server = |at: usize, agent: tarsec_harness::AgentBuilder| {
                agent.env("CONSUL_HTTP_ADDR", &others[at % others.len()])
            };
            let scene = Scene::start_on(world, consul, set, server, |writers| writers).await?;
            let old = scene.master;
            Machine::of(scene.master(), scene.master_agent()).kill_no_wait()?;
            scene.consul.kill_leader().await?;
            let heir = scene.wait_for_heir(SOON * 2).await?;
            scene.set.stays_master(heir.instance, LEASE).await?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            assert!(change(&verdict).duration() > LEASE / 2, "{verdict}");
            Ok(())
        })
        .await;
}

/// A holder that the story plays itself: a session and a record, and no instance at all.
struct Holder<'a> {
    scene: &'a Stage<'a>,
    session: String,
    refresh: u64,
}

/// Replicas without a master.
struct Stage<'a> {
    consul: &'a tarsec_harness::Consul,
    key: String,
    replicaset: String,
}

impl<'a> Holder<'a> {
    async fn new(scene: &'a Stage<'a>) -> Result<Self> {
        let api = scene.consul.api()?;
        let body = r#"{"TTL": "60s", "LockDelay": "0s", "NodeChecks": []}"#;
        let created = api.call("PUT", "/v1/session/create", Some(body)).await?;
        let session = created["ID"].as_str().unwrap_or_default().to_owned();
        let mut holder = Self {
            scene,
            session,
            refresh: 0,
        };
        holder.refresh().await?;
        Ok(holder)
    }

    fn record(&self) -> Value {
        json!({
            "v": 1, "term": 5, "instance": "00000000-0000-0000-0000-000000000000",
            "replicaset": self.scene.replicaset, "name": "the story", "uri": "127.0.0.1:1",
            "agent": "the story", "status": "active", "lease_ms": LEASE.as_millis() as u64,
            "refresh": self.refresh, "reason": "the story says so",
        })
    }

    /// Writes a newer record as an agent would: the lock stays ours only if it was ours.
    async fn refresh(&mut self) -> Result<()> {
        self.refresh += 1;
        let path = format!("/v1/kv/{}?acquire={}", self.scene.key, self.session);
        let body = self.record().to_string();
        let done = self
            .scene
            .consul
            .api()?
            .call("PUT", &path, Some(body))
            .await?;
        assert_eq!(done, true);
        Ok(())
    }
}

const ATTEMPTS: usize = 4;
const TAKING_OVER: &str = "taking the lock over from a holder that has not been heard of";

#[tokio::test]
async fn a_holder_that_refreshes_at_the_last_moment_keeps_the_lock() {
    world()
        .story("last-moment", async |world| {
            let consul = world.consul().await?;
            let set = world.replica_set(1).await?;
            let stage = Stage {
                key: lock_key(world, &set),
                replicaset: set.uuid().to_owned(),
                consul: &consul,
            };
            let mut holder = Holder::new(&stage).await?;
            let agent = world.agent(&set[0], &consul)?.linked().start().await?;
            let link = agent.consul_link().unwrap();
            // A signal before that would end it.
            agent
                .wait_for_log(SOON, "its first reason", 0, |line| {
                    line.message() == "reason changed"
                })
                .await?;
            for attempt in 0..ATTEMPTS {
                wait_for_reason(&agent, "replica: the master is the story").await?;
                holder.refresh().await?;
                let skip = agent.logs()?.len();
                // So that the transaction is still on its way when the holder writes.
                let late = Fault::Delay {
                    to_target: Duration::from_millis(400),
                    to_client: Duration::ZERO,
                };
                link.set(late).await?;
                agent
                    .wait_for_log(SOON, "the take-over", skip, |line| {
                        line.message() == TAKING_OVER
                    })
                    .await?;
                holder.refresh().await?;
                agent
                    .wait_for_log(SOON, "the refusal", skip, |line| {
                        line.message() == "lock not acquired"
                    })
                    .await?;
                let entry = lock_entry(&consul, &stage.key).await?;
                assert_eq!(entry.session.as_deref(), Some(holder.session.as_str()));
                assert_eq!(entry.json()?, holder.record(), "attempt {attempt}");
                assert_eq!(set.writable().await, [0_usize; 0]);
                link.restore().await?;
            }
            // It was not for want of trying.
            let master = wait_for_master(&set, |_| true, SOON).await?;
            assert_eq!(master.term, 6);
            Ok(())
        })
        .await;
}

async fn wait_for_reason(agent: &tarsec_harness::Agent, words: &str) -> Result<()> {
    eventually(SOON, words, async || {
        let dump = agent.usr1().await.map_err(|error| error.to_string())?;
        match dump["reason"].as_str() {
            Some(found) if found.starts_with(words) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn a_cooldown_holds_a_take_over_back_and_no_proven_death() {
    const COOLDOWN: Duration = Duration::from_secs(12);
    world()
        .story("cooldown", async |world| {
            let cool = |_, agent: tarsec_harness::AgentBuilder| {
                agent.env("FAILOVER_COOLDOWN", &format!("{}s", COOLDOWN.as_secs()))
            };
            let options = ReplicaSetOptions::of(3);
            let mut scene = Scene::start_with(world, options, cool, |writers| writers).await?;
            let mut reigns = vec![scene.master];
            // Two deaths that are proven, one right after the other.
            for _ in 0..2 {
                let old = scene.master.instance;
                scene.master().kill().await?;
                let killed = Instant::now();
                let heir = scene.wait_for_heir(SOON).await?;
                assert!(killed.elapsed() < COOLDOWN / 2);
                reigns.push(heir);
                scene.set[old].start().await?;
                scene.set.wait_for_mesh(SOON).await?;
                scene.master = heir;
            }
            let began = Instant::now();
            let lost = scene.master;
            Machine::of(scene.master(), scene.master_agent()).kill_no_wait()?;
            let replica = &scene.agents[scene.replica()];
            wait_for_reason(
                replica,
                "there is no master, waits because the last failover",
            )
            .await?;
            assert_eq!(scene.set.writable().await, [0_usize; 0]);
            let heir: Tenure = scene.wait_for_heir(SOON).await?;
            assert!(heir.term > lost.term);
            assert!(began.elapsed() > LEASE + MARGIN, "{:?}", began.elapsed());
            reigns.push(heir);
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            let verdict = scene.writers.verdict().await?;
            verdict.assert_safe();
            assert_eq!(crate::scene::tenures(&verdict), reigns, "{verdict}");
            let last = verdict.changes.last().unwrap();
            assert!(last.duration() > COOLDOWN / 3, "{verdict}");
            Ok(())
        })
        .await;
}
