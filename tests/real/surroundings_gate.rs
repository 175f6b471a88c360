//! A reverse proxy in front of Consul that reads what passes: each request, with what it asks for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tarsec_harness::{Result, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Which requests the gate lets pass, and how.
#[derive(Clone, Default)]
pub(crate) struct Rules {
    /// The `Authorization` that every request must carry.
    pub(crate) authorization: Option<String>,
    /// A query parameter that is taken out before Consul sees it.
    pub(crate) swallowed: Option<String>,
    /// After how long a request that Consul holds is ended, and how.
    pub(crate) ends: Option<(Duration, Ended)>,
    /// Nothing that Consul is asked to hold reaches it, and this is the answer.
    pub(crate) holds_nothing: Option<u16>,
    /// While it is set, no request reaches Consul, and each is answered with 429 and this `Retry-After`.
    pub(crate) throttle: Arc<Mutex<Option<String>>>,
}

/// How a proxy ends a request that is held too long for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The connection is closed.
    Closed,
    /// Not at all: the client waits for as long as it likes.
    Swallowed,
    /// With this status of its own.
    Answered(u16),
}

/// One request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Method, path and query.
    pub(crate) line: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: String,
    /// It was answered with 429.
    pub(crate) throttled: bool,
}

/// A running gate.
pub(crate) struct Gate {
    pub(crate) addr: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Gate {
    /// Listens, and leads to `consul` (`host:port`).
    pub(crate) async fn start(world: &World, consul: &str, rules: Rules) -> Result<Self> {
        let addr = format!("127.0.0.1:{}", world.port()?);
        let listener = TcpListener::bind(&addr)
            .await
            .expect("a reserved port is free");
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, consul) = (Arc::clone(&asked), consul.to_owned());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, consul, rules) = (Arc::clone(&log), consul.clone(), rules.clone());
                tokio::spawn(async move {
                    // A client that hangs up, as agents do at their end, is no failure.
                    let _ = pass(stream, &consul, &rules, &log).await;
                });
            }
        });
        Ok(Self { addr, asked })
    }

    /// Every request so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no request panics").clone()
    }
}

/// One request, one answer: Consul is told to close the connection, so that its end is the answer's end.
async fn pass(
    mut client: TcpStream,
    consul: &str,
    rules: &Rules,
    log: &Mutex<Vec<Asked>>,
) -> std::io::Result<()> {
    let Some((head, body)) = request(&mut client).await? else {
        return Ok(());
    };
    let mut lines = head.lines();
    let line = lines.next().unwrap_or_default().to_owned();
    let header = |name: &str| {
        let found = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        let mut found = found.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.to_owned())
    };
    let authorization = header("authorization");
    let allowed = rules.authorization.is_none() || rules.authorization == authorization;
    let throttle = rules.throttle.lock().expect("no request panics").clone();
    log.lock().expect("no request panics").push(Asked {
        throttled: throttle.is_some(),
        line: line.clone(),
        authorization,
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    if !allowed {
        let answer = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 15\r\nConnection: close\r\n\r\nWho goes there?";
        return client.write_all(answer.as_bytes()).await;
    }
    if let Some(after) = throttle {
        let answer = format!(
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: {after}\r\nContent-Length: 8\r\nConnection: close\r\n\r\nToo many"
        );
        return client.write_all(answer.as_bytes()).await;
    }
    if let Some(code) = rules.holds_nothing
        && line.contains("&wait=")
    {
        return client.write_all(too_late(code).as_bytes()).await;
    }
    let mut line = line;
    if let Some(swallowed) = &rules.swallowed {
        line = line
            .replace(&format!("&{swallowed}"), "")
            .replace(&format!("?{swallowed}"), "");
    }
    let mut forwarded = format!("{line}\r\nConnection: close\r\n");
    for kept in lines.filter(|line| !line.to_ascii_lowercase().starts_with("connection:")) {
        forwarded.push_str(&format!("{kept}\r\n"));
    }
    forwarded.push_str("\r\n");
    let mut server = TcpStream::connect(consul).await?;
    server.write_all(forwarded.as_bytes()).await?;
    server.write_all(&body).await?;
    if let Some((after, how)) = rules.ends.filter(|_| forwarded.contains("&index="))
        && tokio::time::timeout(after, server.readable())
            .await
            .is_err()
    {
        match how {
            Ended::Answered(code) => client.write_all(too_late(code).as_bytes()).await?,
            Ended::Closed => {}
            Ended::Swallowed => {
                client.read_buf(&mut Vec::new()).await?;
            }
        }
        return client.shutdown().await;
    }
    tokio::io::copy(&mut server, &mut client).await?;
    client.shutdown().await
}

fn too_late(code: u16) -> String {
    format!("HTTP/1.1 {code} Too Late\r\nContent-Length: 8\r\nConnection: close\r\n\r\nToo late")
}

/// Head, without its empty line, and body.
async fn request(client: &mut TcpStream) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
            break end;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut body = bytes.split_off(end + 4);
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse::<usize>().ok())?
    });
    while body.len() < length.unwrap_or(0) {
        if client.read_buf(&mut body).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some((head, body)))
}
