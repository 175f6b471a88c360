//! An agent that runs as a user of its own, with the right to kill and no other: it ends a hung instance of another user, and
//! nobody makes it end a process that its instance is not.

use std::time::Duration;

use tarsec_harness::{AgentBuilder, ReplicaSetOptions, Result, Rights, World, eventually, is_root};

use crate::scene::{Scene, assert_reigns};
use crate::support::{LEASE, SOON, world};

/// Users that no machine has.
const AGENT: u32 = 64_123;
const INSTANCE: u32 = 64_124;
/// `1 << CAP_KILL` (linux/capability.h), as /proc/pid/status writes it.
const CAP_KILL: &str = "0000000000000020";
/// A lease is over, and a kill would have been tried many times.
const LONG_AFTER: Duration = Duration::from_millis(2 * 3_000);

fn is_skipped(story: &str) -> bool {
    if !is_root() {
        let mut stderr = std::io::stderr();
        let text = format!("{story}: skipped, only root can start processes of other users\n");
        let _ = std::io::Write::write_all(&mut stderr, text.as_bytes());
    }
    !is_root()
}

fn status(pid: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(field));
    value.unwrap_or_default().trim().to_owned()
}

#[tokio::test]
async fn a_hung_instance_of_another_user_is_killed_with_that_right_alone() {
    if is_skipped("own-user") {
        return;
    }
    world()
        .story("own-user", async |world| {
            let options = ReplicaSetOptions::of(3).user(INSTANCE);
            let agent = |_, agent: AgentBuilder| agent.rights(Rights::Killer(AGENT));
            let scene = Scene::start_with(world, options, agent, |writers| writers).await?;
            let old = scene.master;
            let agent = scene.master_agent().process().pid().unwrap_or(0);
            assert!(status(agent, "Uid:").starts_with(&AGENT.to_string()));
            for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
                assert_eq!(status(agent, set), CAP_KILL, "{set}");
            }
            let instance = scene.master().process().pid().unwrap_or(0);
            assert!(status(instance, "Uid:").starts_with(&INSTANCE.to_string()));

            scene.master().freeze().await?;
            scene.master().process().wait(SOON).await?;
            let heir = scene.wait_for_heir(SOON).await?;
            let killed = "hung instance killed";
            scene
                .master_agent()
                .wait_for_log(SOON, killed, 0, |line| line.message() == killed)
                .await?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            assert_eq!(verdict.committed_late.writes, 0, "{verdict}");
            Ok(())
        })
        .await;
}

/// Whether code in the instance finds the agent's token among what the kernel shows of the agent.
async fn reads_the_token(world: &World, rights: Rights) -> Result<bool> {
    const TOKEN: &str = "a-token-of-the-agent-alone";
    let options = ReplicaSetOptions::of(1).user(INSTANCE);
    let agent = |_, agent: AgentBuilder| agent.rights(rights).env("CONSUL_HTTP_TOKEN", TOKEN);
    let scene = Scene::start_with(world, options, agent, |writers| writers).await?;
    let pid = scene.master_agent().process().pid().unwrap_or(0);
    let look = "local pid, token = ...
        local function read(name)
            local file = io.open(('/proc/%d/%s'):format(pid, name))
            local text = file and file:read('*a') or ''
            return text:find(token, 1, true) ~= nil
        end
        return io.open(('/proc/%d/stat'):format(pid)) ~= nil, read('environ')";
    let seen = scene
        .master()
        .eval(look, &[pid.into(), TOKEN.into()])
        .await?;
    assert_eq!(seen.first(), Some(&true.into()), "the agent is there");
    Ok(seen.get(1) == Some(&true.into()))
}

#[tokio::test]
async fn an_instances_own_code_reads_no_token_of_an_agent_with_a_user_of_its_own() {
    if is_skipped("own-user-token") {
        return;
    }
    world()
        .story("own-user-token", async |world| {
            assert!(reads_the_token(world, Rights::User(INSTANCE)).await?);
            assert!(!reads_the_token(world, Rights::Killer(AGENT)).await?);
            Ok(())
        })
        .await;
}

/// Whatever answers at the instance's address leads to the instance and is not it.
async fn nobody_is_killed_behind_a_relay(
    world: &World,
    options: ReplicaSetOptions,
    rights: Rights,
    why: &str,
) -> Result<()> {
    let agent = |_, agent: AgentBuilder| agent.linked().rights(rights);
    let scene = Scene::start_with(world, options, agent, |writers| writers).await?;
    let pid = scene.master().process().pid();
    let said = |line: &tarsec_harness::LogLine| {
        line.message()
            .contains("cannot be seen or killed from here")
            && line.field("why").to_string().contains(why)
    };
    scene
        .master_agent()
        .wait_for_log(SOON, why, 0, said)
        .await?;
    scene.master().freeze().await?;
    scene.wait_for_heir(SOON).await?;
    tokio::time::sleep(LONG_AFTER - LEASE).await;
    scene.master().thaw()?;
    assert_eq!(scene.master().process().pid(), pid);
    assert!(
        scene.master().process().exit_status().is_none(),
        "it was killed"
    );
    eventually(SOON, "the instance to answer again", async || {
        let answer = scene.master().eval("return box.info.ro", &[]).await;
        answer.map_err(|error| error.to_string())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_relay_of_the_instances_user_gets_nobody_killed() {
    world()
        .story("own-user-relay", async |world| {
            let options = ReplicaSetOptions::of(2);
            let why = "does not hold the other end of the connection";
            nobody_is_killed_behind_a_relay(world, options, Rights::Own, why).await
        })
        .await;
}

#[tokio::test]
async fn a_relay_of_another_user_gets_nobody_killed() {
    if is_skipped("own-user-strange-relay") {
        return;
    }
    world()
        .story("own-user-strange-relay", async |world| {
            let options = ReplicaSetOptions::of(2).user(INSTANCE);
            let why = "the other end of the connection";
            nobody_is_killed_behind_a_relay(world, options, Rights::Killer(AGENT), why).await
        })
        .await;
}
