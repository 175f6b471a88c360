//! A real Consul for the tests.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use super::Consul;
use super::wire::{Answer, Call};
use crate::config::{ConsulConfig, ConsulTls};
use crate::decide::ids::SessionId;

/// The token that may do everything at [`with_acls`].
pub(super) const ROOT_TOKEN: &str = "11111111-2222-3333-4444-555555555555";

/// Generous: a loaded machine must not fail a test.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Starts an agent, notes its pid, waits for the end of standard input and kills it. A test's process ends without
/// dropping its statics, and may be killed; the end of a pipe comes whatever happens.
const KEEPER: &str =
    r#"consul "$@" >log 2>&1 & echo $! >pid; cat >/dev/null; kill -9 $(cat pid); rm -rf "$PWD""#;

/// `consul agent -dev`, for as long as this lives.
pub(super) struct Agent {
    keeper: Child,
    directory: PathBuf,
    pub(super) http_port: u16,
    pub(super) https_port: u16,
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// The agent that every test may use, each with keys of its own.
pub(super) fn plain() -> &'static Agent {
    static AGENT: OnceLock<Agent> = OnceLock::new();
    AGENT.get_or_init(|| Agent::start("plain", |_| "{}".to_owned()))
}

/// The agent that denies everything to a client without a token.
pub(super) fn with_acls() -> &'static Agent {
    static AGENT: OnceLock<Agent> = OnceLock::new();
    AGENT.get_or_init(|| {
        Agent::start("acls", |_| {
            format!(r#"{{"acl":{{"enabled":true,"default_policy":"deny","tokens":{{"master":"{ROOT_TOKEN}"}}}}}}"#)
        })
    })
}

/// The agent that speaks https with clients that have a certificate.
pub(super) fn with_tls() -> &'static Agent {
    static AGENT: OnceLock<Agent> = OnceLock::new();
    AGENT.get_or_init(|| {
        Agent::start("tls", |directory| {
            make_certificates(directory);
            let at = directory.display();
            format!(
                r#"{{"verify_incoming":true,"ca_file":"{at}/ca.pem","cert_file":"{at}/server.pem","key_file":"{at}/server.key"}}"#
            )
        })
    })
}

impl Agent {
    fn start(name: &str, settings: impl FnOnce(&Path) -> String) -> Self {
        let directory =
            std::env::temp_dir().join(format!("tarsec-consul-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("settings.json"), settings(&directory)).unwrap();
        let ports = free_ports();
        let mut command = Command::new("sh");
        command.args([
            "-c",
            KEEPER,
            "sh",
            "agent",
            "-dev",
            "-bind",
            "127.0.0.1",
            "-config-file",
            "settings.json",
        ]);
        command.args(["-dns-port", "-1", "-grpc-port", "-1"]);
        for (flag, port) in [
            "-http-port",
            "-https-port",
            "-server-port",
            "-serf-lan-port",
            "-serf-wan-port",
        ]
        .iter()
        .zip(ports)
        {
            command.args([(*flag).to_owned(), port.to_string()]);
        }
        let keeper = command
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let agent = Self {
            keeper,
            directory,
            http_port: ports[0],
            https_port: ports[1],
        };
        agent.wait_until_ready();
        agent
    }

    /// A leader has been elected, and its ACLs are in force.
    fn wait_until_ready(&self) {
        for _ in 0..400 {
            if self.status_of("/v1/kv/ready?consistent") == Some(404) {
                return;
            }
            thread::sleep(Duration::from_millis(25));
        }
        let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        panic!("consul is not ready after 10 s:\n{log}");
    }

    fn status_of(&self, path: &str) -> Option<u16> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http_port)).ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nX-Consul-Token: {ROOT_TOKEN}\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Settings for plain http.
    pub(super) fn settings(&self) -> ConsulConfig {
        settings(format!("http://127.0.0.1:{}", self.http_port))
    }

    /// Settings for https, with everything that it asks for.
    pub(super) fn https_settings(&self, host: &str) -> ConsulConfig {
        let tls = ConsulTls {
            ca_file: Some(self.file("ca.pem")),
            client: Some((self.file("client.pem"), self.file("client.key"))),
            ..ConsulTls::default()
        };
        ConsulConfig {
            tls,
            ..settings(format!("https://{host}:{}", self.https_port))
        }
    }

    pub(super) fn client(&self) -> Consul {
        Consul::new(&self.settings(), TIMEOUT).unwrap()
    }

    pub(super) fn client_with_token(&self, token: &str) -> Consul {
        let settings = ConsulConfig {
            token: Some(token.into()),
            ..self.settings()
        };
        Consul::new(&settings, TIMEOUT).unwrap()
    }
}

/// Settings with nothing in them but an address.
pub(super) fn settings(base_url: String) -> ConsulConfig {
    ConsulConfig {
        base_url,
        token: None,
        basic_auth: None,
        tls: ConsulTls::default(),
        namespace: None,
        kv_prefix: "tarsec".to_owned(),
        lock_key: None,
        session_name: "tarsec".to_owned(),
        monitor_retries: 3,
        monitor_retry_interval: Duration::from_secs(1),
    }
}

impl Consul {
    /// Asks for what the adapter has no call for.
    pub(super) async fn ask(&self, path: &str) -> Answer {
        self.wire().send(Call::get("ask", path)).await.unwrap()
    }

    /// Does what the adapter has no call for.
    pub(super) async fn tell(&self, path: &str, body: &str) -> Answer {
        self.wire()
            .send(Call::put("tell", path, body.as_bytes().to_vec()))
            .await
            .unwrap()
    }

    /// A session that outlives the test.
    pub(super) async fn any_session(&self) -> SessionId {
        self.create_session("test", Duration::from_secs(60))
            .await
            .unwrap()
    }
}

impl Answer {
    pub(super) fn value(&self) -> serde_json::Value {
        self.json().unwrap()
    }
}

/// The error and its causes, as a person sees them.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").unwrap();
        cause = error.source();
    }
    text
}

fn free_ports() -> [u16; 5] {
    let listeners = [(); 5].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// A private authority, and from it a server that is `server.dc1.consul` at 127.0.0.1 and a client.
pub(crate) fn make_certificates(directory: &Path) {
    let script = r"
        set -e
        new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1.key -subj /CN=$1 $2 $3 $4; }
        sign() { openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $1.ext -out $1.pem; }
        new ca -x509 -out ca.pem
        echo 'subjectAltName=DNS:server.dc1.consul,IP:127.0.0.1' >server.ext
        echo 'extendedKeyUsage=clientAuth' >client.ext
        for name in server client; do new $name -out $name.csr; sign $name; done
        mkdir authorities && cp ca.pem authorities/ && echo unrelated >authorities/README
    ";
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}
