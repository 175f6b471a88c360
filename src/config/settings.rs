//! The table of settings: the one source of names, defaults, `--help` and docs/SETTINGS.md.

use serde::Deserialize;

use super::error::{ConfigError, SettingError};
use crate::plain;

/// One environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The variable's name.
    pub name: &'static str,
    /// What holds when it is not set.
    pub default: Fallback,
    /// What it means, in one or two sentences.
    pub doc: &'static str,
    /// Whether its value stays out of errors and dumps.
    pub secret: bool,
}

/// What holds when a variable is not set (or empty, as the Consul CLI has it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// As if this had been set.
    Value(&'static str),
    /// Follows from other settings, in these words.
    Derived(&'static str),
    /// Nothing.
    Unset,
}

/// A heading of the table and what stands under it.
pub type Section = (&'static str, &'static [Setting]);

/// A variable as the environment has it, together with what it means.
#[derive(Clone, Copy)]
pub(super) struct Var<'a> {
    pub(super) setting: &'static Setting,
    value: Option<&'a str>,
}

impl<'a> Var<'a> {
    /// What the environment says; an empty value is no value.
    pub(super) fn set(self) -> Option<&'a str> {
        self.value.map(str::trim).filter(|value| !value.is_empty())
    }

    /// Whether the environment sets it to nothing.
    pub(super) fn is_blank(self) -> bool {
        self.value.is_some_and(|value| value.trim().is_empty())
    }

    /// What the environment says to the letter, for secrets.
    pub(super) fn verbatim(self) -> Option<&'a str> {
        self.value.filter(|value| !value.is_empty())
    }

    fn text(self) -> Option<&'a str> {
        self.set().or(match self.setting.default {
            Fallback::Value(value) => Some(value),
            Fallback::Derived(_) | Fallback::Unset => None,
        })
    }

    /// Parses what is set or the default; `None` where there is neither.
    pub(super) fn optional<T>(
        self,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        self.text()
            .map(parse)
            .transpose()
            .map_err(|allowed| self.invalid(allowed))
    }

    /// Parses what is set or the default.
    pub(super) fn required<T>(
        self,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        parse(self.text().unwrap_or_default()).map_err(|allowed| self.invalid(allowed))
    }

    /// An error that names variable, value and what is allowed.
    pub(super) fn invalid(self, allowed: impl Into<String>) -> ConfigError {
        let value = if self.setting.secret {
            plain::REDACTED.into()
        } else {
            plain::value(self.value.unwrap_or_default())
        };
        ConfigError::from(SettingError::Invalid {
            name: self.setting.name,
            value: value.into_owned(),
            allowed: allowed.into(),
        })
    }
}

/// Builds the table and, field by field, the raw environment that belongs to it.
macro_rules! settings {
    ($($heading:literal { $($field:ident = $setting:expr;)* })*) => {
        /// The environment's own words, before anything is parsed.
        #[derive(Clone, Deserialize)]
        pub(super) struct RawConfig {
            $($($field: Option<String>,)*)*
        }

        impl RawConfig {
            $($(pub(super) fn $field(&self) -> Var<'_> {
                const SETTING: &Setting = &$setting;
                Var { setting: SETTING, value: self.$field.as_deref() }
            })*)*
        }

        /// Every setting, in the order in which it is shown.
        pub const SECTIONS: &[Section] = &[$(($heading, &[$($setting),*])),*];
    };
}

const fn value(name: &'static str, default: &'static str, doc: &'static str) -> Setting {
    Setting {
        name,
        default: Fallback::Value(default),
        doc,
        secret: false,
    }
}

const fn derived(name: &'static str, default: &'static str, doc: &'static str) -> Setting {
    Setting {
        name,
        default: Fallback::Derived(default),
        doc,
        secret: false,
    }
}

const fn unset(name: &'static str, doc: &'static str) -> Setting {
    Setting {
        name,
        default: Fallback::Unset,
        doc,
        secret: false,
    }
}

const fn secret(name: &'static str, doc: &'static str) -> Setting {
    Setting {
        name,
        default: Fallback::Unset,
        doc,
        secret: true,
    }
}

settings! {
    "The instance" {
        tarantool_addr = value("TARANTOOL_ADDR", "127.0.0.1:3301", "Where the instance listens: `host:port` or the absolute path of a unix socket.");
        tarantool_user = derived("TARANTOOL_USER", "guest", "The user as whom the agent talks to the instance.");
        tarantool_password = secret("TARANTOOL_PASSWORD", "That user's password.");
        tarantool_password_file = unset("TARANTOOL_PASSWORD_FILE", "A file that holds the password; a newline at its end does not count. It is read again when the password is refused.");
        tarantool_control = unset("TARANTOOL_CONTROL", "The absolute path of the instance's `console.socket`, by which the agents name the leader of a first start where `replication.bootstrap_strategy` is `supervised` or `native`.");
        announce_addr = derived("ANNOUNCE_ADDR", "`TARANTOOL_ADDR`, only its port where its host is local", "Where others reach the instance: `host:port`, or `:port` for the address of the node's Consul agent.");
        hung_instance_action = value("HUNG_INSTANCE_ACTION", "kill", "What to do with an instance that has not answered and whose lease has passed: `kill` it, or `wait` for it. With `wait`, writes that were queued in it may still land late when it wakes up.");
        guard = value("GUARD", "lease", "`lease` fences when the lease is over. `strict` also refuses every single write past the lease, and kills the process rather than acknowledge one late: for machines that may be frozen as a whole, agent and all. It costs each transaction some microseconds.");
        peer_addrs = unset("PEER_ADDRS", "Where the agent may log in besides the addresses in the instance's own `box.cfg.replication`: a list with commas of `host:port`, `host` (every port), networks such as `10.1.0.0/16` (every port) and paths of unix sockets. An address that only Consul names gets no login. Names are compared as they are written.");
        peer_user = derived("PEER_USER", "`TARANTOOL_USER`", "The user as whom the agent asks the other members for promises, by their function `tarsec_promise`; it needs no other right.");
        peer_password = secret("PEER_PASSWORD", "That user's password.");
        peer_password_file = unset("PEER_PASSWORD_FILE", "A file that holds the password; a newline at its end does not count. It is read again when the password is refused.");
        replication = value("REPLICATION", "keep", "`keep` leaves `box.cfg.replication` as it is; `follow` points replicas at the master alone.");
    }
    "The replica set" {
        cluster_name = value("CLUSTER_NAME", "default", "The cluster's name, part of every key in Consul.");
        priority = derived("PRIORITY", "`0`, or what a cluster's configuration in YAML says", "Between replicas with equal data the higher one becomes master. Negative: never master.");
    }
    "vshard" {
        role = value("ROLE", "auto", "What the instance is in vshard: `storage`, `router`, or `auto` to see for itself. A router's agent takes no lock and makes nothing writable or read-only. Without vshard it does not matter.");
        vshard = value("VSHARD", "auto", "`auto` keeps the masters in the instance's vshard configuration equal to the locks, `off` leaves vshard alone.");
        vshard_config_key = unset("VSHARD_CONFIG_KEY", "A Consul key with the cluster's vshard configuration in YAML or JSON, vshard's own form or autovshard's, which every instance that it names takes over when it changes.");
        vshard_user = unset("VSHARD_USER", "The user of addresses in that configuration that name none.");
        vshard_password = secret("VSHARD_PASSWORD", "That user's password.");
        vshard_password_file = unset("VSHARD_PASSWORD_FILE", "A file that holds the password; a newline at its end does not count. It is read again when the password is refused.");
    }
    "Succession" {
        election = value("ELECTION", "smart", "Who becomes master when there is none: `smart` (followed the last master, has most of its rows, is followed by others, priority, least idle), `idle` (heard the last master last) or `first` (whoever is first).");
        election_window = value("ELECTION_WINDOW", "250ms", "How long candidates wait for the ballots of others (a lease if they lack rows that the last master had), and give way to a better one: 10ms to 10s.");
        sync_loss = value("SYNC_LOSS", "refuse", "Where it cannot be known whether a candidate has every acknowledged row of synchronous spaces, because too few members say what they have, or one has more: `refuse` leaves the replica set read-only until it is known, `accept` goes on after the wait for ballots. Without synchronous spaces, or with a quorum of one, it does not matter.");
        max_lag_rows = value("MAX_LAG_ROWS", "0", "A replica that lacks more rows than that of what the master had at its last word does not become master by itself; 0 is any number.");
        max_idle = value("MAX_IDLE", "0s", "A replica that had not heard the master for longer than that at the master's last word does not become master by itself; `0s` is any time.");
        failover_cooldown = value("FAILOVER_COOLDOWN", "0s", "No second failover by itself for that long after one, unless the master before is known to be dead or read-only; `0s` is none, at most 24h.");
        failsafe = value("FAILSAFE", "on", "`on`: without Consul a master goes on for as long as every member of its replica set, asked one by one, promises it another lease. `off`: it goes on for one lease. The same for all agents of a replica set.");
        member_interval = value("MEMBER_INTERVAL", "10s", "How often a member's position is written to Consul at most, while it changes: 1s to 1h.");
    }
    "Time" {
        master_lease = value("MASTER_LEASE", "10s", "How long a master may stay writable without a word from its agent: 2s to 60s. The lock is refreshed four times as often.");
        healthcheck_interval = derived("HEALTHCHECK_INTERVAL", "`1s`, or a quarter of the lease where that is less", "How often the instance is probed.");
        healthcheck_timeout = derived("HEALTHCHECK_TIMEOUT", "`2s`, or half the lease where that is less", "The deadline of every request to the instance and to Consul.");
        liveness_interval = derived("LIVENESS_INTERVAL", "`50ms`, or `HEALTHCHECK_INTERVAL` where that is less", "How often the agent looks whether the instance's process lives, so that its death is seen early; every fourth time it pings the instance, and every time where the process cannot be seen.");
    }
    "Consul" {
        consul_http_addr = value("CONSUL_HTTP_ADDR", "127.0.0.1:8500", "The Consul agent: `host:port`, `http://…` or `https://…`; the scheme wins over `CONSUL_HTTP_SSL`.");
        consul_http_token = secret("CONSUL_HTTP_TOKEN", "The ACL token.");
        consul_http_token_file = unset("CONSUL_HTTP_TOKEN_FILE", "A file that holds the ACL token. It is read again when Consul refuses the token, and so are the files of certificates when TLS fails.");
        consul_http_auth = secret("CONSUL_HTTP_AUTH", "`user:password` for HTTP basic authentication.");
        consul_http_ssl = value("CONSUL_HTTP_SSL", "false", "Whether to speak TLS.");
        consul_http_ssl_verify = value("CONSUL_HTTP_SSL_VERIFY", "true", "Whether to check the server's certificate.");
        consul_cacert = unset("CONSUL_CACERT", "A PEM file of certificate authorities, instead of the system's.");
        consul_capath = unset("CONSUL_CAPATH", "A directory of such files.");
        consul_client_cert = unset("CONSUL_CLIENT_CERT", "The client's certificate, a PEM file.");
        consul_client_key = unset("CONSUL_CLIENT_KEY", "The key that belongs to it, a PEM file.");
        consul_tls_server_name = unset("CONSUL_TLS_SERVER_NAME", "The name that the server's certificate must carry, where it is not the host in `CONSUL_HTTP_ADDR`.");
        consul_namespace = unset("CONSUL_NAMESPACE", "The namespace (Consul Enterprise).");
    }
    "The lock" {
        consul_kv_prefix = value("CONSUL_KV_PREFIX", "tarsec", "What every key begins with.");
        consul_lock_key = derived("CONSUL_LOCK_KEY", "`<prefix>/<cluster>/<replica-set UUID>/leader`", "The lock's own key, the same for all agents of a replica set and for no other.");
        consul_lock_session_name = value("CONSUL_LOCK_SESSION_NAME", "tarsec", "The name of the agent's session.");
        consul_lock_ttl = value("CONSUL_LOCK_TTL", "15s", "The session's TTL: 10s to 24h and at least the lease.");
        consul_lock_monitor_retries = value("CONSUL_LOCK_MONITOR_RETRIES", "3", "Failed looks at the lock in a row (one that Consul was to hold does not count, a proxy may have ended it) after which a warning is logged and the pause grows from a tenth of the interval to the whole: 1 to 1000.");
        consul_lock_monitor_retry_interval = value("CONSUL_LOCK_MONITOR_RETRY_INTERVAL", "1s", "The pause between failed looks once there were that many: 10ms to 60s.");
    }
    "The catalog" {
        consul_service_name = unset("CONSUL_SERVICE_NAME", "One service for all instances, with the role in its tags; `{cluster}` and `{replicaset}` stand for `CLUSTER_NAME` and the replica set's UUID. Excludes `CONSUL_SERVICE_PREFIX`.");
        consul_service_prefix = derived("CONSUL_SERVICE_PREFIX", "`tarantool`, unless `CONSUL_SERVICE_NAME` is set", "Services `<prefix>-master` and `<prefix>-replica`, and `<prefix>-router` for vshard's routers; `{cluster}` and `{replicaset}` as above. Several clusters in one datacenter need `{cluster}` in it, such as `tarantool-{cluster}`.");
        master_tags = value("MASTER_TAGS", "master", "A master's tags, comma-separated.");
        replica_tags = value("REPLICA_TAGS", "replica", "A replica's tags, comma-separated.");
        slave_tags = derived("SLAVE_TAGS", "`REPLICA_TAGS`", "Another name for `REPLICA_TAGS`, as resec has it.");
        router_tags = value("ROUTER_TAGS", "router", "A vshard router's tags, comma-separated.");
        replica_max_idle = value("REPLICA_MAX_IDLE", "5s", "A replica at which none of the master's rows have arrived for longer than that, counted to the master's last refresh, is critical, so that readers leave it; `0s` is never, at most 24h.");
        consul_deregister_service_after = value("CONSUL_DEREGISTER_SERVICE_AFTER", "72h", "Consul drops a service whose check has been critical for this long: at least 1m.");
    }
    "Checks over HTTP" {
        http_listen = unset("HTTP_LISTEN", "Where the agent answers checks: an address and a port such as `127.0.0.1:7301`, `0.0.0.0:7301` or `[::]:7301`. Unset, nothing listens.");
        http_tls_cert = unset("HTTP_TLS_CERT", "The certificate with which it speaks TLS there, a PEM file with those up to its authority's. The files are read again when they have changed.");
        http_tls_key = unset("HTTP_TLS_KEY", "The key that belongs to it, a PEM file.");
        http_tls_client_ca = unset("HTTP_TLS_CLIENT_CA", "A PEM file of certificate authorities: whoever asks must have a certificate of one of them.");
    }
    "Logs" {
        log_level = value("LOG_LEVEL", "info", "`trace`, `debug`, `info`, `warn` or `error`.");
        log_format = value("LOG_FORMAT", "text", "`text`, or `json` for one object a line.");
        dump_format = derived("DUMP_FORMAT", "`LOG_FORMAT`", "What `SIGUSR1` and `SIGUSR2` print on stdout: `text`, a screen and a tree for people, or `json`, one object a line.");
    }
}

/// What the operator's commands read. The agents' file of settings may be theirs, too, so other variables in it do not
/// matter to them.
pub(super) const OPERATORS: &[&str] = &[
    "CLUSTER_NAME",
    "CONSUL_HTTP_ADDR",
    "CONSUL_HTTP_TOKEN",
    "CONSUL_HTTP_TOKEN_FILE",
    "CONSUL_HTTP_AUTH",
    "CONSUL_HTTP_SSL",
    "CONSUL_HTTP_SSL_VERIFY",
    "CONSUL_CACERT",
    "CONSUL_CAPATH",
    "CONSUL_CLIENT_CERT",
    "CONSUL_CLIENT_KEY",
    "CONSUL_TLS_SERVER_NAME",
    "CONSUL_NAMESPACE",
    "CONSUL_KV_PREFIX",
    "CONSUL_LOCK_KEY",
    "LOG_LEVEL",
    "LOG_FORMAT",
];

/// Every setting of the table.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|(_, settings)| settings.iter())
}
