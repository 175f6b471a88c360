//! The master check against the oracle: a thousand questions a second while masters crash, hang, are cut off and freeze.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tarsec_harness::{
    AgentBuilder, Machine, Prober, ReplicaSetOptions, Result, Seen, check_status, eventually,
};

use crate::http_checks::addresses;
use crate::scene::Scene;
use crate::support::{LEASE, SOON, world};

/// Questions a second to all three agents.
const RATE: u32 = 1000;
/// Of these the least that a busy machine may ask, or the story proves little.
const RATE_LEAST: f64 = 300.0;

/// Something happened to a master after which it gets no lease any more.
struct Fault {
    what: &'static str,
    agent: usize,
    term: u64,
    /// It happened before that.
    by: Instant,
    /// Answers are late for as long as this: the agent itself stood still until then.
    until: Instant,
}

/// Whether a check says who is master, over all that was seen.
struct Judge<'a> {
    seen: &'a [Seen],
}

impl Judge<'_> {
    fn yes(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(|seen| seen.status == 200)
    }

    /// No yes of a master whose lease must be over.
    fn assert_none_past(&self, fault: &Fault) {
        let over_at = fault.by + LEASE;
        let late = self.yes().filter(|seen| {
            let is_its = seen.agent == fault.agent && seen.term <= fault.term;
            // An answer that came while its agent stood still was given before.
            is_its && seen.sent.max(fault.until.min(seen.answered)) > over_at
        });
        let late: Vec<Duration> = late.map(|seen| seen.answered - over_at).collect();
        assert!(
            late.is_empty(),
            "{} answers said yes after the lease, {}: {:?}",
            late.len(),
            fault.what,
            late.iter().max()
        );
    }

    /// No yes of a lower term that was asked for after a higher one had been given, and no term with two masters.
    fn assert_one_at_a_time(&self) {
        let mut first: BTreeMap<u64, Seen> = BTreeMap::new();
        for seen in self.yes() {
            let known = first.entry(seen.term).or_insert(*seen);
            assert_eq!(known.agent, seen.agent, "two masters of term {}", seen.term);
            let higher = first.range(seen.term + 1..);
            let since = higher.map(|(_, higher)| higher.answered).min();
            assert!(
                since.is_none_or(|since| seen.sent <= since),
                "agent {} said yes for term {} {:?} after a successor had",
                seen.agent,
                seen.term,
                since.map(|since| seen.sent - since)
            );
        }
    }
}

/// The master that there is, by its own check, other than `old`.
async fn heir(addrs: &[String], old: Option<usize>) -> Result<usize> {
    eventually(LEASE * 2 + SOON, "a master's check", async || {
        for (index, addr) in addrs.iter().enumerate() {
            let is_master =
                Some(index) != old && check_status(addr, "/primary").await.ok() == Some(200);
            if is_master {
                return Ok(index);
            }
        }
        Err("none says yes")
    })
    .await
}

#[tokio::test]
async fn no_master_check_says_yes_past_a_lease_and_no_two_at_once() {
    world()
        .story("http-oracle", async |world| {
            let addrs = addresses(world)?;
            // A master that is cut off from Consul is to lose its lease, so no promises.
            let agent = |index: usize, agent: AgentBuilder| {
                agent
                    .linked()
                    .env("HTTP_LISTEN", &addrs[index])
                    .env("FAILSAFE", "off")
            };
            let options = ReplicaSetOptions::of(3);
            let scene = Scene::start_with(world, options, agent, |writers| writers).await?;
            scene.set.wait_for_mesh(SOON).await?;
            let started = Instant::now();
            let prober = Prober::start(world, &addrs, "/primary", RATE);
            let mut faults = Vec::new();
            let mut master = heir(&addrs, None).await?;
            for what in ["crash", "hang", "cut off", "freeze"] {
                let term = scene.set[master].standing().await?.term.unwrap_or(0);
                let machine = Machine::of(&scene.set[master], &scene.agents[master]);
                let link = scene.agents[master].consul_link().expect("it is linked");
                match what {
                    "crash" => scene.set[master].kill().await?,
                    "hang" => scene.set[master].freeze().await?,
                    "cut off" => link.cut().await?,
                    _ => machine.freeze().await?,
                }
                let by = Instant::now();
                let next = match what {
                    // A frozen agent answers nobody.
                    "freeze" => {
                        scene
                            .set
                            .wait_for_new_master(master, LEASE * 2 + SOON)
                            .await?
                    }
                    _ => heir(&addrs, Some(master)).await?,
                };
                let until = if what == "freeze" { Instant::now() } else { by };
                match what {
                    "cut off" => link.restore().await?,
                    "freeze" => machine.thaw()?,
                    _ => {}
                }
                faults.push(Fault {
                    what,
                    agent: master,
                    term,
                    by,
                    until,
                });
                // Also an instance that its agent has killed.
                scene.set.start_all().await?;
                let old = &addrs[master];
                eventually(
                    SOON,
                    "the old master to follow",
                    async || match check_status(old, "/replica").await {
                        Ok(200) => Ok(()),
                        other => Err(format!("{other:?}")),
                    },
                )
                .await?;
                master = next;
            }
            let seen = prober.stop().await;
            let rate = seen.len() as f64 / started.elapsed().as_secs_f64();
            let judge = Judge { seen: &seen };
            for fault in &faults {
                judge.assert_none_past(fault);
            }
            judge.assert_one_at_a_time();
            let terms: Vec<u64> = faults.iter().map(|fault| fault.term).collect();
            let said = |term: u64| judge.yes().filter(|seen| seen.term == term).count();
            assert!(terms.iter().all(|term| said(*term) > 0), "{terms:?}");
            assert!(rate > RATE_LEAST, "{rate} questions a second");
            // What was queued in a machine that wakes up late is the business of GUARD=strict (docs/LIMITS.md).
            scene.writers.stop().await?;
            Ok(())
        })
        .await;
}
