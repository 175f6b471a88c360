//! The operator's commands as processes, against a real Consul: what they write, what they wait for, what they say, and
//! their exit codes. Where a story is about the command alone, the story itself plays the agents' part.

use std::time::Duration;

use tarsec_harness::{CliOutput, Consul, ConsulOptions, Result, Value, World, eventually, json};

use crate::scene::Scene;
use crate::support::{SOON, world};

pub(crate) const SET: &str = "5f6a3c1e-0000-4000-8000-000000000001";
const MASTER: &str = "aaaaaaa1-0000-4000-8000-000000000000";
pub(crate) const REPLICA: &str = "aaaaaaa2-0000-4000-8000-000000000000";
/// Longer than any of the commands' own deadlines in these stories.
const COMMAND: Duration = Duration::from_secs(60);

/// Runs a command to its end. Its input is no terminal.
async fn tarsec(world: &World, consul: &Consul, args: &[&str]) -> CliOutput {
    tarsec_with(world, consul, args, &[]).await
}

pub(crate) async fn tarsec_with(
    world: &World,
    consul: &Consul,
    args: &[&str],
    variables: &[(&str, &str)],
) -> CliOutput {
    let mut command = world.command(consul, args).expect("there is a binary");
    // The agents' settings are no business of the commands.
    let agents = [("TARANTOOL_ADDR", "nonsense"), ("MASTER_LEASE", "nonsense")];
    for (name, value) in agents.iter().chain(&[("USER", "anna")]).chain(variables) {
        command = command.env(name, value);
    }
    command.run(COMMAND).await.expect("the command ends")
}

#[track_caller]
pub(crate) fn assert_ended(output: &CliOutput, code: i32, words: &str) {
    let text = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, Some(code), "{text}");
    assert!(text.contains(words), "{words:?} is not in\n{text}");
}

/// A replica set of which only the keys exist.
pub(crate) struct Stage<'a> {
    world: &'a World,
    pub(crate) consul: Consul,
    session: String,
}

impl<'a> Stage<'a> {
    /// A master that holds the lock, with a lease of two seconds, and a replica.
    pub(crate) async fn set(world: &'a World) -> Result<Self> {
        let consul = world.consul().await?;
        let create = consul
            .api()?
            .call("PUT", "/v1/session/create", Some(r#"{"LockDelay":"0s"}"#))
            .await?;
        let session = create["ID"].as_str().unwrap_or_default().to_owned();
        let stage = Self {
            world,
            consul,
            session,
        };
        for (uuid, name) in [(MASTER, "db-1:3301"), (REPLICA, "db-2:3301")] {
            let member = json!({
                "v": 1, "instance": uuid, "replicaset": SET, "name": name, "uri": name, "role": "replica",
                "health": "passing", "term": 7, "lease_ms": 2000, "vclock": {"1": 5},
                "upstreams": {MASTER: "follow"},
            });
            stage.put(&format!("members/{uuid}"), &member).await?;
        }
        stage.lock(&record(), "acquire").await?;
        Ok(stage)
    }

    fn key(&self, name: &str) -> String {
        format!("tarsec/{}/{SET}/{name}", self.world.cluster())
    }

    pub(crate) async fn put(&self, name: &str, value: &Value) -> Result<()> {
        let api = self.consul.api()?;
        api.kv_put(&self.key(name), value.to_string()).await
    }

    async fn lock(&self, record: &Value, how: &str) -> Result<()> {
        let path = format!("/v1/kv/{}?{how}={}", self.key("leader"), self.session);
        let done = self
            .consul
            .api()?
            .call("PUT", &path, Some(record.to_string()));
        assert_eq!(done.await?, true);
        Ok(())
    }

    pub(crate) async fn value(&self, name: &str) -> Result<Value> {
        let entry = self.consul.api()?.kv(&self.key(name)).await?;
        entry.map_or(Ok(Value::Null), |entry| entry.json())
    }

    pub(crate) async fn run(&self, args: &[&str]) -> CliOutput {
        tarsec(self.world, &self.consul, args).await
    }

    /// Waits for a request and answers it, as a master's agent does.
    async fn answer(&self, states: &[(&str, &str)]) -> Result<Value> {
        let request = eventually(SOON, "a request", async || {
            let found = self.value("switchover").await;
            let found = found.map_err(|error| error.to_string())?;
            if found["state"] == "requested" {
                Ok(found)
            } else {
                Err(found.to_string())
            }
        });
        let request = request.await?;
        for (state, why) in states {
            let mut answer = request.clone();
            answer["state"] = json!(state);
            answer["why"] = json!(why);
            self.put("switchover", &answer).await?;
        }
        Ok(request)
    }

    /// Refreshes the lock with each change of the pause key, as a master's agent does, until the pause is in the
    /// awaited state.
    async fn notice_pause(&self, paused: bool) -> Result<()> {
        eventually(SOON, "the pause key", async || {
            let found = self.value("pause").await;
            let found = found.map_err(|error| error.to_string())?;
            if found.is_null() == paused {
                Err(found.to_string())
            } else {
                Ok(())
            }
        })
        .await?;
        let mut record = record();
        record["paused"] = json!(paused);
        record["refresh"] = json!(if paused { 2 } else { 3 });
        self.lock(&record, "acquire").await
    }
}

fn record() -> Value {
    json!({
        "v": 1, "term": 7, "instance": MASTER, "replicaset": SET, "name": "db-1:3301", "uri": "db-1:3301",
        "agent": "a", "status": "active", "lease_ms": 2000, "refresh": 1, "vclock": {"1": 5},
        "members": [MASTER, REPLICA], "following": [REPLICA], "since": 1, "reason": "a story began",
    })
}

fn paused_record() -> Value {
    let mut record = record();
    record["paused"] = json!(true);
    record
}

#[tokio::test]
async fn status_and_history_show_a_real_replica_set() {
    let story = async |world: &World| {
        let scene = Scene::start(world, 2).await?;
        let consul = &scene.consul;
        let status = eventually(SOON, "a status without complaints", async || {
            let output = tarsec(world, consul, &["status"]).await;
            if output.code == Some(0) {
                Ok(output.stdout)
            } else {
                Err(output.stdout)
            }
        });
        let status = status.await?;
        let master = scene.master().addr();
        assert!(
            status.contains(&format!("{master}, term {}", scene.master.term)),
            "{status}"
        );
        assert!(status.contains(" ago, at most "), "{status}");
        assert!(
            status.lines().all(|line| line.chars().count() <= 80),
            "{status}"
        );

        let output = tarsec(world, consul, &["status", "--json", &scene.set.uuid()[..8]]).await;
        let view = output.json()?;
        let set = &view["replicasets"][0];
        assert_eq!(set["state"], "master", "{view}");
        assert_eq!(set["holder"]["name"], master, "{view}");
        assert_eq!(set["members"].as_array().map(Vec::len), Some(2), "{view}");

        let output = tarsec(world, consul, &["history"]).await;
        assert_ended(&output, 0, scene.set.uuid());
        let output = tarsec(world, consul, &["status", "nobody"]).await;
        assert_ended(&output, 2, "neither a replica set nor a member");
        scene.writers.stop().await?.judge().assert_safe();
        Ok(())
    };
    world().story("commands-real", story).await;
}

#[tokio::test]
async fn status_tells_what_is_wrong_by_its_exit_code() {
    let story = async |world: &World| {
        let stage = Stage::set(world).await?;
        let output = stage.run(&["status", "--no-wait"]).await;
        assert_ended(&output, 0, "db-1:3301, term 7");
        // No agent refreshes the lock.
        let output = stage.run(&["status"]).await;
        assert_ended(&output, 10, "has not refreshed its lock");
        let mut fenced = record();
        fenced["status"] = json!("fenced");
        stage.lock(&fenced, "release").await?;
        let output = stage.run(&["status"]).await;
        assert_ended(&output, 9, "NO MASTER");
        let output = tarsec_with(
            world,
            &stage.consul,
            &["status"],
            &[("CLUSTER_NAME", "another")],
        )
        .await;
        assert_ended(&output, 9, "There is no replica set under tarsec/another/");
        stage.consul.kill().await?;
        let output = stage.run(&["status"]).await;
        assert_ended(&output, 1, "NO ANSWER FROM CONSUL");
        assert_ended(&output, 1, "tarsec: could not read keys");
        Ok(())
    };
    world().story("commands-status", story).await;
}

#[tokio::test]
async fn a_lock_key_of_its_own_is_found() {
    let story = async |world: &World| {
        let stage = Stage::set(world).await?;
        let api = stage.consul.api()?;
        api.kv_delete(&stage.key("leader")).await?;
        let path = format!("/v1/kv/locks/shop?acquire={}", stage.session);
        api.call("PUT", &path, Some(record().to_string())).await?;
        let variables = [("CONSUL_LOCK_KEY", "locks/shop")];
        let output = tarsec_with(world, &stage.consul, &["status", "--no-wait"], &variables).await;
        assert_ended(&output, 0, "db-1:3301, term 7");
        Ok(())
    };
    world().story("commands-lock-key", story).await;
}

#[tokio::test]
async fn nothing_is_ordered_without_a_terminal_or_yes() {
    let story = async |world: &World| {
        let stage = Stage::set(world).await?;
        for args in [&["switchover"][..], &["pause"]] {
            let output = stage.run(args).await;
            assert_ended(&output, 2, "say --yes if this is meant");
        }
        stage.lock(&paused_record(), "acquire").await?;
        let output = stage.run(&["resume", "--master-is-down"]).await;
        assert_ended(&output, 2, "say --yes if this is meant");
        stage.put("pause", &json!({"by": "anna"})).await?;
        assert_ended(&stage.run(&["resume"]).await, 2, "say --yes");
        assert_eq!(stage.value("switchover").await?, Value::Null);
        assert_eq!(stage.value("pause").await?, json!({"by": "anna"}));
        assert_eq!(stage.value("leader").await?, paused_record());
        Ok(())
    };
    world().story("commands-yes", story).await;
}

#[tokio::test]
async fn a_switchover_ends_as_the_agents_say() {
    let story = async |world: &World| {
        let stage = Stage::set(world).await?;
        let ask = [
            "switchover",
            "--yes",
            "--to",
            "db-2:3301",
            "--timeout",
            "1s",
        ];
        for (states, code, words) in [
            (
                &[("running", ""), ("done", "")][..],
                0,
                "done: db-1:3301 is master, term 7",
            ),
            (&[("refused", "it lacks 9 rows")], 6, "it lacks 9 rows"),
            (
                &[("running", ""), ("undone", "too late")],
                7,
                "master as before: too late",
            ),
        ] {
            let (output, request) = tokio::join!(stage.run(&ask), stage.answer(states));
            assert_ended(&output, code, words);
            let request = request?;
            assert_eq!(request["target"], REPLICA, "{request}");
            assert_eq!(request["catch_up_ms"], 1000, "{request}");
            let by = request["by"].as_str().unwrap_or_default();
            assert!(by.starts_with("anna@"), "{request}");
        }
        // A switchover that runs is not disturbed.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let running = json!({"v": 1, "id": "x", "by": "bob", "at": now.unwrap().as_secs(), "state": "running"});
        stage.put("switchover", &running).await?;
        assert_ended(&stage.run(&ask).await, 6, "bob asked for");
        assert_eq!(stage.value("switchover").await?, running);
        Ok(())
    };
    world().story("commands-switchover", story).await;
}

#[tokio::test]
async fn a_switchover_that_makes_no_sense_is_not_asked_for() {
    let story = async |world: &World| {
        let stage = Stage::set(world).await?;
        for (to, words) in [
            ("db-1:3301", "is the master already"),
            ("db-9", "is no member"),
        ] {
            let output = stage.run(&["switchover", "--yes", "--to", to]).await;
            assert_ended(&output, 6, words);
        }
        let mut fenced = record();
        fenced["status"] = json!("fenced");
        stage.lock(&fenced, "release").await?;
        let output = stage.run(&["switchover", "--yes"]).await;
        assert_ended(&output, 9, "there is no master to hand over");
        assert_eq!(stage.value("switchover").await?, Value::Null);
        Ok(())
    };
    world().story("commands-switchover-senseless", story).await;
}

#[tokio::test]
async fn a_switchover_that_nobody_takes_notice_of_is_withdrawn() {
    let story = async |world: &World| {
        let stage = Stage::set(world).await?;
        let output = stage.run(&["switchover", "--yes"]).await;
        assert_ended(
            &output,
            6,
            "withdrawn: db-1:3301 has not refreshed its lock",
        );
        let left = stage.value("switchover").await?;
        assert_eq!(left["state"], "refused", "{left}");
        Ok(())
    };
    world().story("commands-switchover-unnoticed", story).await;
}

#[tokio::test]
async fn a_pause_is_done_when_the_master_says_so() {
    let story = async |world: &World| {
        let stage = Stage::set(world).await?;
        let ask = ["pause", "--yes", "--why", "racks"];
        let (output, noticed) = tokio::join!(stage.run(&ask), stage.notice_pause(true));
        noticed?;
        assert_ended(&output, 0, "is paused: db-1:3301 is master");
        let pause = stage.value("pause").await?;
        assert_eq!(pause["why"], "racks", "{pause}");
        // A second command changes nothing.
        assert_ended(&stage.run(&ask).await, 0, "has been paused by anna@");
        assert_eq!(stage.value("pause").await?, pause);

        let ask = ["resume", "--yes", "--replicaset", "db-2:3301"];
        let (output, noticed) = tokio::join!(stage.run(&ask), stage.notice_pause(false));
        noticed?;
        assert_ended(&output, 0, "has no more pause: db-1:3301 is master");
        assert_eq!(stage.value("pause").await?, Value::Null);
        Ok(())
    };
    world().story("commands-pause", story).await;
}

#[tokio::test]
async fn a_pause_that_the_master_does_not_notice_is_said_so() {
    let story = async |world: &World| {
        let stage = Stage::set(world).await?;
        let output = stage.run(&["pause", "--yes", "--cluster"]).await;
        assert_ended(&output, 8, "db-1:3301 has not refreshed its lock");
        let key = format!("tarsec/{}/pause", world.cluster());
        assert!(stage.consul.api()?.kv(&key).await?.is_some());
        // The pause is the cluster's, so a replica set alone cannot be resumed.
        let output = stage.run(&["resume", "--yes"]).await;
        assert_ended(&output, 6, "tarsec resume --cluster");
        let output = stage.run(&["resume", "--yes", "--cluster"]).await;
        assert_ended(&output, 0, "has no more pause");
        assert!(stage.consul.api()?.kv(&key).await?.is_none());
        Ok(())
    };
    world().story("commands-pause-unnoticed", story).await;
}

#[tokio::test]
async fn a_paused_master_that_is_down_is_succeeded_at_the_operators_word() {
    let story = async |world: &World| {
        let stage = Stage::set(world).await?;
        let ask = ["resume", "--master-is-down", "--yes"];
        assert_ended(&stage.run(&ask).await, 6, "is not paused");
        stage.lock(&paused_record(), "acquire").await?;
        stage.put("pause", &json!({"by": "anna"})).await?;
        let heir = async {
            let over = eventually(SOON, "a declaration", async || {
                let found = stage.value("leader").await;
                let found = found.map_err(|error| error.to_string())?;
                if found["status"] == "fenced" {
                    Ok(found)
                } else {
                    Err(found.to_string())
                }
            });
            let over = over.await?;
            let mut record = record();
            record["term"] = json!(8);
            record["instance"] = json!(REPLICA);
            record["name"] = json!("db-2:3301");
            stage.lock(&record, "acquire").await?;
            Ok::<_, tarsec_harness::Error>(over)
        };
        let (output, over) = tokio::join!(stage.run(&ask), heir);
        let over = over?;
        assert_ended(&output, 0, "done: db-2:3301 is master, term 8");
        assert_eq!((&over["paused"], &over["term"]), (&json!(false), &json!(7)));
        assert_eq!(stage.value("pause").await?, Value::Null);
        Ok(())
    };
    world().story("commands-master-is-down", story).await;
}

#[tokio::test]
async fn a_resume_says_so_where_nobody_can_take_over() {
    let story = async |world: &World| {
        let stage = Stage::set(world).await?;
        stage.lock(&paused_record(), "release").await?;
        stage.put("pause", &json!({"by": "anna"})).await?;
        let output = stage.run(&["resume", "--yes"]).await;
        assert_ended(&output, 9, "tarsec resume --master-is-down");
        Ok(())
    };
    world().story("commands-resume-stuck", story).await;
}

#[tokio::test]
async fn a_paused_master_that_is_seen_alive_is_not_declared_down() {
    let story = async |world: &World| {
        let stage = Stage::set(world).await?;
        stage.lock(&paused_record(), "acquire").await?;
        let ask = ["resume", "--master-is-down", "--yes"];
        let refreshing = async {
            for refresh in 2.. {
                let mut record = paused_record();
                record["refresh"] = json!(refresh);
                stage.lock(&record, "acquire").await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok::<_, tarsec_harness::Error>(())
        };
        let output = tokio::select! {
            output = stage.run(&ask) => output,
            stopped = refreshing => panic!("{stopped:?}"),
        };
        assert_ended(&output, 6, "it runs and knows better");
        let lock = stage.consul.api()?.kv(&stage.key("leader")).await?;
        assert_eq!(
            lock.and_then(|lock| lock.session),
            Some(stage.session.clone())
        );
        assert_eq!(stage.value("leader").await?["status"], "active");
        Ok(())
    };
    world().story("commands-master-is-up", story).await;
}

/// The policies that docs/DEPLOYMENT.md names for operators.
const READER: &str = include_str!("../../docs/consul-policy-status.hcl");
const OPERATOR: &str = include_str!("../../docs/consul-policy-operator.hcl");

#[tokio::test]
async fn the_documented_policies_are_enough() {
    policies("commands-acl", true).await;
}

#[tokio::test]
async fn the_documented_policies_are_enough_where_lists_are_never_denied() {
    policies("commands-acl-lists", false).await;
}

async fn policies(name: &str, lists_are_denied: bool) {
    let story = async |world: &World| {
        let acl = crate::surroundings_acl::acl_by_default_deny(lists_are_denied);
        let options = ConsulOptions::default().acl().config("acl", acl);
        let consul = world.consul_with(options).await?;
        let api = consul.api()?;
        let key = format!("tarsec/{}/{SET}/leader", world.cluster());
        let mut free = record();
        free["status"] = json!("fenced");
        free["paused"] = json!(true);
        api.kv_put(&key, free.to_string()).await?;
        let cluster = format!("tarsec/{}/", world.cluster());
        let rules = |policy: &str| {
            let placed = policy.replace("5f6a3c1e-0000-4000-8000-000000000001", SET);
            crate::surroundings_acl::for_this_world(world, &placed)
        };
        let reader = api.create_token("reader", &rules(READER)).await?.secret;
        let operator = api.create_token("operator", &rules(OPERATOR)).await?.secret;
        let nobody = api.create_token("nobody", "key_prefix \"x\" { policy = \"read\" }");
        let nobody = nobody.await?.secret;
        let run = async |token: &str, args: &[&str]| {
            let variables = [("CONSUL_HTTP_TOKEN", token)];
            tarsec_with(world, &consul, args, &variables).await
        };
        assert_ended(
            &run(&reader, &["status"]).await,
            9,
            "the last was db-1:3301",
        );
        assert_ended(&run(&reader, &["history"]).await, 0, SET);
        let pause = ["pause", "--yes"];
        assert_ended(&run(&reader, &pause).await, 1, "policy = \"write\"");
        assert_ended(
            &run(&operator, &pause).await,
            0,
            "is paused: it has no master",
        );
        assert_ended(
            &run(&operator, &["resume", "--yes"]).await,
            0,
            "has no more pause",
        );
        for args in [&["status"][..], &["history"], &pause] {
            let output = run(&nobody, args).await;
            let rule = format!("key_prefix \"{cluster}\" {{ policy = \"list\" }}");
            assert_ended(&output, 1, &rule);
        }
        Ok(())
    };
    world().story(name, story).await;
}
