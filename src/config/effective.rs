//! The value that holds for each variable: for the state dump, and for a reader who wonders which default applied.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::{
    Config, GuardMode, HungInstanceAction, ReplicationMode, Role, ServiceNaming, TarantoolAddr,
    settings,
};
use crate::decide::problems::REPLICASET;
use crate::decide::settings::{Elector, SyncLoss};
use crate::plain::REDACTED;
use crate::secrets::Secret;

const NONE: &str = "";
/// `MASTER_LEASE` belongs to these, too, and has a field of its own in a member's key. Two lock keys are two masters;
/// two names in the catalog make clients lose the master when it moves; a difference in the others makes a failover
/// depend on which member becomes master.
const SHARED: &[&str] = &[
    "CONSUL_LOCK_KEY",
    "CONSUL_SERVICE_NAME",
    "CONSUL_SERVICE_PREFIX",
    "ELECTION",
    "FAILSAFE",
    "GUARD",
    "REPLICATION",
    "SYNC_LOSS",
    "VSHARD",
];

impl Config {
    /// Every variable of the table and the value that holds for it: empty where there is none, secrets redacted.
    /// Variables that are another way to say the same (`*_FILE`, `SLAVE_TAGS`) are left out.
    #[must_use]
    pub fn effective(&self) -> Vec<(&'static str, String)> {
        settings::settings()
            .map(|setting| setting.name)
            .filter_map(|name| Some((name, self.value_of(name)?)))
            .collect()
    }

    /// The settings that do what they promise only where every agent of a replica set has the same, and what holds here.
    #[must_use]
    pub fn shared(&self) -> BTreeMap<String, String> {
        let shared = SHARED.iter().filter_map(|name| {
            let value = self.value_of(name)?;
            let value = if value.is_empty() {
                "not set".to_owned()
            } else {
                value
            };
            Some(((*name).to_owned(), value))
        });
        shared.collect()
    }

    fn value_of(&self, name: &str) -> Option<String> {
        self.instance_value(name)
            .or_else(|| self.succession_value(name))
            .or_else(|| self.consul_value(name))
            .or_else(|| self.catalog_value(name))
            .or_else(|| self.http_value(name))
    }

    fn instance_value(&self, name: &str) -> Option<String> {
        Some(match name {
            "TARANTOOL_ADDR" => match &self.tarantool.addr {
                TarantoolAddr::Tcp(addr) => addr.clone(),
                TarantoolAddr::Unix(path) => shown(path),
            },
            "TARANTOOL_USER" => self
                .tarantool
                .user
                .clone()
                .unwrap_or_else(|| "guest".to_owned()),
            "TARANTOOL_PASSWORD" => redacted(!self.tarantool.password.get().is_empty()),
            "PEER_ADDRS" => self.peers.addrs.to_string(),
            "PEER_USER" => self.peer_login(|(user, _)| user.clone()),
            "PEER_PASSWORD" => {
                self.peer_login(|(_, password)| redacted(!password.get().is_empty()))
            }
            "TARANTOOL_CONTROL" => self.tarantool.control.as_deref().map_or_else(none, shown),
            "ANNOUNCE_ADDR" => self.announced(),
            "HUNG_INSTANCE_ACTION" => match self.hung_instance {
                HungInstanceAction::Kill => "kill".to_owned(),
                HungInstanceAction::Wait => "wait".to_owned(),
            },
            "REPLICATION" => match self.replication {
                ReplicationMode::Keep => "keep".to_owned(),
                ReplicationMode::Follow => "follow".to_owned(),
            },
            "GUARD" => match self.guard {
                GuardMode::Lease => "lease".to_owned(),
                GuardMode::Strict => "strict".to_owned(),
            },
            "ROLE" => match self.vshard.role {
                Role::Auto => "auto".to_owned(),
                Role::Storage => "storage".to_owned(),
                Role::Router => "router".to_owned(),
            },
            "VSHARD" => if self.vshard.on { "auto" } else { "off" }.to_owned(),
            "VSHARD_CONFIG_KEY" => self.vshard.config_key.clone().unwrap_or_default(),
            "VSHARD_USER" => {
                let login = self.vshard.login.as_ref();
                login.map_or_else(none, |(user, _)| user.clone())
            }
            "VSHARD_PASSWORD" => redacted(self.vshard.login.is_some()),
            "CLUSTER_NAME" => self.cluster.clone(),
            "PRIORITY" => self.priority.map_or_else(none, |it| it.to_string()),
            "MASTER_LEASE" => human(self.timing.lease()),
            "HEALTHCHECK_INTERVAL" => human(self.timing.healthcheck_interval()),
            "HEALTHCHECK_TIMEOUT" => human(self.timing.healthcheck_timeout()),
            "LIVENESS_INTERVAL" => human(self.timing.liveness_interval()),
            "LOG_LEVEL" => self.log.level.as_str().to_ascii_lowercase(),
            "LOG_FORMAT" => format(self.log.json),
            "DUMP_FORMAT" => format(self.log.json_dumps),
            _ => return None,
        })
    }

    fn succession_value(&self, name: &str) -> Option<String> {
        let election = &self.election;
        Some(match name {
            "ELECTION" => match election.elector {
                Elector::Smart => "smart".to_owned(),
                Elector::Idle => "idle".to_owned(),
                Elector::First => "first".to_owned(),
            },
            "ELECTION_WINDOW" => human(election.window),
            "SYNC_LOSS" => match election.sync_loss {
                SyncLoss::Refuse => "refuse".to_owned(),
                SyncLoss::Accept => "accept".to_owned(),
            },
            "MAX_LAG_ROWS" => election.max_lag_rows.to_string(),
            "MAX_IDLE" => human(election.max_idle),
            "FAILOVER_COOLDOWN" => human(election.cooldown),
            "FAILSAFE" => if self.failsafe { "on" } else { "off" }.to_owned(),
            "MEMBER_INTERVAL" => human(self.member_interval),
            _ => return None,
        })
    }

    /// What was announced, in the form in which it could have been set.
    fn announced(&self) -> String {
        match (&self.tarantool.addr, self.announce.port) {
            (TarantoolAddr::Unix(_), 0) => self.announce.id.clone(),
            (TarantoolAddr::Tcp(_) | TarantoolAddr::Unix(_), port)
                if self.announce.host.contains(':') =>
            {
                format!("[{}]:{port}", self.announce.host)
            }
            (TarantoolAddr::Tcp(_) | TarantoolAddr::Unix(_), port) => {
                format!("{}:{port}", self.announce.host)
            }
        }
    }

    fn peer_login(&self, shown: impl Fn(&(String, Secret)) -> String) -> String {
        self.peers.login.as_ref().map_or_else(none, shown)
    }

    fn consul_value(&self, name: &str) -> Option<String> {
        let consul = &self.consul;
        let tls = &consul.tls;
        Some(match name {
            "CONSUL_HTTP_ADDR" => consul.base_url.clone(),
            "CONSUL_HTTP_TOKEN" => redacted(consul.token.is_some()),
            "CONSUL_HTTP_AUTH" => consul
                .basic_auth
                .as_ref()
                .map_or_else(none, |(user, _)| format!("{user}:{REDACTED}")),
            "CONSUL_HTTP_SSL" => consul.base_url.starts_with("https://").to_string(),
            "CONSUL_HTTP_SSL_VERIFY" => (!tls.skip_verify).to_string(),
            "CONSUL_CACERT" => tls.ca_file.as_deref().map_or_else(none, shown),
            "CONSUL_CAPATH" => tls.ca_path.as_deref().map_or_else(none, shown),
            "CONSUL_CLIENT_CERT" => tls
                .client
                .as_ref()
                .map_or_else(none, |(cert, _)| shown(cert)),
            "CONSUL_CLIENT_KEY" => tls.client.as_ref().map_or_else(none, |(_, key)| shown(key)),
            "CONSUL_TLS_SERVER_NAME" => tls.server_name.clone().unwrap_or_default(),
            "CONSUL_NAMESPACE" => consul.namespace.clone().unwrap_or_default(),
            "CONSUL_KV_PREFIX" => consul.kv_prefix.clone(),
            "CONSUL_LOCK_KEY" => self.keys().replicaset(REPLICASET).lock(),
            "CONSUL_LOCK_SESSION_NAME" => consul.session_name.clone(),
            "CONSUL_LOCK_TTL" => human(self.timing.session_ttl()),
            "CONSUL_LOCK_MONITOR_RETRIES" => consul.monitor_retries.to_string(),
            "CONSUL_LOCK_MONITOR_RETRY_INTERVAL" => human(consul.monitor_retry_interval),
            _ => return None,
        })
    }

    fn catalog_value(&self, name: &str) -> Option<String> {
        let catalog = &self.catalog;
        Some(match (name, &catalog.naming) {
            ("CONSUL_SERVICE_NAME", ServiceNaming::Name(name)) => name.clone(),
            ("CONSUL_SERVICE_PREFIX", ServiceNaming::Prefix(prefix)) => prefix.clone(),
            ("CONSUL_SERVICE_NAME" | "CONSUL_SERVICE_PREFIX", _) => none(),
            ("MASTER_TAGS", _) => catalog.master_tags.join(","),
            ("REPLICA_TAGS", _) => catalog.replica_tags.join(","),
            ("ROUTER_TAGS", _) => catalog.router_tags.join(","),
            ("REPLICA_MAX_IDLE", _) => human(catalog.replica_max_idle),
            ("CONSUL_DEREGISTER_SERVICE_AFTER", _) => human(catalog.deregister_after),
            _ => return None,
        })
    }

    fn http_value(&self, name: &str) -> Option<String> {
        let http = self.http.as_ref();
        let tls = http.and_then(|http| http.tls.as_ref());
        Some(match name {
            "HTTP_LISTEN" => http.map_or_else(none, |http| http.listen.to_string()),
            "HTTP_TLS_CERT" => tls.map_or_else(none, |tls| shown(&tls.certificate)),
            "HTTP_TLS_KEY" => tls.map_or_else(none, |tls| shown(&tls.key)),
            "HTTP_TLS_CLIENT_CA" => tls
                .and_then(|tls| tls.client_authorities.as_deref())
                .map_or_else(none, shown),
            _ => return None,
        })
    }
}

fn format(is_json: bool) -> String {
    if is_json { "json" } else { "text" }.to_owned()
}

fn none() -> String {
    NONE.to_owned()
}

fn redacted(is_set: bool) -> String {
    if is_set { REDACTED.to_owned() } else { none() }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn human(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
