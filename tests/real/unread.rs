//! Nobody reads what the agents print: their pipes are full from the start, and nothing of their work may notice.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use tarsec_harness::{AgentBuilder, Output, ReplicaSetOptions, Value, eventually, json};

use crate::scene::{SOME_WRITES, Scene, assert_reigns};
use crate::support::{LEASE, SOON, world};

/// More dumps than an operator would ask for while none comes, and more than one pipe takes.
const DUMPS: usize = 8;
/// An agent that leaves a pipe unread behind has waited a second for its reader at most.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Something that every agent says at its start, and for which nothing in these stories waits long.
const FIRST_WORDS: &str = "agent started";

fn chatty(_: usize, agent: AgentBuilder) -> AgentBuilder {
    agent.output(Output::UnreadPipes).env("LOG_LEVEL", "debug")
}

#[tokio::test]
async fn a_master_whose_output_nobody_reads_keeps_its_lease_and_stops_when_asked() {
    world()
        .story("unread", async |world| {
            let options = ReplicaSetOptions::of(2);
            let scene = Scene::start_with(world, options, chatty, |writers| writers).await?;
            let old = scene.master;
            let agent = scene.master_agent();
            for _ in 0..DUMPS {
                agent.process().signal(Signal::USR2)?;
                scene.wait_for_refreshes().await?;
            }
            // Three leases' worth of refreshes later it is master still, and has refused no write.
            for _ in 0..6 {
                scene.wait_for_refreshes().await?;
            }
            let status = agent.term(SOON).await?;
            assert_eq!(status.code(), Some(0));
            let heir = scene.wait_for_heir(SOON).await?;
            let record = scene.lock().await?.json()?;
            assert_eq!(record["reason"], "the master before gave the lock up");
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            assert!(
                verdict.changes[0].duration() < LEASE + LAST_WORDS,
                "{verdict}"
            );
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_master_is_succeeded_while_the_log_collector_of_all_agents_stands_still() {
    world()
        .story("unread-succession", async |world| {
            let options = ReplicaSetOptions::of(3);
            let scene = Scene::start_with(world, options, chatty, |writers| writers).await?;
            let old = scene.master;
            for agent in &scene.agents {
                for _ in 0..DUMPS {
                    agent.process().signal(Signal::USR2)?;
                }
            }
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            scene.master().kill().await?;
            let heir = scene.wait_for_heir(SOON).await?;
            scene.set.start_all().await?;

            // The output is read again: whole lines, the number of missing ones, and the documents.
            let agent = &scene.agents[heir.instance];
            agent.process().read_pipes()?;
            let logged = "master here now";
            let tells = |line: &tarsec_harness::LogLine| line.message() == logged;
            agent.wait_for_log(SOON, logged, 0, tells).await?;
            let odd = agent.logs()?.into_iter();
            let mut odd = odd.filter(|line| line.json == Value::Null && !line.text.is_empty());
            assert_eq!(odd.next().map(|line| line.text), None, "half a line");
            let whole = eventually(SOON, "the documents", async || {
                let text = agent
                    .process()
                    .stdout()
                    .map_err(|error| error.to_string())?;
                let found = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
                let found: Vec<Value> = found
                    .collect::<std::result::Result<_, _>>()
                    .map_err(|error| error.to_string())?;
                if found.is_empty() {
                    Err("there is none".to_owned())
                } else {
                    Ok(found)
                }
            })
            .await?;
            assert!(whole.len() <= DUMPS, "{}", whole.len());
            assert!(
                whole
                    .iter()
                    .all(|whole| whole["dump"] == json!("reconciler"))
            );
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_master_whose_output_is_on_a_full_disk_works_and_stops_when_asked() {
    world()
        .story("full-disk", async |world| {
            let full = |_, agent: AgentBuilder| agent.output(Output::FullDisk);
            let options = ReplicaSetOptions::of(2);
            let scene = Scene::start_with(world, options, full, |writers| writers).await?;
            let old = scene.master;
            let agent = scene.master_agent();
            agent.process().signal(Signal::USR1)?;
            agent.process().signal(Signal::USR2)?;
            scene.wait_for_refreshes().await?;
            let status = agent.term(SOON).await?;
            assert_eq!(status.code(), Some(0));
            let heir = scene.wait_for_heir(SOON).await?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_log_file_at_its_limit_costs_lines_that_are_counted_and_told_later() {
    world()
        .story("file-limit", async |world| {
            let debug = |_, agent: AgentBuilder| agent.env("LOG_LEVEL", "debug");
            let options = ReplicaSetOptions::of(1);
            let scene = Scene::start_with(world, options, debug, |writers| writers).await?;
            let agent = scene.master_agent();
            let limit = |bytes| {
                let pid = agent
                    .process()
                    .pid()
                    .and_then(|pid| i32::try_from(pid).ok());
                let limit = Rlimit {
                    current: bytes,
                    maximum: None,
                };
                prlimit(pid.and_then(Pid::from_raw), Resource::Fsize, limit).unwrap();
            };
            // Less than the log has: whatever is said from now on is refused with a signal that ends processes.
            limit(Some(1));
            scene.wait_for_refreshes().await?;
            limit(None);
            let told = "log lines were lost: nobody read stderr";
            let line = agent
                .wait_for_log(SOON, told, 0, |line| line.message() == told)
                .await?;
            assert!(line.field("lines").as_u64() > Some(0), "{line}");
            let whole = agent.usr2().await?;
            assert!(
                whole["lost"]["log_lines"].as_u64() > Some(0),
                "{}",
                whole["lost"]
            );
            assert!(
                agent
                    .logs()?
                    .iter()
                    .any(|line| line.message() == FIRST_WORDS)
            );
            scene.assert_undisturbed().await
        })
        .await;
}

/// A system that looks up the names of hosts, until it does so no more: it neither finds them nor says that it does not.
const HANGING_NAMES: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int look_up(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found)
{
    look_up *next = (look_up *)dlsym(RTLD_NEXT, "getaddrinfo");
    if (host == NULL || strcmp(host, "somewhere.test") != 0)
        return next(host, port, hints, found);
    while (access(getenv("NAMES_HANG"), F_OK) == 0)
        pause();
    return next("127.0.0.1", port, hints, found);
}
"#;

#[tokio::test]
async fn look_ups_of_names_that_hang_cost_a_master_nothing_and_no_stop() {
    world()
        .story("hanging-names", async |world| {
            let (code, library) = (world.dir().join("names.c"), world.dir().join("names.so"));
            std::fs::write(&code, HANGING_NAMES).unwrap();
            let built = std::process::Command::new("cc")
                .args(["-shared", "-fPIC", "-o"])
                .args([&library, &code])
                .arg("-ldl")
                .status();
            assert!(built.is_ok_and(|status| status.success()));
            let switch = world.dir().join("names-hang");
            let named = |address: &str| address.replace("127.0.0.1", "somewhere.test");
            let consul = world.consul().await?;
            let set = world.replica_set(2).await?;
            let instances = [named(set[0].addr()), named(set[1].addr())];
            let addr = named(&consul.agent_addr(0));
            let by_name = |index: usize, agent: AgentBuilder| {
                agent
                    .env("LD_PRELOAD", &library.display().to_string())
                    .env("NAMES_HANG", &switch.display().to_string())
                    .env("CONSUL_HTTP_ADDR", &addr)
                    .env("TARANTOOL_ADDR", &instances[index])
            };
            let scene = Scene::start_on(world, consul, set, by_name, |writers| writers).await?;
            let old = scene.master;
            std::fs::write(&switch, "").unwrap();
            // A new connection needs a look-up.
            let replica = scene.replica();
            scene.set[replica].restart().await?;
            let timed_out = "resolve the host";
            scene.agents[replica]
                .wait_for_log(SOON, timed_out, 0, |line| line.text.contains(timed_out))
                .await?;
            let status = scene.agents[replica].term(SOON).await?;
            assert_eq!(status.code(), Some(0));
            // The connections that stand are enough for a lease and its release.
            for _ in 0..6 {
                scene.wait_for_refreshes().await?;
            }
            let status = scene.master_agent().term(SOON).await?;
            assert_eq!(status.code(), Some(0));
            std::fs::remove_file(&switch).unwrap();
            scene.agents[replica].start()?;
            let heir = scene.wait_for_heir(SOON).await?;
            let verdict = scene.writers.verdict().await?;
            assert_reigns(&verdict, &[old, heir]);
            Ok(())
        })
        .await;
}
