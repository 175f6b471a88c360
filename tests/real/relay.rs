//! A listener that is not the member it is taken for. It passes the real instance's greeting on, so that a login which a
//! client makes for it is a login there (chap-sha1 binds no channel), and then evaluates what it likes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tarsec_harness::{Instance, Result, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

const GREETING: usize = 128;
/// `IPROTO_AUTH`.
const AUTH: u8 = 7;
/// A frame here is small: a login, or a question before it.
const MAX_FRAME: usize = 1 << 16;

const EVALUATED: &str = "rawset(_G, 'relayed', true)";

#[derive(Debug, Clone, Default)]
struct Counts {
    connections: Arc<AtomicUsize>,
    logins: Arc<AtomicUsize>,
}

/// It listens for as long as its story runs.
#[derive(Debug)]
pub(crate) struct Relay {
    addr: String,
    counts: Counts,
}

impl Relay {
    /// In front of that instance.
    pub(crate) async fn start(target: &Instance) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("it listens");
        let counts = Counts::default();
        tokio::spawn(listen(listener, target.addr().to_owned(), counts.clone()));
        Self {
            addr: addr.to_string(),
            counts,
        }
    }

    pub(crate) fn addr(&self) -> &str {
        &self.addr
    }

    /// Nobody came, nobody logged in, and nothing was evaluated.
    pub(crate) async fn assert_untouched(&self, target: &Instance) -> Result<()> {
        let connections = self.counts.connections.load(Ordering::SeqCst);
        let logins = self.counts.logins.load(Ordering::SeqCst);
        let relayed = target.eval("return rawget(_G, 'relayed') == true", &[]);
        let relayed = relayed.await?;
        assert_eq!(
            (connections, logins, relayed),
            (0, 0, vec![json!(false)]),
            "connections and logins at the relay, and whether it evaluated its code in the instance"
        );
        Ok(())
    }
}

async fn listen(listener: TcpListener, target: String, counts: Counts) {
    while let Ok((client, _)) = listener.accept().await {
        counts.connections.fetch_add(1, Ordering::SeqCst);
        let (target, counts) = (target.clone(), counts.clone());
        tokio::spawn(async move {
            // Either side may end it.
            let _ = relay(client, &target, &counts).await;
        });
    }
}

async fn relay(mut client: TcpStream, target: &str, counts: &Counts) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    let mut greeting = [0; GREETING];
    server.read_exact(&mut greeting).await?;
    client.write_all(&greeting).await?;
    loop {
        let request = frame(&mut client).await?;
        server.write_all(&request).await?;
        let reply = frame(&mut server).await?;
        client.write_all(&reply).await?;
        if is_login(&request) {
            break;
        }
    }
    counts.logins.fetch_add(1, Ordering::SeqCst);
    server.write_all(&evaluate()).await?;
    frame(&mut server).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// With its length before it: a MessagePack number of up to 32 bits.
async fn frame(from: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let first = from.read_u8().await?;
    let (mut whole, length) = match first {
        0xce => {
            let length = from.read_u32().await?;
            ([&[first][..], &length.to_be_bytes()].concat(), length)
        }
        0xcd => {
            let length = from.read_u16().await?;
            (
                [&[first][..], &length.to_be_bytes()].concat(),
                length.into(),
            )
        }
        0xcc => {
            let length = from.read_u8().await?;
            (vec![first, length], length.into())
        }
        small => (vec![small], small.into()),
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    whole.extend(body);
    Ok(whole)
}

/// Whether the header says `{IPROTO_REQUEST_TYPE (0): IPROTO_AUTH, …}`.
fn is_login(frame: &[u8]) -> bool {
    let header = match frame.first() {
        Some(0xce) => 5,
        Some(0xcd) => 3,
        Some(0xcc) => 2,
        Some(_) | None => 1,
    };
    let map = frame.get(header..).unwrap_or_default();
    let pairs = map.first().map_or(0, |map| map & 0x0f);
    let small = (0..usize::from(pairs)).map(|pair| map.get(1 + pair * 2..3 + pair * 2));
    small.flatten().any(|pair| pair == [0, AUTH])
}

/// `{IPROTO_REQUEST_TYPE: IPROTO_EVAL, IPROTO_SYNC: 1000}` and `{IPROTO_EXPR: …, IPROTO_TUPLE: []}`.
fn evaluate() -> Vec<u8> {
    let length = u8::try_from(EVALUATED.len()).unwrap_or(u8::MAX);
    let mut body = vec![0x82, 0x00, 0x08, 0x01, 0xcd, 0x03, 0xe8];
    body.extend([0x82, 0x27, 0xd9, length]);
    body.extend(EVALUATED.as_bytes());
    body.extend([0x21, 0x90]);
    let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&[0xce][..], &size.to_be_bytes(), &body].concat()
}
