//! Environment → `RawConfig` → [`Config`]: a checked configuration or sentences that say what to change.

mod build;
mod effective;
pub mod error;
pub mod help;
mod http;
mod names;
mod parse;
mod peer;
pub(crate) mod service;
pub mod settings;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::decide::addresses::PeerAddrs;
use crate::decide::settings::{Elector, SyncLoss};
use crate::decide::timing::Timing;
use crate::keys::ClusterKeys;
use crate::secrets::Secret;
pub use error::ConfigError;
pub use http::{HttpConfig, HttpTls};
pub(crate) use parse::is_this_host;

/// Everything the agent was told, checked once; nothing below checks it again.
#[derive(Clone)]
pub struct Config {
    /// How to reach the instance beside us.
    pub tarantool: TarantoolConfig,
    /// How to ask the other members.
    pub peers: PeerConfig,
    /// How to reach Consul.
    pub consul: ConsulConfig,
    /// What is written to the catalog.
    pub catalog: CatalogConfig,
    /// `ANNOUNCE_ADDR`: host and port that others use to reach the instance (or the socket path).
    pub announce: Announce,
    /// `ROLE`, `VSHARD` and what belongs to them.
    pub vshard: VshardConfig,
    /// `CLUSTER_NAME`.
    pub cluster: String,
    /// `PRIORITY`; negative: never master.
    pub priority: Option<i64>,
    /// How a master is chosen when there is none.
    pub election: ElectionConfig,
    /// `FAILSAFE=on`.
    pub failsafe: bool,
    /// `MEMBER_INTERVAL`.
    pub member_interval: Duration,
    /// `GUARD`.
    pub guard: GuardMode,
    /// The lease and everything that must fit into it.
    pub timing: Timing,
    /// `REPLICATION`.
    pub replication: ReplicationMode,
    /// `HUNG_INSTANCE_ACTION`.
    pub hung_instance: HungInstanceAction,
    /// `HTTP_LISTEN` and what belongs to it.
    pub http: Option<HttpConfig>,
    /// `LOG_LEVEL`, `LOG_FORMAT`, `DUMP_FORMAT`.
    pub log: LogConfig,
}

/// The effective settings, secrets redacted.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.effective()).finish()
    }
}

/// What an operator's command needs to know, from the same environment.
#[derive(Clone)]
pub struct OperatorConfig {
    /// How to reach Consul.
    pub consul: ConsulConfig,
    /// `CLUSTER_NAME`.
    pub cluster: String,
    /// `LOG_LEVEL`, `LOG_FORMAT`.
    pub log: LogConfig,
}

impl Config {
    /// Where the cluster's keys are.
    pub(crate) fn keys(&self) -> ClusterKeys {
        keys(&self.consul, &self.cluster)
    }
}

impl OperatorConfig {
    /// Where the cluster's keys are.
    pub(crate) fn keys(&self) -> ClusterKeys {
        keys(&self.consul, &self.cluster)
    }
}

fn keys(consul: &ConsulConfig, cluster: &str) -> ClusterKeys {
    ClusterKeys::new(&consul.kv_prefix, cluster, consul.lock_key.as_deref())
}

/// How to reach the instance.
#[derive(Clone)]
pub struct TarantoolConfig {
    /// `TARANTOOL_ADDR`.
    pub addr: TarantoolAddr,
    /// `TARANTOOL_USER`; `None` is guest.
    pub user: Option<String>,
    /// `TARANTOOL_PASSWORD` or the content of `TARANTOOL_PASSWORD_FILE`.
    pub password: Secret,
    /// `TARANTOOL_CONTROL`.
    pub control: Option<PathBuf>,
}

impl fmt::Debug for TarantoolConfig {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TarantoolConfig")
            .field("addr", &self.addr)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// How to ask the other members' guards.
#[derive(Clone)]
pub struct PeerConfig {
    /// `PEER_ADDRS`.
    pub addrs: PeerAddrs,
    /// `PEER_USER` and its password; `None`: as the instance beside us is talked to.
    pub login: Option<(String, Secret)>,
}

/// Where the instance listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TarantoolAddr {
    /// `host:port`, resolved at every connect.
    Tcp(String),
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// The address that the catalog and the record carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announce {
    /// Without brackets where it is an IPv6 address. Empty: Consul fills in its node's address.
    pub host: String,
    /// 0 for a unix socket.
    pub port: u16,
    /// `host:port` (`localhost` hosts are kept as they are) or the socket's path: unique per instance of a service.
    pub id: String,
}

/// One set of `CONSUL_*` settings for every way we talk to Consul.
#[derive(Clone)]
pub struct ConsulConfig {
    /// `http://host:port` or `https://host:port`, no trailing slash (`CONSUL_HTTP_ADDR`, `CONSUL_HTTP_SSL`).
    pub base_url: String,
    /// `CONSUL_HTTP_TOKEN` or the content of `CONSUL_HTTP_TOKEN_FILE`.
    pub token: Option<Secret>,
    /// `CONSUL_HTTP_AUTH`: user and password.
    pub basic_auth: Option<(String, String)>,
    /// TLS material; used when `base_url` is https.
    pub tls: ConsulTls,
    /// `CONSUL_NAMESPACE`.
    pub namespace: Option<String>,
    /// `CONSUL_KV_PREFIX`, no slash at either end.
    pub kv_prefix: String,
    /// `CONSUL_LOCK_KEY`: overrides the derived lock key.
    pub lock_key: Option<String>,
    /// `CONSUL_LOCK_SESSION_NAME`.
    pub session_name: String,
    /// `CONSUL_LOCK_MONITOR_RETRIES`: failed looks at the lock in a row after which a warning is logged and the pause between
    /// two of them grows to `monitor_retry_interval`; held looks do not count.
    pub monitor_retries: u32,
    /// `CONSUL_LOCK_MONITOR_RETRY_INTERVAL`; before that many failures the pause is a tenth of it.
    pub monitor_retry_interval: Duration,
}

/// TLS towards Consul.
#[derive(Debug, Clone, Default)]
pub struct ConsulTls {
    /// `CONSUL_HTTP_SSL_VERIFY=false` turns the check of the server's certificate off.
    pub skip_verify: bool,
    /// `CONSUL_CACERT`.
    pub ca_file: Option<PathBuf>,
    /// `CONSUL_CAPATH`: a directory of PEM files.
    pub ca_path: Option<PathBuf>,
    /// `CONSUL_CLIENT_CERT` and `CONSUL_CLIENT_KEY`.
    pub client: Option<(PathBuf, PathBuf)>,
    /// `CONSUL_TLS_SERVER_NAME`.
    pub server_name: Option<String>,
}

/// What is written to the catalog.
#[derive(Debug, Clone)]
pub struct CatalogConfig {
    /// `CONSUL_SERVICE_NAME` or `CONSUL_SERVICE_PREFIX`.
    pub naming: ServiceNaming,
    /// `MASTER_TAGS`.
    pub master_tags: Vec<String>,
    /// `REPLICA_TAGS` (or `SLAVE_TAGS`).
    pub replica_tags: Vec<String>,
    /// `ROUTER_TAGS`.
    pub router_tags: Vec<String>,
    /// `REPLICA_MAX_IDLE`; zero: any.
    pub replica_max_idle: Duration,
    /// `CONSUL_DEREGISTER_SERVICE_AFTER`.
    pub deregister_after: Duration,
}

/// The two ways to name a service, as in resec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceNaming {
    /// One service name, the role in its tags.
    Name(String),
    /// `<prefix>-master`, `<prefix>-replica` and `<prefix>-router`.
    Prefix(String),
}

/// What is said about vshard.
#[derive(Clone)]
pub struct VshardConfig {
    /// `ROLE`.
    pub role: Role,
    /// `VSHARD=auto`.
    pub on: bool,
    /// `VSHARD_CONFIG_KEY`.
    pub config_key: Option<String>,
    /// `VSHARD_USER`, and `VSHARD_PASSWORD` or the content of `VSHARD_PASSWORD_FILE`.
    pub login: Option<(String, Secret)>,
}

impl fmt::Debug for VshardConfig {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VshardConfig")
            .field("role", &self.role)
            .field("on", &self.on)
            .field("config_key", &self.config_key)
            .finish_non_exhaustive()
    }
}

/// `ROLE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// As the instance itself has it; without vshard as [`Role::Storage`].
    Auto,
    /// Its agent runs for the lock.
    Storage,
    /// Its agent takes no lock.
    Router,
}

/// `REPLICATION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicationMode {
    /// Leave `box.cfg.replication` as the operator configured it.
    Keep,
    /// Replicas follow the master alone.
    Follow,
}

/// How a master is chosen when there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElectionConfig {
    /// `ELECTION`.
    pub elector: Elector,
    /// `ELECTION_WINDOW`.
    pub window: Duration,
    /// `SYNC_LOSS`.
    pub sync_loss: SyncLoss,
    /// `MAX_LAG_ROWS`; 0: any.
    pub max_lag_rows: u64,
    /// `MAX_IDLE`; zero: any.
    pub max_idle: Duration,
    /// `FAILOVER_COOLDOWN`; zero: none.
    pub cooldown: Duration,
}

/// `GUARD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardMode {
    /// Fences when the lease is over.
    Lease,
    /// Checks every write, too.
    Strict,
}

/// `HUNG_INSTANCE_ACTION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HungInstanceAction {
    /// SIGKILL through its pidfd once its lease has passed (R5).
    Kill,
    /// Wait for it, and say so.
    Wait,
}

/// `LOG_LEVEL`, `LOG_FORMAT` and `DUMP_FORMAT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// The least level that is written.
    pub level: tracing::Level,
    /// One JSON object a line instead of text.
    pub json: bool,
    /// `DUMP_FORMAT=json`: the same for dumps.
    pub json_dumps: bool,
}
