//! A replica set's keys in Consul, read and written as an operator, or a stranger, would.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::consul::{Consul, KvEntry};
use crate::error::{Result, chain};
use crate::moment::Moment;
use crate::wait::eventually;

/// Tells apart the requests of one process.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// The keys of one replica set. Values are plain JSON: the harness knows them by their layout in Consul, not by the
/// product's types.
#[derive(Debug, Clone, Copy)]
pub struct Board<'a> {
    consul: &'a Consul,
    cluster: &'a str,
    set: &'a str,
}

impl<'a> Board<'a> {
    pub(crate) fn new(consul: &'a Consul, cluster: &'a str, set: &'a str) -> Self {
        Self {
            consul,
            cluster,
            set,
        }
    }

    /// The full key of `leader`, `members/<instance-uuid>`, `switchover`, …
    #[must_use]
    pub fn key(&self, name: &str) -> String {
        format!("tarsec/{}/{}/{name}", self.cluster, self.set)
    }

    /// The key whose presence pauses the whole cluster.
    #[must_use]
    pub fn cluster_pause_key(&self) -> String {
        format!("tarsec/{}/pause", self.cluster)
    }

    /// The lock key, if there is one.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn lock(&self) -> Result<Option<KvEntry>> {
        self.consul.api()?.kv(&self.key("leader")).await
    }

    /// The holder's record; `Null` without a lock key.
    ///
    /// # Errors
    /// When no server answers, or the key holds no JSON.
    pub async fn record(&self) -> Result<Value> {
        self.value(&self.key("leader")).await
    }

    /// What each agent says of its instance, by instance UUID.
    ///
    /// # Errors
    /// As [`Board::record`].
    pub async fn members(&self) -> Result<BTreeMap<String, Value>> {
        self.below("members/").await
    }

    /// The candidates' positions, by instance UUID.
    ///
    /// # Errors
    /// As [`Board::record`].
    pub async fn ballots(&self) -> Result<BTreeMap<String, Value>> {
        self.below("ballots/").await
    }

    /// The changes of hands that are remembered, the oldest first.
    ///
    /// # Errors
    /// As [`Board::record`].
    pub async fn history(&self) -> Result<Vec<Value>> {
        let mut lines: Vec<Value> = self.below("history/").await?.into_values().collect();
        lines.sort_by_key(|line| line["term"].as_u64());
        Ok(lines)
    }

    /// Waits until the history has a line of this term or a later one; returns the newest.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout).
    pub async fn wait_for_history(&self, term: u64, deadline: Duration) -> Result<Value> {
        let what = format!("the history of term {term}");
        eventually(deadline, &what, async || {
            let lines = self.history().await.map_err(|error| chain(&error))?;
            match lines.into_iter().last() {
                Some(line) if line["term"].as_u64() >= Some(term) => Ok(line),
                other => Err(format!("the newest line is {other:?}")),
            }
        })
        .await
    }

    /// The last order and what became of it; `Null` without a key.
    ///
    /// # Errors
    /// As [`Board::record`].
    pub async fn switchover(&self) -> Result<Value> {
        self.value(&self.key("switchover")).await
    }

    /// Asks for a switchover, to the best replica or to an instance by UUID or name; returns the request's id.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn request_switchover(
        &self,
        target: Option<&str>,
        catch_up: Duration,
    ) -> Result<String> {
        let number = REQUESTS.fetch_add(1, Ordering::Relaxed);
        let id = format!("harness-{}-{number}", std::process::id());
        let mut request = json!({
            "v": 1, "id": id, "by": "harness", "at": Moment::now().epoch_seconds(),
            "catch_up_ms": catch_up.as_millis() as u64, "state": "requested", "why": "",
        });
        if let Some(target) = target {
            request["target"] = json!(target);
        }
        self.put("switchover", &request).await?;
        Ok(id)
    }

    /// Waits until a request has come to its end (`done`, `refused` or `undone`); returns the key's value.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout), with what stands there.
    pub async fn wait_for_switchover(&self, id: &str, deadline: Duration) -> Result<Value> {
        let what = format!("the end of switchover {id}");
        eventually(deadline, &what, async || {
            let order = self.switchover().await.map_err(|error| chain(&error))?;
            let ended = matches!(order["state"].as_str(), Some("done" | "refused" | "undone"));
            if ended && order["id"] == id {
                Ok(order)
            } else {
                Err(order.to_string())
            }
        })
        .await
    }

    /// Pauses the replica set.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn pause(&self, why: &str) -> Result<()> {
        self.put("pause", &pause(why)).await
    }

    /// Ends the replica set's pause.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn resume(&self) -> Result<()> {
        self.remove("pause").await
    }

    /// Pauses the whole cluster.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn pause_cluster(&self, why: &str) -> Result<()> {
        let api = self.consul.api()?;
        api.kv_put(&self.cluster_pause_key(), pause(why).to_string())
            .await
    }

    /// Ends the cluster's pause.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn resume_cluster(&self) -> Result<()> {
        self.consul
            .api()?
            .kv_delete(&self.cluster_pause_key())
            .await
    }

    /// The replica set's pause; `Null` without one.
    ///
    /// # Errors
    /// As [`Board::record`].
    pub async fn paused(&self) -> Result<Value> {
        self.value(&self.key("pause")).await
    }

    /// Writes a key of the replica set, `members/…` or another, whatever stands there.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn put(&self, name: &str, value: &Value) -> Result<()> {
        let api = self.consul.api()?;
        api.kv_put(&self.key(name), value.to_string()).await
    }

    /// Removes a key of the replica set.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn remove(&self, name: &str) -> Result<()> {
        self.consul.api()?.kv_delete(&self.key(name)).await
    }

    async fn value(&self, key: &str) -> Result<Value> {
        let entry = self.consul.api()?.kv(key).await?;
        entry.map_or(Ok(Value::Null), |entry| entry.json())
    }

    async fn below(&self, name: &str) -> Result<BTreeMap<String, Value>> {
        let prefix = self.key(name);
        let entries = self.consul.api()?.kv_below(&prefix).await?;
        let named = entries.iter().map(|entry| {
            let name = entry.key.strip_prefix(&prefix).unwrap_or(&entry.key);
            Ok((name.to_owned(), entry.json()?))
        });
        named.collect()
    }
}

fn pause(why: &str) -> Value {
    json!({"by": "harness", "at": Moment::now().epoch_seconds(), "why": why})
}
