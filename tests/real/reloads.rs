//! Changes of `box.cfg.replication`, mostly by `config:reload()`: while a peer is away or a master dies, and where the agents
//! point it.

use tarsec_harness::{
    AgentBuilder, Instance, ReplicaSetOptions, Result, Value, World, eventually, json,
};

use crate::declared::calm;
use crate::scene::{SOME_WRITES, Scene, assert_reigns};
use crate::support::{SOON, knows_no_declarations, world};

/// Longer than a reload waits for peers that are away, which is `replication.connect_timeout`, 30 s by default.
const RELOADED: std::time::Duration = std::time::Duration::from_secs(45);

/// What the configuration says of itself while it is being applied.
async fn is_reloading(instance: &Instance) -> Result<bool> {
    let lua = "return require('config'):info().status";
    Ok(instance.eval(lua, &[]).await? == [json!("reload_in_progress")])
}

async fn wait_until_reloading(instance: &Instance) -> Result<()> {
    eventually(SOON, "a reload", async || {
        let reloading = is_reloading(instance).await;
        reloading
            .map_err(|error| error.to_string())?
            .then_some(())
            .ok_or_else(|| "it is over, or has not begun".to_owned())
    })
    .await
}

/// A peer that nobody ever starts.
fn absent(world: &World) -> Result<Value> {
    let uri = format!("127.0.0.1:{}", world.port()?);
    Ok(json!({"iproto": {"listen": [{"uri": uri}]}}))
}

#[tokio::test]
async fn a_replica_that_waits_for_a_peer_in_a_reload_is_promoted_meanwhile() {
    if knows_no_declarations("a_replica_that_waits_for_a_peer_in_a_reload_is_promoted_meanwhile") {
        return;
    }
    world()
        .story("reload-failover", async |world| {
            let options = ReplicaSetOptions::of(3).declared(json!({}));
            let mut scene = Scene::start_with(world, options, calm, |writers| writers).await?;
            let old = scene.master;
            let declaration = scene.set.declaration();
            declaration.change_instance("a9", &absent(world)?)?;
            let replicas: Vec<usize> = (0..3).filter(|index| *index != old.instance).collect();
            let fails_over = async {
                for index in &replicas {
                    wait_until_reloading(&scene.set[*index]).await?;
                }
                scene.master().kill().await?;
                let heir = scene.wait_for_heir(SOON).await?;
                let waits = is_reloading(&scene.set[heir.instance]).await?;
                assert!(waits, "the heir's reload was over before it was promoted");
                Ok(heir)
            };
            let (one, other, heir) = tokio::join!(
                scene.set[replicas[0]].reload(),
                scene.set[replicas[1]].reload(),
                fails_over
            );
            let heir = heir?;
            one?;
            other?;
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            assert_eq!(scene.set.writable().await, [heir.instance]);
            declaration.change_instance("a9", &Value::Null)?;
            for index in &replicas {
                scene.set[*index].reload().await?;
            }
            scene.set[old.instance].start().await?;
            scene.set.wait_for_mesh(SOON).await?;
            scene.master = heir;
            let members = 0..scene.set.len();
            scene.assert_whole(&[old, heir], members).await
        })
        .await;
}

/// Returns at once; `peers_are_set` is true when the list has been tried. Up to 2.10, and under `legacy`, the instance is an
/// orphan unless it reaches the quorum.
const ONE_PEER_MORE: &str = "
local all, more = {...}, box.cfg.replication
for _, uri in ipairs(type(more) == 'table' and more or {more}) do table.insert(all, uri) end
require('fiber').create(function()
    box.cfg{replication = all, replication_connect_quorum = #all}
    peers_are_set = true
end)";

#[tokio::test]
async fn a_master_that_is_given_an_absent_peer_stays_master() {
    world()
        .story("peer-more", async |world| {
            let options = ReplicaSetOptions::of(2);
            let scene = Scene::start_with(world, options, calm, |writers| writers).await?;
            let peer = format!("127.0.0.1:{}", world.port()?);
            let master = scene.master();
            master.eval(ONE_PEER_MORE, &[json!(peer)]).await?;
            eventually(
                RELOADED,
                "a master that serves with the new list",
                async || {
                    let lua = "return rawget(_G, 'peers_are_set'), box.info.status, box.info.ro";
                    let seen = master.eval(lua, &[]).await;
                    let seen = seen.map_err(|error| error.to_string())?;
                    let serves = seen == [json!(true), json!("running"), json!(false)];
                    serves.then_some(()).ok_or(format!("{seen:?}"))
                },
            )
            .await?;
            scene.wait_for_refreshes().await?;
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            assert_reigns(&scene.writers.verdict().await?, &[scene.master]);
            Ok(())
        })
        .await;
}

/// The addresses that an instance replicates from, as `box.cfg` has them.
async fn sources(instance: &Instance) -> Result<Vec<String>> {
    let lua = "local found = box.cfg.replication
        if type(found) ~= 'table' then found = {found} end
        return setmetatable(found, {__serialize = 'seq'})";
    let values = instance.eval(lua, &[]).await?;
    let list = values.first().and_then(Value::as_array);
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    let bare = texts.map(|uri| uri.rsplit('@').next().unwrap_or(uri).to_owned());
    Ok(bare.collect())
}

async fn wait_until_all_follow(scene: &Scene) -> Result<()> {
    eventually(
        RELOADED,
        "the replicas to follow the master alone",
        async || {
            for (index, instance) in scene.set.iter().enumerate() {
                if !instance.process().is_running() {
                    continue;
                }
                let found = sources(instance).await.map_err(|error| error.to_string())?;
                let wanted = match index == scene.master.instance {
                    true => Vec::new(),
                    false => vec![scene.master().addr().to_owned()],
                };
                if found != wanted {
                    return Err(format!("{} replicates from {found:?}", instance.name()));
                }
            }
            Ok(())
        },
    )
    .await
}

fn follower(index: usize, agent: AgentBuilder) -> AgentBuilder {
    calm(index, agent).env("REPLICATION", "follow")
}

#[tokio::test]
async fn replicas_that_follow_are_pointed_at_their_master_again_after_a_reload() {
    if knows_no_declarations(
        "replicas_that_follow_are_pointed_at_their_master_again_after_a_reload",
    ) {
        return;
    }
    world()
        .story("reload-follow", async |world| {
            // The agents' login is the replicas' one at their master.
            let may_replicate =
                json!({"credentials": {"users": {"tarsec": {"roles": ["replication"]}}}});
            let options = ReplicaSetOptions::of(3).declared(may_replicate);
            let mut scene = Scene::start_with(world, options, follower, |writers| writers).await?;
            wait_until_all_follow(&scene).await?;
            for instance in scene.set.iter() {
                assert_eq!(instance.reload().await?, [""; 0]);
            }
            wait_until_all_follow(&scene).await?;

            // A reload that waits for the dead master holds back the pointing, and neither the promotion nor the rows.
            let old = scene.master;
            let replicas: Vec<usize> = (0..3).filter(|index| *index != old.instance).collect();
            scene.master().kill().await?;
            let (one, other, heir) = tokio::join!(
                scene.set[replicas[0]].reload(),
                scene.set[replicas[1]].reload(),
                scene.wait_for_heir(SOON)
            );
            let heir = heir?;
            one?;
            other?;
            scene.master = heir;
            wait_until_all_follow(&scene).await?;
            scene.set[old.instance].start().await?;
            wait_until_all_follow(&scene).await?;
            let members = 0..scene.set.len();
            scene.assert_whole(&[old, heir], members).await
        })
        .await;
}
