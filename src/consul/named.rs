//! The services of one name, as clients that look for such a service see them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Consul;
use super::error::ConsulError;
use super::wire::{Call, encode};

/// A service in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its id.
    pub id: String,
    /// `host:port`, with the node's address where it has none of its own.
    pub place: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Anything.
    pub meta: BTreeMap<String, String>,
    /// None of its checks, nor of its node's, is critical, so that DNS has it.
    pub is_found: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Own,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Own {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: u16,
    tags: Option<Vec<String>>,
    meta: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    status: String,
}

impl From<Entry> for Service {
    fn from(entry: Entry) -> Self {
        let Own {
            id,
            address,
            port,
            tags,
            meta,
        } = entry.service;
        let host = if address.is_empty() {
            entry.node.address
        } else {
            address
        };
        Self {
            id,
            place: format!("{host}:{port}"),
            tags: tags.unwrap_or_default(),
            meta: meta.unwrap_or_default(),
            is_found: entry.checks.iter().all(|check| check.status != "critical"),
        }
    }
}

impl Consul {
    /// The services of this name, as any server knows them. Consul leaves out what the token may not read.
    ///
    /// # Errors
    /// They are unknown.
    pub async fn services_named(&self, name: &str) -> Result<Vec<Service>, ConsulError> {
        let path = format!("/v1/health/service/{}", encode(name));
        let what = format!("read the health of service {name}");
        let rule = format!("service \"{name}\" {{ policy = \"read\" }}");
        let call = Call::get(what, path).query("stale").allowed_by(rule);
        let answer = self.wire().send(call).await?.ok()?;
        let entries = answer.json::<Vec<Entry>>()?;
        Ok(entries.into_iter().map(Service::from).collect())
    }
}
