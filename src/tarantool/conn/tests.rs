use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use super::*;
use crate::secrets::Secret;
use crate::tarantool::iproto::code;

const SECOND: Duration = Duration::from_secs(1);
/// For what takes moments on an idle machine.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

/// A directory of this test alone.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tarsec-conn-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn unix(path: PathBuf) -> TarantoolConfig {
    TarantoolConfig {
        addr: TarantoolAddr::Unix(path),
        user: None,
        password: Secret::default(),
        control: None,
    }
}

fn tcp(port: u16, user: &str, password: &str) -> TarantoolConfig {
    TarantoolConfig {
        addr: TarantoolAddr::Tcp(format!("localhost:{port}")),
        user: Some(user.to_owned()),
        password: password.into(),
        control: None,
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

const GREETING: &str = "Tarantool 2.6.0 (Binary) 120ec2a5-81a2-42bd-b4f7-0410ea1d6943  \n\
BKTa5L0WKBZ22Xol/7cqxwmdzmNVgAS0jo1g5tAG3pI=                   \n";

/// A connection to a peer that this test plays.
async fn connected(scratch: &Scratch) -> (Connection, tokio::net::UnixStream) {
    let listener = UnixListener::bind(scratch.socket()).unwrap();
    let config = unix(scratch.socket());
    let accept = async {
        let mut peer = listener.accept().await.unwrap().0;
        peer.write_all(GREETING.as_bytes()).await.unwrap();
        peer
    };
    let (connection, peer) = tokio::join!(Connection::open(&config, SECOND), accept);
    (connection.unwrap(), peer)
}

fn ok_reply(sync: u8) -> [u8; 7] {
    [0x06, 0x82, 0x00, 0x00, 0x01, sync, 0x80]
}

async fn read_frame(peer: &mut tokio::net::UnixStream) -> Vec<u8> {
    let mut prefix = [0; 5];
    peer.read_exact(&mut prefix).await.unwrap();
    let mut frame = vec![0; usize::from(prefix[4])];
    peer.read_exact(&mut frame).await.unwrap();
    frame
}

#[tokio::test]
async fn a_late_reply_is_discarded_and_the_next_request_gets_its_own() {
    let scratch = Scratch::new("late");
    let (connection, mut peer) = connected(&scratch).await;
    let late = connection.ping(SHORT).await;
    assert!(
        matches!(late, Err(RequestError::Timeout { .. })),
        "{late:?}"
    );
    read_frame(&mut peer).await;
    peer.write_all(&ok_reply(1)).await.unwrap();
    let answer = async {
        assert_eq!(read_frame(&mut peer).await[4], 2);
        peer.write_all(&ok_reply(2)).await.unwrap();
    };
    let (ping, ()) = tokio::join!(connection.ping(SECOND), answer);
    ping.unwrap();
    assert!(connection.handle.shared.lock().requests.is_empty());
}

#[tokio::test]
async fn replies_may_come_in_another_order() {
    let scratch = Scratch::new("order");
    let (connection, mut peer) = connected(&scratch).await;
    let answer = async {
        read_frame(&mut peer).await;
        read_frame(&mut peer).await;
        let second = [0x0a, 0x82, 0x00, 0x00, 0x01, 2, 0x81, 0x30, 0x92, 22, 0];
        let first = [0x0a, 0x82, 0x00, 0x00, 0x01, 1, 0x81, 0x30, 0x92, 11, 0];
        peer.write_all(&[second, first].concat()).await.unwrap();
    };
    let (first, second, ()) = tokio::join!(
        connection.call::<_, u8>("f", &(), SECOND),
        connection.eval::<_, u8>("e", &(), SECOND),
        answer
    );
    assert_eq!((first.unwrap(), second.unwrap()), (11, 22));
}

#[tokio::test]
async fn the_end_fails_every_waiting_request_at_once() {
    let scratch = Scratch::new("end");
    let (connection, mut peer) = connected(&scratch).await;
    let end = async {
        read_frame(&mut peer).await;
        read_frame(&mut peer).await;
        drop(peer);
    };
    let minute = 60 * SECOND;
    let (one, two, ended, ()) = tokio::join!(
        connection.ping(minute),
        connection.ping(minute),
        connection.closed(),
        end
    );
    for ping in [one, two, connection.ping(minute).await] {
        assert!(
            matches!(ping, Err(RequestError::Closed(Ended::Eof))),
            "{ping:?}"
        );
    }
    assert_eq!((ended, connection.closed().await), (Ended::Eof, Ended::Eof));
}

#[tokio::test]
async fn a_peer_that_drops_what_we_sent_resets() {
    let scratch = Scratch::new("reset");
    let (connection, peer) = connected(&scratch).await;
    drop(connection.ping(SHORT).await);
    drop(peer);
    assert_eq!(connection.closed().await, Ended::Reset);
}

#[tokio::test]
async fn a_broken_frame_ends_the_connection() {
    let scratch = Scratch::new("broken");
    let (connection, mut peer) = connected(&scratch).await;
    peer.write_all(&[0xc1]).await.unwrap();
    let ended = connection.closed().await;
    assert!(matches!(ended, Ended::Broken(_)), "{ended:?}");
    assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn the_last_handle_closes_the_socket() {
    let scratch = Scratch::new("handle");
    let (connection, mut peer) = connected(&scratch).await;
    let clone = connection.clone();
    drop(connection);
    let still_open = tokio::time::timeout(SHORT, peer.read(&mut [0])).await;
    assert!(still_open.is_err());
    drop(clone);
    assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_request_given_up_in_the_queue_is_never_sent() {
    let scratch = Scratch::new("queue");
    let (connection, mut peer) = connected(&scratch).await;
    // More than the socket's buffer holds, so that the writer is stuck on it.
    let large = "x".repeat(4 << 20);
    let stuck = connection.call::<_, ()>("large", &(&large,), SHORT).await;
    assert!(matches!(stuck, Err(RequestError::Timeout { .. })));
    let queued = connection.call::<_, ()>("stale", &(), SHORT).await;
    assert!(matches!(queued, Err(RequestError::Timeout { .. })));
    let fresh = connection.clone();
    // Not to be given up as well, however slow the machine.
    let fresh = tokio::spawn(async move { fresh.call::<_, ()>("fresh", &(), PATIENCE).await });
    let mut seen = Vec::new();
    let mut chunk = vec![0; 1 << 20];
    while !seen.ends_with(b"\xa5fresh\x21\x90") {
        let len = tokio::time::timeout(PATIENCE, peer.read(&mut chunk))
            .await
            .unwrap()
            .unwrap();
        seen.extend_from_slice(&chunk[..len]);
    }
    assert!(!seen.windows(5).any(|window| window == b"stale"));
    fresh.abort();
}

#[tokio::test]
async fn requests_in_flight_are_bounded() {
    let scratch = Scratch::new("bounded");
    let (connection, _peer) = connected(&scratch).await;
    let pings =
        futures_util::future::join_all((0..2 * MAX_IN_FLIGHT).map(|_| connection.ping(SHORT)));
    let most = async {
        tokio::time::sleep(SHORT / 2).await;
        connection.handle.shared.lock().requests.len()
    };
    let (pings, waiting) = tokio::join!(pings, most);
    assert_eq!(waiting, MAX_IN_FLIGHT);
    assert!(
        pings
            .iter()
            .all(|ping| matches!(ping, Err(RequestError::Timeout { .. })))
    );
}

async fn open_against(
    scratch: &Scratch,
    deadline: Duration,
    says: &'static [u8],
    nudged: &'static [u8],
) -> OpenError {
    let listener = UnixListener::bind(scratch.socket()).unwrap();
    let config = unix(scratch.socket());
    let peer = async {
        let mut peer = listener.accept().await.unwrap().0;
        peer.write_all(says).await.unwrap();
        let mut nudge = [0; NUDGE.len()];
        if peer.read_exact(&mut nudge).await.is_ok() {
            peer.write_all(nudged).await.unwrap();
            drop(peer.read(&mut nudge).await);
        }
    };
    tokio::join!(Connection::open(&config, deadline), peer)
        .0
        .unwrap_err()
}

#[tokio::test]
async fn tells_what_is_not_tarantool() {
    let cases: [(&[u8], &[u8], &str); 4] = [
        (b"SSH-2.0-OpenSSH\r\n", b"", r#""SSH-2.0-OpenSSH\r\n""#),
        (
            b"",
            b"-ERR unknown command\r\n",
            r#""-ERR unknown command\r\n""#,
        ),
        (
            b"",
            b"HTTP/1.1 400 Bad Request\r\n",
            r#""HTTP/1.1 400 Bad Request\r\n""#,
        ),
        (b"Tarantool is", b"", r#""Tarantool is""#),
    ];
    for (index, (says, nudged, expected)) in cases.into_iter().enumerate() {
        let scratch = Scratch::new(&format!("stranger{index}"));
        // A busy machine is to have the time to answer a nudge, which comes half-way.
        let error = open_against(&scratch, SECOND * 2, says, nudged).await;
        let OpenError::NotTarantool { found } = error else {
            panic!("{expected}: {error:?}")
        };
        assert_eq!(found, expected);
    }
    let silent = open_against(&Scratch::new("silent"), SHORT, b"", b"").await;
    assert!(
        matches!(
            silent,
            OpenError::Timeout {
                step: Step::Greeting,
                ..
            }
        ),
        "{silent:?}"
    );
}

#[tokio::test]
async fn tells_refused_from_unreachable() {
    let scratch = Scratch::new("refused");
    let open = async |config: TarantoolConfig| Connection::open(&config, SECOND).await.unwrap_err();
    let missing = open(unix(scratch.socket())).await;
    assert!(matches!(missing, OpenError::Unreachable(_)), "{missing:?}");
    drop(UnixListener::bind(scratch.socket()).unwrap());
    let left_behind = open(unix(scratch.socket())).await;
    assert!(
        matches!(left_behind, OpenError::Refused(_)),
        "{left_behind:?}"
    );
    let closed_port = open(tcp(free_port(), "u", "p")).await;
    assert!(
        matches!(closed_port, OpenError::Refused(_)),
        "{closed_port:?}"
    );
}

#[test]
fn one_refusal_among_other_failures_is_no_refusal() {
    let error = |kind: std::io::ErrorKind| std::io::Error::from(kind);
    let verdict =
        |kinds: &[std::io::ErrorKind]| socket::verdict(kinds.iter().copied().map(error).collect());
    use std::io::ErrorKind::{AddrNotAvailable, ConnectionRefused, NetworkUnreachable};
    assert!(matches!(
        verdict(&[AddrNotAvailable, ConnectionRefused]),
        OpenError::Refused(_)
    ));
    assert!(matches!(
        verdict(&[NetworkUnreachable, ConnectionRefused]),
        OpenError::Unreachable(_)
    ));
    assert!(matches!(
        verdict(&[ConnectionRefused, NetworkUnreachable]),
        OpenError::Unreachable(_)
    ));
    assert!(matches!(
        verdict(&[AddrNotAvailable]),
        OpenError::Unreachable(_)
    ));
    assert!(matches!(verdict(&[]), OpenError::Unreachable(_)));
}

/// A real instance; killed when dropped.
struct Tarantool {
    child: Child,
    port: u16,
    _scratch: Scratch,
}

impl Tarantool {
    fn start(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let port = free_port();
        let script = scratch.0.join("init.lua");
        let lua = format!(
            "box.cfg{{listen='127.0.0.1:{port}', wal_mode='none', memtx_memory=32*1024*1024}}
            box.schema.user.create('agent', {{password='secret'}})
            box.schema.user.grant('agent', 'execute', 'universe')
            box.schema.user.create('poor', {{password='secret'}})
            function echo(...) return ... end"
        );
        std::fs::write(&script, lua).unwrap();
        let child = Command::new(tarsec_harness::tarantool())
            .arg(script)
            .current_dir(&scratch.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tarantool is installed by scripts/setup.sh");
        Self {
            child,
            port,
            _scratch: scratch,
        }
    }

    async fn connect(&self) -> Connection {
        let mut last = None;
        for _ in 0..200 {
            match Connection::open(&tcp(self.port, "agent", "secret"), SECOND).await {
                Ok(connection) => return connection,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(SHORT / 5).await;
        }
        panic!("tarantool did not come up: {last:?}");
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Tarantool {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn speaks_with_a_real_tarantool() {
    #[derive(Debug, Deserialize, PartialEq)]
    struct Info {
        ro: bool,
        status: String,
    }
    let tarantool = Tarantool::start("real");
    let connection = tarantool.connect().await;
    assert!(
        connection
            .version()
            .starts_with(|digit: char| digit.is_ascii_digit())
    );
    assert_eq!(connection.peer(), format!("127.0.0.1:{}", tarantool.port));
    connection.ping(SECOND).await.unwrap();
    let info: Info = connection
        .eval(
            "return {ro = box.info.ro, status = box.info.status}, 1",
            &(),
            SECOND,
        )
        .await
        .unwrap();
    assert_eq!(
        info,
        Info {
            ro: false,
            status: "running".to_owned()
        }
    );
    let large = "x".repeat(1 << 20);
    assert_eq!(
        connection
            .call::<_, String>("echo", &(&large,), SECOND)
            .await
            .unwrap(),
        large
    );
    let () = connection.call("echo", &(), SECOND).await.unwrap();
    let mismatch = connection.call::<_, u8>("echo", &("text",), SECOND).await;
    assert!(
        matches!(mismatch, Err(RequestError::Decode { .. })),
        "{mismatch:?}"
    );
    let missing = connection
        .call::<_, ()>("missing", &(), SECOND)
        .await
        .unwrap_err();
    assert_eq!(missing.code(), Some(code::NO_SUCH_PROC));

    let open =
        async |user, password| Connection::open(&tcp(tarantool.port, user, password), SECOND).await;
    let poor = open("poor", "secret").await.unwrap();
    let denied = poor
        .eval::<_, ()>("return 1", &(), SECOND)
        .await
        .unwrap_err();
    assert_eq!(denied.code(), Some(code::ACCESS_DENIED));
    assert_eq!(
        open("agent", "wrong").await.unwrap_err().code(),
        Some(code::PASSWORD_MISMATCH)
    );
    assert!(open("nobody", "x").await.unwrap_err().code().is_some());
}

#[tokio::test]
async fn tells_a_stopped_tarantool_from_a_killed_one() {
    let tarantool = Tarantool::start("killed");
    let connection = tarantool.connect().await;
    // A slow request does not hold up another one.
    let slow = connection.eval::<_, ()>("require('fiber').sleep(60)", &(), 60 * SECOND);
    let slow = async { slow.await.unwrap_err() };
    let stop_and_kill = async {
        connection.ping(SECOND).await.unwrap();
        tarantool.signal(rustix::process::Signal::STOP);
        assert!(matches!(
            connection.ping(SHORT).await,
            Err(RequestError::Timeout { .. })
        ));
        let stopped = Connection::open(&tcp(tarantool.port, "agent", "secret"), SHORT).await;
        assert!(
            matches!(
                stopped,
                Err(OpenError::Timeout {
                    step: Step::Greeting,
                    ..
                })
            ),
            "{stopped:?}"
        );
        tarantool.signal(rustix::process::Signal::KILL);
        connection.closed().await
    };
    let (slow, ended) = tokio::join!(slow, stop_and_kill);
    assert!(matches!(ended, Ended::Eof | Ended::Reset), "{ended:?}");
    assert!(
        matches!(&slow, RequestError::Closed(how) if *how == ended),
        "{slow:?}"
    );
    // A dying process closes its sockets one after another: for a moment the kernel still accepts, and resets.
    for _ in 0..100 {
        match Connection::open(&tcp(tarantool.port, "agent", "secret"), SECOND)
            .await
            .unwrap_err()
        {
            OpenError::Refused(_) => return,
            OpenError::Closed(Ended::Eof | Ended::Reset) => tokio::time::sleep(SHORT / 100).await,
            error @ (OpenError::Unreachable(_)
            | OpenError::Timeout { .. }
            | OpenError::NotTarantool { .. }
            | OpenError::Closed(Ended::Failed(_) | Ended::Broken(_))
            | OpenError::Auth { .. }) => panic!("{error:?}"),
        }
    }
    panic!("somebody still listens");
}
