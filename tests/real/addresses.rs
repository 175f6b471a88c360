//! A writer of Consul's keys names addresses, and no login goes there: neither an agent's, which asks for promises, nor a
//! replica's, which follows its master. Whoever got one could relay it to the real instance and evaluate code there.

use std::time::Duration;

use tarsec_harness::{
    Agent, AgentBuilder, Connection, Consul, Instance, Login, ReplicaSet, ReplicaSetOptions,
    Request, Result, Value, World, eventually, json, sources,
};

use crate::declared::calm;
use crate::relay::Relay;
use crate::scene::{SOME_WRITES, Scene, lock_key, wait_for_master};
use crate::settings::{CREATE_FOLLOWER, FOLLOWER, wait_until_follows};
use crate::support::{LEASE, SOON, knows_no_declarations, world};

const PASSWORD: &str = "followers-secret";
const ON_PROMISES: &str = "writable for as long as every member promises another lease";
const WITHOUT_PROMISES: &str = "not every member promises another lease";
const NOT_VOUCHED: &str = "which neither box.cfg.replication, as the instance's own configuration has it, nor PEER_ADDRS names";
const GRANTS: &str = include_str!("../../docs/tarantool-grants-peer.lua");

fn follow(agent: AgentBuilder) -> AgentBuilder {
    agent
        .env("REPLICATION", "follow")
        .env("TARANTOOL_USER", FOLLOWER)
        .env("TARANTOOL_PASSWORD", PASSWORD)
        .env("MEMBER_INTERVAL", "1s")
}

/// Three instances whose replicas follow the master alone; each has the others in its `box.cfg.replication` at its start.
async fn followers(world: &World, agent: impl Fn(AgentBuilder) -> AgentBuilder) -> Result<Scene> {
    let consul = world.consul().await?;
    let set = world.replica_set(3).await?;
    set[0].set_writable(true).await?;
    let login = [json!(FOLLOWER), json!(PASSWORD)];
    set[0].eval(CREATE_FOLLOWER, &login).await?;
    set[0].set_writable(false).await?;
    let agent = |_, builder: AgentBuilder| agent(follow(builder));
    let scene = Scene::start_on(world, consul, set, agent, |writers| writers).await?;
    wait_until_all_follow(&scene.set, scene.master.instance, scene.master().addr()).await?;
    Ok(scene)
}

async fn wait_until_all_follow(set: &ReplicaSet, master: usize, address: &str) -> Result<()> {
    for (index, instance) in set.iter().enumerate() {
        if index != master && instance.process().is_running() {
            wait_until_follows(instance, address).await?;
        }
    }
    Ok(())
}

async fn wait_for_reason(agent: &Agent, words: &[&str]) -> Result<()> {
    eventually(SOON, &words.join(" … "), async || {
        let dump = agent.usr1().await.map_err(|error| error.to_string())?;
        match dump["reason"].as_str() {
            Some(reason) if words.iter().all(|it| reason.contains(it)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Writes another `uri` into a key, as anybody with the operators' policy may.
async fn overwrite(consul: &Consul, key: &str, uri: &str) -> Result<()> {
    let api = consul.api()?;
    if let Some(entry) = api.kv(key).await? {
        let mut value = entry.json()?;
        value["uri"] = json!(uri);
        api.kv_put(key, value.to_string()).await?;
    }
    Ok(())
}

fn member_key(world: &World, set: &ReplicaSet, index: usize) -> String {
    let uuid = set[index].uuid();
    format!("tarsec/{}/{}/members/{uuid}", world.cluster(), set.uuid())
}

/// Without Consul the master asks the others, which it does not follow, for promises.
#[tokio::test]
async fn a_members_key_leads_no_question_for_a_promise_to_a_relay() {
    let story = async |world: &World| {
        let scene = followers(world, |agent| agent).await?;
        let (master, replica) = (scene.master.instance, scene.replica());
        let relay = Relay::start(&scene.set[replica]).await;
        let key = member_key(world, &scene.set, replica);
        // The member's agent writes its key again; the last word before Consul is gone is the attacker's.
        let attack = async {
            loop {
                overwrite(&scene.consul, &key, relay.addr()).await?;
            }
        };
        let refreshed = tokio::select! {
            done = scene.wait_for_refreshes() => done,
            failed = attack => failed,
        };
        refreshed?;
        scene.consul.kill().await?;
        wait_for_reason(scene.master_agent(), &[ON_PROMISES]).await?;
        scene.set.stays_master(master, LEASE * 3).await?;
        scene.consul.start_all().await?;
        scene.wait_for_refreshes().await?;
        relay.assert_untouched(&scene.set[replica]).await?;

        scene.master().kill().await?;
        let heir = scene.wait_for_heir(SOON).await?;
        wait_until_all_follow(&scene.set, heir.instance, scene.set[heir.instance].addr()).await?;
        relay.assert_untouched(&scene.set[replica]).await?;
        Ok(())
    };
    world().story("relay-promise", story).await;
}

/// A plain write leaves the lock with its holder, and every replica sees it before the holder puts it right.
#[tokio::test]
async fn a_record_leads_no_replica_to_a_relay() {
    let story = async |world: &World| {
        let scene = followers(world, |agent| agent).await?;
        let master = scene.master.instance;
        let relay = Relay::start(scene.master()).await;
        let key = lock_key(world, &scene.set);
        for _ in 0..3 {
            overwrite(
                &scene.consul,
                &member_key(world, &scene.set, master),
                relay.addr(),
            )
            .await?;
            overwrite(&scene.consul, &key, relay.addr()).await?;
            scene.wait_for_refreshes().await?;
        }
        wait_until_all_follow(&scene.set, master, scene.master().addr()).await?;
        scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
        relay.assert_untouched(scene.master()).await?;

        scene.master().kill().await?;
        let fits = |seen: &tarsec_harness::Tenure| seen.term > scene.master.term;
        let heir = wait_for_master(&scene.set, fits, SOON).await?;
        wait_until_all_follow(&scene.set, heir.instance, scene.set[heir.instance].addr()).await
    };
    world().story("relay-record", story).await;
}

async fn status(world: &World, consul: &Consul) -> Result<String> {
    let output = world.command(consul, &["status"])?.run(SOON).await?;
    Ok(output
        .stdout
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" "))
}

async fn wait_for_status(
    world: &World,
    consul: &Consul,
    what: &str,
    fits: impl Fn(&str) -> bool,
) -> Result<()> {
    eventually(SOON, what, async || {
        let said = status(world, consul).await;
        let said = said.map_err(|error| error.to_string())?;
        if fits(&said) { Ok(()) } else { Err(said) }
    })
    .await
}

/// Each member is announced under an address that no `box.cfg.replication` has, and agents that have started again know no
/// other one of the members that their instances do not follow.
#[tokio::test]
async fn an_address_that_nobody_vouches_for_is_said_before_it_is_needed_and_peer_addrs_vouch_for_it()
 {
    let story = async |world: &World| {
        let scene = followers(world, AgentBuilder::announced).await?;
        let master = scene.master.instance;
        let heir_to_be = scene.replica();
        scene.master_agent().restart().await?;
        scene.agents[heir_to_be].restart().await?;
        wait_for_status(world, &scene.consul, "both problems", |said| {
            said.contains("does not log in to")
                && said.contains(NOT_VOUCHED)
                && said.contains("as master it is not followed")
        })
        .await?;
        scene.wait_for_refreshes().await?;
        // Each once, however often it is found.
        let lines = scene.master_agent().logs()?;
        let said = lines
            .iter()
            .filter_map(|line| line.json["problem"].as_str());
        let mut said: Vec<&str> = said.filter(|it| it.contains(NOT_VOUCHED)).collect();
        let times = said.len();
        said.sort_unstable();
        said.dedup();
        assert!(times > 0 && times == said.len(), "{said:?} {times} times");

        // Safe: it counts as not heard.
        scene.consul.kill().await?;
        let words = [WITHOUT_PROMISES, "no login is sent", NOT_VOUCHED];
        wait_for_reason(scene.master_agent(), &words).await?;
        scene.set.wait_for_no_master(SOON).await?;
        scene.consul.start_all().await?;
        let again = wait_for_master(&scene.set, |_| true, SOON).await?;
        assert_eq!(again, scene.master);

        for agent in &scene.agents {
            agent.set_env("PEER_ADDRS", "db.example:3301, 127.0.0.0/8");
            agent.restart().await?;
        }
        wait_for_status(world, &scene.consul, "no problem any more", |said| {
            !said.contains("does not log in to")
        })
        .await?;
        scene.consul.kill().await?;
        wait_for_reason(scene.master_agent(), &[ON_PROMISES]).await?;
        scene.set.stays_master(master, LEASE * 2).await?;
        scene.consul.start_all().await?;
        scene.wait_for_refreshes().await?;
        scene.master().kill().await?;
        let heir = scene.wait_for_heir(SOON).await?;
        let link = scene.agents[heir.instance].announced_link();
        let announced = link.expect("it is announced").addr().to_owned();
        wait_until_all_follow(&scene.set, heir.instance, &announced).await
    };
    world().story("unvouched", story).await;
}

const PEER: &str = "tarsec_peer";

async fn as_peer(instance: &Instance) -> Result<Connection> {
    let login = Login {
        user: PEER.to_owned(),
        password: "secret".to_owned(),
    };
    Connection::open(instance.addr(), &login, Duration::from_secs(2)).await
}

async fn refused(connection: &mut Connection, request: Request<'_>) -> Result<()> {
    match connection.request(request, SOON).await {
        Err(tarsec_harness::Error::Refused { .. }) => Ok(()),
        other => panic!("{request:?} was not refused: {other:?}"),
    }
}

/// As its operator would, on an instance that is writable.
async fn grant(instance: &Instance) -> Result<()> {
    let lua = format!(
        "local granting = require('fiber').new(function() {GRANTS} end)
        granting:set_joinable(true)
        assert(granting:join())"
    );
    instance.eval(&lua, &[]).await.map(|_| ())
}

#[tokio::test]
async fn a_user_that_may_do_nothing_else_asks_for_promises() {
    let story = async |world: &World| {
        let consul = world.consul().await?;
        let set = world.replica_set(2).await?;
        let peer =
            |_, agent: AgentBuilder| agent.env("PEER_USER", PEER).env("PEER_PASSWORD", "secret");
        let scene = Scene::start_on(world, consul, set, peer, |writers| writers).await?;
        let (master, replica) = (scene.master.instance, scene.replica());
        let agent = scene.master_agent();

        // There is no such user yet.
        scene.consul.kill().await?;
        wait_for_reason(agent, &[WITHOUT_PROMISES, PEER]).await?;
        scene.set.wait_for_no_master(SOON).await?;
        scene.consul.start_all().await?;
        let again = wait_for_master(&scene.set, |_| true, SOON).await?;
        assert_eq!(again, scene.master);
        grant(scene.master()).await?;
        // What follows is of no use to an instance that has not got it.
        let has =
            "return box.func.tarsec_promise ~= nil and box.space._user.index.name:get(...) ~= nil";
        eventually(SOON, "the function at the replica", async || {
            match scene.set[replica].eval(has, &[json!(PEER)]).await {
                Ok(found) if found == [json!(true)] => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;

        scene.wait_for_refreshes().await?;
        scene.consul.kill().await?;
        wait_for_reason(agent, &[ON_PROMISES]).await?;
        scene.set.stays_master(master, LEASE * 3).await?;
        scene.consul.start_all().await?;
        scene.wait_for_refreshes().await?;

        let mut connection = as_peer(&scene.set[replica]).await?;
        refused(&mut connection, Request::Eval("return 1", &[])).await?;
        for function in [
            "tarsec_guard.promise",
            "tarsec_guard.promote",
            "tarsec_guard.fence",
            "box.cfg",
            "box.info",
            "box.session.su",
            "loadstring",
            "os.execute",
            "dostring",
            "LUA",
        ] {
            let args = [json!("return 1")];
            refused(&mut connection, Request::Call(function, &args)).await?;
        }
        refused(&mut connection, Request::Insert(280, &[json!(999)])).await?;
        Ok(())
    };
    world().story("least-peer", story).await;
}

/// The function's own word of an instance that no agent has been at.
#[tokio::test]
async fn that_users_function_says_whether_an_instance_without_a_guard_is_writable() {
    let story = async |world: &World| {
        let set = world.replica_set(1).await?;
        set[0].set_writable(true).await?;
        grant(&set[0]).await?;
        let mut connection = as_peer(&set[0]).await?;
        for writable in [true, false] {
            set[0].set_writable(writable).await?;
            let word = connection.request(Request::Call("tarsec_promise", &[]), SOON);
            let word: Vec<Value> = word.await?;
            assert_eq!(word, [json!({"uuid": set[0].uuid(), "ro": !writable})]);
        }
        Ok(())
    };
    world().story("least-peer-unguarded", story).await;
}

/// What the guard says of the addresses that its instance's own configuration names.
async fn configured(instance: &Instance) -> Result<Value> {
    let lua = "return require('tarsec.replication').configured(tarsec_guard.state)";
    let values = instance.eval(lua, &[]).await?;
    Ok(values.into_iter().next().unwrap_or(Value::Null))
}

#[tokio::test]
async fn what_an_agent_sets_is_not_the_instances_own_configuration() {
    let story = async |world: &World| {
        let set = world.replica_set(1).await?;
        let instance = &set[0];
        for source in sources::GUARD {
            instance.eval(source, &[]).await?;
        }
        let by_hand = async |uris: Value| {
            let lua = "require('tarsec.platform').replicate_from((...))";
            instance.eval(lua, &[uris]).await
        };
        let follow = async |uri: &str, name: &str| {
            let lua = "require('tarsec.replication').follow(tarsec_guard.state, ...)";
            instance
                .eval(lua, &[json!(uri), json!(name), json!(false)])
                .await
        };
        by_hand(json!([
            "u:p@LocalHost:1",
            "u@unix/:/tmp/nobody.sock",
            "[::1]:1"
        ]))
        .await?;
        let own = json!(["LocalHost:1", "[::1]:1", "unix/:/tmp/nobody.sock"]);
        assert_eq!(configured(instance).await?, own);
        // A probe comes while the change is under way, which yields.
        let meanwhile = "local platform = require('tarsec.platform')
            local replicate_from = platform.replicate_from
            function platform.replicate_from(uris)
                replicate_from(uris)
                require('tarsec.replication').configured(tarsec_guard.state)
            end";
        instance.eval(meanwhile, &[]).await?;
        follow("u:p@127.0.0.1:2", "127.0.0.1:2").await?;
        assert_eq!(configured(instance).await?, own);
        follow("u:p@127.0.0.1:3", "127.0.0.1:3").await?;
        assert_eq!(configured(instance).await?, own);
        follow("", "").await?;
        assert_eq!(configured(instance).await?, own);
        // A new agent with the guard of the next version finds the same.
        instance.eval("tarsec_guard.version = 0", &[]).await?;
        for source in sources::GUARD {
            instance.eval(source, &[]).await?;
        }
        assert_eq!(configured(instance).await?, own);
        by_hand(json!(["u:p@localhost:3"])).await?;
        assert_eq!(configured(instance).await?, json!(["localhost:3"]));
        // As VSHARD_CONFIG_KEY does.
        let lua = "require('tarsec.replication').add(tarsec_guard.state, ...)";
        let both = json!(["u:p@localhost:3", "v:q@localhost:4"]);
        instance.eval(lua, &[both]).await?;
        assert_eq!(configured(instance).await?, json!(["localhost:3"]));
        Ok(())
    };
    world().story("configured", story).await;
}

/// Whatever `box.cfg.replication` is by now.
#[tokio::test]
async fn a_configuration_in_yaml_names_the_instances_of_its_replica_set() {
    if knows_no_declarations("a_configuration_in_yaml_names_the_instances_of_its_replica_set") {
        return;
    }
    let story = async |world: &World| {
        let options = ReplicaSetOptions::of(2).declared(json!({}));
        let scene = Scene::start_with(world, options, calm, |writers| writers).await?;
        let mut all: Vec<&str> = scene.set.iter().map(Instance::addr).collect();
        all.sort_unstable();
        let replica = &scene.set[scene.replica()];
        assert_eq!(configured(replica).await?, json!(all));
        replica.eval("box.cfg{replication = {}}", &[]).await?;
        assert_eq!(configured(replica).await?, json!(all));
        Ok(())
    };
    world().story("configured-yaml", story).await;
}
