//! Rows at risk: what the master had and its successor had not, counted exactly when it comes back.

use std::time::Duration;

use tarsec_harness::{
    Fault, Instance, Moment, ReplicaSetOptions, Result, Tenure, Value, World, eventually, json,
};

use crate::scene::{SESSION_EXPIRY, Scene, assert_reigns, wait_for_master};
use crate::support::{SOON, world};
use crate::switchover::wait_for_followers;

/// How far `seen_by` has got in the rows that `of` wrote.
async fn rows_of(of: &Instance, seen_by: &Instance) -> Result<u64> {
    let id = of.eval("return box.info.id", &[]).await?;
    let values = seen_by
        .eval("return box.info.vclock[...] or 0", &id)
        .await?;
    Ok(values.first().and_then(Value::as_u64).unwrap_or(0))
}

/// The master's rows stop arriving at the others; some are written, it is killed, a successor comes up, it returns.
async fn loses_rows(
    world: &World,
    scene: Scene,
    hide: impl AsyncFnOnce(&Scene) -> Result<()>,
    show: impl AsyncFnOnce(&Scene) -> Result<()>,
) -> Result<()> {
    let board = world.board(&scene.consul, &scene.set);
    let old = scene.master;
    hide(&scene).await?;
    scene
        .set
        .wait_for_lag(scene.replica(), old.instance, 100, SOON)
        .await?;
    // The record has seen some of them.
    scene.wait_for_refreshes().await?;
    let killed_ms = Moment::now().epoch_ms();
    scene.master().kill().await?;
    let heir = scene.wait_for_heir(SOON).await?;
    let succeeded_ms = Moment::now().epoch_ms();
    let line = board.wait_for_history(heir.term, SOON).await?;
    assert_eq!(line["cause"], "released", "{line}");
    let at_ms = line["at_ms"].as_u64().unwrap_or(0);
    assert!(killed_ms <= at_ms && at_ms <= succeeded_ms, "{line}");
    let record = scene.lock().await?.json()?;
    let since_ms = record["since_ms"].as_u64().unwrap_or(0);
    assert!(killed_ms <= since_ms && since_ms <= at_ms, "{record}");
    assert_eq!(line["from"]["instance"], scene.master().uuid());
    assert_eq!(line["to"]["instance"], scene.set[heir.instance].uuid());
    let at_risk = line["rows_at_risk"].as_u64().unwrap_or(0);
    assert!(at_risk >= 50, "{line}");
    scene.agents[heir.instance]
        .wait_for_log(SOON, "the warning", 0, |said| {
            said.message().contains("WITHOUT ROWS") && said.field("rows_at_risk") == &json!(at_risk)
        })
        .await?;

    scene.master().start().await?;
    let returned = eventually(SOON, "the ex-master's count", async || {
        let lines = board.history().await.map_err(|error| error.to_string())?;
        let line = lines.iter().find(|line| line["term"] == heir.term);
        let rows = line.and_then(|line| line["returned"]["rows"].as_u64());
        rows.ok_or_else(|| format!("{lines:?}"))
    })
    .await?;
    // The way is still closed, so that both sides still differ by exactly these rows.
    let has = rows_of(scene.master(), scene.master()).await?;
    let known = rows_of(scene.master(), &scene.set[heir.instance]).await?;
    assert_eq!(returned, has - known);
    assert!(returned >= at_risk, "{returned} < {at_risk}");
    scene
        .master_agent()
        .wait_for_log(SOON, "the ex-master's warning", 0, |said| {
            said.message().contains("WITH ROWS") && said.field("rows") == &json!(returned)
        })
        .await?;
    let dump = scene.master_agent().usr2().await?;
    assert_eq!(
        dump["state"]["history"]["returned"]["returned"]["rows"],
        returned
    );
    show(&scene).await?;
    assert_reigns(&scene.writers.verdict().await?, &[old, heir]);
    Ok(())
}

#[tokio::test]
async fn a_returning_ex_master_counts_its_rows_exactly_in_a_mesh() {
    world()
        .story("rows-mesh", async |world| {
            let options = ReplicaSetOptions::of(2).linked();
            let scene =
                Scene::start_with(world, options, |_, agent| agent, |writers| writers).await?;
            loses_rows(
                world,
                scene,
                async |scene| scene.set.cut_off(scene.replica()).await,
                async |scene| {
                    scene.set.let_catch_up(scene.replica()).await?;
                    let (heir, back) = (scene.replica(), scene.master.instance);
                    scene.set.wait_until_level(heir, back, SOON).await
                },
            )
            .await
        })
        .await;
}

#[tokio::test]
async fn a_returning_ex_master_counts_its_rows_exactly_with_replication_follow() {
    world()
        .story("rows-follow", async |world| {
            let scene = Scene::start_with(
                world,
                ReplicaSetOptions::of(2),
                |_, agent| {
                    agent
                        .announced()
                        .env("REPLICATION", "follow")
                        .env("PEER_ADDRS", "127.0.0.1")
                },
                |writers| writers,
            )
            .await?;
            let follows = &scene.set[scene.replica()];
            let link = scene
                .master_agent()
                .announced_link()
                .unwrap()
                .addr()
                .to_owned();
            eventually(SOON, "the replica to follow the master alone", async || {
                let said = follows.eval("return box.cfg.replication[1]", &[]).await;
                let said = said.map_err(|error| error.to_string())?;
                match said.first().and_then(Value::as_str) {
                    Some(uri) if uri.ends_with(&link) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
            loses_rows(
                world,
                scene,
                async |scene| {
                    let link = scene.master_agent().announced_link().unwrap();
                    link.set(Fault::Cut).await
                },
                async |_| Ok(()),
            )
            .await
        })
        .await;
}

#[tokio::test]
async fn every_term_has_its_line_and_nothing_is_charged_to_a_master_that_lost_nothing() {
    world()
        .story("history-quick", async |world| {
            let mut scene = Scene::start(world, 3).await?;
            let board = world.board(&scene.consul, &scene.set);
            wait_for_followers(&board, 2).await?;
            let first = scene.master;
            let second = (first.instance + 1) % 3;
            let third = (first.instance + 2) % 3;
            // As fast as each is answered: a master of them reigns for a fraction of a second.
            for target in [
                second,
                first.instance,
                second,
                first.instance,
                second,
                third,
            ] {
                let uuid = scene.set[target].uuid();
                let id = board
                    .request_switchover(Some(uuid), Duration::from_secs(5))
                    .await?;
                let order = board.wait_for_switchover(&id, SOON).await?;
                assert_eq!(order["state"], "done", "{order}");
            }
            let fits = |seen: &Tenure| seen.instance == third;
            scene.master = wait_for_master(&scene.set, fits, SOON).await?;
            let last = scene.master.term;
            assert_eq!(last, first.term + 6, "each of them was a term");
            let all = eventually(SOON, "a line of every term", async || {
                let all = board.history().await.map_err(|error| error.to_string())?;
                let terms = all.iter().filter_map(|line| line["term"].as_u64());
                let whole = terms.eq(first.term..=last);
                // The last two ex-masters have looked by then.
                let mut newest = all.iter().rev().take(2);
                if whole && newest.all(|line| !line["returned"].is_null()) {
                    Ok(all)
                } else {
                    Err(format!("{all:?}"))
                }
            })
            .await?;
            for line in &all {
                assert_eq!(line["rows_at_risk"], 0, "{line}");
                let back = &line["returned"]["rows"];
                assert!(back.is_null() || back == 0, "{line}");
            }
            for agent in &scene.agents {
                let said = agent.logs()?;
                let false_alarm = said
                    .iter()
                    .find(|line| line.message().contains("WITH ROWS"));
                assert!(false_alarm.is_none(), "{false_alarm:?}");
            }

            // All are gone at once; the master is the first that is back, and is it again.
            scene.wait_for_refreshes().await?;
            for instance in 0..3 {
                scene.set[instance].kill().await?;
            }
            scene.master().start().await?;
            let fits = |seen: &Tenure| seen.instance == third && seen.term > last;
            let again = wait_for_master(&scene.set, fits, SESSION_EXPIRY).await?;
            let line = board.wait_for_history(again.term, SOON).await?;
            assert_eq!(line["from"], line["to"], "{line}");
            assert_eq!(line["rows_at_risk"], 0, "{line}");
            assert_eq!(line["risk_known"], "exact", "{line}");
            scene.agents[third]
                .wait_for_log(SOON, "the term", 0, |said| {
                    said.message() == "master here now" && said.field("term") == &json!(again.term)
                })
                .await?;
            let said = world.command(&scene.consul, &["status"])?.run(SOON).await?;
            assert!(!said.stdout.contains("at risk"), "{said:?}");
            Ok(())
        })
        .await;
}
