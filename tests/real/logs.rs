//! What the log says, to which reader, and how often.

use std::os::unix::fs::MetadataExt;

use tarsec_harness::{AgentBuilder, LogLine, ReplicaSetOptions, eventually};

use crate::scene::{Scene, wait_for_master};
use crate::support::{SOON, world};

#[tokio::test]
async fn the_journal_gets_a_priority_with_each_line_and_no_time() {
    world()
        .story("journal", async |world| {
            let consul = world.consul().await?;
            let set = world.replica_set(1).await?;
            let agent = world.agent(&set[0], &consul)?.env("LOG_FORMAT", "text");
            let agent = agent.start().await?;
            wait_for_master(&set, |_| true, SOON).await?;
            assert_eq!(agent.term(SOON).await?.code(), Some(0));
            let before = agent.process().stderr()?;
            let stamped =
                |line: &str| line.starts_with("20") && line.contains("Z  INFO agent started");
            assert!(before.lines().any(stamped), "{before}");

            // The journal names the file that it reads, as if this one were it.
            let file = std::fs::metadata(agent.process().stderr_path()).unwrap();
            agent.set_env("JOURNAL_STREAM", &format!("{}:{}", file.dev(), file.ino()));
            agent.start()?;
            wait_for_master(&set, |_| true, SOON).await?;
            assert_eq!(agent.term(SOON).await?.code(), Some(0));
            let all = agent.process().stderr()?;
            let said = all.split_at(before.len()).1;
            assert!(said.starts_with("<6> INFO agent started"), "{said}");
            for line in said.lines() {
                let marks = ["<3>ERROR ", "<4> WARN ", "<6> INFO "];
                assert!(marks.iter().any(|mark| line.starts_with(mark)), "{line}");
            }
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn an_instance_that_stays_silent_is_a_line_and_its_answer_is_one() {
    world()
        .story("silence", async |world| {
            let patient = |_, agent: AgentBuilder| agent.env("MASTER_LEASE", "10s");
            let options = ReplicaSetOptions::of(2);
            let scene = Scene::start_with(world, options, patient, |writers| writers).await?;
            let agent = scene.master_agent();
            let (falls, ends) = ("the instance does not answer", "the instance answers again");
            let logged = agent.logs()?.len();
            scene.master().freeze().await?;
            let line = agent
                .wait_for_log(SOON, falls, logged, |line| line.message() == falls)
                .await?;
            scene.master().thaw()?;
            assert_eq!(line.level(), "WARN");
            assert!(line.field("silent_ms").as_u64() >= Some(500), "{line}");
            agent
                .wait_for_log(SOON, ends, logged, |line| line.message() == ends)
                .await?;
            // However often this busy machine made it silent: one line for each beginning, and one for each end.
            let about = |line: &LogLine| [falls, ends].contains(&line.message());
            let all = eventually(SOON, "an answer at last", async || {
                let logs = agent.logs().map_err(|error| error.to_string())?;
                let all: Vec<LogLine> = logs.into_iter().filter(about).collect();
                match all.last() {
                    Some(last) if last.message() == ends => Ok(all),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
            let repeats = all
                .windows(2)
                .any(|two| two[0].message() == falls && two[1].message() == falls);
            assert!(!repeats, "{all:#?}");
            assert!(!agent.process().stderr()?.contains("fell silent"));
            scene.writers.verdict().await?.assert_safe();
            Ok(())
        })
        .await;
}
