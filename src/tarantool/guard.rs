//! Words exchanged with the guard inside the instance (`guard.lua`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::conn::{Connection, RequestError};
use super::platform::PLATFORM;
use super::said;
use super::vshard;
use crate::config::GuardMode;
use crate::decide::declared::{Declared, own_rule};
use crate::decide::observed::Probe;
use crate::decide::plan::Before;
use crate::decide::term::Term;
use crate::decide::timing::InstanceTime;

/// The clock of leases and promises. Evaluating it again replaces it for whoever comes after.
const TIME: &str = include_str!("time.lua");

/// What the instance says of itself, for the guard's answers; likewise.
const LOOK: &str = include_str!("look.lua");

/// What the guard promises to others' agents; likewise.
const PROMISES: &str = include_str!("promises.lua");

/// What its fences wait for; likewise.
const BARRIER: &str = include_str!("barrier.lua");

/// The upstreams that its agent or the guard sets; likewise.
const REPLICATION: &str = include_str!("replication.lua");

/// The guard itself; evaluating it where it already runs changes nothing.
const SOURCE: &str = include_str!("guard.lua");

/// Takes the queue of synchronous transactions over; likewise.
const SYNCHRO: &str = include_str!("synchro.lua");

/// Watches writes for the two files that follow; likewise.
const WRITES: &str = include_str!("writes.lua");

/// Ends open transactions at a fence, where memtx has them; likewise.
const MVCC: &str = include_str!("mvcc.lua");

/// Tells its agent that the configuration isolates the instance; likewise.
const ISOLATION: &str = include_str!("isolation.lua");

/// Notes when its instance turned read-only, and that it is being stopped; likewise.
const MOMENTS: &str = include_str!("moments.lua");

/// Shows its agent which process it is; likewise.
const PROOF: &str = include_str!("proof.lua");

/// What `GUARD=strict` adds to it; likewise.
const STRICT: &str = include_str!("strict.lua");

/// Asks what decides about `read_only` in an instance that has no guard yet, and what a guard would lack there. The
/// agent asks before it installs the guard, which would stay there and fence a leader that is not ours to fence.
const RULE: &str = "
if rawget(_G, 'tarsec_guard') ~= nil then return {} end
if type(box.cfg) == 'function' then error('tarsec: box.cfg{} has not been called yet') end
local platform = require('tarsec.platform')
local rule = platform.rule()
rule.lacks = platform.lacks()
rule.starting = platform.is_starting()
return rule
";

/// What the instance answers to [`RULE`].
#[derive(Debug, Deserialize)]
pub(super) struct Rule {
    #[serde(default)]
    election_mode: Option<String>,
    #[serde(default)]
    declared: Option<Declared>,
    #[serde(default)]
    lacks: Option<String>,
    #[serde(default)]
    starting: bool,
}

/// What the guard answers to anything.
#[derive(Debug, Deserialize)]
struct Reply {
    #[serde(default)]
    superseded_by: Option<String>,
    #[serde(default)]
    refused: Option<String>,
    #[serde(default)]
    probe: Option<Probe>,
}

#[cfg(fuzzing)]
pub(super) fn read_any_reply(value: &super::iproto::FirstValue) {
    let _ = value.decode::<Rule>();
    let _ = value.decode::<Reply>();
}

/// The guard's answer to one of our commands.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) probe: Probe,
    pub(super) refused: Option<String>,
}

/// Why a word to the guard brought no answer of use.
#[derive(Debug, thiserror::Error)]
pub(super) enum GuardError {
    #[error("another agent ({by}) attached to this instance")]
    Superseded { by: String },
    #[error("could not {attempted}")]
    Request {
        attempted: &'static str,
        #[source]
        source: RequestError,
    },
    #[error("{why}")]
    OwnRule { why: String },
    #[error("{why}; its configuration is still being applied for the first time")]
    Starting { why: String },
    #[error("the instance lacks what the guard needs: {what}")]
    Lacks { what: String },
    #[error("the guard's answer has neither a probe nor a reason")]
    Empty,
}

impl GuardError {
    /// Tarantool's error code, where it was Tarantool that refused.
    pub(super) fn code(&self) -> Option<u32> {
        match self {
            Self::Request { source, .. } => source.code(),
            Self::Superseded { .. }
            | Self::OwnRule { .. }
            | Self::Starting { .. }
            | Self::Lacks { .. }
            | Self::Empty => None,
        }
    }
}

/// One agent's way to the guard over one connection.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    conn: Connection,
    agent: String,
    deadline: Duration,
}

/// The attach of its agent for which an owner's name stands.
fn attach_of(owner: &str) -> u64 {
    let (_, attach) = owner.rsplit_once('#').unwrap_or_default();
    attach.parse().unwrap_or(0)
}

/// Asks whether `read_only` is ours to decide there, and whether a guard can do its work; [`Rule::check`] judges.
pub(super) async fn ask_rule(conn: &Connection, deadline: Duration) -> Result<Rule, GuardError> {
    let failed = |source| GuardError::Request {
        attempted: "look at the instance",
        source,
    };
    let _: bool = conn.eval(PLATFORM, &(), deadline).await.map_err(failed)?;
    conn.eval(RULE, &(), deadline).await.map_err(failed)
}

impl Rule {
    /// Why a guard is not to be installed there, if it is not.
    pub(super) fn check(self) -> Result<(), GuardError> {
        let own = own_rule(self.election_mode.as_deref(), self.declared.as_ref());
        match (own, self.lacks) {
            // It may turn out to be a vshard router, whose configuration nobody is to change.
            (Some(why), _) if self.starting => Err(GuardError::Starting { why }),
            (Some(why), _) => Err(GuardError::OwnRule { why }),
            (None, Some(what)) => Err(GuardError::Lacks { what }),
            (None, None) => Ok(()),
        }
    }
}

impl Guard {
    /// Installs the guard if need be, and takes possession of it.
    pub(super) async fn attach(
        conn: Connection,
        agent: String,
        mode: GuardMode,
        deadline: Duration,
    ) -> Result<(Self, Probe), GuardError> {
        let strict = mode == GuardMode::Strict;
        for source in [
            TIME,
            LOOK,
            PROMISES,
            BARRIER,
            REPLICATION,
            SOURCE,
            SYNCHRO,
            WRITES,
            MVCC,
            ISOLATION,
            MOMENTS,
            PROOF,
        ]
        .into_iter()
        .chain(strict.then_some(STRICT))
        {
            let _: bool =
                conn.eval(source, &(), deadline)
                    .await
                    .map_err(|source| GuardError::Request {
                        attempted: "install the guard",
                        source,
                    })?;
        }
        let guard = Self {
            conn,
            agent,
            deadline,
        };
        let answer = guard
            .say(
                "attach to the guard",
                "tarsec_guard.attach",
                &(guard.agent.as_str(), strict),
            )
            .await?;
        Ok((guard, answer.probe))
    }

    /// Whether that name is this agent's, at whichever attach.
    pub(super) fn is_same_agent(&self, owner: &str) -> bool {
        let agent = |name: &str| name.split('#').next().map(str::to_owned);
        agent(&self.agent) == agent(owner)
    }

    /// Whether that name is this agent's, at an earlier attach than this one: such an attach had stood in the queue of
    /// a hung instance, and was carried out behind ours.
    pub(super) fn is_outlived_attach(&self, owner: &str) -> bool {
        self.is_same_agent(owner) && attach_of(owner) < attach_of(&self.agent)
    }

    /// The same agent, at the same attach, over another connection.
    pub(super) fn over(&self, conn: Connection) -> Self {
        Self {
            conn,
            agent: self.agent.clone(),
            deadline: self.deadline,
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.conn
    }

    pub(super) async fn probe(&self) -> Result<Answer, GuardError> {
        self.say(
            "probe the instance",
            "tarsec_guard.probe",
            &(self.agent.as_str(),),
        )
        .await
    }

    pub(super) async fn remember(&self, session: &str) -> Result<Answer, GuardError> {
        self.say(
            "write the session down",
            "tarsec_guard.remember",
            &(self.agent.as_str(), session),
        )
        .await
    }

    pub(super) async fn promote(
        &self,
        term: Term,
        deadline: InstanceTime,
        before: Before,
        t0: InstanceTime,
    ) -> Result<Answer, GuardError> {
        let age_ns = u64::try_from(before.guard_age.as_nanos()).unwrap_or(u64::MAX);
        self.say(
            "promote the instance",
            "tarsec_guard.promote",
            &(
                self.agent.as_str(),
                term,
                deadline,
                before.fenced_term,
                age_ns,
                t0,
            ),
        )
        .await
    }

    pub(super) async fn grant(
        &self,
        term: Term,
        deadline: InstanceTime,
    ) -> Result<Answer, GuardError> {
        self.say(
            "lengthen the lease",
            "tarsec_guard.grant",
            &(self.agent.as_str(), term, deadline),
        )
        .await
    }

    pub(super) async fn fence(&self, why: &str) -> Result<Answer, GuardError> {
        self.say(
            "fence the instance",
            "tarsec_guard.fence",
            &(self.agent.as_str(), why),
        )
        .await
    }

    pub(super) async fn observe(&self, term: Term) -> Result<Answer, GuardError> {
        self.say(
            "tell the guard of a term",
            "tarsec_guard.observe",
            &(self.agent.as_str(), term),
        )
        .await
    }

    pub(super) async fn stand_down(&self, down: bool) -> Result<Answer, GuardError> {
        self.say(
            "tell the guard of a pause",
            "tarsec_guard.stand_down",
            &(self.agent.as_str(), down),
        )
        .await
    }

    pub(super) async fn follow(
        &self,
        uri: &str,
        name: &str,
        again: bool,
    ) -> Result<Answer, GuardError> {
        self.say(
            "re-point replication",
            "tarsec_guard.follow",
            &(self.agent.as_str(), uri, name, again),
        )
        .await
    }

    /// The instance's main thread bears that name from now on, until [`Self::hide_name`] or for some seconds.
    pub(super) async fn show_name(&self, name: &str) -> Result<(), GuardError> {
        self.show("tarsec_guard.show_name", &(name,)).await
    }

    pub(super) async fn hide_name(&self) -> Result<(), GuardError> {
        self.show("tarsec_guard.hide_name", &()).await
    }

    async fn show<A: Serialize + Sync>(&self, function: &str, args: &A) -> Result<(), GuardError> {
        let attempted = "let the instance show which process it is";
        let shown = self
            .conn
            .call::<_, bool>(function, args, self.deadline)
            .await;
        shown
            .map(|_| ())
            .map_err(|source| GuardError::Request { attempted, source })
    }

    /// Not the guard's own business, and said over the same connection as the same agent.
    pub(super) async fn apply_vshard(
        &self,
        order: &vshard::Order<'_>,
    ) -> Result<vshard::Reply, GuardError> {
        let reply = vshard::apply(&self.conn, Some(&self.agent), order, self.deadline)
            .await
            .map_err(|source| GuardError::Request {
                attempted: "configure vshard",
                source,
            })?;
        match reply.superseded_by {
            Some(by) => Err(GuardError::Superseded { by }),
            None => Ok(reply),
        }
    }

    async fn say<A: Serialize + Sync>(
        &self,
        attempted: &'static str,
        function: &str,
        args: &A,
    ) -> Result<Answer, GuardError> {
        let reply: Reply = self
            .conn
            .call(function, args, self.deadline)
            .await
            .map_err(|source| GuardError::Request { attempted, source })?;
        match reply {
            Reply {
                superseded_by: Some(by),
                ..
            } => Err(GuardError::Superseded { by }),
            Reply {
                probe: Some(probe),
                refused,
                ..
            } => {
                let mut refused = refused;
                said::words(&mut refused);
                let probe = said::probe(probe);
                Ok(Answer { probe, refused })
            }
            Reply { probe: None, .. } => Err(GuardError::Empty),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Reply, Rule};

    /// An answer of the guard with an instance's whole word in it, as it is written in JSON; MessagePack has the same.
    const WORD: &str = r#"{"refused":"it is not master here","probe":{"now":1,"uuid":"i","replicaset_uuid":"r","ro":true,
        "read_only":true,"status":"running","vclock":{"1":2},"id":1,"pid":7,"version":"2.6.0",
        "replication":[{"id":1,"uuid":"i","upstream":{"status":"follow","lag_s":0.1,"idle_s":0.2}}],
        "guard":{"term":1,"deadline":2,"leased":true,"landed":false,"base":{"1":2},
            "promise":{"to":"j","term":1,"left_ns":3}}}}"#;

    fn packed() -> Vec<u8> {
        let word: serde_json::Value = serde_json::from_str(WORD).unwrap();
        rmp_serde::to_vec(&word).unwrap()
    }

    #[test]
    fn a_word_of_the_guard_is_read() {
        let reply: Reply = rmp_serde::from_slice(&packed()).unwrap();
        assert_eq!(reply.refused.as_deref(), Some("it is not master here"));
        assert_eq!(reply.probe.unwrap().guard.term.get(), 1);
    }

    proptest! {
        #[test]
        fn a_damaged_word_is_a_word_or_an_error(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut word = packed();
            for (at, byte) in edits {
                let at = at.index(word.len());
                word[at] = byte;
            }
            drop(rmp_serde::from_slice::<Reply>(&word));
            word.truncate(cut.index(word.len()));
            drop(rmp_serde::from_slice::<Reply>(&word));
            drop(rmp_serde::from_slice::<Rule>(&word));
        }
    }
}
