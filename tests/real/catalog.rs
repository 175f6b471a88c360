//! What Consul's catalog shows: both ways of naming, words, and never a passing master that is no master.

use std::time::{Duration, Instant};

use tarsec_harness::{AgentBuilder, Result, ServiceEntry, Tenure, Version, eventually, json};

use crate::cluster::Cluster;
use crate::support::{LEASE, SOON, world};

const SERVING: &str = "master: writable, the lease is running";

fn following(name: &str) -> String {
    format!("replica: the master is {name}")
}

/// What a registration says of its instance apart from role and words.
fn assert_meta(entry: &ServiceEntry, cluster: &Cluster, tenure: Tenure) {
    let instance = &cluster.set[tenure.instance];
    assert_eq!(entry.meta["instance_uuid"], instance.uuid());
    assert_eq!(entry.meta["replicaset_uuid"], cluster.set.uuid());
    assert_eq!(entry.meta["term"], tenure.term.to_string());
    assert_eq!(entry.meta["tarsec_version"], env!("CARGO_PKG_VERSION"));
    assert!(
        entry.meta["tarantool_version"]
            .as_str()
            .is_some_and(|text| text.starts_with(&Version::of_tests().to_string()))
    );
}

#[tokio::test]
async fn one_service_tells_the_roles_by_tags_and_a_dead_master_stops_passing() {
    let named = |_, agent: AgentBuilder| {
        agent
            .env("CONSUL_SERVICE_NAME", "db")
            .env("MASTER_TAGS", "rw,primary")
            .env("REPLICA_TAGS", "ro")
    };
    world()
        .story("catalog-tags", async |world| {
            let cluster = Cluster::start_with(world, 2, named).await?;
            let (old, new) = (
                cluster.master.instance,
                cluster.other_than(cluster.master.instance),
            );
            let is_master = |entry: &ServiceEntry| {
                entry
                    .tags
                    .starts_with(&["rw".to_owned(), "primary".to_owned()])
            };
            let master = cluster
                .wait_for_service("db", old, "the master, by its tags", |entry| {
                    is_master(entry) && entry.status == "passing" && entry.output == SERVING
                })
                .await?;
            let (addr, uuid) = (cluster.set[old].addr(), cluster.set[old].uuid());
            assert_eq!(master.id, format!("db@{addr}@{uuid}"));
            assert_eq!(master.address, "127.0.0.1");
            assert_meta(&master, &cluster, cluster.master);
            let (name, uuid) = (world.cluster(), cluster.set.uuid());
            let places = [format!("cluster-{name}"), format!("replicaset-{uuid}")];
            assert_eq!(master.tags[2..], places);
            assert_eq!(master.meta["cluster"], name);
            let words = following(cluster.set[old].addr());
            let replica = cluster
                .wait_for_service("db", new, "the replica, by its tag", |entry| {
                    entry.tags[0] == "ro" && entry.status == "passing" && entry.output == words
                })
                .await?;
            let same_term = Tenure {
                instance: new,
                ..cluster.master
            };
            assert_meta(&replica, &cluster, same_term);

            cluster.set[old].kill().await?;
            let killed = Instant::now();
            cluster
                .wait_for_service("db", old, "the dead master to be critical", |entry| {
                    entry.status == "critical" && entry.output.contains("its process is dead")
                })
                .await?;
            // Told by its agent at once, not by the TTL's end.
            assert!(killed.elapsed() < LEASE / 3, "{:?}", killed.elapsed());
            let heir = cluster.wait_for_master().await?;
            let entry = cluster
                .wait_for_service("db", new, "the heir, by its tags", |entry| {
                    is_master(entry) && entry.status == "passing" && entry.output == SERVING
                })
                .await?;
            assert_meta(&entry, &cluster, heir);
            cluster.writers.wait_for_writes(50, SOON).await?;
            cluster.assert_handed_to(heir).await?;
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn registrations_removed_by_hand_come_back() {
    world()
        .story("catalog-restored", async |world| {
            let cluster = Cluster::start(world, 2).await?;
            let all = [("master", 0), ("replica", 1)];
            let all = all.map(|(role, offset)| {
                (
                    format!("tarantool-{role}"),
                    (cluster.master.instance + offset) % 2,
                )
            });
            for (name, index) in &all {
                let sound = |entry: &ServiceEntry| {
                    entry.status == "passing" && entry.output.contains("master")
                };
                let entry = cluster
                    .wait_for_service(name, *index, "a passing entry", sound)
                    .await?;
                let path = format!("/v1/agent/service/deregister/{}", entry.id);
                cluster.consul.api()?.call("PUT", &path, Some("")).await?;
                let anew = |found: &ServiceEntry| sound(found) && found.created > entry.created;
                let back = cluster
                    .wait_for_service(name, *index, "the entry to be back", anew)
                    .await?;
                let created = back.created;
                assert_eq!(back, ServiceEntry { created, ..entry });
            }
            cluster.assert_undisturbed().await
        })
        .await;
}

/// An agent's writes of its member's key rest on the index that it knows; the agent has to find the new one.
#[tokio::test]
async fn a_members_key_that_somebody_wrote_or_removed_is_written_again() {
    world()
        .story("catalog-member", async |world| {
            let cluster = Cluster::start(world, 2).await?;
            let board = world.board(&cluster.consul, &cluster.set);
            let replica = &cluster.set[cluster.other_than(cluster.master.instance)];
            let name = format!("members/{}", replica.uuid());
            let says = async |health: &str| {
                let what = format!("a member's key that says {health}");
                eventually(SOON, &what, async || {
                    let members = board.members().await.map_err(|error| error.to_string())?;
                    let own = members.get(replica.uuid());
                    let found = own.map(|member| member["health"].clone());
                    (found == Some(json!(health)))
                        .then_some(())
                        .ok_or(format!("{found:?}"))
                })
                .await
            };
            says("passing").await?;
            board.put(&name, &json!("by hand")).await?;
            replica.kill().await?;
            says("critical").await?;
            board.remove(&name).await?;
            replica.start().await?;
            says("passing").await?;
            cluster.assert_undisturbed().await
        })
        .await;
}

#[tokio::test]
async fn two_services_by_prefix_show_the_announced_address() {
    world()
        .story("catalog-prefix", async |world| {
            let announced = [world.port()?, world.port()?];
            let cluster = Cluster::start_with(world, 2, |index, agent| {
                let agent = agent.env("CONSUL_SERVICE_PREFIX", "db");
                let port = announced[index];
                // A whole address, and a port at the address of Consul's node.
                let addr = if index == 0 { "db.example" } else { "" };
                agent.env("ANNOUNCE_ADDR", &format!("{addr}:{port}"))
            })
            .await?;
            let api = cluster.consul.api()?;
            let name_of = |index: usize| {
                let host = if index == 0 { "db.example" } else { "" };
                format!("{host}:{}", announced[index])
            };
            let master = cluster.master.instance;
            let lock = cluster.lock(world).await?.json()?;
            assert_eq!(
                (&lock["name"], &lock["uri"]),
                (&json!(name_of(master)), &json!(name_of(master)))
            );
            for (role, index, words) in [
                ("master", master, SERVING.to_owned()),
                ("replica", 1 - master, following(&name_of(master))),
            ] {
                let entry = eventually(SOON, "an entry with these words", async || {
                    let all = api.service(&format!("db-{role}")).await;
                    match all.map_err(|error| error.to_string())?.as_slice() {
                        [one] if one.output == words && one.status == "passing" => Ok(one.clone()),
                        other => Err(format!("{other:?}")),
                    }
                })
                .await?;
                let uuid = cluster.set[index].uuid();
                assert_eq!(entry.id, format!("db@{}@{uuid}", name_of(index)));
                assert_eq!(entry.port, announced[index]);
                assert_eq!(entry.address, if index == 0 { "db.example" } else { "" });
            }
            cluster.assert_undisturbed().await
        })
        .await;
}

#[tokio::test]
async fn the_entry_of_a_master_whose_agent_is_killed_turns_critical_before_its_lease_ends() {
    world()
        .story("catalog-orphan", async |world| {
            // Seven tenths of the lease is the TTL, and the last refresh may be a quarter of it old: what is left is to be
            // more than a busy Consul's hiccup.
            let calm = |_, agent: AgentBuilder| {
                let agent = agent.env("MASTER_LEASE", "20s");
                agent.env("CONSUL_LOCK_TTL", "20s")
            };
            let cluster = Cluster::start_with(world, 2, calm).await?;
            let (old, new) = (
                cluster.master.instance,
                cluster.other_than(cluster.master.instance),
            );
            let name = "tarantool-master";
            cluster
                .wait_for_service(name, old, "a passing master", |entry| {
                    entry.status == "passing"
                })
                .await?;
            cluster.agents[old].kill().await?;
            let killed = Instant::now();
            loop {
                // In this order: a guard that has fenced does not change its mind without an agent.
                let read_only = cluster.set[old].says_writable().await == Some(false);
                let passing = is_passing(&cluster, name).await?;
                assert!(
                    !(read_only && passing),
                    "a fenced master passes, {:?} after its agent's end",
                    killed.elapsed()
                );
                if read_only {
                    break;
                }
                assert!(killed.elapsed() < SOON + SOON, "never fenced");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let session = cluster
                .lock(world)
                .await?
                .session
                .expect("a killed agent's session lives on");
            cluster.consul.api()?.destroy_session(&session).await?;
            assert_eq!(cluster.set.wait_for_new_master(old, SOON).await?, new);
            let heir = cluster.wait_for_master().await?;

            cluster.agents[old].start()?;
            let words = following(cluster.set[new].addr());
            cluster
                .wait_for_service(
                    "tarantool-replica",
                    old,
                    "the old master as a replica",
                    |entry| entry.status == "passing" && entry.output == words,
                )
                .await?;
            let masters = cluster.consul.api()?.service(name).await?;
            assert_eq!(masters.len(), 1, "{masters:?}");
            cluster.writers.wait_for_writes(50, SOON).await?;
            cluster.assert_handed_to(heir).await?;
            Ok(())
        })
        .await;
}

async fn is_passing(cluster: &Cluster, name: &str) -> Result<bool> {
    let all = cluster.consul.api()?.service(name).await?;
    Ok(all.iter().any(|entry| entry.status == "passing"))
}
