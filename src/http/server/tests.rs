use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;
use crate::clock::Clock;
use crate::config::HttpTls;
use crate::consul::testing::make_certificates;

/// For what takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(20);

/// A server in this test's runtime, with an agent behind it that has just started.
fn start(tls: Option<Tls>, patience: Duration) -> SocketAddr {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap();
    drop(free);
    let lease = Duration::from_secs(3600);
    let shown = Shown::new(Clock::start(), "test".to_owned(), lease);
    let server = Server {
        listen,
        tls,
        patience,
        shown: Arc::new(shown),
    };
    tokio::spawn(server.run());
    listen
}

async fn connect(addr: SocketAddr) -> TcpStream {
    loop {
        match TcpStream::connect(addr).await {
            Ok(stream) => return stream,
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// All that comes until the connection ends, however it ends.
async fn rest(mut stream: impl AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = timeout(SOON, stream.read(&mut buffer)).await.unwrap() {
        text.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

const QUESTION: &str = "GET /liveness HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";

async fn ask(addr: SocketAddr) -> String {
    let mut stream = connect(addr).await;
    stream.write_all(QUESTION.as_bytes()).await.unwrap();
    rest(stream).await
}

#[tokio::test]
async fn clients_that_hold_connections_and_ask_nothing_keep_nobody_out() {
    let addr = start(None, SOON);
    let mut slow = Vec::new();
    for _ in 0..CONNECTIONS + 40 {
        let mut stream = connect(addr).await;
        stream.write_all(b"GET /li").await.unwrap();
        slow.push(stream);
        let reply = ask(addr).await;
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    }
    // The first to come were the first to go; the last of them is still waited for.
    let last = slow.pop().unwrap();
    for stream in slow.into_iter().take(40) {
        assert_eq!(rest(stream).await, "");
    }
    let mut last = last;
    last.write_all(&QUESTION.as_bytes()[7..]).await.unwrap();
    assert!(rest(last).await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn a_connection_that_asks_nothing_ends_however_slowly_it_sends() {
    let patience = Duration::from_millis(200);
    let addr = start(None, patience);
    let mut slow = connect(addr).await;
    let mut busy = connect(addr).await;
    let mut ended = false;
    for letter in QUESTION.bytes().cycle().take(40) {
        // One byte at a time never makes a question within the patience.
        ended = ended || slow.write_all(&[letter, b'x']).await.is_err();
        busy.write_all(b"GET /liveness HTTP/1.1\r\nHost: test\r\n\r\n")
            .await
            .unwrap();
        let mut reply = [0; 15];
        timeout(SOON, busy.read_exact(&mut reply))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&reply, b"HTTP/1.1 200 OK");
        let mut more = [0; 4096];
        timeout(SOON, busy.read(&mut more)).await.unwrap().unwrap();
        sleep(patience / 10).await;
    }
    assert!(ended, "it was waited for");
    assert_eq!(rest(busy).await, "", "a connection that asks nothing more");
}

#[tokio::test]
async fn what_is_too_large_or_no_question_is_refused() {
    let addr = start(None, SOON);
    let large = format!("GET / HTTP/1.1\r\nX-Large: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!(
        "GET / HTTP/1.1\r\n{}\r\n",
        "X-Many: 1\r\n".repeat(HEADERS + 1)
    );
    let body = "POST /primary HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000000\r\n\r\nx";
    for (question, statuses) in [
        (large.as_str(), &["431"][..]),
        (&many, &["431"]),
        ("\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03", &["400"]),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &["400", "505"]),
        ("GARBAGE\r\n\r\n", &["400"]),
        (body, &["405"]),
    ] {
        let mut stream = connect(addr).await;
        // It may hang up before all is said, and then its reply may be lost with what was not read.
        let _ = stream.write_all(question.as_bytes()).await;
        let reply = rest(stream).await;
        let status = reply.get(9..12).unwrap_or_default();
        assert!(
            statuses.contains(&status) || reply.is_empty(),
            "{reply:?} to {:?}",
            &question[..question.len().min(40)]
        );
    }
    assert!(ask(addr).await.starts_with("HTTP/1.1 200 OK\r\n"));
}

/// Certificates of an authority of their own, in a directory of their own.
struct Certificates(PathBuf);

impl Certificates {
    fn make(name: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("tarsec-http-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        make_certificates(&directory);
        Self(directory)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn server(&self, asks_clients: bool) -> HttpTls {
        HttpTls {
            certificate: self.file("server.pem"),
            key: self.file("server.key"),
            client_authorities: asks_clients.then(|| self.file("ca.pem")),
        }
    }

    /// Asks over TLS; says what came and whose certificate the server had.
    async fn ask(&self, addr: SocketAddr, has_certificate: bool) -> (String, Vec<u8>) {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.file("ca.pem")).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = if has_certificate {
            let chain = vec![CertificateDer::from_pem_file(self.file("client.pem")).unwrap()];
            let key = PrivateKeyDer::from_pem_file(self.file("client.key")).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        let name = ServerName::try_from("server.dc1.consul").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let Ok(mut stream) = connector.connect(name, connect(addr).await).await else {
            return Default::default();
        };
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        let _ = stream.write_all(QUESTION.as_bytes()).await;
        (rest(stream).await, shown)
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[tokio::test]
async fn over_tls_a_client_is_answered_that_has_the_certificate_that_is_asked_for() {
    let files = Certificates::make("clients");
    let open = start(Some(Tls::read(files.server(false)).unwrap()), SOON);
    let closed = start(Some(Tls::read(files.server(true)).unwrap()), SOON);
    for (addr, has_certificate, is_answered) in [
        (open, false, true),
        (open, true, true),
        (closed, true, true),
        (closed, false, false),
    ] {
        let (reply, _) = files.ask(addr, has_certificate).await;
        assert_eq!(
            reply.starts_with("HTTP/1.1 200 OK\r\n"),
            is_answered,
            "{reply}"
        );
    }
    // Whoever speaks no TLS gets an alert at most.
    assert!(!ask(closed).await.contains("HTTP/"));
}

#[tokio::test]
async fn a_certificate_that_was_replaced_is_shown_from_then_on() {
    let files = Certificates::make("rotation");
    let addr = start(Some(Tls::read(files.server(false)).unwrap()), SOON);
    let (_, before) = files.ask(addr, false).await;
    // Garbage at first: the one before is kept.
    std::fs::write(files.file("server.pem"), "garbage").unwrap();
    let (reply, still) = files.ask(addr, false).await;
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && still == before);
    std::fs::remove_dir_all(files.file("authorities")).unwrap();
    make_certificates(&files.0);
    let new = CertificateDer::from_pem_file(files.file("server.pem")).unwrap();
    let shown = timeout(SOON, async {
        loop {
            let (reply, shown) = files.ask(addr, false).await;
            // Until then the server's authority is the one before.
            if reply.starts_with("HTTP/1.1 200 OK\r\n") && shown != before {
                return shown;
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    assert_eq!(shown.await.unwrap(), new.to_vec());
}

#[test]
fn files_that_cannot_be_used_are_named_with_their_variable() {
    let files = Certificates::make("wrong");
    let of = |change: &dyn Fn(&mut HttpTls)| {
        let mut tls = files.server(true);
        change(&mut tls);
        let error = Tls::read(tls).err().expect("an error");
        with_causes(&error)
    };
    for (said, words) in [
        (
            of(&|tls| tls.certificate = "/nowhere.pem".into()),
            "could not read /nowhere.pem of HTTP_TLS_CERT",
        ),
        (
            of(&|tls| tls.certificate = files.file("server.key")),
            "HTTP_TLS_CERT is ",
        ),
        (
            of(&|tls| tls.key = files.file("ca.pem")),
            "HTTP_TLS_KEY is ",
        ),
        (
            of(&|tls| tls.key = files.file("client.key")),
            "could not use HTTP_TLS_CERT with HTTP_TLS_KEY",
        ),
        (
            of(&|tls| tls.client_authorities = Some(files.file("client.key"))),
            "HTTP_TLS_CLIENT_CA is ",
        ),
    ] {
        assert!(said.starts_with(words), "{said}");
    }
}
