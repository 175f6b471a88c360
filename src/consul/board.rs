//! What stands beside the lock key: written if nobody else has, and read as a whole by the operator's commands.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Consul;
use super::advice::{key_rule, list_rule};
use super::error::{Advice, BodyError, ConsulError};
use super::txn::{Found, KvOperation, TxnAnswer, found};
use super::wire::{Call, Entry, key_path, or_at_once};
use crate::decide::ids::SessionId;

/// A cluster of many replica sets, each with 64 lines of history at half a KiB; a command's bound, not an agent's.
const CLUSTER_LIMIT_BYTES: usize = 64 * 1024 * 1024;

impl Consul {
    /// Waits until a key of a cluster has changed since `after`, at most for `wait` and a sixteenth and never longer than
    /// 25 s, and reads them all, which may be many, with a token that may only list them; with `after` 0 it does not wait.
    /// The index to go on from comes with them. Where something on the way ends the wait, they are read at once.
    ///
    /// # Errors
    /// What stands there is unknown.
    pub async fn watch_cluster(
        &self,
        prefix: &str,
        after: u64,
        wait: Duration,
    ) -> Result<(u64, Vec<Found>), ConsulError> {
        let what = format!("read keys {prefix}");
        let call = Call::get(&*what, key_path(&what, prefix)?).up_to(CLUSTER_LIMIT_BYTES);
        self.watch_tree(call.allowed_by(list_rule(prefix)), after, wait)
            .await
    }

    async fn watch_tree(
        &self,
        call: Call,
        after: u64,
        wait: Duration,
    ) -> Result<(u64, Vec<Found>), ConsulError> {
        let call = call.query("recurse").query("consistent");
        if after == 0 {
            return self.tree(call).await;
        }
        let held = self.tree(call.clone().once_past(after, wait));
        or_at_once(wait, held, self.tree(call)).await
    }

    async fn tree(&self, call: Call) -> Result<(u64, Vec<Found>), ConsulError> {
        let answer = self.wire().send(call).await?;
        let index = answer.index;
        let entries = match (answer.code, index) {
            (200, _) => answer.json::<Vec<Entry>>()?,
            (404, Some(_)) => Vec::new(),
            (_, _) => return Err(answer.unexpected()),
        };
        Ok((index.unwrap_or(0).max(1), found(&answer, entries)?))
    }

    /// Whether the token may read under a prefix: it asks for `key` there. Consul leaves out of a list what the token may not
    /// read, but denies a key that is asked for by its name.
    ///
    /// # Errors
    /// It may not, or nobody knows.
    pub async fn check_readable(&self, prefix: &str, key: &str) -> Result<(), ConsulError> {
        let what = format!("read keys {prefix}");
        let path = key_path(&what, key)?;
        let call = Call::get(what, path).allowed_by(list_rule(prefix));
        let answer = self.wire().send(call).await?;
        match answer.code {
            200 | 404 => Ok(()),
            _ => Err(answer.unexpected()),
        }
    }

    /// Writes a key if its `ModifyIndex` is still `index` (0: if it does not exist); its new one, or `None` if somebody
    /// was first.
    ///
    /// # Errors
    /// Unless it is a denial, it may have been written.
    pub async fn put_key_if(
        &self,
        key: &str,
        index: u64,
        value: &[u8],
    ) -> Result<Option<u64>, ConsulError> {
        let what = format!("write key {key}");
        key_path(&what, key)?;
        let operation = KvOperation {
            index: Some(index),
            value: Some(BASE64.encode(value)),
            ..KvOperation::new("cas", key, self.inner.namespace.as_deref())
        };
        let answer = self
            .transaction(what, vec![operation], &key_rule(key))
            .await?;
        Ok(match answer {
            TxnAnswer::Done { results, .. } => results.last().map(|entry| entry.modify_index),
            TxnAnswer::Refused { .. } => None,
        })
    }

    /// Writes a key and lets the session hold it.
    ///
    /// # Errors
    /// Unless it is a denial, it may have been written.
    pub async fn hold_key(
        &self,
        key: &str,
        session: &SessionId,
        value: &[u8],
    ) -> Result<(), ConsulError> {
        let what = format!("write key {key}");
        key_path(&what, key)?;
        let operation = KvOperation {
            session: Some(session),
            value: Some(BASE64.encode(value)),
            ..KvOperation::new("lock", key, self.inner.namespace.as_deref())
        };
        let answer = self
            .transaction(what.clone(), vec![operation], &key_rule(key))
            .await?;
        match answer {
            TxnAnswer::Done { .. } => Ok(()),
            TxnAnswer::Refused { why, .. } => Err(refused(&what, why)),
        }
    }

    /// Writes a key, whatever stands there; its new `ModifyIndex`.
    ///
    /// # Errors
    /// Unless it is a denial, it may have been written.
    pub async fn set_key(&self, key: &str, value: &[u8]) -> Result<u64, ConsulError> {
        let what = format!("write key {key}");
        key_path(&what, key)?;
        let write = KvOperation {
            value: Some(BASE64.encode(value)),
            ..KvOperation::new("set", key, self.inner.namespace.as_deref())
        };
        let rule = key_rule(key);
        match self.transaction(what.clone(), vec![write], &rule).await? {
            TxnAnswer::Done { answer, results } => match results.first() {
                Some(written) => Ok(written.modify_index),
                None => Err(answer.senseless(BodyError::Empty)),
            },
            TxnAnswer::Refused { why, .. } => Err(refused(&what, why)),
        }
    }

    /// Removes a key; it is no error if there is no such key.
    ///
    /// # Errors
    /// Unless it is a denial, it may have been removed.
    pub async fn delete_key(&self, key: &str) -> Result<(), ConsulError> {
        let what = format!("remove key {key}");
        key_path(&what, key)?;
        let operation = KvOperation::new("delete", key, self.inner.namespace.as_deref());
        self.transaction(what, vec![operation], &key_rule(key))
            .await
            .map(|_| ())
    }
}

/// The error of a transaction that rests on nothing, and was refused all the same.
fn refused(what: &str, why: String) -> ConsulError {
    ConsulError::Status {
        what: what.to_owned(),
        code: 409,
        message: why,
        advice: Advice::default(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::consul::testing;

    #[tokio::test]
    async fn a_key_is_written_only_as_it_was_seen() {
        let consul = testing::plain().client();
        let key = "board if/key";
        let first = consul.put_key_if(key, 0, b"1").await.unwrap();
        let first = first.expect("there was none");
        assert_eq!(consul.put_key_if(key, 0, b"2").await.unwrap(), None);
        assert_eq!(consul.put_key_if(key, first - 1, b"2").await.unwrap(), None);
        let second = consul.put_key_if(key, first, b"2").await.unwrap();
        assert!(second > Some(first));
        consul.delete_key(key).await.unwrap();
        consul.delete_key(key).await.unwrap();
        assert!(consul.put_key_if(key, 0, b"3").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_key_is_written_whatever_stands_there_and_its_index_is_told() {
        let consul = testing::plain().client();
        let first = consul.set_key("board set", b"1").await.unwrap();
        let second = consul.set_key("board set", b"2").await.unwrap();
        assert!(second > first);
        let found = consul.read_key("board set").await.unwrap().key.unwrap();
        assert_eq!((found.modify_index, &found.value[..]), (second, &b"2"[..]));
    }

    #[tokio::test]
    async fn a_watch_on_a_cluster_wakes_for_its_keys() {
        let consul = testing::plain().client();
        let prefix = "board watch/";
        consul.put_key("board watch/a", b"1").await.unwrap();
        let (index, found) = consul
            .watch_cluster(prefix, 0, Duration::ZERO)
            .await
            .unwrap();
        assert_eq!(found.len(), 1);
        let watching = consul.clone();
        let watch = tokio::spawn(async move {
            watching
                .watch_cluster(prefix, index, Duration::from_secs(20))
                .await
        });
        consul.put_key("board watch/b", b"2").await.unwrap();
        let (later, found) = watch.await.unwrap().unwrap();
        assert!(later > index);
        assert_eq!(found.len(), 2);
    }
}
