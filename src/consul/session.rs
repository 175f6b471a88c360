//! Sessions: what a lock is held by. Their TTL is a convenience, the lease is the proof.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Consul;
use super::advice::SESSION_RULE;
use super::error::{BodyError, ConsulError};
use super::throttle::Lane;
use super::wire::{Call, encode};
use crate::decide::ids::SessionId;

/// What became of a session that was to be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It lives for another TTL at least.
    Renewed,
    /// Consul does not know it any more, and whatever it held is free.
    Gone,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NewSession<'a> {
    name: &'a str,
    #[serde(rename = "TTL")]
    ttl: String,
    lock_delay: &'static str,
    behavior: &'static str,
    /// Absent, this would be `serfHealth`.
    node_checks: [&'static str; 0],
    /// The same for Consul before 1.7.
    checks: [&'static str; 0],
}

#[derive(Deserialize)]
struct SessionEntry {
    #[serde(rename = "ID")]
    id: String,
}

#[cfg(fuzzing)]
pub(super) fn read_any_answer(answer: &super::wire::Answer) {
    let _ = answer.json::<SessionEntry>();
    let _ = answer.json::<Vec<SessionEntry>>();
}

impl Consul {
    /// Creates a session that ends by its TTL alone: no node or service check can end it, no delay keeps its locks
    /// after it, and its keys outlive it. Consul takes TTLs from 10 s to 86400 s and lets a session live for up to twice
    /// its TTL (<https://developer.hashicorp.com/consul/api-docs/session#ttl>).
    ///
    /// # Errors
    /// After an uncertain error a session may exist that no agent knows; it ends by its TTL.
    pub async fn create_session(
        &self,
        name: &str,
        ttl: Duration,
    ) -> Result<SessionId, ConsulError> {
        self.new_session(name, ttl, "release").await
    }

    /// The same, but its keys go with it.
    ///
    /// # Errors
    /// As [`create_session`](Consul::create_session).
    pub async fn create_fleeting_session(
        &self,
        name: &str,
        ttl: Duration,
    ) -> Result<SessionId, ConsulError> {
        self.new_session(name, ttl, "delete").await
    }

    async fn new_session(
        &self,
        name: &str,
        ttl: Duration,
        behavior: &'static str,
    ) -> Result<SessionId, ConsulError> {
        let session = NewSession {
            name,
            ttl: format!("{}ms", ttl.as_millis()),
            lock_delay: "0s",
            behavior,
            node_checks: [],
            checks: [],
        };
        let what = format!("create session {name}");
        let body = json(&what, &session)?;
        let answer = self
            .wire()
            .send(of_session(Call::put(what, "/v1/session/create", body)))
            .await?
            .ok()?;
        Ok(SessionId::new(answer.json::<SessionEntry>()?.id))
    }

    /// Starts the session's TTL anew.
    ///
    /// # Errors
    /// The session may be there or not.
    pub async fn renew_session(&self, id: &SessionId) -> Result<Renewal, ConsulError> {
        let path = format!("/v1/session/renew/{}", encode(id.as_str()));
        let answer = self
            .wire()
            .send(of_session(Call::put(
                format!("renew session {id}"),
                path,
                Vec::new(),
            )))
            .await?;
        // Consul names the session that it does not find; a 404 that does not is from something in between.
        if answer.code == 404 && answer.says(id.as_str()) {
            return Ok(Renewal::Gone);
        }
        let answer = answer.ok()?;
        let found = answer
            .json::<Vec<SessionEntry>>()?
            .into_iter()
            .next()
            .map(|session| session.id);
        if found.as_deref() == Some(id.as_str()) {
            Ok(Renewal::Renewed)
        } else {
            Err(answer.senseless(BodyError::other_session(id, found)))
        }
    }

    /// Ends the session and frees what it held. It is no error if the session is gone already.
    ///
    /// # Errors
    /// The session may be there or not.
    pub async fn destroy_session(&self, id: &SessionId) -> Result<(), ConsulError> {
        let path = format!("/v1/session/destroy/{}", encode(id.as_str()));
        self.wire()
            .send(of_session(Call::put(
                format!("destroy session {id}"),
                path,
                Vec::new(),
            )))
            .await?
            .ok()?;
        Ok(())
    }
}

fn of_session(call: Call) -> Call {
    call.allowed_by(SESSION_RULE).in_lane(Lane::Session)
}

/// A request's body.
pub(super) fn json<T: Serialize>(what: &str, body: &T) -> Result<Vec<u8>, ConsulError> {
    serde_json::to_vec(body).map_err(|source| ConsulError::Body {
        what: what.to_owned(),
        source: source.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Renewal;
    use crate::consul::testing::{self, ROOT_TOKEN};

    #[tokio::test]
    async fn a_session_is_bound_to_no_check_and_has_no_lock_delay() {
        let consul = testing::plain().client();
        let id = consul
            .create_session("mine", Duration::from_secs(15))
            .await
            .unwrap();
        let found = consul.ask(&format!("/v1/session/info/{id}")).await.value()[0].clone();
        assert_eq!(found["Name"], "mine");
        assert_eq!(found["TTL"], "15000ms");
        assert_eq!(found["LockDelay"], 0);
        assert_eq!(found["Behavior"], "release");
        assert_eq!(found["NodeChecks"], serde_json::json!([]));
        assert_eq!(found["ServiceChecks"], serde_json::Value::Null);
    }

    #[tokio::test]
    async fn a_session_that_was_destroyed_is_gone() {
        let consul = testing::plain().client();
        let id = consul.any_session().await;
        assert_eq!(consul.renew_session(&id).await.unwrap(), Renewal::Renewed);
        consul.destroy_session(&id).await.unwrap();
        assert_eq!(consul.renew_session(&id).await.unwrap(), Renewal::Gone);
        consul.destroy_session(&id).await.unwrap();
    }

    #[tokio::test]
    async fn sessions_are_denied_without_a_token() {
        let agent = testing::with_acls();
        let session = agent.client_with_token(ROOT_TOKEN).any_session().await;
        for stranger in [
            agent.client(),
            agent.client_with_token("00000000-0000-0000-0000-00000000dead"),
        ] {
            let created = stranger
                .create_session("mine", Duration::from_secs(15))
                .await;
            assert!(created.unwrap_err().is_denied());
            assert!(
                stranger
                    .renew_session(&session)
                    .await
                    .unwrap_err()
                    .is_denied()
            );
            assert!(
                stranger
                    .destroy_session(&session)
                    .await
                    .unwrap_err()
                    .is_denied()
            );
        }
    }
}
