//! An agent stands still and wakes up late, while its instance lives on.

use std::time::{Duration, Instant};

use tarsec_harness::{AgentBuilder, Machine, Result, Value, eventually, json};

use crate::cluster::{Cluster, slack};
use crate::support::{LEASE, SOON, world};

/// Four leases.
const STALL: Duration = Duration::from_secs(12);
/// By how much an instance may begin to run later than its agent, when their machine goes on.
const BEHIND: Duration = Duration::from_millis(300);

#[tokio::test]
async fn an_agent_asleep_for_longer_than_the_lease_wakes_as_the_same_masters_agent() {
    world()
        .story("agent-asleep", async |world| {
            // No other agent is there to take the lock over.
            let cluster = Cluster::start(world, 1).await?;
            let master = &cluster.set[cluster.master.instance];
            let (agent, pid) = (
                &cluster.agents[cluster.master.instance],
                master.process().pid(),
            );

            agent.freeze().await?;
            let frozen = Instant::now();
            cluster.set.wait_for_no_master(SOON).await?;
            assert!(frozen.elapsed() < LEASE + slack(), "{:?}", frozen.elapsed());
            tokio::time::sleep(LEASE).await;
            let fenced = cluster.guard(cluster.master.instance).await?;
            assert_eq!(fenced["last_fence"], "its lease ended");
            agent.thaw()?;

            // Its session has outlived the sleep.
            assert_eq!(cluster.wait_for_master().await?, cluster.master);
            cluster.wait_until_masters_own_record_stands(world).await?;
            cluster.writers.wait_for_writes(50, SOON).await?;
            let after = cluster.guard(cluster.master.instance).await?;
            assert_eq!(
                after["fences"], fenced["fences"],
                "woken, it granted what was over"
            );
            assert_eq!(master.process().pid(), pid, "a healthy instance was killed");
            cluster.assert_same_master().await
        })
        .await;
}

/// The agent of a stalled machine goes on first, and its instance, with that process, a moment later: just what must not be taken
/// for a hang.
async fn goes_on_unharmed(
    cluster: &Cluster,
    old: usize,
    heir: usize,
    pid: Option<u32>,
) -> Result<()> {
    let (instance, agent) = (&cluster.set[old], &cluster.agents[old]);
    agent.thaw()?;
    let slept = "this agent did not run for a while";
    agent
        .wait_for_log(SOON, slept, 0, |line| line.message() == slept)
        .await?;
    tokio::time::sleep(BEHIND).await;
    instance.thaw()?;
    let words = format!("replica: the master is {}", cluster.set[heir].addr());
    cluster.wait_for_reason(old, &words).await?;
    cluster.set.stays_master(heir, LEASE).await?;
    assert_eq!(
        instance.process().pid(),
        pid,
        "a healthy instance was killed"
    );
    Ok(())
}

/// A host that stops and goes on: nothing on it hung, though its agent heard of nobody for longer than a lease.
#[tokio::test]
async fn a_machine_that_stood_still_past_its_lease_kills_nothing_when_it_goes_on() {
    world()
        .story("machine-stalled", async |world| {
            let cluster = Cluster::start(world, 3).await?;
            let old = cluster.master.instance;
            let (instance, agent) = (&cluster.set[old], &cluster.agents[old]);
            let pid = instance.process().pid();
            Machine::of(instance, agent).freeze().await?;
            let heir = cluster
                .set
                .wait_for_new_master(old, LEASE * 2 + SOON)
                .await?;
            goes_on_unharmed(&cluster, old, heir, pid).await
        })
        .await;
}

/// The instance stands still a moment earlier than its agent, which so has found it silent, and goes on a moment later.
#[tokio::test]
async fn an_instance_that_was_silent_before_its_machine_stalled_is_not_killed_when_it_goes_on() {
    world()
        .story("machine-stalled-apart", async |world| {
            let cluster = Cluster::start(world, 3).await?;
            let old = cluster.master.instance;
            let (instance, agent) = (&cluster.set[old], &cluster.agents[old]);
            let pid = instance.process().pid();
            instance.freeze().await?;
            let silent = async || {
                let dump = agent.usr2().await.map_err(|error| error.to_string())?;
                let since = &dump["state"]["instance"]["silent_since"];
                since
                    .is_number()
                    .then_some(())
                    .ok_or_else(|| since.to_string())
            };
            eventually(SOON, "the agent to miss its instance", silent).await?;
            let stalled = Instant::now();
            agent.freeze().await?;
            let heir = cluster
                .set
                .wait_for_new_master(old, LEASE * 2 + SOON)
                .await?;
            tokio::time::sleep(STALL.saturating_sub(stalled.elapsed())).await;
            goes_on_unharmed(&cluster, old, heir, pid).await
        })
        .await;
}

#[tokio::test]
async fn an_agent_that_slept_through_its_succession_follows_and_grants_nothing() {
    world()
        .story("agent-outslept", async |world| {
            let cluster = Cluster::start(world, 2).await?;
            let (old, heir) = (
                cluster.master.instance,
                cluster.other_than(cluster.master.instance),
            );
            let pid = cluster.set[old].process().pid();
            cluster.agents[old].freeze().await?;
            cluster.set.wait_for_no_master(SOON).await?;
            assert_eq!(cluster.set.wait_for_new_master(old, SOON).await?, heir);
            let heir = cluster.wait_for_master().await?;
            let fenced = cluster.guard(old).await?;

            cluster.agents[old].thaw()?;
            let words = format!(
                "replica: the master is {}",
                cluster.set[heir.instance].addr()
            );
            cluster.wait_for_reason(old, &words).await?;
            cluster.set.stays_master(heir.instance, LEASE).await?;
            let after = cluster.guard(old).await?;
            assert_eq!(
                after["fences"], fenced["fences"],
                "woken, it granted what was over"
            );
            assert_eq!(after["term"], heir.term);
            assert_eq!(
                cluster.set[old].process().pid(),
                pid,
                "a healthy instance was killed"
            );
            cluster.assert_handed_to(heir).await?;
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_promotion_that_arrives_after_its_lease_is_refused() {
    world()
        .story("promotion-late", async |world| {
            let patient =
                |_, agent: AgentBuilder| agent.linked().env("HEALTHCHECK_TIMEOUT", "1500ms");
            let cluster = Cluster::start_with(world, 2, patient).await?;
            let (old, heir) = (
                cluster.master.instance,
                cluster.other_than(cluster.master.instance),
            );
            let agent = &cluster.agents[heir];
            let link = agent.instance_link().expect("the agent is linked");
            // Slow enough to be caught between the lock and the promotion's arrival.
            link.delay(Duration::from_millis(600)).await?;
            cluster.set[heir].eval(NOTE_PROMOTIONS, &[]).await?;
            let skip = agent.logs()?.len();
            cluster.set[old].kill().await?;
            agent
                .wait_for_log(
                    SOON,
                    "the heir's agent to send the promotion",
                    skip,
                    |line| line.message() == "promoting",
                )
                .await?;
            // It dumps its state after it has begun what it logged.
            agent.usr1().await?;
            link.black_hole().await?;
            agent.freeze().await?;
            assert_eq!(promotions(&cluster, heir).await?, json!([]));
            tokio::time::sleep(LEASE + slack()).await;
            // Requests that were sent before the freeze arrive, and nothing else: the agent still sleeps.
            link.restore().await?;
            let refused = json!(["that lease ended before word of it arrived"]);
            let seen = eventually(SOON, "the promotion to arrive", async || match promotions(
                &cluster, heir,
            )
            .await
            {
                Ok(seen) if seen == json!([]) => Err("nothing arrived".to_owned()),
                Ok(seen) => Ok(seen),
                Err(error) => Err(error.to_string()),
            })
            .await?;
            assert_eq!(seen, refused);
            assert!(cluster.set.writable().await.is_empty());

            agent.thaw()?;
            assert_eq!(cluster.set.wait_for_new_master(old, SOON).await?, heir);
            let heir = cluster.wait_for_master().await?;
            cluster.writers.wait_for_writes(50, SOON).await?;
            cluster.assert_handed_to(heir).await?;
            Ok(())
        })
        .await;
}

/// Lets the guard note what it says to each promotion.
const NOTE_PROMOTIONS: &str = "
local promote = tarsec_guard.promote
story_promotions = setmetatable({}, {__serialize = 'seq'})
tarsec_guard.promote = function(...)
    local answer = promote(...)
    table.insert(story_promotions, answer.refused or 'done')
    return answer
end
";

async fn promotions(cluster: &Cluster, index: usize) -> Result<Value> {
    let seen = cluster.set[index]
        .eval("return story_promotions", &[])
        .await?;
    Ok(seen.into_iter().next().unwrap_or_default())
}
