//! What an agent says of itself: one document per signal on stdout, nothing else there, and no secret anywhere.

use rustix::process::Signal;
use tarsec_harness::{
    Agent, AgentBuilder, ConsulOptions, Instance, ReplicaSetOptions, Result, Value, eventually,
    json,
};

use crate::scene::{Scene, assert_reigns};
use crate::support::{SOON, world};

/// How many documents `look` asks for.
const DOCUMENTS: usize = 2;

/// Both documents, once the agent's reason begins with these words.
async fn look(agent: &Agent, words: &str) -> Result<(Value, Value)> {
    let says = |document: &Value| {
        let reason = document["reason"].as_str();
        reason.is_some_and(|reason| reason.contains(words))
    };
    let (outside, whole) = (agent.usr1().await?, agent.usr2().await?);
    assert!(says(&outside), "not '{words}': {outside}");
    assert!(says(&whole), "not '{words}': {}", whole["reason"]);
    assert_eq!(outside["dump"], "outside");
    assert_eq!(whole["dump"], "reconciler");
    for part in ["settings", "timers_s", "plan", "state"] {
        assert!(whole[part].is_object(), "{part}: {}", whole[part]);
    }
    assert!(whole["transitions"].is_array());
    Ok((outside, whole))
}

/// Waits until the log tells of this reason.
async fn wait_for_reason(agent: &Agent, skip: usize, words: &str) -> Result<()> {
    let what = format!("the reason '{words}'");
    let tells = |line: &tarsec_harness::LogLine| {
        let to = line.field("to").as_str();
        line.message() == "reason changed" && to.is_some_and(|to| to.contains(words))
    };
    agent.wait_for_log(SOON, &what, skip, tells).await?;
    Ok(())
}

/// Everything the agent ever printed: so many documents, each on a line, and no secret there or in the log.
fn assert_printed(agent: &Agent, documents: usize, secrets: &[&str]) -> Result<()> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let stdout = read(agent.process().stdout_path());
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), documents, "{stdout}");
    for line in lines {
        let document = serde_json::from_str::<Value>(line);
        assert!(
            document.is_ok_and(|document| document.is_object()),
            "{line}"
        );
    }
    let log = read(agent.process().stderr_path());
    for secret in secrets {
        let shown = stdout.lines().chain(log.lines());
        let found = shown.into_iter().find(|line| line.contains(secret));
        assert_eq!(found, None, "a secret");
    }
    Ok(())
}

#[tokio::test]
async fn every_state_is_told_in_one_document_per_signal_without_secrets() {
    world()
        .story("dumps", async |world| {
            let consul = world.consul_with(ConsulOptions::default().acl()).await?;
            let debug = |_, agent: AgentBuilder| agent.linked().env("LOG_LEVEL", "debug");
            let set = world.replica_set(2).await?;
            let scene = Scene::start_on(world, consul, set, debug, |writers| writers).await?;
            let old = scene.master;
            let (master, replica) = (scene.master_agent(), &scene.agents[scene.replica()]);

            let (outside, whole) = look(master, "master: writable").await?;
            assert_eq!(outside["consul"]["holds_lock"], json!(true));
            assert_eq!(outside["tarantool"]["probe"]["ro"], json!(false));
            assert_eq!(whole["serving"], json!(true));
            for name in ["TARANTOOL_PASSWORD", "CONSUL_HTTP_TOKEN"] {
                assert_eq!(whole["settings"][name], json!("(redacted)"));
            }
            let (outside, _) = look(replica, "replica: the master is").await?;
            assert_eq!(outside["consul"]["holds_lock"], json!(false));

            // No Consul.
            let logged = master.logs()?.len();
            let link = master.consul_link().unwrap_or_else(|| panic!("linked"));
            link.cut().await?;
            wait_for_reason(master, logged, "Consul cannot be written").await?;
            look(master, "Consul cannot be written").await?;
            let logged = master.logs()?.len();
            link.restore().await?;
            wait_for_reason(master, logged, "master: writable, the lease is running").await?;

            // No instance.
            let logged = replica.logs()?.len();
            scene.set[scene.replica()].kill().await?;
            wait_for_reason(replica, logged, "its process is dead").await?;
            let (outside, _) = look(replica, "its process is dead").await?;
            assert_eq!(outside["tarantool"]["link"]["state"], json!("dead"));
            scene.set.start_all().await?;

            // Stopping, and kept from it by an instance that does not answer.
            scene.master().freeze().await?;
            let logged = master.logs()?.len();
            master.process().signal(Signal::TERM)?;
            wait_for_reason(master, logged, "stopping").await?;
            let (_, whole) = look(master, "").await?;
            assert_eq!(whole["state"]["stopping"]["signal"], json!("SIGTERM"));
            scene.master().thaw()?;
            assert_eq!(master.wait(SOON).await?.code(), Some(0));
            let heir = scene.wait_for_heir(SOON).await?;

            let token = scene
                .consul
                .master_token()
                .unwrap_or_else(|| panic!("ACLs"));
            let password = Instance::agent_login().password;
            assert_printed(master, 3 * DOCUMENTS, &[token, &password])?;
            assert_printed(replica, 2 * DOCUMENTS, &[token, &password])?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn people_get_a_screen_and_a_tree_unless_the_log_is_for_programs() {
    world()
        .story("screens", async |world| {
            let people = |_, agent: AgentBuilder| {
                let agent = agent.without_env("DUMP_FORMAT");
                agent.env("LOG_FORMAT", "text")
            };
            let options = ReplicaSetOptions::of(3);
            let scene = Scene::start_with(world, options, people, |writers| writers).await?;
            scene.wait_for_refreshes().await?;
            let (agent, old) = (scene.master_agent(), scene.master);
            let print = async |signal, last: &str| {
                let before = agent.process().stdout()?.len();
                agent.process().signal(signal)?;
                eventually(SOON, "the whole dump", async || {
                    let text = agent.process().stdout();
                    let text = text.map_err(|error| error.to_string())?;
                    match text.split_at(before).1 {
                        whole if whole.contains(last) && whole.ends_with('\n') => {
                            Ok(whole.to_owned())
                        }
                        part => Err(part.to_owned()),
                    }
                })
                .await
            };
            let screen = print(Signal::USR1, "\nlost  ").await?;
            assert!(screen.lines().count() <= 40, "{screen}");
            assert!(
                screen.lines().all(|line| line.chars().count() <= 80),
                "{screen}"
            );
            for words in [
                "\nrole         MASTER, writable, term 1",
                "\nreason       master: writable",
                " left of 3 s\n",
                "\nlock         held by this agent, session ",
                "\nreplication  follows 2 of 2, followed by 2 of 2, vclock ",
            ] {
                assert!(screen.contains(words), "{words:?} is not in\n{screen}");
            }
            let tree = print(Signal::USR2, "\nlost ").await?;
            let lines: Vec<Vec<&str>> = tree
                .lines()
                .map(|line| line.split_whitespace().collect())
                .collect();
            for line in [
                &["TARANTOOL_PASSWORD", "(redacted)"][..],
                &["DUMP_FORMAT", "text"],
                &["serving", "yes"],
                &["state"],
                &["transitions"],
            ] {
                assert!(
                    lines.iter().any(|found| found == line),
                    "{line:?} is not in\n{tree}"
                );
            }
            let password = Instance::agent_login().password;
            assert!(!tree.contains(&password) && !screen.contains(&password));
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn an_agent_without_instance_and_consul_answers_signals_too() {
    world()
        .story("dumps-nothing", async |world| {
            let consul = world.consul().await?;
            let set = world.replica_set(1).await?;
            set[0].kill().await?;
            consul.kill().await?;
            let agent = world.agent(&set[0], &consul)?.start().await?;
            wait_for_reason(&agent, 0, "waiting for the instance").await?;
            let (outside, _) = look(&agent, "waiting for the instance").await?;
            assert_eq!(outside["tarantool"]["probe"], Value::Null);
            let last = outside["last_error"]["words"].as_str();
            let warnings = agent.logs()?;
            let mut warnings = warnings.iter().filter(|line| line.level() == "WARN");
            assert!(
                last.is_some_and(|last| warnings.any(|line| last.starts_with(line.message()))),
                "{}",
                outside["last_error"]
            );
            assert_eq!(agent.term(SOON).await?.code(), Some(0));
            assert_printed(&agent, DOCUMENTS, &[])
        })
        .await;
}

#[tokio::test]
async fn the_debug_log_names_every_changed_field_with_its_old_and_new_value() {
    world()
        .story("debug-log", async |world| {
            let debug = |_, agent: AgentBuilder| agent.env("LOG_LEVEL", "debug");
            let options = ReplicaSetOptions::of(2);
            let scene = Scene::start_with(world, options, debug, |writers| writers).await?;
            let old = scene.master;
            let heir = &scene.agents[scene.replica()];
            let logged = heir.logs()?.len();
            scene.master().kill().await?;
            let changes = [
                ("highest_term", json!("1"), json!("2")),
                ("probe.ro", json!("true"), json!("false")),
                ("probe.guard.leased", json!("false"), json!("true")),
            ];
            for (field, before, after) in changes {
                let fits = |line: &tarsec_harness::LogLine| {
                    line.level() == "DEBUG"
                        && line.message() == "changed"
                        && line.field("field") == field
                        && line.field("old") == &before
                        && line.field("new") == &after
                };
                heir.wait_for_log(SOON, field, logged, fits).await?;
            }
            let heir = scene.wait_for_heir(SOON).await?;
            eventually(SOON, "the other agent's view of the term", async || {
                let dump = scene.master_agent().usr2().await;
                let dump = dump.map_err(|error| error.to_string())?;
                match dump["state"]["highest_term"].as_u64() {
                    Some(term) if term == heir.term => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            Ok(())
        })
        .await;
}
