//! An agent that has not seen its instance yet knows no replica set, so it has no member's key. It says in a key of its own,
//! `waiting/<agent>`, that it is there and what it waits for; else an operator would see nothing at all.
//!
//! The key is held by a session that takes it along when it ends. So it goes when the agent has seen its instance, and by
//! Consul's own clock, within twice the session's TTL, when the agent is gone. Nothing rests on it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::clock;
use crate::config::Config;
use crate::consul::{Consul, ConsulError, Renewal};
use crate::decide::board::{self, WaitingKey};
use crate::decide::ids::SessionId;
use crate::errors::with_causes;
use crate::keys::json_bytes;

/// An instance that is just being started beside its agent is no news.
const GRACE: Duration = Duration::from_secs(3);
/// For the request that removes the key; the key goes without it, too.
const REMOVAL: Duration = Duration::from_secs(1);
/// A new reason may be another one a moment later.
const PAUSE: Duration = Duration::from_secs(1);

/// Each task that knows what the agent waits for tells it here; `None`: the agent has seen its instance.
#[derive(Debug)]
pub(crate) struct Waiting {
    why: watch::Sender<Option<String>>,
    writer: JoinHandle<()>,
}

impl Waiting {
    /// Begins to keep the key.
    pub(crate) fn start(config: &Config, consul: &Consul, agent: &str) -> Self {
        let (sender, why) = watch::channel(None);
        let writer = KeyWriter {
            consul: consul.clone(),
            key: config.keys().waiting(agent),
            session_name: config.consul.session_name.clone(),
            ttl: config.timing.session_ttl(),
            name: config.announce.id.clone(),
        };
        Self {
            why: sender,
            writer: tokio::spawn(writer.run(why)),
        }
    }

    /// The agent ends: nobody waits any more.
    pub(crate) async fn ends(self) {
        let Self { why, writer } = self;
        why.send_replace(None);
        drop(why);
        let _ = timeout(REMOVAL, writer).await;
    }

    /// What the agent waits for at the moment.
    pub(crate) fn says(&self, why: Option<String>) {
        self.why.send_if_modified(|known| {
            let news = *known != why;
            if news {
                *known = why;
            }
            news
        });
    }
}

struct KeyWriter {
    consul: Consul,
    key: String,
    session_name: String,
    ttl: Duration,
    name: String,
}

impl KeyWriter {
    async fn run(self, mut why: watch::Receiver<Option<String>>) {
        while why.wait_for(Option::is_some).await.is_ok() {
            let seen = timeout(GRACE, why.wait_for(Option::is_none)).await.is_ok();
            if !seen {
                let mut session = None;
                while let Some(words) = said(&why) {
                    if let Err(error) = self.say(&mut session, words).await {
                        tracing::debug!(
                            error = with_causes(&error),
                            "could not say that the agent waits"
                        );
                    }
                    // Said again with each new reason, and often enough to keep the session.
                    let _ = timeout(self.ttl / 2, why.changed()).await;
                    if said(&why).is_some() {
                        sleep(PAUSE).await;
                    }
                }
                self.end_session(session).await;
            }
            if why.has_changed().is_err() {
                // The agent ends.
                return;
            }
        }
    }

    async fn say(&self, session: &mut Option<SessionId>, why: String) -> Result<(), ConsulError> {
        if let Some(id) = session.take()
            && self.consul.renew_session(&id).await? == Renewal::Renewed
        {
            *session = Some(id);
        }
        let id = match session {
            Some(id) => id.clone(),
            None => {
                let created = self
                    .consul
                    .create_fleeting_session(&self.session_name, self.ttl);
                session.insert(created.await?).clone()
            }
        };
        let word = WaitingKey {
            v: board::VERSION,
            name: self.name.clone(),
            why,
            written_ms: clock::wall_ms(),
            tarsec_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.consul
            .hold_key(&self.key, &id, &json_bytes(&word))
            .await
    }

    /// The key goes with its session.
    async fn end_session(&self, session: Option<SessionId>) {
        if let Some(id) = session
            && let Err(error) = self.consul.destroy_session(&id).await
        {
            tracing::debug!(session = %id, error = with_causes(&error), "session not removed, it expires by itself");
        }
    }
}

/// The reason of now, while there is one and its task still runs.
fn said(why: &watch::Receiver<Option<String>>) -> Option<String> {
    why.has_changed().ok()?;
    why.borrow().clone()
}
