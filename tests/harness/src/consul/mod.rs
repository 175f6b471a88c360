//! Consul servers: one or three, with data that survives a restart.

mod api;
mod tls;

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::{Map, Value, json};

pub use api::{ConsulApi, KvEntry, ServiceEntry, Token};

use crate::error::{Error, Result, chain};
use crate::process::{Process, Recipe};
use crate::wait::eventually;
use crate::world::Shared;

const LEADER_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The initial management token under `ConsulOptions::acl`.
const MASTER_TOKEN: &str = "7a3c1f52-0d4e-4c3b-9a55-6f1e2d3c4b5a";

/// What a Consul should be like: one plain server unless told otherwise.
#[derive(Debug, Clone)]
pub struct ConsulOptions {
    servers: usize,
    acl: bool,
    tls: Tls,
    raft_multiplier: u8,
    in_memory: bool,
    overrides: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    Off,
    Server,
    Mutual,
}

/// Running Consul servers.
#[derive(Debug)]
pub struct Consul {
    servers: Vec<Server>,
    token: Option<String>,
    tls: Option<(tls::Files, Tls)>,
}

/// One Consul server.
#[derive(Debug)]
pub struct Server {
    process: Process,
    api: ConsulApi,
    ports: Ports,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    http: u16,
    https: u16,
    server: u16,
    serf_lan: u16,
}

impl Default for ConsulOptions {
    fn default() -> Self {
        Self {
            servers: 1,
            acl: false,
            tls: Tls::Off,
            raft_multiplier: 1,
            in_memory: false,
            overrides: Map::new(),
        }
    }
}

impl ConsulOptions {
    /// So many servers; three elect a leader.
    #[must_use]
    pub fn servers(mut self, servers: usize) -> Self {
        self.servers = servers;
        self
    }

    /// Access control with default policy `deny`; agents get the management token unless their
    /// `CONSUL_HTTP_TOKEN` says otherwise.
    #[must_use]
    pub fn acl(mut self) -> Self {
        self.acl = true;
        self
    }

    /// HTTPS for the agents. The harness itself keeps to plain HTTP on another port.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = Tls::Server;
        self
    }

    /// HTTPS that asks the agents for a client certificate.
    #[must_use]
    pub fn mutual_tls(mut self) -> Self {
        self.tls = Tls::Mutual;
        self
    }

    /// `performance.raft_multiplier`; 1 here, 5 by Consul's default.
    #[must_use]
    pub fn raft_multiplier(mut self, factor: u8) -> Self {
        self.raft_multiplier = factor;
        self
    }

    /// One server that keeps nothing on disk, as `consul agent -dev` does: its answers come without a
    /// disk's delay, and a restart forgets everything.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.servers = 1;
        self.in_memory = true;
        self
    }

    /// A top-level key of the servers' configuration.
    #[must_use]
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.overrides.insert(key.to_owned(), value);
        self
    }
}

impl Consul {
    pub(crate) async fn start(shared: &Shared, options: ConsulOptions) -> Result<Self> {
        let prefix = shared.next_consul();
        let token = options.acl.then(|| MASTER_TOKEN.to_owned());
        let tls = match options.tls {
            Tls::Off => None,
            wanted @ (Tls::Server | Tls::Mutual) => {
                Some((tls::make(&shared.subdir(&format!("{prefix}tls"))?)?, wanted))
            }
        };
        let ports: Vec<Ports> = (0..options.servers)
            .map(|_| Ports::reserve(shared))
            .collect::<Result<_>>()?;
        let mut servers = Vec::new();
        for (index, own) in ports.iter().enumerate() {
            let name = format!("{prefix}{index}");
            let config = configure(shared, &name, &options, *own, &ports, tls.as_ref())?;
            let file = shared.write(&format!("{name}.json"), &config.to_string())?;
            let mut args = vec!["agent".into(), "-config-file".into(), file.into()];
            if options.in_memory {
                args.push("-dev".into());
            }
            let recipe = Recipe {
                program: PathBuf::from("consul"),
                args,
                env: Vec::new(),
                dir: shared.dir.clone(),
            };
            let api = ConsulApi::new(format!("http://127.0.0.1:{}", own.http), token.clone())?;
            servers.push(Server {
                process: shared.process(&name, recipe),
                api,
                ports: *own,
            });
        }
        let consul = Self {
            servers,
            token,
            tls,
        };
        consul.start_all().await?;
        Ok(consul)
    }

    /// Starts the servers that are not running and waits for a leader.
    ///
    /// # Errors
    /// When they do not come up.
    pub async fn start_all(&self) -> Result<()> {
        for server in self
            .servers
            .iter()
            .filter(|server| !server.process.is_running())
        {
            server.process.start()?;
        }
        self.wait_for_leader(LEADER_TIMEOUT).await
    }

    /// `SIGKILL` to every server.
    ///
    /// # Errors
    /// When one does not end.
    pub async fn kill(&self) -> Result<()> {
        for server in self
            .servers
            .iter()
            .filter(|server| server.process.is_running())
        {
            server.process.kill().await?;
        }
        Ok(())
    }

    /// Kills every server, starts them again and waits for a leader.
    ///
    /// # Errors
    /// When they do not come up.
    pub async fn restart(&self) -> Result<()> {
        self.kill().await?;
        self.start_all().await
    }

    /// Waits until every running server knows a leader and answers a consistent read.
    ///
    /// # Errors
    /// [`Error::Timeout`], or [`Error::Exited`] when a server has ended.
    pub async fn wait_for_leader(&self, deadline: Duration) -> Result<()> {
        eventually(deadline, "consul to have a leader", async || {
            for server in &self.servers {
                // A server that was killed on purpose is not waited for.
                if !server.process.is_running() {
                    continue;
                }
                server
                    .api
                    .check_ready()
                    .await
                    .map_err(|error| chain(&error))?;
            }
            Ok::<_, String>(())
        })
        .await?;
        match self
            .servers
            .iter()
            .find(|server| server.process.is_running())
        {
            Some(_) => Ok(()),
            None => self
                .servers
                .iter()
                .try_for_each(|server| server.process.check_running()),
        }
    }

    /// The server that leads, if there is one.
    ///
    /// # Errors
    /// When no server runs or answers.
    pub async fn leader(&self) -> Result<Option<usize>> {
        let addr = self.api()?.leader().await?;
        Ok(self.server_at(&addr))
    }

    /// The server that others know by this address, as `/v1/status/leader` has it.
    #[must_use]
    pub fn server_at(&self, addr: &str) -> Option<usize> {
        self.servers
            .iter()
            .position(|server| addr == format!("127.0.0.1:{}", server.ports.server))
    }

    /// Kills the leader and says which server it was.
    ///
    /// # Errors
    /// When there is none.
    pub async fn kill_leader(&self) -> Result<usize> {
        let leader = self.leader().await?.ok_or(Error::NotRunning {
            name: "a consul leader".to_owned(),
        })?;
        self.servers[leader].process.kill().await?;
        Ok(leader)
    }

    /// The servers.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The HTTP API of the first server that runs.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn api(&self) -> Result<&ConsulApi> {
        let running = self
            .servers
            .iter()
            .find(|server| server.process.is_running());
        running.map(|server| &server.api).ok_or(Error::NotRunning {
            name: "consul".to_owned(),
        })
    }

    /// The management token, with ACLs.
    #[must_use]
    pub fn master_token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// `host:port` at which agents reach this server: HTTPS where there is TLS.
    #[must_use]
    pub fn agent_addr(&self, server: usize) -> String {
        let ports = self.servers[server].ports;
        format!(
            "127.0.0.1:{}",
            if self.tls.is_some() {
                ports.https
            } else {
                ports.http
            }
        )
    }

    /// Another authority, and certificates from it for the servers and for agents, in place of those before. Servers
    /// take them when they are started again.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn rotate_certificates(&self) -> Result<()> {
        let directory = self.tls.as_ref().and_then(|(files, _)| files.ca.parent());
        directory.map_or(Ok(()), |directory| tls::make(directory).map(|_| ()))
    }

    /// The `CONSUL_*` variables of an agent that reaches Consul at `addr`.
    pub(crate) fn agent_env(&self, addr: &str) -> Vec<(String, String)> {
        let mut env = vec![("CONSUL_HTTP_ADDR".to_owned(), addr.to_owned())];
        let mut set = |name: &str, value: String| env.push((name.to_owned(), value));
        if let Some(token) = &self.token {
            set("CONSUL_HTTP_TOKEN", token.clone());
        }
        if let Some((files, tls)) = &self.tls {
            set("CONSUL_HTTP_SSL", "true".to_owned());
            set("CONSUL_CACERT", files.ca.display().to_string());
            if *tls == Tls::Mutual {
                set(
                    "CONSUL_CLIENT_CERT",
                    files.client_cert.display().to_string(),
                );
                set("CONSUL_CLIENT_KEY", files.client_key.display().to_string());
            }
        }
        env
    }
}

impl Server {
    /// The process, for its pid, its logs and signals of any kind.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// This server's HTTP API.
    #[must_use]
    pub fn api(&self) -> &ConsulApi {
        &self.api
    }

    /// Starts the process without waiting for anything.
    ///
    /// # Errors
    /// When it is running already.
    pub fn start(&self) -> Result<()> {
        self.process.start()
    }

    /// `SIGTERM`; waits until the process is gone.
    ///
    /// # Errors
    /// When it is not running or does not stop in time.
    pub async fn stop(&self) -> Result<ExitStatus> {
        self.process.terminate(STOP_TIMEOUT).await
    }

    /// `SIGKILL`; waits until the process is gone.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill().await
    }
}

impl Ports {
    fn reserve(shared: &Shared) -> Result<Self> {
        Ok(Self {
            http: shared.port()?,
            https: shared.port()?,
            server: shared.port()?,
            serf_lan: shared.port()?,
        })
    }
}

fn configure(
    shared: &Shared,
    name: &str,
    options: &ConsulOptions,
    own: Ports,
    all: &[Ports],
    tls: Option<&(tls::Files, Tls)>,
) -> Result<Value> {
    let friends: Vec<String> = all
        .iter()
        .map(|ports| format!("127.0.0.1:{}", ports.serf_lan))
        .collect();
    let mut config = json!({
        "node_name": name,
        "datacenter": "dc1",
        "data_dir": shared.subdir(&format!("{name}.data"))?,
        "server": true,
        "bootstrap_expect": options.servers,
        "retry_join": if options.servers > 1 { friends } else { Vec::new() },
        "retry_interval": "1s",
        "bind_addr": "127.0.0.1",
        "client_addr": "127.0.0.1",
        // All servers share this host's id.
        "disable_host_node_id": true,
        "disable_update_check": true,
        "performance": {"raft_multiplier": options.raft_multiplier},
        "ports": {
            "http": own.http, "https": if tls.is_some() { i32::from(own.https) } else { -1 },
            "server": own.server, "serf_lan": own.serf_lan, "serf_wan": -1, "dns": -1, "grpc": -1,
        },
    });
    if options.acl {
        config["acl"] = json!({
            "enabled": true,
            "default_policy": "deny",
            "tokens": {"master": MASTER_TOKEN, "agent": MASTER_TOKEN},
        });
    }
    if let Some((files, tls)) = tls {
        config["ca_file"] = json!(files.ca);
        config["cert_file"] = json!(files.server_cert);
        config["key_file"] = json!(files.server_key);
        config["verify_incoming_https"] = json!(*tls == Tls::Mutual);
    }
    if options.in_memory {
        for (key, value) in [
            ("data_dir", Value::from("")),
            ("bootstrap_expect", Value::from(0)),
        ] {
            config[key] = value;
        }
    }
    for (key, value) in &options.overrides {
        config[key] = value.clone();
    }
    Ok(config)
}
