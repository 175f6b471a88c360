//! Instances that cannot be looked after, yet or at all: what is said about them, and what is left alone.

use std::time::Duration;

use tarsec_harness::{
    Agent, AgentBuilder, Consul, Instance, LogLine, ReplicaSet, Result, Value, Version, World,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{SOON, world};

/// Long enough for an agent that did not wait to have done something.
const A_WHILE: Duration = Duration::from_secs(2);

/// One instance without an agent, and a Consul.
async fn alone(world: &World) -> Result<(Consul, ReplicaSet)> {
    Ok((world.consul().await?, world.replica_set(1).await?))
}

/// An agent that is told of the instance by its address, as this user.
fn agent_at(
    world: &World,
    name: &str,
    consul: &Consul,
    addr: &str,
    login: Option<(&str, &str)>,
) -> Result<AgentBuilder> {
    let agent = world
        .bare_agent(name)?
        .env("CONSUL_HTTP_ADDR", &consul.agent_addr(0))
        .env("CLUSTER_NAME", world.cluster())
        .env("TARANTOOL_ADDR", addr);
    Ok(match login {
        Some((user, password)) => agent
            .env("TARANTOOL_USER", user)
            .env("TARANTOOL_PASSWORD", password),
        None => agent,
    })
}

/// Waits for the reason that ends in these very words.
async fn wait_for_reason(agent: &Agent, expected: &str) -> Result<LogLine> {
    let what = format!("the reason {expected:?}");
    agent
        .wait_for_log(SOON, &what, 0, |line| {
            line.message() == "reason changed" && line.field("to") == expected
        })
        .await
}

/// The agent runs, and nothing is writable, for a while.
async fn assert_waits(agent: &Agent, set: &ReplicaSet) -> Result<()> {
    let started = std::time::Instant::now();
    while started.elapsed() < A_WHILE {
        assert!(agent.process().is_running(), "the agent has ended");
        assert_eq!(set.writable().await, [0_usize; 0]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Tried ten times a second, said once.
    let said = agent.logs()?;
    let said = said.iter().filter(|line| line.level() == "WARN").count();
    assert!(said <= 3, "{said} warnings in {A_WHILE:?}");
    Ok(())
}

/// The agent ends with code 3, and its last words are these.
async fn assert_unsuitable(agent: &Agent, expected: &str) -> Result<()> {
    let status = agent.wait(SOON).await?;
    assert_eq!(status.code(), Some(3), "{}", agent.process().tail(9));
    let logs = agent.logs()?;
    let last = logs.last().expect("it has said something");
    assert_eq!(last.level(), "ERROR");
    assert_eq!(last.message(), "stopped: waiting cannot mend this");
    assert_eq!(last.field("reason"), expected, "{last}");
    Ok(())
}

/// The words about a user who may not execute.
fn denied(set: &ReplicaSet, user: &str) -> String {
    format!(
        "waiting for the instance: {} (TARANTOOL_ADDR): could not look at the instance: tarantool answered with error \
         42: Execute access to universe '' is denied for user '{user}'; as admin, on the master or at bootstrap: \
         box.schema.user.grant('{user}', 'execute', 'universe')",
        set[0].addr()
    )
}

/// Lua as an operator would type it at the console of a read-only instance.
async fn as_admin(instance: &Instance, lua: &str, args: &[Value]) -> Result<()> {
    let by_hand = format!(
        "local args = {{...}}
         box.session.su('admin', function()
             box.cfg{{read_only = false}}
             local ok, err = pcall(assert(loadstring([==[{lua}]==])), unpack(args))
             box.cfg{{read_only = true}}
             if not ok then error(err) end
         end)"
    );
    instance.eval(&by_hand, args).await.map(|_| ())
}

/// The words about a login that was refused: those of 2.6, or those of 2.11 and later, which do not tell a wrong
/// password from an unknown user.
async fn denied_login(name: &str, user: &str, password: &str, told_apart: &str) {
    let sentence = if Version::of_tests() < Version::new(2, 11, 0) {
        told_apart.to_owned()
    } else {
        format!(
            "could not authenticate as \"{user}\": error 47: User not found or supplied credentials are invalid; create \
             that user or change TARANTOOL_USER, or set TARANTOOL_PASSWORD or TARANTOOL_PASSWORD_FILE to its password, \
             unless the instance is still being bootstrapped"
        )
    };
    let story = async |world: &World| {
        let (consul, set) = alone(world).await?;
        let addr = set[0].addr().to_owned();
        let agent = agent_at(world, "agent", &consul, &addr, Some((user, password)))?;
        let agent = agent.start().await?;
        let expected = format!("waiting for the instance: {addr} (TARANTOOL_ADDR): {sentence}");
        wait_for_reason(&agent, &expected).await?;
        assert_waits(&agent, &set).await?;
        // Mended at the instance: the agent goes on by itself.
        let mend = "
            local user, password = ...
            box.schema.user.create(user, {password = password, if_not_exists = true})
            box.schema.user.passwd(user, password)
            box.schema.user.grant(user, 'execute', 'universe', nil, {if_not_exists = true})";
        as_admin(&set[0], mend, &[user.into(), password.into()]).await?;
        set.wait_for_master(SOON).await?;
        Ok(())
    };
    world().story(name, story).await;
}

#[tokio::test]
async fn a_wrong_password_is_named_and_waited_out() {
    denied_login(
        "wrong-password",
        "tarsec",
        "not the one",
        "could not authenticate as \"tarsec\": error 47: Incorrect password supplied for user 'tarsec'; set \
         TARANTOOL_PASSWORD or TARANTOOL_PASSWORD_FILE to the password of TARANTOOL_USER",
    )
    .await;
}

#[tokio::test]
async fn an_unknown_user_is_named_and_waited_for() {
    denied_login(
        "unknown-user",
        "nobody",
        "any",
        "could not authenticate as \"nobody\": error 45: User 'nobody' is not found; create that user or change \
         TARANTOOL_USER, unless the instance is still being bootstrapped",
    )
    .await;
}

#[tokio::test]
async fn a_missing_grant_is_named_with_the_command_that_grants_it() {
    let story = async |world: &World| {
        let (consul, set) = alone(world).await?;
        let revoke = "box.schema.user.revoke('tarsec', 'execute', 'universe')";
        as_admin(&set[0], revoke, &[]).await?;
        let agent = world.agent(&set[0], &consul)?.start().await?;
        let command = "box.schema.user.grant('tarsec', 'execute', 'universe')";
        let expected = denied(&set, "tarsec");
        wait_for_reason(&agent, &expected).await?;
        assert_waits(&agent, &set).await?;
        as_admin(&set[0], command, &[]).await?;
        set.wait_for_master(SOON).await?;
        Ok(())
    };
    world().story("missing-grant", story).await;
}

#[tokio::test]
async fn guest_is_denied_by_that_name() {
    let story = async |world: &World| {
        let (consul, set) = alone(world).await?;
        let agent = agent_at(world, "agent", &consul, set[0].addr(), None)?;
        let agent = agent.start().await?;
        wait_for_reason(&agent, &denied(&set, "guest")).await?;
        assert_waits(&agent, &set).await
    };
    world().story("guest", story).await;
}

/// A server that answers anything with `answer`, or says it at once.
async fn stranger(world: &World, at_once: bool, answer: &'static [u8]) -> Result<String> {
    let addr = format!("127.0.0.1:{}", world.port()?);
    let listener = TcpListener::bind(&addr)
        .await
        .expect("a reserved port is free");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut question = [0; 512];
                if at_once
                    || stream
                        .read(&mut question)
                        .await
                        .is_ok_and(|length| length > 0)
                {
                    stream.write_all(answer).await.ok();
                }
                // Kept open, as servers do.
                while stream
                    .read(&mut question)
                    .await
                    .is_ok_and(|length| length > 0)
                {}
            });
        }
    });
    Ok(addr)
}

async fn other_than_tarantool(name: &str, at_once: bool, answer: &'static [u8], found: &str) {
    let story = async |world: &World| {
        let consul = world.consul().await?;
        let addr = stranger(world, at_once, answer).await?;
        let agent = agent_at(world, "agent", &consul, &addr, None)?
            .start()
            .await?;
        let expected = format!(
            "cannot run this instance: {addr} (TARANTOOL_ADDR): not a Tarantool binary port, found {found}; set \
             TARANTOOL_ADDR to what box.cfg.listen is in the instance"
        );
        assert_unsuitable(&agent, &expected).await?;
        assert_eq!(consul.api()?.kv_below("tarsec").await?, []);
        Ok(())
    };
    world().story(name, story).await;
}

#[tokio::test]
async fn a_web_server_is_not_tarantool() {
    let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let found = "\"HTTP/1.1 400 Bad Request\\r\\nContent-Length: 0\\r\\n\\r\\n\"";
    other_than_tarantool("web-server", false, answer, found).await;
}

#[tokio::test]
async fn redis_is_not_tarantool() {
    let answer = b"-ERR unknown command\r\n";
    other_than_tarantool("redis", false, answer, "\"-ERR unknown command\\r\\n\"").await;
}

#[tokio::test]
async fn tarantools_own_console_is_not_its_binary_port() {
    let answer = b"Tarantool 2.6.0 (Lua console)\ntype 'help' for interactive help\n";
    let found = r#""Tarantool 2.6.0 (Lua console)\ntype \'help\' for in"…"#;
    other_than_tarantool("console", true, answer, found).await;
}

#[tokio::test]
async fn an_agent_waits_where_nothing_listens_until_the_instance_is_there() {
    let story = async |world: &World| {
        let (consul, set) = alone(world).await?;
        set[0].kill().await?;
        let agent = world.agent(&set[0], &consul)?.start().await?;
        let expected = format!(
            "waiting for the instance: {} (TARANTOOL_ADDR): nothing listens there: Connection refused (os error 111)",
            set[0].addr()
        );
        wait_for_reason(&agent, &expected).await?;
        assert_waits(&agent, &set).await?;
        set[0].start().await?;
        set.wait_for_master(SOON).await?;
        Ok(())
    };
    world().story("nothing-listens", story).await;
}
