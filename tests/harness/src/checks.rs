//! HTTP checks, as load balancers ask them: one at a time, or many a second, each noted with its times.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::error::{Error, Result};
use crate::process::lock;
use crate::world::World;

/// A check that is answered at all is answered from memory; this is for a machine that has other things to do.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections to each agent.
const CONNECTIONS: u32 = 8;
/// After a connection that was refused.
const RETRY: Duration = Duration::from_millis(20);

/// What an agent answered.
#[derive(Debug, Clone)]
pub struct CheckReply {
    /// The status.
    pub status: u16,
    /// `Allow`, where it was sent.
    pub allow: Option<String>,
    /// The body; `Null` where it is none or no JSON.
    pub body: Value,
}

/// Asks one question over a connection of its own, however long the answer takes.
///
/// # Errors
/// When there is no connection, or it ends before the answer does.
pub async fn ask_check(addr: &str, method: &str, target: &str) -> Result<CheckReply> {
    let what = || format!("ask {method} {target} of {addr}");
    exchange(addr, method, target)
        .await
        .map_err(Error::io(what()))
}

/// The status of a check by GET.
///
/// # Errors
/// As [`ask_check`], and when there is no answer in ten seconds.
pub async fn check_status(addr: &str, target: &str) -> Result<u16> {
    match timeout(ANSWER_TIMEOUT, ask_check(addr, "GET", target)).await {
        Ok(reply) => Ok(reply?.status),
        Err(_) => Err(Error::Timeout {
            what: format!("an answer of {addr} to {target}"),
            waited: ANSWER_TIMEOUT,
            last: "nothing".to_owned(),
        }),
    }
}

async fn exchange(addr: &str, method: &str, target: &str) -> io::Result<CheckReply> {
    let mut client = Client::connect(addr).await?;
    client.send(method, target).await?;
    client.receive(method).await
}

/// A connection that is kept.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    async fn connect(addr: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    async fn send(&mut self, method: &str, target: &str) -> io::Result<()> {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: check\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await
    }

    async fn receive(&mut self, method: &str) -> io::Result<CheckReply> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.trim_end().is_empty() {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let header = |name: &str| {
            let lines = head.iter().filter_map(|line| line.split_once(": "));
            let mut found = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
            found.next().map(|(_, value)| value.to_owned())
        };
        let status = head
            .first()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        let length = header("content-length").and_then(|it| it.parse().ok());
        let mut body = vec![0; length.filter(|_| method != "HEAD").unwrap_or(0)];
        self.stream.read_exact(&mut body).await?;
        Ok(CheckReply {
            status,
            allow: header("allow"),
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        })
    }
}

/// One question and its answer.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Which agent was asked, by its place.
    pub agent: usize,
    /// Before it was sent.
    pub sent: Instant,
    /// After it was answered.
    pub answered: Instant,
    /// The answer's status.
    pub status: u16,
    /// The term in its body, 0 where there is none.
    pub term: u64,
}

/// Asks several agents the same, so many times a second all told, until it is stopped. A question is waited for as long as
/// its connection lives: what a frozen agent answers when it wakes up is seen, too.
#[derive(Debug)]
pub struct Prober {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Prober {
    /// Begins to ask.
    #[must_use]
    pub fn start(world: &World, addrs: &[String], target: &str, per_second: u32) -> Self {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let clients = u32::try_from(addrs.len()).unwrap_or(1).max(1) * CONNECTIONS;
        let pitch = Duration::from_secs(1) * clients / per_second.max(1);
        let handle = &world.shared().handle;
        for (agent, addr) in addrs.iter().enumerate() {
            for _ in 0..CONNECTIONS {
                let (addr, target) = (addr.clone(), target.to_owned());
                let (seen, mut stopped) = (Arc::clone(&seen), stopped.clone());
                tasks.spawn_on(
                    async move {
                        let stops = stopped.wait_for(|stopped| *stopped);
                        tokio::select! {
                            _ = stops => {}
                            () = probe(agent, &addr, &target, pitch, &seen) => {}
                        }
                    },
                    handle,
                );
            }
        }
        Self { seen, stop, tasks }
    }

    /// Stops, and says what was seen, in the order of the answers.
    pub async fn stop(mut self) -> Vec<Seen> {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        let mut seen = std::mem::take(&mut *lock(&self.seen));
        seen.sort_by_key(|seen| seen.answered);
        seen
    }
}

/// For ever, over one connection after the other.
async fn probe(agent: usize, addr: &str, target: &str, pitch: Duration, seen: &Mutex<Vec<Seen>>) {
    let mut ticks = interval(pitch);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let Ok(mut client) = Client::connect(addr).await else {
            sleep(RETRY).await;
            continue;
        };
        loop {
            ticks.tick().await;
            let sent = Instant::now();
            let sending = client.send("GET", target).await;
            let Ok(reply) = (match sending {
                Ok(()) => client.receive("GET").await,
                Err(error) => Err(error),
            }) else {
                break;
            };
            lock(seen).push(Seen {
                agent,
                sent,
                answered: Instant::now(),
                status: reply.status,
                term: reply.body["term"].as_u64().unwrap_or(0),
            });
        }
    }
}
