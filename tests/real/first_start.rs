//! A replica set from nothing. No record names a master, but every member answers that it is read-only, so no agent
//! waits for a lease; and in which order instances and agents come does not matter.

use tarsec_harness::{
    Agent, AgentBuilder, Consul, LogLine, ReplicaSet, ReplicaSetOptions, Result, Tenure, Version,
    World, eventually,
};

use crate::scene::{SOME_WRITES, assert_reigns, wait_for_master};
use crate::support::{LEASE, SOON, world};

const PLAIN_INIT: &str = include_str!("lua/plain_init.lua");

/// Longer than any wait in these stories: a master in them has not waited for it.
pub(crate) fn long_lease(agent: AgentBuilder) -> AgentBuilder {
    agent
        .env("MASTER_LEASE", "60s")
        .env("CONSUL_LOCK_TTL", "60s")
        .env("HEALTHCHECK_TIMEOUT", "2s")
}

/// Three instances of which none runs. `plain`: no member is registered before it joins.
async fn unborn(world: &World, plain: bool) -> Result<ReplicaSet> {
    let options = ReplicaSetOptions::of(3).unborn();
    let options = if plain {
        let init = world.dir().join("plain_init.lua");
        std::fs::write(&init, PLAIN_INIT).unwrap();
        options.init_lua(init)
    } else {
        options
    };
    world.replica_set_with(options).await
}

async fn agent(world: &World, set: &ReplicaSet, consul: &Consul, index: usize) -> Result<Agent> {
    long_lease(world.agent(&set[index], consul)?).start().await
}

/// As a supervisor does it: every instance that ended is started again, until all are ready.
async fn supervise(set: &ReplicaSet) -> Result<()> {
    eventually(SOON * 3, "all instances to be ready", async || {
        for instance in set.iter() {
            if !instance.process().is_running() {
                instance.launch().map_err(|error| error.to_string())?;
            }
            let ready = "return box.info.status == 'running' and rawget(_G, 'app_is_ready')";
            let answer = instance.eval(ready, &[]).await;
            let answer = answer.map_err(|error| format!("{}: {error}", instance.name()))?;
            if answer != [true] {
                return Err(format!("{}: {answer:?}", instance.name()));
            }
        }
        Ok(())
    })
    .await?;
    if Version::of_tests() == Version::new(2, 6, 0) {
        begin_replication_anew(set).await?;
    }
    set.wait_for_mesh(SOON).await
}

/// 2.6.0 may stop it for good where members join at the same time.
async fn begin_replication_anew(set: &ReplicaSet) -> Result<()> {
    let lua = "local all = box.cfg.replication
        box.cfg{replication = {}}
        box.cfg{replication = all}";
    for instance in set.iter() {
        instance.eval(lua, &[]).await?;
    }
    Ok(())
}

/// One master, whose writes get everywhere.
pub(crate) async fn assert_serves(set: &ReplicaSet) -> Result<Tenure> {
    let master = wait_for_master(set, |_| true, SOON).await?;
    let writers = set.writers().start();
    writers.wait_for_writes(SOME_WRITES, SOON).await?;
    let history = writers.stop().await?;
    for index in 0..set.len() {
        set.wait_for_all_writes(index, &history, SOON).await?;
    }
    assert_reigns(&history.judge(), &[master]);
    Ok(master)
}

#[tokio::test]
async fn instances_and_agents_from_nothing_have_a_master_at_once_in_any_order() {
    world()
        .story("first-start", async |world| {
            for (agents_first, order) in [(true, [2, 1, 0]), (false, [1, 0, 2])] {
                let consul = world.consul().await?;
                let set = unborn(world, false).await?;
                let mut agents = Vec::new();
                for index in order {
                    if agents_first {
                        agents.push(agent(world, &set, &consul, index).await?);
                    } else {
                        set[index].launch()?;
                    }
                }
                for index in order {
                    if agents_first {
                        set[index].launch()?;
                    } else {
                        agents.push(agent(world, &set, &consul, index).await?);
                    }
                }
                supervise(&set).await?;
                assert_serves(&set).await?;
            }
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn replicas_join_a_birthplace_whose_agent_came_before_them() {
    world()
        .story("first-birthplace", async |world| {
            let consul = world.consul().await?;
            let set = unborn(world, true).await?;
            set[0].launch()?;
            let first = agent(world, &set, &consul, 0).await?;
            set[0].wait_ready().await?;
            let master = wait_for_master(&set, |_| true, SOON).await?;
            assert_eq!(master.instance, 0);

            set[1].launch()?;
            set[2].launch()?;
            supervise(&set).await?;
            let others = [
                agent(world, &set, &consul, 1).await?,
                agent(world, &set, &consul, 2).await?,
            ];
            assert_eq!(assert_serves(&set).await?, master);
            drop((first, others));
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_plain_replica_set_and_its_agents_started_at_once_come_together() {
    world()
        .story("first-plain", async |world| {
            let consul = world.consul().await?;
            let set = unborn(world, true).await?;
            let mut agents = Vec::new();
            for index in [2, 1, 0] {
                agents.push(agent(world, &set, &consul, index).await?);
                set[index].launch()?;
            }
            supervise(&set).await?;
            assert_serves(&set).await?;
            Ok(())
        })
        .await;
}

/// The set has had a master without tarsec, whose agent comes last.
#[tokio::test]
async fn nobody_is_promoted_beside_a_writable_instance_that_has_no_agent() {
    world()
        .story("first-unguarded", async |world| {
            let consul = world.consul().await?;
            let set = world.replica_set(3).await?;
            set[0].set_writable(true).await?;
            let mut agents = Vec::new();
            for index in [2, 1] {
                agents.push(world.agent(&set[index], &consul)?.start().await?);
            }
            let waits = |line: &LogLine| {
                line.text.contains("is writable and has no agent")
                    && line.message() == "reason changed"
            };
            let deadline = LEASE + SOON;
            let held = async || {
                let logs = agents.iter().map(Agent::logs);
                let logs = logs.collect::<Result<Vec<_>>>();
                let logs = logs.map_err(|error| error.to_string())?;
                let mut lines = logs.iter().flatten();
                let said = lines.any(waits).then_some(());
                said.ok_or_else(|| "nobody says it".to_owned())
            };
            eventually(deadline, "who holds the lock to wait", held).await?;
            set.stays_master(0, LEASE).await?;
            let status = world.command(&consul, &["status"])?.run(SOON).await?;
            let words = format!(
                "nobody is promoted while {} ({}) is writable and has no agent",
                set[0].uuid(),
                set[0].addr()
            );
            let shown: Vec<&str> = status.stdout.split_whitespace().collect();
            assert!(shown.join(" ").contains(&words), "{}", status.stdout);

            // It comes back as that agent waits, too; and so does the next holder, whether the one before is stopped or lost.
            agents[0].restart().await?;
            set.stays_master(0, LEASE).await?;
            let board = world.board(&consul, &set);
            for is_lost in [false, true] {
                let holder = board.record().await?["instance"].clone();
                let holder = usize::from(holder == *set[1].uuid());
                if is_lost {
                    agents[holder].kill().await?;
                } else {
                    agents[holder].term(SOON).await?;
                }
                let next = &set[1 + holder];
                let next = next.uuid();
                let held = async || match board.record().await {
                    Ok(record) if record["instance"] == *next => Ok(()),
                    other => Err(format!("{other:?}")),
                };
                eventually(deadline * 2, "the next holder", held).await?;
                set.stays_master(0, LEASE * 2).await?;
                agents[holder].start()?;
            }
            agents.push(world.agent(&set[0], &consul)?.start().await?);
            assert_serves(&set).await?;
            Ok(())
        })
        .await;
}

/// Its last commits have landed as soon as a barrier behind them has, which needs no space that only a master could make.
#[tokio::test]
async fn a_set_that_had_a_master_without_tarsec_waits_for_no_lease_in_whatever_order_agents_come() {
    world()
        .story("first-adopted", async |world| {
            let consul = world.consul().await?;
            let set = world.replica_set(3).await?;
            set[0].set_writable(true).await?;
            let mut agents = Vec::new();
            for index in [2, 1, 0] {
                agents.push(agent(world, &set, &consul, index).await?);
            }
            assert_serves(&set).await?;
            let made = "local made = {} for _, space in box.space._space:pairs() do
                if space.name:find('^_tarsec') then table.insert(made, space.name) end end
                local triggers = box.space._vinyl_deferred_delete:before_replace()
                return table.concat(made, ' ') .. (' %d'):format(#triggers)";
            let [made] = &set[0].eval(made, &[]).await?[..] else {
                panic!("one answer");
            };
            assert_eq!(made, " 0", "nothing is made in the instance, nor left");
            Ok(())
        })
        .await;
}
