//! Transactions, and what is read in one of them: <https://developer.hashicorp.com/consul/api-docs/txn>.

use serde::{Deserialize, Serialize};

use super::Consul;
use super::error::{Advice, ConsulError};
use super::session::json;
use super::throttle::Lane;
use super::wire::{Answer, Call, Entry, is_denial};
use crate::decide::ids::SessionId;

/// A key that a transaction read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The whole key.
    pub key: String,
    /// The index of its last change.
    pub modify_index: u64,
    /// The session that holds it as a lock; `None`: no session does.
    pub session: Option<SessionId>,
    /// Its value.
    pub value: Vec<u8>,
}

#[derive(Serialize)]
struct Operation<'a> {
    #[serde(rename = "KV")]
    kv: KvOperation<'a>,
}

/// <https://developer.hashicorp.com/consul/api-docs/txn#kv-operations>
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct KvOperation<'a> {
    pub(super) verb: &'static str,
    pub(super) key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<&'a SessionId>,
    /// Transactions have no other way to name a namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<&'a str>,
}

impl<'a> KvOperation<'a> {
    pub(super) fn new(verb: &'static str, key: &'a str, namespace: Option<&'a str>) -> Self {
        Self {
            verb,
            key,
            value: None,
            index: None,
            session: None,
            namespace,
        }
    }
}

/// Reads of everything under each prefix; a prefix without keys is no failure.
pub(super) fn trees<'a>(
    prefixes: &'a [String],
    namespace: Option<&'a str>,
) -> impl Iterator<Item = KvOperation<'a>> {
    prefixes
        .iter()
        .map(move |prefix| KvOperation::new("get-tree", prefix, namespace))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Transaction {
    results: Option<Vec<TransactionResult>>,
    errors: Option<Vec<TransactionError>>,
}

#[derive(Deserialize)]
struct TransactionResult {
    #[serde(rename = "KV")]
    kv: Entry,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TransactionError {
    what: String,
}

/// What Consul said.
pub(super) enum TxnAnswer {
    /// All of it is done.
    Done {
        /// For errors about what is in it.
        answer: Answer,
        /// The keys written and read, in the operations' order; a check may be among them.
        results: Vec<Entry>,
    },
    /// None of it is.
    Refused {
        /// Consul's words.
        why: String,
    },
}

impl Consul {
    pub(super) async fn transaction(
        &self,
        what: String,
        operations: Vec<KvOperation<'_>>,
        rule: &str,
        queries: &[&str],
    ) -> Result<TxnAnswer, ConsulError> {
        self.transaction_in(Lane::Others, what, operations, rule, queries)
            .await
    }

    pub(super) async fn transaction_in(
        &self,
        lane: Lane,
        what: String,
        operations: Vec<KvOperation<'_>>,
        rule: &str,
        queries: &[&str],
    ) -> Result<TxnAnswer, ConsulError> {
        let operations: Vec<Operation<'_>> =
            operations.into_iter().map(|kv| Operation { kv }).collect();
        let body = json(&what, &operations)?;
        let mut call = Call::put(what, "/v1/txn", body)
            .allowed_by(rule)
            .in_lane(lane);
        for query in queries {
            call = call.query(*query);
        }
        let answer = self.wire().send(call).await?;
        decode(answer).map_err(|error| self.wire().advise(error, rule))
    }
}

pub(super) fn decode(answer: Answer) -> Result<TxnAnswer, ConsulError> {
    match answer.code {
        200 => {
            let results = answer.json::<Transaction>()?.results.unwrap_or_default();
            Ok(TxnAnswer::Done {
                answer,
                results: results.into_iter().map(|result| result.kv).collect(),
            })
        }
        409 => {
            let errors = answer.json::<Transaction>()?.errors.unwrap_or_default();
            if errors.is_empty() {
                return Err(answer.senseless(super::error::BodyError::Empty));
            }
            let denied = errors.iter().any(|error| is_denial(&error.what));
            let mut words: Vec<String> = errors.into_iter().map(|error| error.what).collect();
            // A denial comes once for each operation.
            words.dedup();
            let why = words.join("; ");
            if denied {
                return Err(ConsulError::Denied {
                    code: answer.code,
                    what: answer.what,
                    message: why,
                    advice: Advice::default(),
                });
            }
            Ok(TxnAnswer::Refused { why })
        }
        _ => Err(answer.unexpected()),
    }
}

/// The values of the keys that were read.
pub(super) fn found(answer: &Answer, entries: Vec<Entry>) -> Result<Vec<Found>, ConsulError> {
    entries
        .into_iter()
        .map(|entry| {
            let value = entry.bytes().map_err(|source| answer.senseless(source))?;
            Ok(Found {
                session: entry.holder(),
                key: entry.key,
                modify_index: entry.modify_index,
                value,
            })
        })
        .collect()
}
