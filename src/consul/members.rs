//! Plain writes of keys: history. Through `rs-consul`, where it can.
//!
//! Where it cannot, the same call goes over our own wire, and so do all reads (all of this found in 0.15.0):
//!
//! - it has no basic authentication, and no way to add a header;
//! - `create_or_update_key` with a namespace and no other parameter asks for `…/key&ns=name`, a path without a query:
//!   Consul would answer `true` and write a key of that name;
//! - `read_key` reads an answer to its end however long it is, and fails as a whole on one value that is not UTF-8; nobody
//!   can stop others from writing either.
//!
//! And this is how the other faults are kept away from us: keys go into URLs as they are, so they are encoded here; no call
//! for keys has a deadline, so it gets one here.

use std::time::Duration;

use rs_consul::CreateOrUpdateKeyRequest;

use super::Consul;
use super::advice::{about_status, prefix_rule};
use super::error::{Advice, BodyError, ConsulError};
use super::throttle::Lane;
use super::wire::{Call, is_denial, key_path, quoted};

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
}

/// `rs-consul` puts `/v1/kv/` in front by itself.
fn encoded_key(path: &str) -> &str {
    path.strip_prefix("/v1/kv/").unwrap_or(path)
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
    use std::time::Duration;

    use crate::config::ConsulConfig;
    use crate::consul::testing::{self, ROOT_TOKEN, TIMEOUT};
    use crate::consul::{Consul, ConsulError};

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
    async fn keys_hold_what_was_written() {
        for (at, consul) in both_ways().iter().enumerate() {
            let key = format!("members test {at}/ü?&#%2F/a");
            for value in ["", "ü"] {
                consul.put_key(&key, value.as_bytes()).await.unwrap();
                let found = consul.read_key(&key).await.unwrap().key.unwrap();
                assert_eq!(found.value, value.as_bytes());
            }
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
            consul
                .watch_names("ns/", 0, Duration::ZERO)
                .await
                .unwrap_err(),
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
    async fn a_stranger_may_not_write() {
        let agent = testing::with_acls();
        let root = agent.client_with_token(ROOT_TOKEN);
        root.put_key("members-acl/a", b"{}").await.unwrap();
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
        }
    }
}
