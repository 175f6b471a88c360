//! The harness against real processes: what the stories rest on.
#![allow(clippy::disallowed_methods, reason = "tests measure real time")]

use std::time::{Duration, Instant};

use tarsec_harness::{
    Connection, ConsulOptions, Error, Fault, Instance, ReplicaSetOptions, World, eventually, json,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(5);
/// For starts on a busy machine; a peer for which they must not wait would take 30 s.
const START: Duration = Duration::from_secs(20);

async fn wait_for_row(instance: &Instance) -> Result<(), Error> {
    eventually(SOON, "the row to arrive", async || {
        match instance.journal_len().await {
            Ok(1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn a_replica_set_is_born_read_only_and_survives_the_loss_of_a_disk() {
    World::builder()
        .story("birth", async |world| {
            let started = Instant::now();
            let set = world.replica_set(3).await?;
            assert!(started.elapsed() < START, "took {:?}", started.elapsed());
            set.wait_for_no_master(SOON).await?;

            set[1].set_writable(true).await?;
            assert_eq!(set.wait_for_master(SOON).await?, 1);
            set[1].eval("journal_write('hand', 1)", &[]).await?;
            // Acknowledged by the disk of one alone, the row is lost with it.
            wait_for_row(&set[2]).await?;
            set[1].kill().await?;

            // The instance on which the set was born joins it again, while no member is writable.
            set[0].kill().await?;
            set[0].wipe(world)?;
            let started = Instant::now();
            set[0].start().await?;
            assert!(started.elapsed() < START, "took {:?}", started.elapsed());
            assert_eq!(set[0].journal_len().await?, 1);
            let born = set[0]
                .eval("return box.info.cluster.uuid, box.info.uuid", &[])
                .await?;
            assert_eq!(born, [json!(set.uuid()), json!(set[0].uuid())]);

            // A restart does not wait for a dead peer.
            let started = Instant::now();
            set[2].restart().await?;
            assert!(started.elapsed() < START, "took {:?}", started.elapsed());
            set.start_all().await?;
            set.wait_for_no_master(SOON).await
        })
        .await;
}

#[tokio::test]
async fn the_agents_user_may_evaluate_and_not_write() {
    World::builder()
        .story("grants", async |world| {
            let set = world.replica_set(1).await?;
            set[0].set_writable(true).await?;
            let mut agent = Connection::open(set[0].addr(), &Instance::agent_login(), SOON).await?;
            assert_eq!(
                agent.eval("return box.info.ro", &[], SOON).await?,
                [json!(false)]
            );
            let refused = agent
                .eval("box.space.journal:insert{'agent', 1, '', 0}", &[], SOON)
                .await;
            assert!(
                matches!(refused, Err(Error::Refused { code: 42, .. })),
                "{refused:?}"
            );
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_frozen_instance_is_silent_and_wakes_up() {
    World::builder()
        .story("freeze", async |world| {
            let set = world.replica_set(1).await?;
            let mut connection = set[0].connect().await?;
            set[0].freeze().await?;
            let asked = connection
                .eval("return 1", &[], Duration::from_millis(100))
                .await;
            assert!(matches!(asked, Err(Error::Timeout { .. })), "{asked:?}");
            set[0].thaw()?;
            assert_eq!(connection.eval("return 2", &[], SOON).await?, [json!(2)]);
            set[0].stop().await?;
            assert!(set[0].thaw().is_err());
            assert!(
                world.explain().contains("a0 ended: exit code 0"),
                "{}",
                world.explain()
            );
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn keys_and_sessions_survive_a_crash_of_consul() {
    World::builder()
        .story("consul", async |world| {
            let consul = world.consul().await?;
            let api = consul.api()?;
            let body = json!({"TTL": "10s", "LockDelay": "0s", "NodeChecks": []}).to_string();
            let session = api.call("PUT", "/v1/session/create", Some(body)).await?;
            let id = session["ID"].as_str().unwrap_or_default().to_owned();
            api.call(
                "PUT",
                &format!("/v1/kv/lock?acquire={id}"),
                Some("mine".to_owned()),
            )
            .await?;

            let started = Instant::now();
            consul.restart().await?;
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "took {:?}",
                started.elapsed()
            );
            let lock = api.kv("lock").await?.expect("the key is there");
            assert_eq!(
                (lock.value.as_str(), lock.session.as_deref()),
                ("mine", Some(id.as_str()))
            );

            api.destroy_session(&id).await?;
            assert_eq!(
                api.kv("lock").await?.expect("the key is there").session,
                None
            );
            api.kv_delete("lock").await?;
            assert_eq!(api.kv("lock").await?, None);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn three_servers_with_acl_and_tls_elect_a_leader_again() {
    World::builder()
        .story("servers", async |world| {
            let options = ConsulOptions::default().servers(3).acl().mutual_tls();
            let consul = world.consul_with(options).await?;
            consul.api()?.kv_put("key", "value").await?;
            let reader = consul
                .api()?
                .create_token("reader", "key_prefix \"\" { policy = \"read\" }")
                .await?;
            let limited = consul.api()?.with_token(&reader.secret);
            assert!(matches!(
                limited.kv_put("key", "other").await,
                Err(Error::HttpStatus { status: 403, .. })
            ));

            let dead = consul.kill_leader().await?;
            eventually(
                Duration::from_secs(15),
                "another leader",
                async || match consul.leader().await.map_err(|error| error.to_string())? {
                    Some(leader) if leader != dead => Ok(()),
                    other => Err(format!("leader {other:?}")),
                },
            )
            .await?;
            consul.start_all().await?;
            assert_eq!(
                consul.servers()[dead]
                    .api()
                    .kv("key")
                    .await?
                    .expect("there")
                    .value,
                "value"
            );
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn an_agent_is_configured_signalled_and_read() {
    let script = r#"#!/bin/sh
trap 'printf "{\n\"lease\": \"%s\"}\n" "$MASTER_LEASE"' USR1
trap 'echo "{\"consul\": \"$CONSUL_HTTP_ADDR\"}"' USR2
trap 'exit 3' TERM
echo '{"timestamp":"t","level":"INFO","fields":{"message":"role changed","to":"master"}}' >&2
while :; do sleep 0.01; done
"#;
    let path = std::env::temp_dir().join(format!("tarsec-fake-agent-{}.sh", std::process::id()));
    std::fs::write(&path, script).expect("the script can be written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("the script can be made executable");
    World::builder()
        .agent_binary(&path)
        .story("agent", async |world| {
            let consul = world.consul().await?;
            let set = world.replica_set(1).await?;
            let agents = world
                .agents_with(&set, &consul, |_, agent| {
                    agent.linked().env("MASTER_LEASE", "4s")
                })
                .await?;
            let agent = &agents[0];
            let line = agent
                .wait_for_log(SOON, "the role", 0, |line| line.message() == "role changed")
                .await?;
            assert_eq!((line.level(), line.field("to")), ("INFO", &json!("master")));
            assert_eq!(agent.usr1().await?, json!({"lease": "4s"}));
            let link = agent.consul_link().expect("it is linked").addr();
            assert_eq!(agent.usr2().await?, json!({"consul": link}));
            assert_eq!(agent.term(SOON).await?.code(), Some(3));
            Ok(())
        })
        .await;
    std::fs::remove_file(path).expect("the script can be removed");
}

#[tokio::test]
async fn a_link_passes_cuts_stalls_delays_and_heals() {
    World::builder()
        .story("link", async |world| {
            let echo = TcpListener::bind("127.0.0.1:0")
                .await
                .expect("a port is free");
            let target = echo.local_addr().expect("it is bound").to_string();
            tokio::spawn(async move {
                while let Ok((mut socket, _)) = echo.accept().await {
                    tokio::spawn(async move {
                        let (mut read, mut write) = socket.split();
                        tokio::io::copy(&mut read, &mut write).await
                    });
                }
            });
            let link = world.proxy(&target).await?;
            let mut socket = TcpStream::connect(link.addr())
                .await
                .expect("the link listens");
            assert_eq!(echoed(&mut socket, 1000).await, Ok(()));

            link.delay(Duration::from_millis(60)).await?;
            let started = Instant::now();
            assert_eq!(echoed(&mut socket, 1000).await, Ok(()));
            assert!(
                started.elapsed() >= Duration::from_millis(120),
                "{:?}",
                started.elapsed()
            );

            link.black_hole().await?;
            assert_eq!(echoed(&mut socket, 100).await, Err("silence".to_owned()));
            let mut second = TcpStream::connect(link.addr())
                .await
                .expect("a black hole accepts");
            assert_eq!(echoed(&mut second, 100).await, Err("silence".to_owned()));
            link.restore().await?;
            let mut late = [0; 4];
            socket
                .read_exact(&mut late)
                .await
                .expect("what was held back arrives");
            second
                .read_exact(&mut late)
                .await
                .expect("what was held back arrives");

            link.cut().await?;
            assert_eq!(
                echoed(&mut socket, 1000).await,
                Err("ConnectionReset".to_owned())
            );
            let refused = TcpStream::connect(link.addr())
                .await
                .map_err(|error| error.kind());
            assert!(
                matches!(refused, Err(std::io::ErrorKind::ConnectionRefused)),
                "{refused:?}"
            );
            link.restore().await?;
            let mut socket = TcpStream::connect(link.addr())
                .await
                .expect("the link is back");
            assert_eq!(echoed(&mut socket, 1000).await, Ok(()));
            Ok(())
        })
        .await;
}

async fn echoed(socket: &mut TcpStream, deadline_ms: u64) -> Result<(), String> {
    let exchange = async {
        socket.write_all(b"echo").await?;
        socket.read_exact(&mut [0; 4]).await
    };
    match tokio::time::timeout(Duration::from_millis(deadline_ms), exchange).await {
        Err(_) => Err("silence".to_owned()),
        Ok(Err(error)) => Err(format!("{:?}", error.kind())),
        Ok(Ok(_)) => Ok(()),
    }
}

#[tokio::test]
async fn replication_can_be_broken_one_way() {
    World::builder()
        .story("split", async |world| {
            let set = world
                .replica_set_with(ReplicaSetOptions::of(2).linked())
                .await?;
            let link = set.link(1, 0).expect("the set is linked");
            set[0].set_writable(true).await?;
            link.black_hole().await?;
            set[0].eval("journal_write('hand', 1)", &[]).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(
                (set[0].journal_len().await?, set[1].journal_len().await?),
                (1, 0)
            );
            link.restore().await?;
            wait_for_row(&set[1]).await
        })
        .await;
}

#[tokio::test]
async fn a_lost_reply_is_not_a_lost_request() {
    World::builder()
        .story("mute", async |world| {
            let set = world.replica_set(1).await?;
            set[0].set_writable(true).await?;
            let link = world.proxy(set[0].addr()).await?;
            let mut connection = Connection::open(link.addr(), &Instance::login(), SOON).await?;
            link.set(Fault::MuteReplies).await?;
            let answer = connection
                .eval("journal_write('hand', 1)", &[], Duration::from_millis(200))
                .await;
            assert!(matches!(answer, Err(Error::Timeout { .. })), "{answer:?}");
            assert_eq!(set[0].journal_len().await?, 1);
            Ok(())
        })
        .await;
}

/// Not a test of its own: the process that the next one kills.
#[tokio::test]
#[ignore = "run by processes_end_with_the_test_that_started_them"]
async fn starts_a_process_and_aborts() {
    let world = World::builder()
        .start("doomed")
        .expect("a world can be made");
    // In a thread that ends at once, which must not take the process with it.
    let pid = std::thread::scope(|scope| {
        let start = || {
            world
                .spawn("sleeper", "sleep", &["1000"])
                .expect("sleep can be started")
                .pid()
        };
        scope
            .spawn(start)
            .join()
            .expect("it does not panic")
            .expect("it runs")
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let alive = std::path::Path::new(&format!("/proc/{pid}")).exists();
    let report = std::env::var("DOOMED_REPORT").expect("the file to report to is given");
    std::fs::write(report, format!("{pid} {alive} {}", world.dir().display()))
        .expect("it can be written");
    std::process::abort();
}

#[tokio::test]
async fn processes_end_with_the_test_that_started_them() {
    let report = std::env::temp_dir().join(format!("tarsec-doomed-{}", std::process::id()));
    let status = std::process::Command::new(std::env::current_exe().expect("we have a path"))
        .args(["--ignored", "--exact", "starts_a_process_and_aborts"])
        .env("DOOMED_REPORT", &report)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .expect("we can be run");
    assert!(!status.success());
    let text = std::fs::read_to_string(&report).expect("it reported");
    std::fs::remove_file(report).expect("the report can be removed");
    let [pid, alive, dir] = text.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{text}")
    };
    assert_eq!(alive, "true");
    eventually(SOON, "the process to be gone", async || {
        // The process that inherits it may take its time to reap it.
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) if !stat.contains(") Z ") => Err(stat),
            _ => Ok(()),
        }
    })
    .await
    .expect("it ends with its parent");
    std::fs::remove_dir_all(dir).expect("the world can be removed");
}

#[tokio::test]
async fn a_consul_in_memory_leads_and_leaves_nothing_on_disk() {
    World::builder()
        .story("in-memory", async |world| {
            let consul = world
                .consul_with(ConsulOptions::default().in_memory())
                .await?;
            consul.api()?.kv_put("a", "1").await?;
            assert!(!world.dir().join("consul0.data").join("raft").exists());
            consul.restart().await?;
            assert_eq!(consul.api()?.kv("a").await?, None);
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn a_link_counts_the_requests_to_consul() {
    World::builder()
        .story("counting", async |world| {
            let consul = world.consul().await?;
            let link = world.proxy(&consul.agent_addr(0)).await?;
            let client = reqwest::Client::new();
            for _ in 0..3 {
                let url = format!("http://{}/v1/kv/some/key", link.addr());
                let stored = client.put(url).body("{\"a\": 1}").send().await;
                assert!(stored.is_ok_and(|answer| answer.status().is_success()));
            }
            let counted = link.http_requests();
            assert_eq!(counted, [("PUT /v1/kv".to_owned(), 3)].into());
            Ok(())
        })
        .await;
}
