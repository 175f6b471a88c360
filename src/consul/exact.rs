//! Keys that are read by their names, apart from everything that is written. A prefix holds as much as others put there, and
//! so would the answer; names hold what their own few values hold.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use super::Consul;
use super::advice::prefix_rule;
use super::error::{Advice, BodyError, ConsulError};
use super::txn::{Found, KvOperation, TxnAnswer, found};
use super::wire::{Answer, Call, Entry, key_path, or_at_once};
use crate::decide::record::Record;

/// The longest value that is read. An agent's own words take a few KiB, with 32 members and all problems 20.
pub const VALUE_LIMIT_BYTES: usize = Record::MAX_BYTES;

/// What Consul takes into one transaction (`maxTxnOps` in its `agent/txn_endpoint.go`).
const KEYS_AT_ONCE: usize = 64;

/// The longest answer of such a transaction: room for 64 values of 10 KiB.
const ANSWER_LIMIT_BYTES: usize = 1024 * 1024;

/// A value in base64, and what Consul says about its key.
const ENTRY_LIMIT_BYTES: usize = VALUE_LIMIT_BYTES * 4 / 3 + 4 * 1024;

/// The longest list of names that is read: some 1,000 members' keys, or masters' of as many replica sets.
pub const NAMES_LIMIT_BYTES: usize = 128 * 1024;

/// A key that came or went since the last look costs another try. After these each key is asked for alone.
const TRIES: usize = 3;

/// Where each key is asked for alone, so many are asked for side by side.
const SIDE_BY_SIDE: usize = 8;

/// Keys whose last look is remembered; more than all that are looked at.
const REMEMBERED_KEYS: usize = 1024;

/// What keys were found to hold. A key that is neither here nor there is absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Values {
    /// The keys that are there.
    pub found: Vec<Found>,
    /// The keys that are there with a value of more than [`VALUE_LIMIT_BYTES`], with their `ModifyIndex`.
    pub too_long: Vec<(String, u64)>,
}

/// What a key is taken for until an answer says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guess {
    Absent,
    There,
    /// There since this `ModifyIndex` with a value that is not read.
    TooLong(u64),
}

/// What keys were when they were last looked at. A transaction that reads a missing key fails as a whole, so each is
/// guessed first and corrected by the answer; and a value that was too long costs nothing more until it changes.
#[derive(Debug, Default)]
pub(super) struct Guesses(Mutex<HashMap<String, Guess>>);

impl Guesses {
    fn known(&self, key: &str) -> Option<Guess> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).copied()
    }

    fn of(&self, keys: &[String]) -> Vec<Guess> {
        let of_one = |key: &String| self.known(key).unwrap_or(Guess::Absent);
        keys.iter().map(of_one).collect()
    }

    fn note(&self, key: &str, guess: Guess) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED_KEYS && !known.contains_key(key) {
            // What is forgotten costs one more try.
            known.clear();
        }
        known.insert(key.to_owned(), guess);
    }
}

impl Values {
    fn add(&mut self, found: Found) {
        if found.value.len() > VALUE_LIMIT_BYTES {
            self.too_long.push((found.key, found.modify_index));
        } else {
            self.found.push(found);
        }
    }
}

impl Consul {
    /// What these keys hold, confirmed by a quorum and no older than the call. Up to 64 keys are read at one moment, unless
    /// there is more under them than agents ever write: then each is read at its own.
    ///
    /// # Errors
    /// What stands there is unknown.
    pub async fn read_keys(&self, what: &str, keys: &[String]) -> Result<Values, ConsulError> {
        let mut values = Values::default();
        for keys in keys.chunks(KEYS_AT_ONCE) {
            let read = match self.read_together(what, keys).await? {
                Some(read) => read,
                None => self.read_one_by_one(what, keys).await?,
            };
            values.found.extend(read.found);
            values.too_long.extend(read.too_long);
        }
        Ok(values)
    }

    /// The same for keys that may be anybody's: those that were not read before are read one by one, since together they may
    /// be much more than is read, and Consul would have put all of it together.
    ///
    /// # Errors
    /// What stands there is unknown.
    pub async fn read_strange_keys(
        &self,
        what: &str,
        keys: &[String],
    ) -> Result<Values, ConsulError> {
        let is_new = |key: &&String| self.inner.guesses.known(key).is_none();
        let (new, known): (Vec<&String>, Vec<&String>) = keys.iter().partition(is_new);
        let (new, known) = (owned(&new), owned(&known));
        let mut values = self.read_keys(what, &known).await?;
        let read = self.read_one_by_one(what, &new).await?;
        values.found.extend(read.found);
        values.too_long.extend(read.too_long);
        Ok(values)
    }

    /// `None`: they are too much for one answer, or come and go, or the token may not read one of them.
    async fn read_together(
        &self,
        what: &str,
        keys: &[String],
    ) -> Result<Option<Values>, ConsulError> {
        let namespace = self.inner.namespace.as_deref();
        let rule = prefix_rule(keys.first().map_or("", String::as_str));
        for _ in 0..TRIES {
            let guesses = self.inner.guesses.of(keys);
            let operations = keys.iter().zip(&guesses);
            let operations = operations.map(|(key, guess)| match guess {
                Guess::Absent => KvOperation::new("check-not-exists", key, namespace),
                Guess::There => KvOperation::new("get", key, namespace),
                Guess::TooLong(index) => KvOperation {
                    index: Some(*index),
                    ..KvOperation::new("check-index", key, namespace)
                },
            });
            let call = self.transaction_call(what.to_owned(), operations.collect(), &rule)?;
            let call = call.query("consistent").up_to(ANSWER_LIMIT_BYTES);
            match self.send_transaction(call, &rule).await {
                Ok(TxnAnswer::Done { answer, results }) => {
                    let read = found(&answer, results)?;
                    return Ok(self.values_of(keys, &guesses, read));
                }
                Ok(TxnAnswer::Refused { at, .. }) => {
                    let guesses = keys.iter().zip(&guesses).enumerate();
                    for (_, (key, guess)) in guesses.filter(|(place, _)| at.contains(place)) {
                        let other = match guess {
                            Guess::Absent | Guess::TooLong(_) => Guess::There,
                            Guess::There => Guess::Absent,
                        };
                        self.inner.guesses.note(key, other);
                    }
                }
                // To check that a key is missing takes the right to write it (1.8.7); to read it alone does not.
                Err(ConsulError::TooLong { .. } | ConsulError::Denied { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The guesses were right, and this was read of the keys. `None`: Consul left out, without a word, what the token may
    /// not read.
    fn values_of(&self, keys: &[String], guesses: &[Guess], read: Vec<Found>) -> Option<Values> {
        let mut read: HashMap<String, Found> = read
            .into_iter()
            .map(|found| (found.key.clone(), found))
            .collect();
        let mut values = Values::default();
        for (key, guess) in keys.iter().zip(guesses) {
            match guess {
                // So that it is known to have been looked at.
                Guess::Absent => self.inner.guesses.note(key, Guess::Absent),
                Guess::There => values.add(read.remove(key)?),
                Guess::TooLong(index) => values.too_long.push((key.clone(), *index)),
            }
        }
        Some(values)
    }

    async fn read_one_by_one(&self, what: &str, keys: &[String]) -> Result<Values, ConsulError> {
        let mut values = Values::default();
        let mut under_way = JoinSet::new();
        let mut left = keys.iter();
        loop {
            while under_way.len() < SIDE_BY_SIDE
                && let Some(key) = left.next()
            {
                let (consul, what, key) = (self.clone(), what.to_owned(), key.clone());
                under_way.spawn(async move { consul.read_alone(what, key).await });
            }
            let Some(read) = under_way.join_next().await else {
                return Ok(values);
            };
            // A task that was cut off is none of ours: they end with this set alone.
            match read {
                Ok(Ok(Alone::Absent(key))) => self.inner.guesses.note(&key, Guess::Absent),
                Ok(Ok(Alone::There(found))) => {
                    self.inner.guesses.note(&found.key, Guess::There);
                    values.add(found);
                }
                Ok(Ok(Alone::TooLong(key, index))) => {
                    self.inner.guesses.note(&key, Guess::TooLong(index));
                    values.too_long.push((key, index));
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    return Err(ConsulError::Unreachable {
                        what: what.to_owned(),
                        advice: Advice::default(),
                        source: "the read was cut off".into(),
                    });
                }
            }
        }
    }

    async fn read_alone(&self, what: String, key: String) -> Result<Alone, ConsulError> {
        let path = key_path(&what, &key)?;
        let call = Call::get(what, path)
            .query("consistent")
            .cut_at(ENTRY_LIMIT_BYTES);
        let answer = self.wire().send(call.allowed_by(prefix_rule(&key))).await?;
        alone(key, answer)
    }

    /// Waits until a key under `prefix` has changed since `after`, at most for `wait` and a sixteenth and never longer than
    /// 25 s, and reads the names of all of them; with `after` 0 it does not wait. The index to go on from comes with them.
    /// Where something on the way ends the wait, they are read at once. `None`: there are more than are read.
    ///
    /// # Errors
    /// What stands there is unknown.
    pub async fn watch_names(
        &self,
        prefix: &str,
        after: u64,
        wait: Duration,
    ) -> Result<(u64, Option<Vec<String>>), ConsulError> {
        let what = format!("list keys {prefix}");
        let path = key_path(&what, prefix)?;
        let call = Call::get(what, path).query("keys").query("consistent");
        let call = call.cut_at(NAMES_LIMIT_BYTES);
        let call = call.allowed_by(prefix_rule(prefix));
        if after == 0 {
            return self.names(call).await;
        }
        let held = self.names(call.clone().once_past(after, wait));
        or_at_once(wait, held, self.names(call)).await
    }

    async fn names(&self, call: Call) -> Result<(u64, Option<Vec<String>>), ConsulError> {
        names(self.wire().send(call).await?)
    }
}

fn names(answer: Answer) -> Result<(u64, Option<Vec<String>>), ConsulError> {
    // An answer without an index is not from Consul.
    let Some(index) = answer.index else {
        return Err(answer.unexpected());
    };
    let names = match answer.code {
        200 if answer.cut => None,
        200 => Some(answer.json::<Vec<String>>()?),
        404 => Some(Vec::new()),
        _ => return Err(answer.unexpected()),
    };
    Ok((index.max(1), names))
}

fn alone(key: String, answer: Answer) -> Result<Alone, ConsulError> {
    match (answer.code, answer.index) {
        // Of one key the answer's index is the key's own.
        (200, Some(index)) if answer.cut => Ok(Alone::TooLong(key, index)),
        (200, Some(_)) => {
            let entries = answer.json::<Vec<Entry>>()?;
            let read = found(&answer, entries)?;
            let own = read.into_iter().find(|found| found.key == key);
            let own = own.ok_or_else(|| answer.senseless(BodyError::Empty))?;
            Ok(Alone::There(own))
        }
        (404, Some(_)) => Ok(Alone::Absent(key)),
        (_, _) => Err(answer.unexpected()),
    }
}

#[cfg(fuzzing)]
pub(super) fn read_any_answer(answer: impl Fn() -> Answer) {
    let _ = names(answer());
    let _ = alone("k".to_owned(), answer());
}

/// What a key was found to be that was asked for alone.
enum Alone {
    Absent(String),
    There(Found),
    TooLong(String, u64),
}

fn owned(keys: &[&String]) -> Vec<String> {
    keys.iter().map(|key| (*key).clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{Answer, Guess, NAMES_LIMIT_BYTES, VALUE_LIMIT_BYTES, Values};
    use crate::consul::Consul;
    use crate::consul::testing::{self, ROOT_TOKEN};

    proptest! {
        #[test]
        fn the_decoders_survive_any_bytes(code in 200_u16..600, text: Vec<u8>, value: String, index: Option<u64>) {
            let entry = serde_json::json!([{"Key": "k", "Value": value, "ModifyIndex": 7}]);
            for body in [text, entry.to_string().into_bytes()] {
                let answer = || Answer { what: "test".to_owned(), code, index, body: body.clone(), cut: false };
                let _ = super::names(answer());
                let _ = super::alone("k".to_owned(), answer());
            }
        }
    }

    /// What Consul takes into a transaction at most is a little less, in base64.
    const HUGE: usize = 380 * 1024;

    fn keys(of: &[&str]) -> Vec<String> {
        of.iter().map(|key| (*key).to_owned()).collect()
    }

    async fn read(consul: &Consul, of: &[&str]) -> Values {
        let mut values = consul.read_keys("read it", &keys(of)).await.unwrap();
        values.found.sort_by(|a, b| a.key.cmp(&b.key));
        values
    }

    fn names(values: &Values) -> Vec<&str> {
        values.found.iter().map(|found| &*found.key).collect()
    }

    #[tokio::test]
    async fn keys_are_read_by_name_while_they_come_and_go_and_their_neighbours_are_not() {
        let consul = testing::plain().client();
        let all = ["exact/a", "exact/b", "exact/c"];
        assert_eq!(read(&consul, &all).await, Values::default());
        for key in ["exact/a", "exact/b-x", "exact/b/y", "exact/c"] {
            consul.put_key(key, b"\xff").await.unwrap();
        }
        let values = read(&consul, &all).await;
        assert_eq!(names(&values), ["exact/a", "exact/c"]);
        assert_eq!(values.found[0].value, b"\xff");
        consul.delete_key("exact/a").await.unwrap();
        consul.put_key("exact/b", b"").await.unwrap();
        assert_eq!(names(&read(&consul, &all).await), ["exact/b", "exact/c"]);
    }

    #[tokio::test]
    async fn more_keys_than_fit_into_a_transaction_are_read() {
        let consul = testing::plain().client();
        let many: Vec<String> = (0..130).map(|at| format!("exact many/{at}")).collect();
        for key in &many {
            consul.put_key(key, b"1").await.unwrap();
        }
        let read = consul.read_keys("read it", &many).await.unwrap();
        assert_eq!(read.found.len(), many.len());
    }

    #[tokio::test]
    async fn values_that_nobody_of_ours_writes_are_named_and_hide_no_other() {
        let consul = testing::plain().client();
        let huge: Vec<String> = (0..4).map(|at| format!("exact huge/{at}")).collect();
        let mut unread = Vec::new();
        for key in &huge {
            let index = consul.set_key(key, &vec![b'x'; HUGE - 1]).await.unwrap();
            unread.push((key.clone(), index));
        }
        let long = vec![b'x'; VALUE_LIMIT_BYTES + 1];
        let index = consul.set_key("exact huge/long", &long).await.unwrap();
        consul.put_key("exact huge/own", &long[1..]).await.unwrap();
        // One alone fits into an answer, all of them do not.
        let few = read(&consul, &["exact huge/long", "exact huge/own"]).await;
        assert_eq!(names(&few), ["exact huge/own"]);
        assert_eq!(few.too_long, [("exact huge/long".to_owned(), index)]);
        let all = [&huge[..], &keys(&["exact huge/own", "exact huge/none"])].concat();
        let mut values = consul.read_keys("read it", &all).await.unwrap();
        values.too_long.sort();
        assert_eq!(
            (names(&values), &values.too_long),
            (vec!["exact huge/own"], &unread)
        );
        // Until they change they are not asked for again; what stands there instead is found.
        consul.put_key(&huge[1], b"1").await.unwrap();
        consul.delete_key(&huge[2]).await.unwrap();
        unread.drain(1..3);
        let mut values = consul.read_strange_keys("read it", &all).await.unwrap();
        values.too_long.sort();
        values.found.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(
            (names(&values), &values.too_long),
            (vec![&*huge[1], "exact huge/own"], &unread)
        );
    }

    #[tokio::test]
    async fn a_key_that_the_token_may_not_read_is_unknown_and_not_absent() {
        let agent = testing::with_acls();
        let root = agent.client_with_token(ROOT_TOKEN);
        root.put_key("exact-acl/a", b"1").await.unwrap();
        let stranger = agent.client();
        for key in ["exact-acl/a", "exact-acl/none"] {
            // As it was there when it was last looked at, and as it was not.
            for guess in [Guess::Absent, Guess::There, Guess::TooLong(7)] {
                stranger.inner.guesses.note(key, guess);
                let read = stranger.read_keys("read it", &keys(&[key])).await;
                assert!(read.unwrap_err().is_denied(), "{guess:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_right_to_read_is_enough_to_read() {
        let agent = testing::with_acls();
        let root = agent.client_with_token(ROOT_TOKEN);
        let policy =
            r#"{"Name":"exact","Rules":"key_prefix \"exact-read/\" { policy = \"read\" }"}"#;
        assert_eq!(root.tell("/v1/acl/policy", policy).await.code, 200);
        let token = root
            .tell("/v1/acl/token", r#"{"Policies":[{"Name":"exact"}]}"#)
            .await
            .value();
        root.put_key("exact-read/a", b"1").await.unwrap();
        let reader = agent.client_with_token(token["SecretID"].as_str().unwrap());
        let values = read(&reader, &["exact-read/a", "exact-read/none"]).await;
        assert_eq!(names(&values), ["exact-read/a"]);
    }

    #[tokio::test]
    async fn a_watch_on_names_wakes_for_new_values_and_tells_when_there_are_too_many() {
        let consul = testing::plain().client();
        let prefix = "exact names/";
        let (_, none) = consul.watch_names(prefix, 0, Duration::ZERO).await.unwrap();
        assert_eq!(none, Some(Vec::new()));
        consul.put_key("exact names/a", b"1").await.unwrap();
        let (index, found) = consul.watch_names(prefix, 0, Duration::ZERO).await.unwrap();
        assert_eq!(found, Some(keys(&["exact names/a"])));
        let watching = consul.clone();
        let watch = tokio::spawn(async move {
            let wait = Duration::from_secs(20);
            watching.watch_names(prefix, index, wait).await
        });
        consul.put_key("exact names/a", b"2").await.unwrap();
        let (later, _) = watch.await.unwrap().unwrap();
        assert!(later > index);
        let long = "x".repeat(400);
        for at in 0..NAMES_LIMIT_BYTES / 400 {
            let key = format!("{prefix}{long}{at}");
            consul.put_key(&key, b"").await.unwrap();
        }
        let (index, names) = consul.watch_names(prefix, 0, Duration::ZERO).await.unwrap();
        assert_eq!(names, None);
        assert!(index > later);
    }
}
