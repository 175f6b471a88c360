//! Which member is master next: the freshest, unless it may not be, and never a member that may not be.

use std::time::Duration;

use tarsec_harness::{
    AgentBuilder, Board, Machine, ReplicaSetOptions, Result, Value, World, eventually,
};

use crate::cluster::stays_read_only;
use crate::scene::{SOME_WRITES, Scene, assert_reigns, tenures, wait_for_master};
use crate::support::{LEASE, SOON, world};

/// Long enough for agents that are started one after the other on a busy machine to find each other's ballots.
const LONG_WINDOW: &str = "3s";
/// Rows that the master writes between one replica's falling behind and the next one's.
const LAG: u64 = 20;

fn follow_links(instances: usize) -> ReplicaSetOptions {
    ReplicaSetOptions::of(instances).linked()
}

impl Scene {
    fn replicas(&self) -> Vec<usize> {
        let master = self.master.instance;
        (0..self.set.len()).filter(|at| *at != master).collect()
    }

    /// The last member of `order` falls behind most, the first has everything.
    async fn order_by_rows(&self, order: &[usize]) -> Result<()> {
        for at in order.iter().skip(1).rev() {
            self.set.hold_back(*at).await?;
            // Rows that had passed the link by then still arrive.
            self.writers.wait_for_writes(LAG, SOON).await?;
            let held = self.set[*at].standing().await?.vclock;
            self.writers.wait_for_writes(LAG, SOON).await?;
            assert_eq!(self.set[*at].standing().await?.vclock, held);
        }
        Ok(())
    }
}

/// Rows decide, not which ballot came first.
#[tokio::test]
async fn of_three_replicas_the_freshest_wins_whatever_the_start_order() {
    world()
        .story("freshest", async |world| {
            let window = |_, agent: AgentBuilder| agent.env("ELECTION_WINDOW", LONG_WINDOW);
            let mut scene =
                Scene::start_with(world, follow_links(4), window, |writers| writers).await?;
            let mut reigns = vec![scene.master];
            for round in 0..20 {
                let old = scene.master.instance;
                let mut order = scene.replicas();
                order.rotate_left(round % 3);
                for at in &order {
                    scene.agents[*at].kill().await?;
                }
                scene.order_by_rows(&order).await?;
                scene.set[old].kill().await?;
                let mut starts = order.clone();
                starts.rotate_left(round % 2 + 1);
                for at in starts {
                    scene.agents[at].start()?;
                }
                let heir = scene.wait_for_heir(SOON).await?;
                assert_eq!(heir.instance, order[0], "round {round}: {order:?}");
                reigns.push(heir);
                for at in &order {
                    scene.set.let_catch_up(*at).await?;
                }
                scene.set[old].start().await?;
                scene.set.wait_for_mesh(SOON).await?;
                scene.master = heir;
            }
            assert_reigns_again(&scene.writers.verdict().await?, &reigns);
            Ok(())
        })
        .await;
}

/// As `assert_reigns`, where an instance may reign more than once.
fn assert_reigns_again(verdict: &tarsec_harness::Verdict, expected: &[tarsec_harness::Tenure]) {
    verdict.assert_safe();
    assert_eq!(tenures(verdict), expected, "{verdict}");
}

/// `MAX_LAG_ROWS` excludes every member that is there to be elected.
#[tokio::test]
async fn with_nobody_fit_the_set_stays_read_only_and_says_why_until_the_data_is_back() {
    world()
        .story("too-far-behind", async |world| {
            let limit = |_, agent: AgentBuilder| agent.env("MAX_LAG_ROWS", "10");
            let scene = Scene::start_with(world, follow_links(3), limit, |writers| writers).await?;
            let (old, replicas) = (scene.master, scene.replicas());
            for at in &replicas {
                scene.set.cut_off(*at).await?;
            }
            let board = world.board(&scene.consul, &scene.set);
            scene.writers.wait_for_writes(100, SOON).await?;
            scene.wait_for_refreshes().await?;
            scene.master().kill().await?;
            wait_for_record(&board, "fenced").await?;
            for at in &replicas {
                let words = "rows that the last master had, MAX_LAG_ROWS is 10";
                scene.wait_for_check(*at, "passing", words).await?;
                // On a busy machine the instance may be silent for a moment.
                let dump = eventually(SOON, "a dump with that reason", async || {
                    let dump = scene.agents[*at].usr2().await;
                    let dump = dump.map_err(|error| error.to_string())?;
                    let reason = dump["reason"].as_str().unwrap_or_default();
                    if reason.contains(words) {
                        Ok(dump)
                    } else {
                        Err(reason.to_owned())
                    }
                })
                .await?;
                let said = &dump["state"]["election"]["own"]["excluded"];
                assert!(
                    said.as_str().is_some_and(|why| why.contains(words)),
                    "{dump}"
                );
                let ballot = &board.ballots().await?[scene.set[*at].uuid()];
                assert_eq!(&ballot["excluded"], said);
            }
            stays_read_only(&scene.set, LEASE * 2).await?;
            // A member that has the rows is fit.
            scene.master().start().await?;
            let again = wait_for_master(&scene.set, |seen| seen.term > old.term, SOON).await?;
            assert_eq!(again.instance, old.instance);
            scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
            assert_reigns(&scene.writers.verdict().await?, &[old, again]);
            Ok(())
        })
        .await;
}

async fn wait_for_record(board: &Board<'_>, status: &str) -> Result<Value> {
    eventually(SOON, &format!("a {status} record"), async || {
        let record = board.record().await.map_err(|error| error.to_string())?;
        if record["status"] == status {
            Ok(record)
        } else {
            Err(record.to_string())
        }
    })
    .await
}

/// Priority decides only where rows do not.
#[tokio::test]
async fn of_equals_the_highest_priority_goes_first_and_a_negative_one_never() {
    world()
        .story("priority", async |world| {
            const PRIORITY: [i64; 4] = [1, 2, 3, -1];
            let priority =
                |at: usize, agent: AgentBuilder| agent.env("PRIORITY", &PRIORITY[at].to_string());
            let options = ReplicaSetOptions::of(4);
            let scene = Scene::start_with(world, options, priority, |writers| writers).await?;
            let first = scene.master;
            // Equal data: no writer writes any more.
            scene.writers.verdict().await?.assert_safe();
            let mut alive = vec![0, 1, 2, 3];
            let mut master = first;
            while alive.len() > 2 {
                for at in &alive {
                    scene
                        .set
                        .wait_until_level(*at, master.instance, SOON)
                        .await?;
                }
                scene.set[master.instance].kill().await?;
                alive.retain(|at| *at != master.instance);
                let best = alive.iter().copied().max_by_key(|at| PRIORITY[*at]);
                let term = master.term;
                master = wait_for_master(&scene.set, |seen| seen.term > term, SOON).await?;
                assert_eq!(Some(master.instance), best, "of {alive:?}");
            }
            scene.set[master.instance].kill().await?;
            eventually(SOON, "the last one to say why", async || {
                let dump = scene.agents[3]
                    .usr1()
                    .await
                    .map_err(|error| error.to_string())?;
                let reason = dump["reason"].as_str().unwrap_or_default();
                if reason.contains("PRIORITY is -1") {
                    Ok(())
                } else {
                    Err(reason.to_owned())
                }
            })
            .await?;
            stays_read_only(&scene.set, LEASE * 2).await
        })
        .await;
}

/// Ballots go by way of Consul: neither needs to hear the other.
#[tokio::test]
async fn two_candidates_cut_off_from_each_other_but_not_from_consul_agree() {
    world()
        .story("cut-candidates", async |world| {
            let window = |_, agent: AgentBuilder| agent.env("ELECTION_WINDOW", LONG_WINDOW);
            let scene =
                Scene::start_with(world, follow_links(3), window, |writers| writers).await?;
            let old = scene.master;
            let [fresh, stale] = scene.replicas()[..] else {
                unreachable!()
            };
            for (follower, source) in [(fresh, stale), (stale, fresh)] {
                scene.set.link(follower, source).unwrap().cut().await?;
            }
            scene.order_by_rows(&[fresh, stale]).await?;
            scene.master().kill().await?;
            let heir = scene.wait_for_heir(SOON).await?;
            assert_eq!(heir.instance, fresh);
            scene.set.stays_master(fresh, LEASE).await?;
            assert_reigns(&scene.writers.verdict().await?, &[old, heir]);
            Ok(())
        })
        .await;
}

/// When the best candidate's machine dies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum DeathAfter {
    Ballot,
    Lock,
    Promotion,
}

/// Its way to Consul is so slow that each of its steps can be seen there before it knows that it is done.
const SLOW: Duration = Duration::from_millis(250);

async fn the_best_dies(world: &World, moment: DeathAfter) -> Result<()> {
    let slow_ones = |_, agent: AgentBuilder| agent.linked().env("ELECTION_WINDOW", LONG_WINDOW);
    let scene = Scene::start_with(world, follow_links(3), slow_ones, |writers| writers).await?;
    let old = scene.master;
    let [best, other] = scene.replicas()[..] else {
        unreachable!()
    };
    scene.order_by_rows(&[best, other]).await?;
    let (uuid, board) = (
        scene.set[best].uuid(),
        world.board(&scene.consul, &scene.set),
    );
    let agent = &scene.agents[best];
    agent.consul_link().unwrap().delay(SLOW).await?;
    scene.master().kill().await?;
    eventually(SOON, &format!("{moment:?} by the best"), async || {
        let found = match moment {
            DeathAfter::Ballot => board.ballots().await.map(|ballots| {
                let term = ballots.get(uuid).map(|ballot| ballot["term"].clone());
                term == Some((old.term + 1).into())
            }),
            DeathAfter::Lock => board
                .record()
                .await
                .map(|record| record["instance"] == uuid),
            DeathAfter::Promotion => Ok(scene.set[best].says_writable().await == Some(true)),
        };
        match found {
            Ok(true) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    Machine::of(&scene.set[best], agent).kill().await?;
    let record = board.record().await?;
    match moment {
        DeathAfter::Ballot => assert_ne!(record["instance"], uuid),
        DeathAfter::Lock => assert_eq!(record["status"], "promoting"),
        DeathAfter::Promotion => assert_eq!(record["instance"], uuid),
    }
    let fits = |seen: &tarsec_harness::Tenure| seen.instance == other;
    let heir = wait_for_master(&scene.set, fits, SOON).await?;
    scene.writers.wait_for_writes(SOME_WRITES, SOON).await?;
    let verdict = scene.writers.verdict().await?;
    verdict.assert_safe();
    let reigns = tenures(&verdict);
    assert_eq!(
        (reigns.first(), reigns.last()),
        (Some(&old), Some(&heir)),
        "{verdict}"
    );
    let terms = if moment == DeathAfter::Ballot { 1 } else { 2 };
    assert_eq!(heir.term, old.term + terms);
    Ok(())
}

/// A candidate waits a window for the best, and no longer.
#[tokio::test]
async fn a_candidate_that_dies_between_ballot_and_lock_is_waited_for_no_longer_than_a_window() {
    world()
        .story("dies-balloted", async |world| {
            the_best_dies(world, DeathAfter::Ballot).await
        })
        .await;
}

/// R4 holds for a holder that never was master.
#[tokio::test]
async fn a_candidate_that_dies_between_lock_and_promotion_is_taken_over_from() {
    world()
        .story("dies-locked", async |world| {
            the_best_dies(world, DeathAfter::Lock).await
        })
        .await;
}

/// The others wait for its lease, and no longer.
#[tokio::test]
async fn a_candidate_that_dies_right_after_its_promotion_is_taken_over_from() {
    world()
        .story("dies-promoted", async |world| {
            the_best_dies(world, DeathAfter::Promotion).await
        })
        .await;
}
