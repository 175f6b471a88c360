//! What stands beside the lock key: read as a whole in one transaction, watched, written if nobody else has.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Consul;
use super::advice::{key_rule, list_rule, prefix_rule};
use super::error::{Advice, BodyError, ConsulError};
use super::txn::{Found, KvOperation, TxnAnswer, found, trees};
use super::wire::{Call, Entry, key_path, or_at_once};
use crate::decide::ids::SessionId;

/// A cluster of many replica sets, each with 64 lines of history at half a KiB; a command's bound, not an agent's.
const CLUSTER_LIMIT_BYTES: usize = 64 * 1024 * 1024;

impl Consul {
    /// Everything under these prefixes, as it stands at one moment, confirmed by a quorum.
    ///
    /// # Errors
    /// What stands there is unknown.
    pub async fn read_trees(
        &self,
        what: &str,
        prefixes: &[String],
    ) -> Result<Vec<Found>, ConsulError> {
        let rule = prefix_rule(prefixes.first().map_or("", String::as_str));
        let operations = trees(prefixes, self.inner.namespace.as_deref()).collect();
        let answer = self
            .transaction(what.to_owned(), operations, &rule, &["consistent"])
            .await?;
        match answer {
            TxnAnswer::Done { answer, results } => found(&answer, results),
            TxnAnswer::Refused { why } => Err(refused(what, why)),
        }
    }

    /// Waits until a key under `prefix` has changed since `after`, at most for `wait` and a sixteenth and never longer than
    /// 25 s, and reads them all; with `after` 0 it does not wait. The index to go on from comes with them. Where something
    /// on the way ends the wait, they are read at once.
    ///
    /// # Errors
    /// What stands there is unknown.
    pub async fn watch_prefix(
        &self,
        prefix: &str,
        after: u64,
        wait: Duration,
    ) -> Result<(u64, Vec<Found>), ConsulError> {
        let what = format!("watch keys {prefix}");
        let call = Call::get(&*what, key_path(&what, prefix)?);
        self.watch_tree(call.allowed_by(prefix_rule(prefix)), after, wait)
            .await
    }

    /// The same for all keys of a cluster, which may be many, with a token that may only list them.
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
            .transaction(what, vec![operation], &key_rule(key), &[])
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
            .transaction(what.clone(), vec![operation], &key_rule(key), &[])
            .await?;
        match answer {
            TxnAnswer::Done { .. } => Ok(()),
            TxnAnswer::Refused { why } => Err(refused(&what, why)),
        }
    }

    /// Writes a key, and reads in the same transaction what then stands under `prefix`; with it comes the key's new
    /// `ModifyIndex`, from which a watch on the prefix goes on.
    ///
    /// # Errors
    /// Unless it is a denial, it may have been written.
    pub async fn put_and_read(
        &self,
        key: &str,
        value: &[u8],
        prefix: &str,
    ) -> Result<(u64, Vec<Found>), ConsulError> {
        let what = format!("write key {key}");
        key_path(&what, key)?;
        let namespace = self.inner.namespace.as_deref();
        let write = KvOperation {
            value: Some(BASE64.encode(value)),
            ..KvOperation::new("set", key, namespace)
        };
        let read = KvOperation::new("get-tree", prefix, namespace);
        let rule = prefix_rule(prefix);
        let answer = self
            .transaction(what.clone(), vec![write, read], &rule, &[])
            .await?;
        match answer {
            TxnAnswer::Done {
                answer,
                mut results,
            } if !results.is_empty() => {
                let written = results.remove(0);
                Ok((written.modify_index, found(&answer, results)?))
            }
            TxnAnswer::Done { answer, .. } => Err(answer.senseless(BodyError::Empty)),
            TxnAnswer::Refused { why } => Err(refused(&what, why)),
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
        self.transaction(what, vec![operation], &key_rule(key), &[])
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
    async fn trees_are_read_in_one_transaction_and_empty_ones_are_no_error() {
        let consul = testing::plain().client();
        consul.put_key("board/a/x", b"1").await.unwrap();
        consul.put_key("board/b/y", b"\xff").await.unwrap();
        let prefixes = ["board/a/", "board/none/", "board/b/"].map(str::to_owned);
        let found = consul.read_trees("read it", &prefixes).await.unwrap();
        let keys: Vec<_> = found.iter().map(|found| found.key.as_str()).collect();
        assert_eq!(keys, ["board/a/x", "board/b/y"]);
        assert_eq!(found[1].value, b"\xff");
    }

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
    async fn a_key_is_written_and_its_neighbours_are_read_at_one_moment() {
        let consul = testing::plain().client();
        let prefix = "board beside/";
        consul.put_key("board beside/a", b"1").await.unwrap();
        let (index, found) = consul
            .put_and_read("board beside/b", b"2", prefix)
            .await
            .unwrap();
        let values: Vec<_> = found.iter().map(|found| &found.value[..]).collect();
        assert_eq!(values, [b"1", b"2"]);
        assert_eq!(found[1].modify_index, index);
        // A watch that goes on from there has nothing to tell.
        let wait = Duration::from_millis(50);
        let (later, _) = consul.watch_prefix(prefix, index, wait).await.unwrap();
        assert_eq!(later, index);
    }

    #[tokio::test]
    async fn a_watch_on_a_prefix_wakes_for_its_keys() {
        let consul = testing::plain().client();
        let prefix = "board watch/";
        consul.put_key("board watch/a", b"1").await.unwrap();
        let (index, found) = consul
            .watch_prefix(prefix, 0, Duration::ZERO)
            .await
            .unwrap();
        assert_eq!(found.len(), 1);
        let watching = consul.clone();
        let watch = tokio::spawn(async move {
            watching
                .watch_prefix(prefix, index, Duration::from_secs(20))
                .await
        });
        consul.put_key("board watch/b", b"2").await.unwrap();
        let (later, found) = watch.await.unwrap().unwrap();
        assert!(later > index);
        assert_eq!(found.len(), 2);
    }
}
