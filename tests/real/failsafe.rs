//! R6: Consul cannot be written, and the master goes on for as long as every member promises.

use std::time::{Duration, Instant};

use tarsec_harness::{
    Agent, AgentBuilder, ConsulOptions, Machine, ReplicaSetOptions, Result, World, eventually,
};

use crate::cluster::{Cluster, slack, stays_read_only};
use crate::scene::{SESSION_EXPIRY, Scene, assert_never_refused, assert_reigns};
use crate::support::{LEASE, SOON, world};

const ON_PROMISES: &str =
    "master: Consul cannot be written, writable for as long as every member promises another lease";
const WITHOUT_PROMISES: &str = "not every member promises another lease";
const PROMISED: &str =
    "waits until every promise is certainly over that keeps another instance master without Consul";

/// Waits until an agent gives this as its reason.
async fn wait_for_reason(agent: &Agent, words: &str) -> Result<()> {
    eventually(SOON, words, async || {
        let dump = agent.usr1().await.map_err(|error| error.to_string())?;
        match dump["reason"].as_str() {
            Some(reason) if reason.contains(words) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

fn linked(_: usize, agent: AgentBuilder) -> AgentBuilder {
    agent.linked()
}

/// Long enough for an instance to restart well within it.
const LONG_LEASE: Duration = Duration::from_secs(8);

fn long_linked(_: usize, agent: AgentBuilder) -> AgentBuilder {
    agent.linked().env("MASTER_LEASE", "8s")
}

/// Cuts an agent's way to Consul, or restores it.
async fn reaches_consul(agent: &Agent, reaches: bool) -> Result<()> {
    let link = agent.consul_link().expect("the agent is linked");
    if reaches {
        link.restore().await
    } else {
        link.cut().await
    }
}

/// Promises are asked for again and again: each carries one lease.
#[tokio::test]
async fn consul_gone_for_a_minute_with_all_members_up_costs_not_one_write() {
    world()
        .story("failsafe-minute", async |world| {
            let cluster = Cluster::start(world, 3).await?;
            let master = cluster.master.instance;
            cluster.consul.kill().await?;
            wait_for_reason(&cluster.agents[master], ON_PROMISES).await?;
            cluster
                .set
                .stays_master(master, Duration::from_secs(60))
                .await?;
            wait_for_reason(&cluster.agents[master], ON_PROMISES).await?;
            cluster.consul.start_all().await?;
            wait_for_reason(
                &cluster.agents[master],
                "master: writable, the lease is running",
            )
            .await?;
            cluster.wait_until_masters_own_record_stands(world).await?;
            cluster.writers.wait_for_writes(100, SOON).await?;
            cluster.assert_undisturbed().await
        })
        .await;
}

#[tokio::test]
async fn consul_gone_with_a_replica_down_leaves_everybody_read_only_after_the_lease() {
    world()
        .story("failsafe-replica-down", async |world| {
            let cluster = Cluster::start(world, 3).await?;
            let master = cluster.master.instance;
            let down = cluster.other_than(master);
            cluster.set[down].kill().await?;
            cluster.consul.kill().await?;
            let gone = Instant::now();
            wait_for_reason(&cluster.agents[master], WITHOUT_PROMISES).await?;
            cluster.set.wait_for_no_master(SOON).await?;
            assert!(gone.elapsed() < LEASE + slack(), "{:?}", gone.elapsed());
            stays_read_only(&cluster.set, LEASE).await?;

            cluster.consul.start_all().await?;
            assert_eq!(cluster.wait_for_master().await?, cluster.master);
            cluster.writers.wait_for_writes(100, SOON).await?;
            cluster.assert_same_master().await
        })
        .await;
}

/// The other member's promise alone does not do: the side of a split that Consul is on may be the smaller one.
#[tokio::test]
async fn a_master_without_consul_and_one_of_two_replicas_is_read_only_before_that_one_takes_over() {
    world()
        .story("failsafe-split", async |world| {
            let options = ReplicaSetOptions::of(3).linked();
            let scene = Scene::start_with(world, options, linked, |writers| writers).await?;
            let master = scene.master.instance;
            let split = scene.replica();
            for (follower, source) in [(master, split), (split, master)] {
                let link = scene.set.link(follower, source);
                link.expect("the set is linked").cut().await?;
            }
            reaches_consul(scene.master_agent(), false).await?;
            let cut = Instant::now();
            scene.set.wait_for_no_master(SOON).await?;
            assert!(cut.elapsed() < LEASE + slack(), "{:?}", cut.elapsed());
            let heir = scene.wait_for_heir(SESSION_EXPIRY).await?;
            reaches_consul(scene.master_agent(), true).await?;
            wait_for_reason(scene.master_agent(), "replica: the master is").await?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[scene.master, heir]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_master_alone_cut_off_from_consul_keeps_its_role_and_says_so() {
    world()
        .story("failsafe-master-cut", async |world| {
            let cluster = Cluster::start_with(world, 3, linked).await?;
            let master = cluster.master.instance;
            let agent = &cluster.agents[master];
            reaches_consul(agent, false).await?;
            wait_for_reason(agent, ON_PROMISES).await?;
            assert_status_knows_of_promises(world, &cluster, "").await?;
            // Long enough for its session to expire and for an agent that runs for a free lock to have it.
            wait_until_lock_is_free(&cluster, world).await?;
            cluster.set.stays_master(master, LEASE * 3).await?;
            for (index, replica) in cluster.agents.iter().enumerate() {
                if index != master {
                    wait_for_reason(replica, PROMISED).await?;
                }
            }
            let lock = cluster.lock(world).await?;
            assert_eq!(lock.json()?["term"], cluster.master.term);
            assert_eq!(lock.session, None);
            assert_status_knows_of_promises(world, &cluster, "the lock is free").await?;

            reaches_consul(agent, true).await?;
            cluster.wait_until_masters_own_record_stands(world).await?;
            cluster.writers.wait_for_writes(100, SOON).await?;
            cluster.assert_undisturbed().await
        })
        .await;
}

/// `tarsec status` sees no refresh, does not take the master for gone all the same, and says this besides.
async fn assert_status_knows_of_promises(
    world: &World,
    cluster: &Cluster,
    words: &str,
) -> Result<()> {
    let status = world.command(&cluster.consul, &["status"])?;
    let output = status.run(SOON * 2).await?;
    let text = output.stdout.split_whitespace().collect::<Vec<_>>();
    let text = text.join(" ");
    let promises = "may go on for as long as every member promises it another lease";
    assert!(
        text.contains(promises) && text.contains(words),
        "{output:?}"
    );
    assert_ne!(output.code, Some(0), "{output:?}");
    Ok(())
}

async fn wait_until_lock_is_free(cluster: &Cluster, world: &World) -> Result<()> {
    eventually(
        SESSION_EXPIRY,
        "the master's session to expire",
        async || {
            let lock = cluster.lock(world).await;
            match lock.map_err(|error| error.to_string())?.session {
                None => Ok(()),
                Some(session) => Err(session),
            }
        },
    )
    .await
}

/// Neither the master's silence nor the time without Consul gives another agent the lock.
#[tokio::test]
async fn a_master_lost_without_consul_is_succeeded_when_consul_is_back_and_not_before() {
    world()
        .story("failsafe-master-lost", async |world| {
            let scene = Scene::start(world, 3).await?;
            scene.consul.kill().await?;
            wait_for_reason(scene.master_agent(), ON_PROMISES).await?;
            scene
                .set
                .stays_master(scene.master.instance, LEASE * 2)
                .await?;
            Machine::of(scene.master(), scene.master_agent())
                .kill()
                .await?;
            stays_read_only(&scene.set, LEASE * 3).await?;
            scene.consul.start_all().await?;
            let back = Instant::now();
            let heir = scene.wait_for_heir(SESSION_EXPIRY).await?;
            // However long the master has been silent: it gets another lease to come back, as R3 counts only while
            // Consul can be read. Half of that lease is for agents that found Consul back before the test did.
            assert!(back.elapsed() > LEASE / 2, "{:?}", back.elapsed());
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[scene.master, heir]);
            Ok(())
        })
        .await;
}

/// A promise to a master whose record says `fenced` is void.
#[tokio::test]
async fn a_promise_that_runs_does_not_delay_the_succession_of_a_master_that_is_proven_dead() {
    world()
        .story("failsafe-fenced", async |world| {
            let options = ReplicaSetOptions::of(3);
            let scene = Scene::start_with(world, options, long_linked, |writers| writers).await?;
            for agent in &scene.agents {
                reaches_consul(agent, false).await?;
            }
            wait_for_reason(scene.master_agent(), ON_PROMISES).await?;
            for agent in &scene.agents {
                reaches_consul(agent, true).await?;
            }
            let promise = scene.set[scene.replica()].eval(PROMISE_LEFT, &[]).await?;
            let left = promise.first().and_then(|left| left.as_f64());
            scene.master().kill().await?;
            let killed = Instant::now();
            let heir = scene.wait_for_heir(SOON).await?;
            let took = killed.elapsed();
            assert!(
                left.is_some_and(|left| left > took.as_secs_f64()),
                "{left:?} {took:?}"
            );
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[scene.master, heir]);
            Ok(())
        })
        .await;
}

/// Seconds.
const PROMISE_LEFT: &str = "
local promise = tarsec_guard.state.times.promise
return promise and tonumber(promise.until_ns - tarsec_guard.now()) / 1e9 or nil";

/// The instances have forgotten what they promised, and their agents have seen the record stand for long enough.
#[tokio::test]
async fn members_restarted_while_their_promises_run_are_not_promoted_too_early() {
    world()
        .story("failsafe-forgot", async |world| {
            let options = ReplicaSetOptions::of(3).linked();
            let scene = Scene::start_with(world, options, long_linked, |writers| writers).await?;
            let master = scene.master.instance;
            reaches_consul(scene.master_agent(), false).await?;
            wait_for_reason(scene.master_agent(), ON_PROMISES).await?;
            eventually(SESSION_EXPIRY, "the lock to be free", async || match scene
                .lock()
                .await
                .map_err(|error| error.to_string())?
                .session
            {
                None => Ok(()),
                Some(session) => Err(session),
            })
            .await?;
            scene.set.stays_master(master, LONG_LEASE * 3 / 2).await?;

            let replicas: Vec<usize> = (0..3).filter(|index| *index != master).collect();
            for replica in &replicas {
                let link = scene.set.link(master, *replica);
                link.expect("the set is linked").cut().await?;
            }
            let cut = Instant::now();
            let (one, other) = tokio::join!(
                scene.set[replicas[0]].restart(),
                scene.set[replicas[1]].restart()
            );
            one.and(other)?;
            assert!(
                cut.elapsed() < LONG_LEASE / 2 && scene.master().is_writable().await,
                "restarting took {:?}: the master's lease no longer runs, and nothing is shown",
                cut.elapsed()
            );
            let heir = scene.wait_for_heir(SESSION_EXPIRY).await?;
            let took = cut.elapsed();
            reaches_consul(scene.master_agent(), true).await?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[scene.master, heir]);
            assert!(took > LONG_LEASE, "{took:?}");
            Ok(())
        })
        .await;
}

/// The outage is several leases long, whichever member the agents ask.
#[tokio::test]
async fn the_death_of_consuls_leader_with_the_default_raft_multiplier_costs_not_one_write() {
    world()
        .story("failsafe-leader", async |world| {
            let options = ConsulOptions::default().servers(3).raft_multiplier(5);
            let consul = world.consul_with(options).await?;
            let leader = consul.leader().await?.expect("three servers have a leader");
            let addrs: Vec<String> = (0..consul.servers().len())
                .filter(|server| *server != leader)
                .map(|server| consul.agent_addr(server))
                .collect();
            let set = world.replica_set(2).await?;
            let by_follower =
                |index: usize, agent: AgentBuilder| agent.env("CONSUL_HTTP_ADDR", &addrs[index]);
            let scene = Scene::start_on(world, consul, set, by_follower, |writers| writers).await?;
            let master = scene.master.instance;

            scene.consul.kill_leader().await?;
            let killed = Instant::now();
            wait_for_reason(scene.master_agent(), ON_PROMISES).await?;
            scene
                .consul
                .wait_for_leader(Duration::from_secs(60))
                .await?;
            assert!(killed.elapsed() > LEASE, "{:?}", killed.elapsed());
            wait_for_reason(
                scene.master_agent(),
                "master: writable, the lease is running",
            )
            .await?;
            scene.wait_for_refreshes().await?;
            scene.set.stays_master(master, LEASE).await?;
            let history = scene.writers.stop().await?;
            assert_reigns(&history.judge(), &[scene.master]);
            assert_never_refused(&history, master);
            Ok(())
        })
        .await;
}
