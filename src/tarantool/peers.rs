//! The other members' guards, asked by the master's agent for their promises (R6).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use serde::Deserialize;
use tokio::time::timeout;

use super::conn::{Connection, RequestError};
use super::iproto::code;
use crate::config::{TarantoolAddr, TarantoolConfig};
use crate::errors::chain;

/// The way to the other members. Clones share its connections.
#[derive(Clone)]
pub struct Peers {
    config: TarantoolConfig,
    deadline: Duration,
    /// By address; those of the members that were asked last.
    connections: Arc<Mutex<BTreeMap<String, Connection>>>,
}

/// What a guard answers to whoever asks for its promise.
#[derive(Debug, Deserialize)]
struct Reply {
    uuid: String,
    promised: bool,
    #[serde(default)]
    refused: Option<String>,
}

impl Peers {
    /// Nobody is connected to before somebody is asked. `config` says as whom to talk to them; each question has
    /// `deadline` to be answered.
    #[must_use]
    pub fn new(config: TarantoolConfig, deadline: Duration) -> Self {
        Self {
            config,
            deadline,
            connections: Arc::default(),
        }
    }

    /// Asks all of them at once, not to be promoted for so long while `instance` is master of `term`.
    pub async fn ask(
        &self,
        term: u64,
        instance: &str,
        lasting: Duration,
        members: BTreeMap<String, String>,
    ) -> BTreeMap<String, Result<(), String>> {
        self.connections()
            .retain(|known, _| members.values().any(|address| address == known));
        let lasting_ns = u64::try_from(lasting.as_nanos()).unwrap_or(u64::MAX);
        let question = (instance, term, lasting_ns);
        let answers = members.into_iter().map(async |(uuid, address)| {
            let answer = self.ask_one(&uuid, &address, question).await;
            (uuid, answer)
        });
        join_all(answers).await.into_iter().collect()
    }

    async fn ask_one(
        &self,
        uuid: &str,
        address: &str,
        question: (&str, u64, u64),
    ) -> Result<(), String> {
        if address.is_empty() {
            return Err("where it can be reached is not known".to_owned());
        }
        let Ok(reply) = timeout(self.deadline, self.exchange(address, question)).await else {
            // Whatever that connection is good for, the next question comes over a new one.
            self.connections().remove(address);
            return Err(format!(
                "{address} did not answer within {:?}",
                self.deadline
            ));
        };
        match reply.map_err(|why| format!("{address}: {why}"))? {
            Reply { uuid: found, .. } if found != uuid => {
                Err(format!("another instance ({found}) answers at {address}"))
            }
            Reply { promised: true, .. } => Ok(()),
            Reply { refused, .. } => Err(refused.unwrap_or_else(|| "it refused".to_owned())),
        }
    }

    /// Over the connection that stands, or a new one. A promise may be asked for twice.
    async fn exchange(&self, address: &str, question: (&str, u64, u64)) -> Result<Reply, String> {
        let known = self.connections().get(address).cloned();
        if let Some(connection) = known {
            match self.call(&connection, question).await {
                Err(RequestError::Closed(_)) => {}
                answered => return answered.map_err(|error| words(&error)),
            }
        }
        let config = TarantoolConfig {
            addr: parse(address),
            ..self.config.clone()
        };
        let connection = Connection::open(&config, self.deadline)
            .await
            .map_err(|error| chain(&error))?;
        self.connections()
            .insert(address.to_owned(), connection.clone());
        self.call(&connection, question)
            .await
            .map_err(|error| words(&error))
    }

    async fn call(
        &self,
        connection: &Connection,
        question: (&str, u64, u64),
    ) -> Result<Reply, RequestError> {
        connection
            .call("tarsec_guard.promise", &question, self.deadline)
            .await
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<String, Connection>> {
        // No panic can leave the map half-changed.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// As `box.info.replication[n].upstream.peer` and a member's `uri` have it.
fn parse(address: &str) -> TarantoolAddr {
    match address.strip_prefix("unix/:") {
        Some(path) => TarantoolAddr::Unix(PathBuf::from(path)),
        None if address.starts_with('/') => TarantoolAddr::Unix(PathBuf::from(address)),
        None => TarantoolAddr::Tcp(address.to_owned()),
    }
}

fn words(error: &RequestError) -> String {
    if error.code() == Some(code::NO_SUCH_PROC) {
        return "it has no guard that could promise: no agent of this version ever attached"
            .to_owned();
    }
    chain(error)
}
