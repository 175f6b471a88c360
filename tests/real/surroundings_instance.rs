//! Instances that are not what the harness starts: still without a replica set, with elections of their own, on a
//! unix socket.

use std::path::Path;
use std::time::Duration;

use tarsec_harness::{
    Agent, AgentBuilder, Connection, Consul, Login, Process, Result, Value, World, eventually,
};

use crate::scene::Scene;
use crate::support::{SOON, world};

/// The grants that the README quotes: the agent's user with the least that it needs.
const GRANTS: &str = include_str!("../../docs/tarantool-grants.lua");

/// A member that is known beforehand can join while no instance is writable.
const JOINER: &str = "00000000-0000-4000-8000-000000000002";

const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts a Tarantool that configures itself with `options` and goes on with `then`.
fn tarantool(world: &World, name: &str, options: &str, then: &str) -> Result<Process> {
    let dir = world.dir().join(format!("{name}.data"));
    std::fs::create_dir_all(&dir).expect("the world can be written to");
    let script = world.dir().join(format!("{name}.lua"));
    let dir = dir.display();
    let text = format!("box.cfg{{work_dir = '{dir}', {options}}}\n{then}\n");
    std::fs::write(&script, text).expect("the world can be written to");
    world.spawn(
        name,
        tarsec_harness::tarantool(),
        &[&script.display().to_string()],
    )
}

/// Born alone, with the agent's user and one for the test, and then as `options` have it.
fn born(options: &str) -> String {
    format!(
        "box.once('users', function()
             {GRANTS}
             box.schema.user.create('test', {{password = 'test'}})
             box.schema.user.grant('test', 'super')
         end)
         box.cfg{{{options}}}"
    )
}

fn agent_at(world: &World, consul: &Consul, addr: &str) -> Result<AgentBuilder> {
    let agent = world.bare_agent("agent")?;
    Ok(agent
        .env("CONSUL_HTTP_ADDR", &consul.agent_addr(0))
        .env("CLUSTER_NAME", world.cluster())
        .env("TARANTOOL_ADDR", addr)
        .env("TARANTOOL_USER", "tarsec")
        .env("TARANTOOL_PASSWORD", "secret"))
}

async fn ask(addr: &str, lua: &str) -> Result<Value> {
    let login = Login {
        user: "test".to_owned(),
        password: "test".to_owned(),
    };
    let mut connection = Connection::open(addr, &login, ASK_TIMEOUT).await?;
    let answer = connection.eval(lua, &[], ASK_TIMEOUT).await?;
    Ok(answer.into_iter().next().unwrap_or(Value::Null))
}

async fn wait_until(addr: &str, lua: &str) -> Result<()> {
    eventually(SOON, lua, async || match ask(addr, lua).await {
        Ok(Value::Bool(true)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
}

/// Waits for a reason with these words.
async fn wait_for_reason(agent: &Agent, words: &str) -> Result<()> {
    let what = format!("a reason with {words:?}");
    let fits = |line: &tarsec_harness::LogLine| {
        line.message() == "reason changed"
            && line
                .field("to")
                .as_str()
                .is_some_and(|to| to.contains(words))
    };
    agent.wait_for_log(SOON, &what, 0, fits).await.map(|_| ())
}

#[tokio::test]
async fn an_instance_that_waits_for_its_peers_is_waited_for() {
    let story = async |world: &World| {
        let consul = world.consul().await?;
        let addr = format!("127.0.0.1:{}", world.port()?);
        let peer = format!("127.0.0.1:{}", world.port()?);
        let options = format!(
            "instance_uuid = '{JOINER}', listen = '{addr}', replication = {{'{peer}'}}, replication_connect_quorum = 1, \
             replication_connect_timeout = 100, read_only = true"
        );
        tarantool(world, "joiner", &options, "")?;
        let agent = agent_at(world, &consul, &addr)?.start().await?;
        // It listens already, but has no data and so no users.
        let words = format!(
            "waiting for the instance: {addr} (TARANTOOL_ADDR): could not authenticate as \"tarsec\": error 116: Instance \
             bootstrap hasn't finished yet; it is being bootstrapped or recovers, and may wait for its peers"
        );
        wait_for_reason(&agent, &words).await?;
        assert!(agent.process().is_running());
        assert_eq!(consul.api()?.kv_below("tarsec").await?, []);
        let then = format!(
            "box.schema.user.grant('guest', 'replication') box.space._cluster:insert({{2, '{JOINER}'}}) {}",
            born(&format!("read_only = true, listen = '{peer}'"))
        );
        tarantool(world, "peer", "", &then)?;
        wait_until(&addr, "return not box.info.ro").await
    };
    world().story("joining", story).await;
}

/// A writable instance where Tarantool decides which instance is writable. The tests' own Tarantool, 2.6.0, cannot be
/// configured like that: what later versions say of themselves is put there by hand (`pretend`), and taken away again
/// (`mend`).
async fn with_a_rule_of_its_own(name: &str, pretend: &str, mend: &str, sentence: &str) {
    let story = async |world: &World| {
        let consul = world.consul().await?;
        let addr = format!("127.0.0.1:{}", world.port()?);
        let script = format!("{pretend}\n{}", born(&format!("listen = '{addr}'")));
        tarantool(world, "elected", "", &script)?;
        wait_until(&addr, "return not box.info.ro").await?;
        let agent = agent_at(world, &consul, &addr)?.start().await?;
        let status = agent.wait(SOON).await?;
        assert_eq!(status.code(), Some(3), "{}", agent.process().tail(9));
        let logs = agent.logs()?;
        let last = logs.last().expect("it has said something");
        assert_eq!(
            last.field("reason"),
            &format!("cannot run this instance: {sentence}")
        );
        // No guard is left behind that would fence a leader.
        assert_eq!(
            ask(&addr, "return rawget(_G, 'tarsec_guard') == nil").await?,
            true
        );
        assert_eq!(ask(&addr, "return not box.info.ro").await?, true);
        assert_eq!(consul.api()?.kv_below("tarsec").await?, []);
        // Changed as the sentence says.
        ask(&addr, &format!("{mend} box.cfg{{read_only = true}}")).await?;
        agent.start()?;
        wait_until(
            &addr,
            "return not box.info.ro and tarsec_guard.term() == 1ULL",
        )
        .await
    };
    world().story(name, story).await;
}

#[tokio::test]
async fn an_instance_with_elections_of_its_own_is_refused_and_left_as_it_is() {
    with_a_rule_of_its_own(
        "elections",
        "local behind = getmetatable(box.cfg).__index
         settings = type(behind) == 'table' and behind or box.cfg
         rawset(settings, 'election_mode', 'candidate')",
        "rawset(settings, 'election_mode', 'voter')",
        "box.cfg.election_mode is 'candidate', so Tarantool's own elections decide who is writable; set it to 'off' or \
         'voter'",
    )
    .await;
}

#[tokio::test]
async fn an_instance_with_a_failover_of_its_own_is_refused_and_left_as_it_is() {
    with_a_rule_of_its_own(
        "failover",
        "failover = 'election' package.loaded.config = {get = function() return failover end}",
        "failover = 'supervised'",
        "replication.failover is 'election' in the instance's configuration, so Tarantool decides who is writable; change \
         that line to `failover: supervised`, take `replication.election_mode` out where it stands, and reload the \
         configuration",
    )
    .await;
}

#[tokio::test]
async fn an_instance_on_a_unix_socket_gets_its_role_and_its_place_in_the_catalog() {
    let story = async |world: &World| {
        let consul = world.consul().await?;
        let socket = world.dir().join("instance.sock");
        let addr = socket.display().to_string();
        let agent = agent_at(world, &consul, &addr)?.start().await?;
        let expected = format!(
            "waiting for the instance: {addr} (TARANTOOL_ADDR): it cannot be reached: No such file or directory (os \
             error 2)"
        );
        wait_for_reason(&agent, &expected).await?;
        let process = tarantool(
            world,
            "local",
            "",
            &born(&format!("read_only = true, listen = '{addr}'")),
        )?;
        let master = async || {
            let services = consul
                .api()
                .map_err(|error| error.to_string())?
                .service("tarantool-master")
                .await;
            match services.as_deref() {
                Ok([entry]) if entry.status == "passing" => Ok(entry.clone()),
                other => Err(format!("{other:?}")),
            }
        };
        let entry = eventually(SOON, "a master in the catalog", master).await?;
        let uuid = entry.meta["instance_uuid"].as_str().unwrap_or_default();
        assert_eq!(entry.id, format!("tarantool@{addr}@{uuid}"));
        assert_eq!((entry.address.as_str(), entry.port), ("", 0));
        assert_eq!(agent.usr1().await?["tarantool"]["probe"]["ro"], false);
        process.kill().await?;
        wait_for_reason(&agent, "the instance died: ").await?;
        assert!(
            Path::new(&addr).exists(),
            "a killed process leaves its socket behind"
        );
        Ok(())
    };
    world().story("unix-socket", story).await;
}

#[tokio::test]
async fn the_documented_grants_are_those_that_the_harness_gives() {
    let story = async |world: &World| {
        let set = world.replica_set(1).await?;
        let addr = format!("127.0.0.1:{}", world.port()?);
        tarantool(
            world,
            "documented",
            "",
            &born(&format!("read_only = true, listen = '{addr}'")),
        )?;
        wait_until(&addr, "return box.info.ro").await?;
        let info = "return box.session.su('admin', box.schema.user.info, 'tarsec')";
        let documented = ask(&addr, info).await?;
        let given = set[0].eval(info, &[]).await?;
        assert_eq!(Some(&documented), given.first());
        let readme = include_str!("../../README.md");
        assert!(
            readme.contains(GRANTS.trim()),
            "README's grants are not docs/tarantool-grants.lua"
        );
        Ok(())
    };
    world().story("grants", story).await;
}

/// Its password was changed, and then it was started anew: the agent knows the old one.
#[tokio::test]
async fn after_a_death_the_reason_is_why_the_next_process_lets_nobody_in() {
    world()
        .story("instance-password-after-death", async |world| {
            let scene = Scene::start(world, 1).await?;
            let agent = scene.master_agent();
            let passwd = "box.schema.user.passwd(...)";
            let login = tarsec_harness::Instance::agent_login();
            let change = async |password: &str| {
                let args = [login.user.clone().into(), password.into()];
                scene.master().eval(passwd, &args).await
            };
            change("another").await?;
            scene.master().kill().await?;
            wait_for_reason(agent, "its process is dead").await?;
            scene.master().start().await?;
            wait_for_reason(agent, "set TARANTOOL_PASSWORD or TARANTOOL_PASSWORD_FILE").await?;
            // Nothing hides it again, and the proof of the death is not lost.
            wait_for_reason(agent, "(the process before is dead)").await?;
            let link = &agent.usr2().await?["state"]["instance"]["link"];
            assert_eq!(link["state"], "dead", "{link}");
            Ok(())
        })
        .await;
}
