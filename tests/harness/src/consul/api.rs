//! As much of Consul's HTTP API as tests need to look and to meddle.

use std::time::Duration;

use base64::Engine;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::error::{Error, Result};

const NO_BODY: Option<Vec<u8>> = None;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The HTTP API of one server.
#[derive(Debug, Clone)]
pub struct ConsulApi {
    base: String,
    token: Option<String>,
    client: Client,
}

/// A key of the KV store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvEntry {
    /// The full key.
    pub key: String,
    /// The value, as text.
    pub value: String,
    /// The session that holds the key as a lock.
    pub session: Option<String>,
    /// Grows with every change.
    pub modify_index: u64,
    /// Grows with every lock acquisition, and is reset by plain writes.
    pub lock_index: u64,
}

/// An entry of the service catalog, with what its checks say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// The service's id.
    pub id: String,
    /// The service's name.
    pub name: String,
    /// Its host; empty when the node's is meant.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// The service's tags.
    pub tags: Vec<String>,
    /// Its metadata.
    pub meta: Value,
    /// Consul's index when it came into the catalog, where it was not before.
    pub created: u64,
    /// The worst status of its own checks: `passing`, `warning`, `critical`.
    pub status: String,
    /// What its own checks last said.
    pub output: String,
}

/// An ACL token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The secret, which goes into `CONSUL_HTTP_TOKEN`.
    pub secret: String,
    /// The accessor, by which operators name it.
    pub accessor: String,
}

impl KvEntry {
    /// The value as JSON.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.value)
            .map_err(|error| Error::malformed(format!("the value of {} ({error})", self.key)))
    }
}

impl ConsulApi {
    pub(crate) fn new(base: String, token: Option<String>) -> Result<Self> {
        let client = Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .build();
        let client = client.map_err(|source| Error::Http {
            action: "make an HTTP client".to_owned(),
            source,
        })?;
        Ok(Self {
            base,
            token,
            client,
        })
    }

    /// The same API with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// Any request: path and query as in Consul's documentation. A missing thing is `Null`.
    ///
    /// # Errors
    /// [`Error::Http`], or [`Error::HttpStatus`] for anything but 2xx and 404.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<impl Into<Vec<u8>>>,
    ) -> Result<Value> {
        let action = format!("{method} {path}");
        let method =
            Method::from_bytes(method.as_bytes()).map_err(|_| Error::malformed(action.clone()))?;
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token);
        }
        if let Some(body) = body {
            request = request.body(body.into());
        }
        let failed = |source| Error::Http {
            action: action.clone(),
            source,
        };
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let body = response.text().await.map_err(failed)?;
        if status == StatusCode::NOT_FOUND {
            return Ok(Value::Null);
        }
        if !status.is_success() {
            return Err(Error::HttpStatus {
                action,
                status: status.as_u16(),
                body,
            });
        }
        // Some answers are plain words, which do as strings.
        Ok(serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// `GET`.
    ///
    /// # Errors
    /// As [`ConsulApi::call`].
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call("GET", path, NO_BODY).await
    }

    /// A key, or `None` when it is missing.
    ///
    /// # Errors
    /// As [`ConsulApi::call`].
    pub async fn kv(&self, key: &str) -> Result<Option<KvEntry>> {
        let answer = self.get(&format!("/v1/kv/{key}?consistent")).await?;
        Ok(entries(&answer)?.into_iter().next())
    }

    /// Every key below a prefix.
    ///
    /// # Errors
    /// As [`ConsulApi::call`].
    pub async fn kv_below(&self, prefix: &str) -> Result<Vec<KvEntry>> {
        entries(
            &self
                .get(&format!("/v1/kv/{prefix}?recurse&consistent"))
                .await?,
        )
    }

    /// A plain write of any bytes, which asks no lock.
    ///
    /// # Errors
    /// As [`ConsulApi::call`].
    pub async fn kv_put(&self, key: &str, value: impl Into<Vec<u8>>) -> Result<()> {
        self.call("PUT", &format!("/v1/kv/{key}"), Some(value))
            .await
            .map(|_| ())
    }

    /// A plain delete, which asks no lock.
    ///
    /// # Errors
    /// As [`ConsulApi::call`].
    pub async fn kv_delete(&self, key: &str) -> Result<()> {
        self.call("DELETE", &format!("/v1/kv/{key}"), NO_BODY)
            .await
            .map(|_| ())
    }

    /// Every session, as Consul describes it.
    ///
    /// # Errors
    /// As [`ConsulApi::call`].
    pub async fn sessions(&self) -> Result<Vec<Value>> {
        Ok(self
            .get("/v1/session/list")
            .await?
            .as_array()
            .cloned()
            .unwrap_or_default())
    }

    /// Ends a session, as an operator would.
    ///
    /// # Errors
    /// As [`ConsulApi::call`].
    pub async fn destroy_session(&self, id: &str) -> Result<()> {
        self.call("PUT", &format!("/v1/session/destroy/{id}"), NO_BODY)
            .await
            .map(|_| ())
    }

    /// The names of all services.
    ///
    /// # Errors
    /// As [`ConsulApi::call`].
    pub async fn service_names(&self) -> Result<Vec<String>> {
        let answer = self.get("/v1/catalog/services").await?;
        Ok(answer
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect())
    }

    /// The instances of a service and the state of their own checks, whatever it is.
    ///
    /// # Errors
    /// As [`ConsulApi::call`].
    pub async fn service(&self, name: &str) -> Result<Vec<ServiceEntry>> {
        let answer = self.get(&format!("/v1/health/service/{name}")).await?;
        Ok(answer
            .as_array()
            .into_iter()
            .flatten()
            .map(service_entry)
            .collect())
    }

    /// Makes a token with one policy of the given rules.
    ///
    /// # Errors
    /// As [`ConsulApi::call`].
    pub async fn create_token(&self, name: &str, rules: &str) -> Result<Token> {
        let policy = json!({"Name": name, "Rules": rules}).to_string();
        self.call("PUT", "/v1/acl/policy", Some(policy)).await?;
        let token = json!({"Description": name, "Policies": [{"Name": name}]}).to_string();
        let answer = self.call("PUT", "/v1/acl/token", Some(token)).await?;
        Ok(Token {
            secret: text(&answer["SecretID"]),
            accessor: text(&answer["AccessorID"]),
        })
    }

    pub(crate) async fn leader(&self) -> Result<String> {
        Ok(text(&self.get("/v1/status/leader").await?))
    }

    /// Succeeds only where a leader answers and, with ACLs, tokens can be made.
    pub(crate) async fn check_ready(&self) -> Result<()> {
        self.get("/v1/kv/harness/ready?consistent").await?;
        if self.token.is_some() {
            // A server keeps to the "legacy mode" until it has heard of all others.
            self.get("/v1/acl/token/self").await?;
        }
        Ok(())
    }
}

fn entries(answer: &Value) -> Result<Vec<KvEntry>> {
    answer
        .as_array()
        .into_iter()
        .flatten()
        .map(kv_entry)
        .collect()
}

fn kv_entry(entry: &Value) -> Result<KvEntry> {
    let key = text(&entry["Key"]);
    let value = base64::engine::general_purpose::STANDARD
        .decode(entry["Value"].as_str().unwrap_or_default())
        .map_err(|error| Error::malformed(format!("the value of {key} ({error})")))?;
    Ok(KvEntry {
        value: String::from_utf8_lossy(&value).into_owned(),
        session: entry["Session"].as_str().map(str::to_owned),
        modify_index: entry["ModifyIndex"].as_u64().unwrap_or_default(),
        lock_index: entry["LockIndex"].as_u64().unwrap_or_default(),
        key,
    })
}

fn service_entry(entry: &Value) -> ServiceEntry {
    let service = &entry["Service"];
    let all = entry["Checks"].as_array().into_iter().flatten();
    // A check without a service is the node's, which says nothing of ours.
    let own: Vec<&Value> = all
        .filter(|check| check["ServiceID"].as_str().is_some_and(|id| !id.is_empty()))
        .collect();
    let worst = |status: &&str| own.iter().any(|check| check["Status"] == **status);
    let status = ["critical", "warning", "passing"]
        .into_iter()
        .find(worst)
        .unwrap_or("none");
    ServiceEntry {
        id: text(&service["ID"]),
        name: text(&service["Service"]),
        address: text(&service["Address"]),
        port: service["Port"].as_u64().unwrap_or_default() as u16,
        tags: service["Tags"]
            .as_array()
            .into_iter()
            .flatten()
            .map(text)
            .collect(),
        meta: service["Meta"].clone(),
        created: service["CreateIndex"].as_u64().unwrap_or_default(),
        status: status.to_owned(),
        output: own
            .iter()
            .map(|check| text(&check["Output"]))
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
