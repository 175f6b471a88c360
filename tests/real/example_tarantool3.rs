//! docs/TARANTOOL3.md step by step, with its files from examples/tarantool3 on other ports: a cluster whose leader an
//! operator chose becomes one whose master tarsec chooses, without a restart.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tarsec_harness::{Agent, Consul, Process, Result, World, eventually, tarantool};

use crate::support::{SOON, knows_no_declarations, world};

const BEFORE: &str = include_str!("../../examples/tarantool3/before.yaml");
const CLUSTER: &str = include_str!("../../examples/tarantool3/cluster.yaml");
const ENV: &str = include_str!("../../examples/tarantool3/tarsec.env");
const NAMES: [&str; 3] = ["i1", "i2", "i3"];
const LISTENS: [&str; 3] = ["127.0.0.1:3301", "127.0.0.1:3302", "127.0.0.1:3303"];

/// What an instance's console prints for this, as the documentation's `tt connect` shows it.
fn console(dir: &Path, name: &str, lua: &str) -> String {
    let socket = dir.join("var/run").join(name).join("tarantool.control");
    let answer = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(SOON))?;
        let mut greeting = [0; 128];
        stream.read_exact(&mut greeting)?;
        stream.write_all(format!("{lua}\n").as_bytes())?;
        let mut answer = String::new();
        let mut part = [0; 4096];
        while !answer.ends_with("...\n") {
            let read = stream.read(&mut part)?;
            if read == 0 {
                break;
            }
            answer.push_str(&String::from_utf8_lossy(&part[..read]));
        }
        Ok(answer)
    };
    answer().unwrap_or_else(|error: std::io::Error| format!("{name}: {error}"))
}

async fn until_console(dir: &Path, name: &str, lua: &str, wanted: &str) -> Result<()> {
    eventually(SOON, &format!("{wanted} at {name}"), async || {
        let answer = console(dir, name, lua);
        if answer == format!("---\n{wanted}...\n\n") || answer == format!("---\n{wanted}...\n") {
            Ok(())
        } else {
            Err(answer)
        }
    })
    .await
}

/// The instances whose console says that they are writable.
fn writable(dir: &Path) -> Vec<&'static str> {
    let asked = NAMES.into_iter();
    asked
        .filter(|name| console(dir, name, "return box.info.ro").contains("false"))
        .collect()
}

async fn wait_for_master(dir: &Path, not: Option<&str>) -> Result<&'static str> {
    eventually(SOON, "one other master", async || {
        match writable(dir).as_slice() {
            [one] if Some(*one) != not => Ok(*one),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Three addresses in the place of the documentation's.
fn addresses(world: &World) -> Result<Vec<String>> {
    let ports = LISTENS.iter().map(|_| world.port());
    ports
        .map(|port| port.map(|port| format!("127.0.0.1:{port}")))
        .collect()
}

fn elsewhere(text: &str, addrs: &[String]) -> String {
    let pairs = LISTENS.iter().zip(addrs);
    pairs.fold(text.to_owned(), |text, (listen, addr)| {
        text.replace(listen, addr)
    })
}

/// `tarsec.env`, and for each agent its instance's address.
async fn agent(world: &World, consul: &Consul, name: &str, addr: &str) -> Result<Agent> {
    let mut agent = world.bare_agent(&format!("agent-{name}"))?;
    for line in ENV.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.split_once('=').expect("name=value");
        agent = agent.env(name, value);
    }
    agent
        .env("CLUSTER_NAME", world.cluster())
        .env("CONSUL_HTTP_ADDR", &consul.agent_addr(0))
        .env("TARANTOOL_ADDR", addr)
        .start()
        .await
}

/// Repeats the command until it ends with this code and says that.
async fn wait_for(
    world: &World,
    consul: &Consul,
    args: &[&str],
    words: &str,
    code: i32,
) -> Result<()> {
    eventually(Duration::from_secs(40), words, async || {
        let said = world.command(consul, args);
        let said = async { said?.run(SOON).await }.await;
        let said = said.map_err(|error| error.to_string())?;
        if said.code == Some(code) && said.stdout.contains(words) {
            Ok(())
        } else {
            Err(format!("{:?} {}", said.code, said.stdout))
        }
    })
    .await
}

#[tokio::test]
async fn a_cluster_whose_leader_somebody_chose_becomes_tarsecs_without_a_restart() {
    if knows_no_declarations(
        "a_cluster_whose_leader_somebody_chose_becomes_tarsecs_without_a_restart",
    ) {
        return;
    }
    let story = async |world: &World| {
        let addrs = addresses(world)?;
        let dir = world.dir();
        // In one piece, as editors do: an instance may read it at any moment.
        let put = |text: &str| {
            let new = dir.join("cluster.new");
            let written = std::fs::write(&new, elsewhere(text, &addrs));
            written
                .and_then(|()| std::fs::rename(&new, dir.join("cluster.yaml")))
                .expect("the world's folder can be written");
        };
        put(BEFORE);
        let start = |name: &str| {
            world.spawn(
                name,
                tarantool(),
                &["--name", name, "--config", "cluster.yaml"],
            )
        };
        let mut instances: Vec<Process> = Vec::new();
        for name in NAMES {
            instances.push(start(name)?);
        }
        for name in NAMES {
            let ready = "return box.info.status, require('config'):info().status";
            until_console(dir, name, ready, "- running\n- ready\n").await?;
        }
        assert_eq!(writable(dir), ["i1"]);

        // 1. The configuration.
        put(CLUSTER);
        for name in NAMES {
            let reload = "require('config'):reload() return require('config'):info().status";
            until_console(dir, name, reload, "- ready\n").await?;
        }
        assert_eq!(writable(dir), ["i1"], "a reload changes nothing about that");

        // 2. The agents.
        let consul = world.consul().await?;
        let mut agents = Vec::new();
        for (name, addr) in NAMES.iter().zip(&addrs) {
            agents.push(agent(world, &consul, name, addr).await?);
        }
        wait_for(world, &consul, &["status"], "MASTER", 0).await?;
        let first = wait_for_master(dir, None).await?;

        // 3. A crash, and back.
        let dead = NAMES.iter().position(|name| *name == first).unwrap_or(0);
        instances[dead].kill().await?;
        let second = wait_for_master(dir, Some(first)).await?;
        wait_for(world, &consul, &["history"], "crash", 0).await?;
        instances[dead].start()?;
        until_console(
            dir,
            first,
            "return box.info.status, box.info.ro",
            "- running\n- true\n",
        )
        .await?;
        wait_for(world, &consul, &["status"], "MASTER", 0).await?;

        // 4. By order.
        // Refused until another member replicates from it again.
        let order = ["switchover", "--yes", "--to", &addrs[dead]];
        wait_for(world, &consul, &order, "is master", 0).await?;
        assert_eq!(wait_for_master(dir, Some(second)).await?, first);
        for name in NAMES {
            let alerts = "return #require('config'):info().alerts";
            until_console(dir, name, alerts, "- 0\n").await?;
        }
        Ok(())
    };
    world().story("example-tarantool3", story).await;
}
