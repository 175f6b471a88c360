//! What the stories about succession rest on: lag made on purpose, machines, keys, commands.
#![allow(clippy::disallowed_methods, reason = "tests measure real time")]
#![allow(clippy::unwrap_used, reason = "a test may stop at what is not there")]

use std::path::PathBuf;
use std::time::Duration;

use tarsec_harness::{Agent, Error, Machine, ReplicaSetOptions, World, eventually, json};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn members_fall_behind_each_by_its_own_and_catch_up() {
    World::builder()
        .story("lag", async |world| {
            let set = world
                .replica_set_with(ReplicaSetOptions::of(3).linked())
                .await?;
            set[0].set_writable(true).await?;
            set.wait_until_level(1, 0, SOON).await?;
            set.hold_back(2).await?;
            set.write_rows(0, "hand", 10).await?;
            set.wait_until_level(1, 0, SOON).await?;
            set.cut_off(1).await?;
            set.write_rows(0, "hand", 5).await?;
            let lags = [set.rows_behind(1, 0).await?, set.rows_behind(2, 0).await?];
            assert_eq!(lags, [5, 15]);
            // Not over the other member either.
            set.let_catch_up(1).await?;
            set.wait_until_level(1, 0, SOON).await?;
            assert_eq!(set.rows_behind(2, 0).await?, 15);
            set.let_catch_up(2).await?;
            set.wait_until_level(2, 0, SOON).await
        })
        .await;
}

#[tokio::test]
async fn a_member_without_links_unfollows_by_its_configuration() {
    World::builder()
        .story("unfollow", async |world| {
            let set = world.replica_set(2).await?;
            assert!(matches!(
                set.hold_back(1).await,
                Err(Error::Malformed { .. })
            ));
            set[0].set_writable(true).await?;
            set.unfollow(1).await?;
            set.write_rows(0, "hand", 3).await?;
            assert_eq!(set.wait_for_lag(1, 0, 3, SOON).await?, 3);
            set.follow_again(1).await?;
            set.wait_until_level(1, 0, SOON).await
        })
        .await;
}

/// A program that stands in for the agent, and for its commands when it has arguments.
fn stand_in(name: &str) -> PathBuf {
    let script = r#"#!/bin/sh
if [ $# -gt 0 ]; then
    [ "$1" = hang ] && exec sleep 1000
    echo "{\"cluster\": \"$CLUSTER_NAME\", \"consul\": \"$CONSUL_HTTP_ADDR\", \"last\": \"$2\"}"
    echo "no such thing" >&2
    exit 4
fi
trap 'printf "{}\n"' USR1
while :; do sleep 0.01; done
"#;
    let file = format!("tarsec-{name}-{}.sh", std::process::id());
    let path = std::env::temp_dir().join(file);
    std::fs::write(&path, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).unwrap();
    path
}

#[tokio::test]
async fn commands_are_told_where_consul_is_and_are_heard_to_the_end() {
    let path = stand_in("command");
    World::builder()
        .agent_binary(&path)
        .story("command", async |world| {
            let consul = world.consul().await?;
            let output = world.command(&consul, &["status", "x"])?.run(SOON).await?;
            let expected = json!({
                "cluster": world.cluster(), "consul": consul.agent_addr(0), "last": "x",
            });
            assert_eq!(output.code, Some(4));
            assert_eq!(output.json()?, expected);
            assert_eq!(output.stderr, "no such thing\n");
            let short = Duration::from_millis(200);
            let hung = world.command(&consul, &["hang"])?.run(short).await;
            assert!(matches!(hung, Err(Error::Timeout { .. })), "{hung:?}");
            // Its own output alone, not that of the one before.
            let output = world.command(&consul, &["a", "b"])?.run(SOON).await?;
            assert_eq!(output.json()?["last"], "b");
            Ok(())
        })
        .await;
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn a_machine_is_frozen_and_lost_as_a_whole() {
    let path = stand_in("machine");
    World::builder()
        .agent_binary(&path)
        .story("machine", async |world| {
            let consul = world.consul().await?;
            let set = world.replica_set(2).await?;
            let agents = world
                .agents_with(&set, &consul, |_, agent| agent.announced())
                .await?;
            let machine = Machine::of(&set[0], &agents[0]);
            await_trap(&agents[0]).await?;
            machine.freeze().await?;
            assert_eq!(set[0].says_writable().await, None);
            assert!(agents[0].usr1().await.is_err());
            machine.thaw()?;
            assert_eq!(set[0].says_writable().await, Some(false));
            machine.kill().await?;
            assert!(!set[0].process().is_running() && !agents[0].process().is_running());
            assert!(machine.kill().await.is_err());
            machine.start().await?;
            assert_eq!(set[0].says_writable().await, Some(false));
            let link = agents[0].announced_link().unwrap();
            assert_eq!(link.target(), set[0].addr());
            Ok(())
        })
        .await;
    std::fs::remove_file(path).unwrap();
}

/// A shell that has not set its trap yet would die of the signal.
async fn await_trap(agent: &Agent) -> tarsec_harness::Result<()> {
    let pid = agent.process().pid().unwrap();
    eventually(SOON, "the stand-in's trap", async || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
            .map_err(|error| error.to_string())?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        // Bit 9 is SIGUSR1.
        match caught.map(|mask| u64::from_str_radix(mask.trim(), 16)) {
            Some(Ok(mask)) if mask & (1 << 9) != 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn a_board_is_read_and_written_as_it_stands_in_consul() {
    World::builder()
        .story("board", async |world| {
            let consul = world.consul().await?;
            let set = world.replica_set(1).await?;
            let board = world.board(&consul, &set);
            assert_eq!(board.record().await?, json!(null));
            assert_eq!(board.switchover().await?, json!(null));
            board.put("members/x", &json!({"name": "one"})).await?;
            board.put("ballots/y", &json!({"term": 7})).await?;
            for term in [2, 10, 9] {
                let line = json!({"term": term});
                board.put(&format!("history/{term}"), &line).await?;
            }
            assert_eq!(board.members().await?["x"]["name"], "one");
            assert_eq!(board.ballots().await?["y"]["term"], 7);
            let terms: Vec<_> = board.history().await?;
            let terms: Vec<_> = terms.iter().map(|line| line["term"].clone()).collect();
            assert_eq!(terms, [2, 9, 10]);
            assert_eq!(board.wait_for_history(10, SOON).await?["term"], 10);

            let id = board
                .request_switchover(Some("one"), Duration::from_secs(2))
                .await?;
            let mut order = board.switchover().await?;
            assert_eq!(
                (&order["target"], &order["catch_up_ms"], &order["state"]),
                (&json!("one"), &json!(2000), &json!("requested"))
            );
            let short = Duration::from_millis(100);
            assert!(board.wait_for_switchover(&id, short).await.is_err());
            order["state"] = json!("refused");
            board.put("switchover", &order).await?;
            assert_eq!(board.wait_for_switchover(&id, SOON).await?, order);

            board.pause("a test").await?;
            assert_eq!(board.paused().await?["why"], "a test");
            board.resume().await?;
            assert_eq!(board.paused().await?, json!(null));
            board.pause_cluster("all").await?;
            let key = consul.api()?.kv(&board.cluster_pause_key()).await?;
            assert_eq!(key.unwrap().json()?["why"], "all");
            board.resume_cluster().await
        })
        .await;
}
