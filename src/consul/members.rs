//! Plain keys: members, ballots, history. Through `rs-consul`, where it can.
//!
//! Where it cannot, the same two calls go over our own wire (all of this found in 0.15.0):
//!
//! - it has no basic authentication, and no way to add a header;
//! - `create_or_update_key` with a namespace and no other parameter asks for `…/key&ns=name`, a path without a query:
//!   Consul would answer `true` and write a key of that name;
//! - `read_key` fails as a whole on one value that is not UTF-8, and nobody can stop others from writing one.
//!
//! And this is how the other faults are kept away from us: keys and namespaces go into URLs as they are, so they are
//! encoded here; `recurse=false` means recursive to Consul, so only prefixes are read; no call for keys has a deadline, so
//! it gets one here; an answer is read to its end however long it is, and only that deadline bounds it.

use std::time::Duration;

use rs_consul::{CreateOrUpdateKeyRequest, ReadKeyRequest, ReadKeyResponse};

use super::Consul;
use super::advice::{about_status, prefix_rule};
use super::error::{Advice, BodyError, ConsulError};
use super::throttle::Lane;
use super::wire::{Answer, Call, Entry, is_denial, key_path, quoted};

impl Consul {
    /// Writes a key, also where a session holds it as a lock.
    ///
    /// # Errors
    /// Unless it is a denial, it may have been written.
    pub async fn put_key(&self, key: &str, value: &[u8]) -> Result<(), ConsulError> {
        let what = format!("write key {key}");
        let path = key_path(&what, key)?;
        let namespace = self.wire().namespace();
        let advise = |error| {
            let error = self.wire().heard(error);
            self.wire().advise(error, &prefix_rule(key))
        };
        let clients = self.wire().clients();
        let written = match &clients.for_keys {
            Some(client) if namespace.is_empty() => {
                self.wire().admit(Lane::Others, &what)?;
                let request = CreateOrUpdateKeyRequest {
                    key: encoded_key(&path),
                    ..Default::default()
                };
                let call = client.create_or_update_key(request, value.to_vec());
                let written = within(self.wire().request_timeout(), &what, call).await;
                written.map_err(advise)?.0
            }
            Some(_) | None => {
                let answer = self
                    .wire()
                    .send(
                        Call::put(what.clone(), path, value.to_vec()).allowed_by(prefix_rule(key)),
                    )
                    .await?
                    .ok()?;
                answer.json()?
            }
        };
        if written {
            Ok(())
        } else {
            // Only a conditional write gets this; it is not an answer to ours.
            Err(ConsulError::Status {
                what,
                code: 200,
                message: "false".to_owned(),
                advice: Advice::default(),
            })
        }
    }

    /// The keys that begin with `prefix` and their values, in the keys' order; none is no error.
    ///
    /// Consul leaves out what the token may not read, so a token that may read nothing here finds nothing.
    /// Where a value is not UTF-8 this takes two requests, each with its own deadline.
    ///
    /// # Errors
    /// The keys are unknown.
    pub async fn read_prefix(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, ConsulError> {
        let what = format!("read keys {prefix}");
        let path = key_path(&what, prefix)?;
        let clients = self.wire().clients();
        let Some(client) = &clients.for_keys else {
            return self.read_prefix_over_wire(what, path, prefix).await;
        };
        let request = ReadKeyRequest {
            key: encoded_key(&path),
            namespace: self.wire().namespace(),
            recurse: true,
            ..Default::default()
        };
        let read =
            tokio::time::timeout(self.wire().request_timeout(), client.read_key(request)).await;
        match read {
            Ok(Ok(found)) => Ok(found.response.into_iter().map(pair).collect()),
            Ok(Err(rs_consul::ConsulError::InvalidUtf8(_))) => {
                self.read_prefix_over_wire(what, path, prefix).await
            }
            Ok(Err(error)) if is_missing(&error) => Ok(Vec::new()),
            Ok(Err(error)) => Err(self
                .wire()
                .advise(failed(&what, error), &prefix_rule(prefix))),
            Err(_) => Err(ConsulError::Timeout {
                what,
                after: self.wire().request_timeout(),
            }),
        }
    }

    async fn read_prefix_over_wire(
        &self,
        what: String,
        path: String,
        prefix: &str,
    ) -> Result<Vec<(String, Vec<u8>)>, ConsulError> {
        let call = Call::get(what, path).query("recurse");
        pairs(
            self.wire()
                .send(call.allowed_by(prefix_rule(prefix)))
                .await?,
        )
    }
}

#[cfg(fuzzing)]
pub(super) fn read_any_answer(answer: Answer) {
    let _ = pairs(answer);
}

fn pairs(answer: Answer) -> Result<Vec<(String, Vec<u8>)>, ConsulError> {
    if answer.code == 404 && answer.body.is_empty() {
        return Ok(Vec::new());
    }
    let answer = answer.ok()?;
    let entries: Vec<Entry> = answer.json()?;
    entries
        .into_iter()
        .map(|entry| {
            let value = entry.bytes().map_err(|source| answer.senseless(source))?;
            Ok((entry.key, value))
        })
        .collect()
}

fn pair(entry: ReadKeyResponse) -> (String, Vec<u8>) {
    (entry.key, entry.value.unwrap_or_default().into_bytes())
}

/// `rs-consul` puts `/v1/kv/` in front by itself.
fn encoded_key(path: &str) -> &str {
    path.strip_prefix("/v1/kv/").unwrap_or(path)
}

/// Consul's "no such key" has no body; a proxy's "not found" has one.
fn is_missing(error: &rs_consul::ConsulError) -> bool {
    matches!(error, rs_consul::ConsulError::UnexpectedResponseCode(code, Some(body)) if code.as_u16() == 404 && body.is_empty())
}

async fn within<T>(
    after: Duration,
    what: &str,
    call: impl Future<Output = Result<T, rs_consul::ConsulError>>,
) -> Result<T, ConsulError> {
    match tokio::time::timeout(after, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failed(what, error)),
        Err(_) => Err(ConsulError::Timeout {
            what: what.to_owned(),
            after,
        }),
    }
}

fn failed(what: &str, error: rs_consul::ConsulError) -> ConsulError {
    use rs_consul::ConsulError as Theirs;
    let what = what.to_owned();
    match error {
        Theirs::UnexpectedResponseCode(code, body) => {
            let (code, message) = (code.as_u16(), quoted(body.unwrap_or_default().as_bytes()));
            if matches!(code, 401 | 403) || code == 500 && is_denial(&message) {
                ConsulError::Denied {
                    what,
                    code,
                    message,
                    advice: Advice::default(),
                }
            } else {
                ConsulError::Status {
                    what,
                    advice: about_status(&message),
                    code,
                    message,
                }
            }
        }
        Theirs::ResponseDeserializationFailed(source) => ConsulError::Body {
            what,
            source: source.into(),
        },
        Theirs::InvalidBase64(source) => ConsulError::Body {
            what,
            source: BodyError::Base64(source.into()),
        },
        Theirs::TimeoutExceeded(after) => ConsulError::Timeout { what, after },
        Theirs::ResponseError(source) => ConsulError::Unreachable {
            what,
            advice: Advice::default(),
            source: source.into(),
        },
        Theirs::InvalidResponse(source) => ConsulError::Unreachable {
            what,
            advice: Advice::default(),
            source: source.into(),
        },
        // Errors of calls that are not made here, and of requests that could not be made at all.
        other @ (Theirs::InvalidRequest(_)
        | Theirs::RequestError(_)
        | Theirs::ResponseStringDeserializationFailed(_)
        | Theirs::LockAcquisitionFailure(_)
        | Theirs::InvalidUtf8(_)
        | Theirs::SyncIoError(_)
        | Theirs::SyncInvalidResponseError(_)
        | Theirs::SyncUnexpectedResponseCode(..)
        | Theirs::ServiceInstanceResolutionFailed(_)
        | Theirs::UReqError(_)
        | Theirs::TokenDeleteFailed) => ConsulError::Unreachable {
            what,
            advice: Advice::default(),
            source: other.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Answer, pairs};
    use crate::config::ConsulConfig;
    use crate::consul::testing::{self, ROOT_TOKEN, TIMEOUT};
    use crate::consul::{Consul, ConsulError};

    proptest! {
        #[test]
        fn the_decoder_survives_any_bytes(code in 200_u16..600, text: Vec<u8>, value: String) {
            let entry = serde_json::json!([{"Key": "k", "Value": value, "ModifyIndex": 7}]);
            for body in [text, entry.to_string().into_bytes()] {
                let _ = pairs(Answer { what: "test".to_owned(), code, index: None, body });
            }
        }
    }

    /// The two ways that the calls of this file can go.
    fn both_ways() -> [Consul; 2] {
        let plain = testing::plain().settings();
        let basic = ConsulConfig {
            basic_auth: Some(("user".to_owned(), "word".to_owned())),
            ..plain.clone()
        };
        [plain, basic].map(|settings| Consul::new(&settings, TIMEOUT).unwrap())
    }

    #[tokio::test]
    async fn keys_are_read_as_they_were_written() {
        for (at, consul) in both_ways().iter().enumerate() {
            let prefix = format!("members test {at}/ü?&#%2F/");
            assert_eq!(consul.read_prefix(&prefix).await.unwrap(), []);
            consul.put_key(&format!("{prefix}b"), b"{}").await.unwrap();
            consul.put_key(&format!("{prefix}a"), b"").await.unwrap();
            consul
                .put_key(&format!("{prefix}a"), "ü".as_bytes())
                .await
                .unwrap();
            let expected = [
                (format!("{prefix}a"), "ü".as_bytes().to_vec()),
                (format!("{prefix}b"), b"{}".to_vec()),
            ];
            assert_eq!(consul.read_prefix(&prefix).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn one_value_that_is_not_utf8_does_not_hide_the_others() {
        for (at, consul) in both_ways().iter().enumerate() {
            let prefix = format!("members binary {at}/");
            consul
                .put_key(&format!("{prefix}a"), b"\xff\x00")
                .await
                .unwrap();
            consul.put_key(&format!("{prefix}b"), b"{}").await.unwrap();
            let found = consul.read_prefix(&prefix).await.unwrap();
            assert_eq!(
                found,
                [
                    (format!("{prefix}a"), b"\xff\x00".to_vec()),
                    (format!("{prefix}b"), b"{}".to_vec())
                ]
            );
        }
    }

    #[tokio::test]
    async fn keys_that_a_url_cannot_name_are_refused() {
        let consul = testing::plain().client();
        for key in ["", "/", "a//b", "/a", "a/../b", "a/."] {
            assert!(
                matches!(consul.put_key(key, b"").await, Err(ConsulError::Key { .. })),
                "{key}"
            );
            assert!(
                matches!(consul.read_lock(key).await, Err(ConsulError::Key { .. })),
                "{key}"
            );
        }
    }

    #[tokio::test]
    async fn every_request_names_the_namespace() {
        // Consul without the enterprise licence refuses every request that names one.
        let settings = ConsulConfig {
            namespace: Some("a team".to_owned()),
            ..testing::plain().settings()
        };
        let consul = Consul::new(&settings, TIMEOUT).unwrap();
        let session = crate::decide::ids::SessionId::new("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee");
        let refusals = [
            consul.put_key("ns/key", b"").await.unwrap_err(),
            consul.read_prefix("ns/").await.unwrap_err(),
            consul.read_lock("ns/key").await.unwrap_err(),
            consul.watch_lock("ns/key", 1, TIMEOUT).await.unwrap_err(),
            consul.create_session("ns", TIMEOUT).await.unwrap_err(),
            consul.renew_session(&session).await.unwrap_err(),
            consul.destroy_session(&session).await.unwrap_err(),
            consul
                .update_check("ns", crate::consul::CheckStatus::Passing, "")
                .await
                .unwrap_err(),
            consul.deregister("ns").await.unwrap_err(),
        ];
        for refusal in refusals {
            assert!(
                refusal
                    .to_string()
                    .contains("400 (Bad request: Invalid query parameter: \"ns\""),
                "{refusal}"
            );
        }
    }

    #[tokio::test]
    async fn a_stranger_may_not_write_and_finds_nothing() {
        let agent = testing::with_acls();
        let root = agent.client_with_token(ROOT_TOKEN);
        root.put_key("members-acl/a", b"{}").await.unwrap();
        assert_eq!(root.read_prefix("members-acl/").await.unwrap().len(), 1);
        for settings in [
            agent.settings(),
            ConsulConfig {
                basic_auth: Some(("user".to_owned(), "word".to_owned())),
                ..agent.settings()
            },
        ] {
            let stranger = Consul::new(&settings, TIMEOUT).unwrap();
            assert!(
                stranger
                    .put_key("members-acl/a", b"")
                    .await
                    .unwrap_err()
                    .is_denied()
            );
            assert_eq!(stranger.read_prefix("members-acl/").await.unwrap(), []);
            let unknown = ConsulConfig {
                token: Some("00000000-0000-0000-0000-00000000dead".into()),
                ..settings
            };
            let unknown = Consul::new(&unknown, TIMEOUT).unwrap();
            assert!(
                unknown
                    .put_key("members-acl/a", b"")
                    .await
                    .unwrap_err()
                    .is_denied()
            );
            assert!(
                unknown
                    .read_prefix("members-acl/")
                    .await
                    .unwrap_err()
                    .is_denied()
            );
        }
    }
}
