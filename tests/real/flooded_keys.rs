//! A KV writer fills Consul beside the lock. Whatever stands there and however much it is, a step at the lock has an outcome,
//! an election ends in its usual time, and what was too much is named.

use std::time::Duration;

use tarsec_harness::{ConsulApi, ConsulOptions, ReplicaSetOptions, Result, World, eventually};

use crate::scene::{SOME_WRITES, Scene};
use crate::support::{LEASE, SOON, world};

/// Almost Consul's longest value.
const HUGE: usize = 512 * 1024 - 64;
/// Together more than any answer of Consul that an agent ever read.
const MANY: usize = 16;
/// The number that an attacker came with.
const MOST: usize = 64;

/// An instance's UUID that nobody has.
fn somebody(at: usize) -> String {
    format!("0badf00d-0000-4000-8000-{at:012}")
}

/// Puts so many huge values under these names, and returns the names.
async fn flood(api: &ConsulApi, names: impl Iterator<Item = String>) -> Result<Vec<String>> {
    let names: Vec<String> = names.collect();
    for name in &names {
        api.kv_put(name, vec![b'x'; HUGE]).await?;
    }
    Ok(names)
}

async fn scene(world: &World) -> Result<Scene> {
    let consul = world
        .consul_with(ConsulOptions::default().in_memory())
        .await?;
    let set = world.replica_set_with(ReplicaSetOptions::of(3)).await?;
    Scene::start_on(world, consul, set, |_, agent| agent, |writers| writers).await
}

/// Where the keys of the scene's replica set begin, with a slash.
fn base(scene: &Scene) -> &str {
    scene.key.strip_suffix("leader").expect("the lock's key")
}

/// Kills the master of now, and sees another one in the usual time for a death that is proven.
#[allow(clippy::print_stderr, reason = "how long it took, for whoever reads")]
async fn fails_over(scene: &Scene, what: &str) -> Result<()> {
    let writable = scene.set.writable().await;
    let [old] = writable.as_slice() else {
        panic!("{what}: writable are {writable:?}");
    };
    let died = std::time::Instant::now();
    scene.set[*old].kill().await?;
    scene.set.wait_for_new_master(*old, LEASE).await?;
    let took = died.elapsed();
    eprintln!("{what}: a new master after {took:?}");
    assert!(took < LEASE, "{what}: {took:?}");
    scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
    scene.set[*old].start().await?;
    scene.set.wait_for_mesh(SOON).await
}

/// Floods one place of a replica set, sees its master refresh and its failover end, and clears the place.
async fn holds_against(name: &str, place: impl Fn(&World, &str, usize) -> String, many: usize) {
    let story = async |world: &World| {
        let scene = scene(world).await?;
        let api = scene.consul.api()?;
        let names = (0..many).map(|at| place(world, base(&scene), at));
        flood(api, names).await?;
        scene.wait_for_refreshes().await?;
        fails_over(&scene, name).await?;
        // Its successor serves under the flood, too.
        let writable = scene.set.writable().await;
        scene.set.stays_master(writable[0], LEASE).await?;
        scene.writers.verdict().await?.assert_safe();
        Ok(())
    };
    world().story(name, story).await;
}

#[tokio::test]
async fn values_beside_the_pause_keep_nobody_from_the_lock() {
    holds_against(
        "flooded-pause",
        |_, base, at| format!("{base}pause-{at}"),
        MOST,
    )
    .await;
}

#[tokio::test]
async fn values_beside_the_clusters_pause_keep_nobody_from_the_lock() {
    let place = |world: &World, _: &str, at| format!("tarsec/{}/pause-{at}", world.cluster());
    holds_against("flooded-cluster-pause", place, MANY).await;
}

#[tokio::test]
async fn values_beside_the_switchover_keep_nobody_from_the_lock() {
    holds_against(
        "flooded-switchover",
        |_, base, at| format!("{base}switchover/{at}"),
        MANY,
    )
    .await;
}

#[tokio::test]
async fn values_among_the_members_keep_nobody_from_the_lock() {
    let place = |_: &World, base: &str, at| format!("{base}members/{}", somebody(at));
    holds_against("flooded-members", place, MOST).await;
}

#[tokio::test]
async fn values_with_other_names_among_the_members_keep_nobody_from_the_lock() {
    holds_against(
        "flooded-member-names",
        |_, base, at| format!("{base}members/x{at}"),
        MANY,
    )
    .await;
}

#[tokio::test]
async fn values_among_the_ballots_keep_nobody_from_the_lock() {
    let place = |_: &World, base: &str, at| format!("{base}ballots/{}", somebody(at));
    holds_against("flooded-ballots", place, MOST).await;
}

#[tokio::test]
async fn values_in_the_history_keep_nobody_from_the_lock() {
    let place = |_: &World, base: &str, at: usize| format!("{base}history/{}", at + 1_000);
    holds_against("flooded-history", place, MANY).await;
}

#[tokio::test]
async fn values_where_nothing_belongs_keep_nobody_from_the_lock() {
    let place = |world: &World, base: &str, at: usize| match at % 4 {
        0 => format!("{base}probes/{at}"),
        1 => format!("{base}leader{at}"),
        2 => format!("tarsec/{}/masters/{}", world.cluster(), somebody(at)),
        _ => format!("tarsec/{}/{at}", world.cluster()),
    };
    holds_against("flooded-elsewhere", place, MOST).await;
}

/// Every value that an agent reads by its name is huge, again and again; the agents write over their own.
#[tokio::test]
async fn huge_values_in_the_agents_own_keys_count_as_garbage_and_are_named() {
    world()
        .story("flooded-own", async |world| {
            let scene = scene(world).await?;
            let api = scene.consul.api()?;
            let base = base(&scene).to_owned();
            let agents = scene.set.iter().flat_map(|instance| {
                let uuid = instance.uuid();
                [
                    format!("{base}members/{uuid}"),
                    format!("{base}ballots/{uuid}"),
                ]
            });
            let own = agents.chain([format!("{base}switchover")]);
            let names = flood(api, own).await?;
            let holder = scene.master_agent();
            for key in names.iter().filter(|name| name.contains("/ballots/")) {
                let words = format!("the value of {key} has more than 65536 bytes");
                eventually(SOON, &words, async || {
                    let outside = holder.usr2().await.map_err(|error| error.to_string())?;
                    match outside.to_string().contains(&words) {
                        true => Ok(()),
                        false => Err(outside["problems"].to_string()),
                    }
                })
                .await?;
            }
            flood(api, names.into_iter()).await?;
            fails_over(&scene, "huge values in their own keys").await?;
            scene.writers.verdict().await?.assert_safe();
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_pause_is_one_however_much_was_written_into_it() {
    world()
        .story("flooded-order", async |world| {
            let scene = scene(world).await?;
            let api = scene.consul.api()?;
            let pause = format!("{}pause", base(&scene));
            flood(api, [pause.clone()].into_iter()).await?;
            eventually(SOON, "the record to say that it is paused", async || {
                let record = scene.lock().await.map_err(|error| error.to_string())?;
                match record.json().map_err(|error| error.to_string())?["paused"] == true {
                    true => Ok(()),
                    false => Err(record.value),
                }
            })
            .await?;
            scene.master().kill().await?;
            scene.set.wait_for_no_master(SOON).await?;
            crate::cluster::stays_read_only(&scene.set, LEASE * 2).await?;
            api.kv_delete(&pause).await?;
            scene
                .set
                .wait_for_new_master(scene.master.instance, SOON)
                .await?;
            scene.writers.verdict().await?.assert_safe();
            Ok(())
        })
        .await;
}

/// More names than are read: the members that the replica set knows are read by theirs.
#[tokio::test]
async fn more_keys_than_are_read_among_the_members_are_named_and_keep_nobody_from_the_lock() {
    world()
        .story("flooded-names", async |world| {
            let scene = scene(world).await?;
            let api = scene.consul.api()?;
            let base = base(&scene).to_owned();
            for at in 0..2_000 {
                api.kv_put(&format!("{base}members/{}", somebody(at)), "x")
                    .await?;
            }
            fails_over(&scene, "more names than are read").await?;
            let writable = scene.set.writable().await;
            let holder = &scene.agents[writable[0]];
            let words = format!("more keys stand under {base}members/ than are read");
            eventually(Duration::from_secs(30), &words, async || {
                let outside = holder.usr2().await.map_err(|error| error.to_string())?;
                match outside.to_string().contains(&words) {
                    true => Ok(()),
                    false => Err(outside["problems"].to_string()),
                }
            })
            .await?;
            scene.writers.verdict().await?.assert_safe();
            Ok(())
        })
        .await;
}
