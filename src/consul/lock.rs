//! The lock key: reads, watches and the six steps that may change it, each one transaction.
//!
//! This goes over our own wire: `rs-consul` has no transactions, drops the index of a missing key (which a watch needs)
//! and fails on values that are not UTF-8.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Consul;
use super::advice::key_rule;
use super::error::{BodyError, ConsulError};
use super::throttle::Lane;
use super::txn::{KvOperation, TxnAnswer};
use super::wire::{Answer, Call, Entry, key_path, or_at_once};
use crate::decide::ids::SessionId;

/// The lock key as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockView {
    /// What the next watch goes on from; at least 1.
    pub index: u64,
    /// `None`: Consul says that there is no such key.
    pub key: Option<LockKey>,
}

/// The lock key that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockKey {
    /// Grows with every change of the value or of the holder.
    pub modify_index: u64,
    /// The session that holds the lock; `None`: no session does.
    pub session: Option<SessionId>,
    /// The record, or whatever was written over it.
    pub value: Vec<u8>,
}

/// A change of the lock key. Each is one transaction that fails as a whole if what it rests on is no longer so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockStep {
    /// First acquisition: there is no such key.
    Create {
        /// The caller's session.
        session: SessionId,
        /// The new value.
        value: Vec<u8>,
    },
    /// Acquisition of a free lock that nobody has touched since the caller looked.
    Acquire {
        /// The key's `modify_index` when the caller looked.
        index: u64,
        /// The caller's session.
        session: SessionId,
        /// The new value.
        value: Vec<u8>,
    },
    /// A new value under a lock that the caller holds, if nobody has touched the key since the caller looked. Without
    /// the index a refresh whose reply never came could be carried out long after, when the same session has released
    /// the lock and taken it again in a higher term.
    Refresh {
        /// The key's `modify_index` when the caller looked.
        index: u64,
        /// The caller's session.
        session: SessionId,
        /// The new value. Consul takes a value that has not changed for no write at all: the index stands still and no
        /// watch wakes.
        value: Vec<u8>,
    },
    /// The end of the caller's hold, with a last value, if nobody has touched the key since the caller looked. Without
    /// the index a release whose reply never came could be carried out long after: in 12 of 30 tries against a Consul
    /// that was stopped and woken (1.8.7), after a later refresh that it had accepted.
    Release {
        /// The key's `modify_index` when the caller looked.
        index: u64,
        /// The caller's session.
        session: SessionId,
        /// The new value.
        value: Vec<u8>,
    },
    /// The end of another session's hold and the start of the caller's, if nobody has touched the key since the caller
    /// looked.
    TakeOver {
        /// The key's `modify_index` when the caller looked.
        index: u64,
        /// The session that held it when the caller looked.
        holder: SessionId,
        /// The caller's session.
        session: SessionId,
        /// The new value.
        value: Vec<u8>,
    },
    /// The end of another session's hold at an operator's word, if nobody has touched the key since the command looked.
    /// It is the only step for which the caller needs no session.
    Declare {
        /// The key's `modify_index` when the command looked.
        index: u64,
        /// The session that held it when the command looked; `None`: no session did.
        holder: Option<SessionId>,
        /// The new value.
        value: Vec<u8>,
    },
}

/// What Consul said to a [`LockStep`]. A missing answer is an error, never a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockOutcome {
    /// It is done.
    Done {
        /// The key's index from now on.
        modify_index: u64,
    },
    /// Nothing has changed, because what the step rests on was not so.
    Refused {
        /// Consul's words.
        why: String,
    },
}

impl LockStep {
    fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Acquire { .. } => "acquire",
            Self::Refresh { .. } => "refresh",
            Self::Release { .. } => "release",
            Self::TakeOver { .. } => "take over",
            Self::Declare { .. } => "declare the end of",
        }
    }

    fn operations<'a>(&'a self, key: &'a str, namespace: Option<&'a str>) -> Vec<KvOperation<'a>> {
        let op = |verb| KvOperation::new(verb, key, namespace);
        let check_index = |index| KvOperation {
            index: Some(index),
            ..op("check-index")
        };
        let check_session = |session: &'a SessionId| KvOperation {
            session: Some(session),
            ..op("check-session")
        };
        let write = |verb, session: &'a SessionId, value: &[u8]| KvOperation {
            session: Some(session),
            value: Some(BASE64.encode(value)),
            ..op(verb)
        };
        match self {
            Self::Create { session, value } => {
                vec![op("check-not-exists"), write("lock", session, value)]
            }
            Self::Acquire {
                index,
                session,
                value,
            } => vec![check_index(*index), write("lock", session, value)],
            Self::Refresh {
                index,
                session,
                value,
            } => vec![
                check_session(session),
                check_index(*index),
                write("lock", session, value),
            ],
            Self::Release {
                index,
                session,
                value,
            } => vec![
                check_session(session),
                check_index(*index),
                write("unlock", session, value),
            ],
            Self::TakeOver {
                index,
                holder,
                session,
                value,
            } => vec![
                check_index(*index),
                write("unlock", holder, value),
                write("lock", session, value),
            ],
            Self::Declare {
                index,
                holder: Some(holder),
                value,
            } => vec![check_index(*index), write("unlock", holder, value)],
            // Taking a lock is a change of the key, so the index sees that, too.
            Self::Declare {
                index,
                holder: None,
                value,
            } => vec![KvOperation {
                index: Some(*index),
                value: Some(BASE64.encode(value)),
                ..op("cas")
            }],
        }
    }
}

impl Consul {
    /// Reads the lock `consistent`ly: no earlier than the request, and confirmed by a quorum.
    ///
    /// # Errors
    /// The lock's state is unknown, never free.
    pub async fn read_lock(&self, key: &str) -> Result<LockView, ConsulError> {
        self.read_consistently("lock", key).await
    }

    /// The same for any other key.
    ///
    /// # Errors
    /// What stands there is unknown.
    pub async fn read_key(&self, key: &str) -> Result<LockView, ConsulError> {
        self.read_consistently("key", key).await
    }

    async fn read_consistently(&self, noun: &str, key: &str) -> Result<LockView, ConsulError> {
        let what = format!("read {noun} {key}");
        let path = key_path(&what, key)?;
        let call = Call::get(what, path).query("consistent");
        self.look(key, call.in_lane(Lane::Lock)).await
    }

    /// Waits until the store has gone past index `after`, at most for `wait` and a sixteenth (Consul's jitter) and never
    /// longer than 25 s, and reads the lock.
    ///
    /// With `after` 0 it does not wait. A caller whose next `index` is lower than the one before starts again from 0
    /// (<https://developer.hashicorp.com/consul/api-docs/features/blocking>): [`LockWatch`](super::LockWatch) does.
    ///
    /// Consul confirms its leadership when the question comes in and whenever it looks again, but not when `wait` runs
    /// out: an answer with an unchanged index is as old as the question. A watch on a missing key may wake for writes to
    /// other keys.
    ///
    /// # Errors
    /// The lock's state is unknown, never free. That Consul is away is not known either: anything on the way may have
    /// ended the wait, so that only [`Consul::read_lock`] tells.
    pub async fn watch_lock(
        &self,
        key: &str,
        after: u64,
        wait: Duration,
    ) -> Result<LockView, ConsulError> {
        let what = format!("watch lock {key}");
        let path = key_path(&what, key)?;
        let call = Call::get(what, path).query("consistent");
        let call = call.once_past(after, wait).in_lane(Lane::Watch);
        self.look(key, call).await
    }

    /// The same for a key on which nothing rests that counts time: where something on the way ends the wait, it is read at
    /// once.
    ///
    /// # Errors
    /// What stands there is unknown.
    pub async fn watch_key(
        &self,
        key: &str,
        after: u64,
        wait: Duration,
    ) -> Result<LockView, ConsulError> {
        if after == 0 {
            return self.read_lock(key).await;
        }
        or_at_once(wait, self.watch_lock(key, after, wait), self.read_lock(key)).await
    }

    /// Makes one change of the lock key. The transaction reads nothing, so that whatever others put into Consul cannot keep
    /// its outcome from being known.
    ///
    /// # Errors
    /// Unless it is a denial, the step may have been done: read the lock and see.
    pub async fn transact(&self, key: &str, step: &LockStep) -> Result<LockOutcome, ConsulError> {
        let what = format!("{} lock {key}", step.name());
        // A key that could not be read back is refused.
        key_path(&what, key)?;
        let namespace = self.inner.namespace.as_deref();
        let operations = step.operations(key, namespace);
        let rule = key_rule(key);
        let call = self.transaction_call(what, operations, &rule)?;
        let answer = self
            .send_transaction(call.in_lane(Lane::Lock), &rule)
            .await?;
        outcome(key, answer)
    }

    async fn look(&self, key: &str, call: Call) -> Result<LockView, ConsulError> {
        view(key, self.wire().send(call.allowed_by(key_rule(key))).await?)
    }
}

#[cfg(fuzzing)]
pub(super) fn read_any_answer(answer: impl Fn() -> Answer) {
    let _ = view("k", answer());
    let _ = super::txn::decode(answer()).and_then(|read| outcome("k", read));
}

fn view(key: &str, answer: Answer) -> Result<LockView, ConsulError> {
    let found = match answer.code {
        200 => Some(
            lock_key(key, &answer.json::<Vec<Entry>>()?)
                .map_err(|source| answer.senseless(source))?,
        ),
        404 => None,
        _ => return Err(answer.unexpected()),
    };
    // An answer without an index is not from Consul: a proxy's "not found" is no free lock.
    match (answer.index, found) {
        (Some(index), key) => Ok(LockView {
            index: index.max(1),
            key,
        }),
        (None, Some(_)) => Err(answer.senseless(BodyError::NoIndex)),
        (None, None) => Err(answer.unexpected()),
    }
}

fn lock_key(key: &str, entries: &[Entry]) -> Result<LockKey, BodyError> {
    let entry = match entries {
        [entry] if entry.key == key => entry,
        [entry, ..] => {
            return Err(BodyError::Other {
                expected: key.to_owned(),
                found: entry.key.clone(),
            });
        }
        [] => return Err(BodyError::Empty),
    };
    Ok(LockKey {
        modify_index: entry.modify_index,
        session: entry.holder(),
        value: entry.bytes()?,
    })
}

fn outcome(key: &str, answer: TxnAnswer) -> Result<LockOutcome, ConsulError> {
    let (answer, results) = match answer {
        TxnAnswer::Refused { why, .. } => return Ok(LockOutcome::Refused { why }),
        TxnAnswer::Done { answer, results } => (answer, results),
    };
    let last = results
        .iter()
        .rfind(|entry| entry.key == key)
        .ok_or_else(|| answer.senseless(BodyError::Empty))?;
    Ok(LockOutcome::Done {
        modify_index: last.modify_index,
    })
}

#[cfg(test)]
mod tests;
