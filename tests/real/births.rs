//! A replica set from nothing by Tarantool 3's declarative configuration, under each `replication.bootstrap_strategy`
//! that leaves the choice of a leader open. No agent waits for a lease, and there is one birth. Tarantool itself
//! refuses the other strategies.

use tarsec_harness::{
    Agent, Consul, LogLine, ReplicaSet, ReplicaSetOptions, Result, Value, World, eventually, json,
};

use crate::declared::calm;
use crate::first_start::{assert_serves, long_lease};
use crate::scene::Scene;
use crate::support::{SOON, knows_no_declarations, world};

async fn unborn(world: &World, strategy: &str) -> Result<ReplicaSet> {
    let over = json!({"replication": {"bootstrap_strategy": strategy}});
    let options = ReplicaSetOptions::of(3).declared(over).unborn();
    world.replica_set_with(options).await
}

/// One agent for each, which may talk to its instance's console.
async fn agents(world: &World, set: &ReplicaSet, consul: &Consul) -> Result<Vec<Agent>> {
    let mut agents = Vec::new();
    for instance in set.iter() {
        let name = instance.name();
        let socket = world
            .dir()
            .join(format!("{name}/var/run/{name}/tarantool.control"));
        let agent = long_lease(world.agent(instance, consul)?);
        let agent = agent.env("TARANTOOL_CONTROL", &socket.display().to_string());
        agents.push(agent.start().await?);
    }
    Ok(agents)
}

#[tokio::test]
async fn the_smallest_name_bootstraps_writable_and_nobody_waits_for_a_lease() {
    if knows_no_declarations("the_smallest_name_bootstraps_writable_and_nobody_waits_for_a_lease") {
        return;
    }
    world()
        .story("births-auto", async |world| {
            let consul = world.consul().await?;
            let set = unborn(world, "auto").await?;
            let agents = agents(world, &set, &consul).await?;
            set.start_all().await?;
            assert_serves(&set).await?;
            drop(agents);
            Ok(())
        })
        .await;
}

async fn is_born_once(name: &str, strategy: &str) {
    let story = async |world: &World| {
        let consul = world.consul().await?;
        let set = unborn(world, strategy).await?;
        let agents = agents(world, &set, &consul).await?;
        set.start_all().await?;
        assert_serves(&set).await?;
        let key = format!(
            "tarsec/{}/births/{}",
            world.cluster(),
            set.declaration().replicaset()
        );
        let key = eventually(SOON, "the birth in Consul", async || {
            let api = consul.api().map_err(|error| error.to_string())?;
            let entry = api.kv(&key).await.map_err(|error| error.to_string())?;
            let key = entry
                .and_then(|entry| entry.json().ok())
                .unwrap_or(Value::Null);
            (key["replicaset"] == set.uuid())
                .then(|| key.clone())
                .ok_or(key.to_string())
        })
        .await?;
        let mut born = 0;
        for (agent, instance) in agents.iter().zip(set.iter()) {
            let says = |line: &LogLine| line.message() == "the replica set is to be born here";
            let here = agent.logs()?.iter().any(says);
            assert_eq!(here, key["instance"] == instance.name(), "{key}");
            born += usize::from(here);
        }
        assert_eq!(born, 1);

        // The instance on which it was born loses its disk: it joins.
        let first = set
            .iter()
            .find(|instance| key["instance"] == instance.name())
            .unwrap();
        first.kill().await?;
        first.wipe(world)?;
        first.start().await?;
        set.wait_for_mesh(SOON).await?;
        assert_serves(&set).await?;
        Ok(())
    };
    world().story(name, story).await;
}

#[tokio::test]
async fn a_replica_set_that_waits_for_a_coordinator_is_born_once() {
    if knows_no_declarations("a_replica_set_that_waits_for_a_coordinator_is_born_once") {
        return;
    }
    is_born_once("births-supervised", "supervised").await;
}

#[tokio::test]
async fn a_replica_set_that_is_bootstrapped_natively_is_born_once() {
    if knows_no_declarations("a_replica_set_that_is_bootstrapped_natively_is_born_once") {
        return;
    }
    is_born_once("births-native", "native").await;
}

/// A strategy for one replica set, with the leader that it asks for.
fn strategy(strategy: &str, set: &str) -> Value {
    let leader = (strategy == "config").then(|| format!("{set}1"));
    json!({
        "replication": {"bootstrap_strategy": strategy},
        "groups": {"storages": {"replicasets": {set: {"bootstrap_leader": leader}}}},
    })
}

#[tokio::test]
async fn strategies_without_a_choice_are_refused_by_tarantool_and_a_reload_to_one_changes_nothing()
{
    if knows_no_declarations(
        "strategies_without_a_choice_are_refused_by_tarantool_and_a_reload_to_one_changes_nothing",
    ) {
        return;
    }
    let refusal = "it is not supported with \"replication.failover\" = \"supervised\"";
    world()
        .story("births-refused", async |world| {
            let options = ReplicaSetOptions::of(2).declared(json!({}));
            let scene = Scene::start_with(world, options, calm, |writers| writers).await?;
            for (name, set) in [("config", "b"), ("legacy", "c")] {
                let options = ReplicaSetOptions::of(2).declared(strategy(name, set));
                let refused = world.replica_set_with(options.unborn()).await?;
                refused[0].launch()?;
                refused[0].process().wait(SOON).await?;
                let last = refused[0].process().tail(3);
                assert!(last.contains(refusal), "{last}");

                let declaration = scene.set.declaration();
                declaration.change(&strategy(name, "a"))?;
                for instance in scene.set.iter() {
                    let error = instance.reload().await.unwrap_err().to_string();
                    assert!(error.contains(refusal), "{error}");
                }
            }
            scene.set.declaration().change(&strategy("auto", "a"))?;
            for instance in scene.set.iter() {
                assert_eq!(instance.reload().await?, [""; 0]);
            }
            scene.wait_for_refreshes().await?;
            scene.assert_undisturbed().await
        })
        .await;
}
