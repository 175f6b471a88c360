//! Every check in every state: what an agent answers over HTTP, as a table.

use std::fmt::Write as _;

use tarsec_harness::{ReplicaSetOptions, Result, World, ask_check, check_status, eventually, json};
use tokio::task::JoinSet;

use crate::pause::wait_until_stood_down;
use crate::scene::Scene;
use crate::support::{LEASE, SOON, world};
use crate::vshard::{Shards, story};

/// The columns of the table.
const CHECKS: [&str; 8] = [
    "/primary",
    "/replica",
    "/read-only",
    "/health",
    "/liveness",
    "/readiness",
    "/api/leader-check",
    "/api/raft-health",
];
/// Other names of the first.
const ALIASES: [&str; 3] = ["/master", "/read-write", "/leader"];

type Row = [u16; CHECKS.len()];

/// Yes, and the three ways to say no.
const Y: u16 = 200;
const N: u16 = 503;
const NOT_LEADER: u16 = 404;
const NO_RAFT: u16 = 500;

const MASTER: Row = [Y, N, Y, Y, Y, Y, Y, Y];
const REPLICA: Row = [N, Y, Y, Y, Y, Y, NOT_LEADER, Y];
const MASTER_ALONE: Row = [Y, N, Y, Y, Y, Y, Y, NO_RAFT];
const REPLICA_ALONE: Row = [N, Y, Y, Y, Y, Y, NOT_LEADER, NO_RAFT];
/// Its agent reads Consul, and knows who is master.
const GONE: Row = [N, N, N, N, Y, N, NOT_LEADER, Y];
/// Its agent has not seen it, so it does not know which lock to look at.
const NEVER_SEEN: Row = [N, N, N, N, Y, N, NOT_LEADER, NO_RAFT];

/// What was seen, state by state.
#[derive(Default)]
struct Table {
    text: String,
}

impl Table {
    fn add(&mut self, state: &str, row: &Row) {
        // Writing to a string cannot fail.
        write!(self.text, "{state:42}").ok();
        for (check, status) in CHECKS.iter().zip(row) {
            write!(self.text, " {status:>width$}", width = check.len()).ok();
        }
        self.text.push('\n');
    }

    #[allow(clippy::print_stdout, reason = "for whoever wants to see the table")]
    fn print(&self) {
        println!("{:42} {}\n{}", "", CHECKS.join(" "), self.text);
    }

    /// Waits until an agent's checks are these; they stay what they are until the story goes on.
    async fn expect(&mut self, state: &str, addr: &str, expected: Row) -> Result<()> {
        eventually(SOON, &format!("the checks of {state}"), async || {
            let seen = row(addr).await.map_err(|error| error.to_string())?;
            if seen == expected {
                Ok(())
            } else {
                Err(format!("{seen:?}, not {expected:?}"))
            }
        })
        .await?;
        for alias in ALIASES {
            let status = check_status(addr, alias).await?;
            assert_eq!(status, expected[0], "{alias}: {state}");
        }
        assert_eq!(check_status(addr, "/api/lb-check").await?, Y, "{state}");
        self.add(state, &expected);
        Ok(())
    }
}

async fn row(addr: &str) -> Result<Row> {
    let mut row = [0; CHECKS.len()];
    for (check, status) in CHECKS.iter().zip(&mut row) {
        *status = check_status(addr, check).await?;
    }
    Ok(row)
}

/// Three addresses for the agents' checks.
pub(crate) fn addresses(world: &World) -> Result<Vec<String>> {
    let address = |_| Ok(format!("127.0.0.1:{}", world.port()?));
    (0..3).map(address).collect()
}

/// Waits until an agent's own account says so.
async fn wait_for_reason(addr: &str, words: &str) -> Result<()> {
    eventually(SOON, words, async || {
        let reply = ask_check(addr, "GET", "/liveness").await;
        let body = reply.map_err(|error| error.to_string())?.body;
        match body["reason"].as_str() {
            Some(reason) if reason.contains(words) => Ok(()),
            _ => Err(body.to_string()),
        }
    })
    .await
}

#[tokio::test]
async fn every_check_has_its_status_in_every_state() {
    world()
        .story("http-checks", async |world| {
            let addrs = addresses(world)?;
            let options = ReplicaSetOptions::of(3);
            let listens = |index: usize, agent: tarsec_harness::AgentBuilder| {
                agent.env("HTTP_LISTEN", &addrs[index])
            };
            let scene = Scene::start_with(world, options, listens, |writers| writers).await?;
            scene.set.wait_for_mesh(SOON).await?;
            let replica = scene.replica();
            let (of_master, of_replica) = (&addrs[scene.master.instance], &addrs[replica]);
            let mut table = Table::default();
            table.expect("a master", of_master, MASTER).await?;
            table.expect("a replica", of_replica, REPLICA).await?;
            asks_in_every_way(of_master, of_replica).await?;

            let board = world.board(&scene.consul, &scene.set);
            board.pause("a story").await?;
            wait_until_stood_down(&scene, true).await?;
            table.expect("a master, paused", of_master, MASTER).await?;
            table
                .expect("a replica, paused", of_replica, REPLICA)
                .await?;
            board.resume().await?;
            wait_until_stood_down(&scene, false).await?;

            scene.consul.kill().await?;
            wait_for_reason(of_master, "every member promises another lease").await?;
            // Longer than the lease that rested on Consul.
            scene.set.stays_master(scene.master.instance, LEASE).await?;
            table
                .expect(
                    "a master, failsafe (Consul is away)",
                    of_master,
                    MASTER_ALONE,
                )
                .await?;
            table
                .expect("a replica, Consul is away", of_replica, REPLICA_ALONE)
                .await?;
            scene.consul.start_all().await?;
            scene.wait_for_refreshes().await?;
            table
                .expect("a master, Consul is back", of_master, MASTER)
                .await?;

            let instance = &scene.set[replica];
            instance.freeze().await?;
            table.expect("a hung instance", of_replica, GONE).await?;
            instance.thaw()?;
            table
                .expect("an instance that goes on", of_replica, REPLICA)
                .await?;
            instance.kill().await?;
            table.expect("a dead instance", of_replica, GONE).await?;
            scene.agents[replica].restart().await?;
            table
                .expect("an agent just started, no instance", of_replica, NEVER_SEEN)
                .await?;
            instance.start().await?;
            table
                .expect("and its instance comes", of_replica, REPLICA)
                .await?;

            frozen(&scene, &addrs, &mut table).await?;
            table.print();
            Ok(())
        })
        .await;
}

/// Methods, parameters, bodies, and what is no page.
async fn asks_in_every_way(of_master: &str, of_replica: &str) -> Result<()> {
    for (method, target, status) in [
        ("HEAD", "/primary", Y),
        ("OPTIONS", "/primary", Y),
        ("OPTIONS", "/replica", N),
        ("POST", "/primary", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/replica?lags=1", 400),
        ("GET", "/api/leader-check/418", Y),
    ] {
        let reply = ask_check(of_master, method, target).await?;
        assert_eq!(reply.status, status, "{method} {target}: {reply:?}");
        assert_eq!(
            reply.allow.is_some(),
            matches!(method, "OPTIONS" | "POST"),
            "{method} {target}: {reply:?}"
        );
    }
    for (target, status) in [
        ("/replica?lag=1000000&idle=10s", Y),
        ("/replica?idle=1us", N),
        ("/api/leader-check/418", 418),
    ] {
        let seen = check_status(of_replica, target).await?;
        assert_eq!(seen, status, "{target}");
    }
    let master = ask_check(of_master, "GET", "/primary").await?.body;
    assert_eq!(master["role"], "master");
    let left = master["lease_left_ms"].as_u64();
    assert!(
        left.is_some_and(|left| left > 0 && left <= 3_000),
        "{master}"
    );
    let replica = ask_check(of_replica, "GET", "/primary").await?.body;
    assert_eq!(replica["why"], "the instance is read-only");
    assert_eq!(replica["master"], master["name"]);
    assert_eq!(replica["lease_left_ms"], json!(null));
    Ok(())
}

/// The master's agent stands still for longer than the lease. What it was asked meanwhile it answers when it goes on.
async fn frozen(scene: &Scene, addrs: &[String], table: &mut Table) -> Result<()> {
    let old = scene.master.instance;
    let agent = scene.master_agent();
    agent.freeze().await?;
    let mut questions = JoinSet::new();
    for (place, check) in CHECKS.into_iter().enumerate() {
        let addr = addrs[old].clone();
        questions.spawn(async move { (place, check_reply(&addr, check).await) });
    }
    let heir = scene.set.wait_for_new_master(old, LEASE * 2 + SOON).await?;
    agent.thaw()?;
    let mut row = [0; CHECKS.len()];
    while let Some(answer) = questions.join_next().await {
        let (place, status) = answer.expect("it is not ended");
        row[place] = status?;
    }
    // Whether the loop has turned when a question is answered is a matter of moments; a lease is not.
    assert_eq!((row[0], row[6]), (N, NOT_LEADER), "{row:?}");
    table.add("an agent thawed, asked while it was frozen", &row);
    let state = "an agent thawed, once it has looked";
    table.expect(state, &addrs[old], REPLICA).await?;
    table.expect("its successor", &addrs[heir], MASTER).await
}

/// However long it takes.
async fn check_reply(addr: &str, check: &str) -> Result<u16> {
    Ok(ask_check(addr, "GET", check).await?.status)
}

/// A router that reaches every master, that lacks one, that hangs and that is gone.
#[tokio::test]
async fn a_routers_checks_say_whether_it_can_be_used() {
    story("http-router", async |world, root| {
        let addr = format!("127.0.0.1:{}", world.port()?);
        let options = tarsec_harness::VshardOptions::of(root)
            .weights(&[1])
            .instances(2);
        let shards = Shards::start_with(world, &options.clone(), &[]).await?;
        let router = &shards.cluster.routers[0];
        let agent = &shards.router_agents[0];
        agent.set_env("HTTP_LISTEN", &addr);
        agent.restart().await?;
        let ready: Row = [N, N, N, Y, Y, Y, NOT_LEADER, Y];
        let lacking: Row = [N, N, N, Y, Y, N, NOT_LEADER, Y];
        let gone: Row = [N, N, N, N, Y, N, NOT_LEADER, Y];
        let mut table = Table::default();
        table.expect("a router", &addr, ready).await?;
        router.freeze().await?;
        table.expect("a router that hangs", &addr, gone).await?;
        router.thaw()?;
        table.expect("a router that goes on", &addr, ready).await?;
        for instance in shards.cluster.sets[0].iter() {
            instance.kill().await?;
        }
        let state = "a router without a way to a master";
        table.expect(state, &addr, lacking).await?;
        router.kill().await?;
        table.expect("a router that is dead", &addr, gone).await?;
        table.print();
        Ok(())
    })
    .await;
}

/// An instance whose agent was told that it is a router, and which has none.
#[tokio::test]
async fn an_instance_without_a_router_is_not_ready_as_one() {
    world()
        .story("http-no-router", async |world| {
            let consul = world.consul().await?;
            let set = world.replica_set(1).await?;
            let addr = format!("127.0.0.1:{}", world.port()?);
            let agent = world.agent(&set[0], &consul)?;
            let agent = agent.env("ROLE", "router").env("HTTP_LISTEN", &addr);
            let _agent = agent.start().await?;
            let row: Row = [N, N, N, Y, Y, N, NOT_LEADER, Y];
            let mut table = Table::default();
            eventually(SOON, "the agent to listen", async || {
                check_status(&addr, "/liveness").await
            })
            .await?;
            table.expect("no router", &addr, row).await?;
            let body = ask_check(&addr, "GET", "/readiness").await?.body;
            assert_eq!(
                body["why"],
                "no vshard router is configured in the instance"
            );
            Ok(())
        })
        .await;
}
