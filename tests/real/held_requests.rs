//! Proxies between an agent and Consul end requests that Consul holds. That is no news about Consul: a lost machine is
//! succeeded in time all the same. A Consul that was away is news, and starts the count anew.

use std::time::{Duration, Instant};

use tarsec_harness::{AgentBuilder, Change, LogLine, Machine, ReplicaSetOptions, Result, World};

use crate::scene::{Scene, assert_reigns};
use crate::support::{LEASE, SOON, world};
use crate::surroundings_gate::{Ended, Gate, Rules};

/// R3's margin.
fn margin(lease: Duration) -> Duration {
    lease / 50 + Duration::from_millis(250)
}

/// For the election and the promotion, on a busy machine.
const REST: Duration = Duration::from_secs(1);

/// Between two questions that are answered, for this lease: half of it.
const UNREAD_LIMIT: Duration = Duration::from_millis(1_500);

fn ends(after_ms: u64, how: Ended) -> Rules {
    Rules {
        ends: Some((Duration::from_millis(after_ms), how)),
        ..Rules::default()
    }
}

/// A scene of three whose agents reach Consul through such a proxy.
async fn scene_behind(world: &World, lease: Duration, rules: Rules) -> Result<(Scene, Gate)> {
    patient_scene_behind(world, lease, Duration::from_secs(1), rules).await
}

/// The same with another deadline of requests.
async fn patient_scene_behind(
    world: &World,
    lease: Duration,
    deadline: Duration,
    rules: Rules,
) -> Result<(Scene, Gate)> {
    let consul = world.consul().await?;
    let gate = Gate::start(world, &consul.agent_addr(0), rules).await?;
    let set = world.replica_set_with(ReplicaSetOptions::of(3)).await?;
    let ms = |time: Duration| format!("{}ms", time.as_millis());
    let agent = |_, agent: AgentBuilder| {
        agent
            .env("CONSUL_HTTP_ADDR", &gate.addr)
            .env("MASTER_LEASE", &ms(lease))
            .env("HEALTHCHECK_TIMEOUT", &ms(deadline))
    };
    let scene = Scene::start_on(world, consul, set, agent, |writers| writers).await?;
    Ok((scene, gate))
}

fn change(verdict: &tarsec_harness::Verdict) -> Change {
    match verdict.changes.as_slice() {
        [change] => *change,
        other => panic!("{other:?}:\n{verdict}"),
    }
}

/// While all is well no agent notices the proxy, and a lost machine is succeeded after a lease and its margin.
async fn is_succeeded_in_time_behind(world: &World, lease: Duration, rules: Rules) -> Result<()> {
    let (scene, gate) = scene_behind(world, lease, rules).await?;
    let old = scene.master;
    scene.wait_for_refreshes().await?;
    scene.set.stays_master(old.instance, lease).await?;
    let held = |line: &str| line.contains("&index=") && line.contains("/leader?");
    assert!(gate.asked().iter().any(|asked| held(&asked.line)));
    for agent in &scene.agents {
        let logs = agent.logs()?;
        // That a busy machine took a second for an answer is nothing that the proxy did; nor is it that a master then
        // asks members for promises, of which one is not attached yet.
        let is_slow = |line: &LogLine| {
            let why = line.field("why").to_string();
            why.contains("no answer from consul in")
        };
        let was_slow = logs.iter().any(is_slow);
        let asks = "not every member promised another lease";
        let warned = logs.into_iter().find(|line| {
            let slow = is_slow(line) || (was_slow && line.message() == asks);
            line.level() == "WARN" && !slow
                || line.message().contains("serving on, Consul does not")
        });
        assert!(warned.is_none(), "{warned:?}");
        let fault = &agent.usr2().await?["state"]["consul_fault"];
        assert!(fault.is_null(), "{fault}");
    }
    Machine::of(scene.master(), scene.master_agent()).kill_no_wait()?;
    let heir = scene.wait_for_heir(lease * 2 + SOON).await?;
    scene.set.stays_master(heir.instance, lease).await?;
    let verdict = scene.writers.verdict().await?;
    assert_reigns(&verdict, &[old, heir]);
    let took = change(&verdict).duration();
    assert!(
        took > lease / 2 && took < lease + margin(lease) + REST,
        "{verdict}"
    );
    Ok(())
}

#[tokio::test]
async fn behind_a_proxy_that_closes_after_5_s_a_lost_machine_is_succeeded_after_a_lease_of_10_s() {
    let story = async |world: &World| {
        let lease = Duration::from_secs(10);
        is_succeeded_in_time_behind(world, lease, ends(5_000, Ended::Closed)).await
    };
    world().story("held-10s-5s-closed", story).await;
}

#[tokio::test]
async fn behind_a_proxy_that_answers_504_after_1_s_a_lost_machine_is_succeeded_after_a_lease_of_3_s()
 {
    let story = async |world: &World| {
        is_succeeded_in_time_behind(world, LEASE, ends(1_000, Ended::Answered(504))).await
    };
    world().story("held-3s-1s-504", story).await;
}

/// Shorter than the time between two refreshes.
#[tokio::test]
async fn behind_a_proxy_that_closes_what_waits_for_a_refresh_a_lost_machine_is_succeeded_in_time() {
    let story = async |world: &World| {
        is_succeeded_in_time_behind(world, LEASE, ends(500, Ended::Closed)).await
    };
    world().story("held-3s-500ms-closed", story).await;
}

#[tokio::test]
async fn behind_a_proxy_that_lets_nothing_be_held_a_lost_machine_is_succeeded_in_time() {
    let story = async |world: &World| {
        let rules = Rules {
            holds_nothing: Some(408),
            ..Rules::default()
        };
        is_succeeded_in_time_behind(world, LEASE, rules).await
    };
    world().story("held-3s-nothing-408", story).await;
}

/// At this lease a beat and one request's deadline are more than half of it.
#[tokio::test]
async fn behind_a_proxy_that_swallows_what_is_held_a_lost_machine_is_succeeded() {
    let story = async |world: &World| {
        let lease = Duration::from_secs(4);
        let rules = ends(100, Ended::Swallowed);
        let (scene, _gate) = patient_scene_behind(world, lease, lease / 2, rules).await?;
        let old = scene.master;
        scene.wait_for_refreshes().await?;
        Machine::of(scene.master(), scene.master_agent()).kill_no_wait()?;
        let heir = scene.wait_for_heir(lease * 2 + SOON).await?;
        assert_reigns(&scene.writers.verdict().await?, &[old, heir]);
        Ok(())
    };
    world().story("held-swallowed", story).await;
}

/// The master's machine is lost, and then no agent reaches Consul for so long. Times from its loss, and from Consul's
/// return.
async fn heir_after_an_outage(world: &World, outage: Duration) -> Result<(Duration, Duration)> {
    let options = ReplicaSetOptions::of(3);
    let linked = |_, agent: AgentBuilder| agent.linked();
    let scene = Scene::start_with(world, options, linked, |writers| writers).await?;
    let old = scene.master;
    scene.wait_for_refreshes().await?;
    let lost = Instant::now();
    Machine::of(scene.master(), scene.master_agent()).kill_no_wait()?;
    let survivors = (0..3).filter(|at| *at != old.instance);
    let links: Vec<_> = survivors
        .map(|at| scene.agents[at].consul_link().unwrap())
        .collect();
    for link in &links {
        link.cut().await?;
    }
    tokio::time::sleep(outage).await;
    let back = Instant::now();
    for link in &links {
        link.restore().await?;
    }
    let heir = scene.wait_for_heir(SOON).await?;
    let took = (lost.elapsed(), back.elapsed());
    let verdict = scene.writers.verdict().await?;
    assert_reigns(&verdict, &[old, heir]);
    Ok(took)
}

#[tokio::test]
async fn after_an_outage_of_consul_the_old_holder_has_a_whole_lease() {
    let story = async |world: &World| {
        let outage = UNREAD_LIMIT + Duration::from_millis(500);
        let (_, since_return) = heir_after_an_outage(world, outage).await?;
        assert!(since_return > LEASE, "{since_return:?}");
        Ok(())
    };
    world().story("held-outage", story).await;
}

/// Shorter than the bound of R3's count, and the agents cannot tell it from a proxy.
#[tokio::test]
async fn a_moment_without_consul_starts_no_count_anew() {
    let story = async |world: &World| {
        let (since_loss, _) = heir_after_an_outage(world, UNREAD_LIMIT / 5).await?;
        assert!(
            since_loss < LEASE + margin(LEASE) + REST * 2,
            "{since_loss:?}"
        );
        Ok(())
    };
    world().story("held-moment", story).await;
}
