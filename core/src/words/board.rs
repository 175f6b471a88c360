//! What stands in Consul beside the lock key: members, ballots, an operator's orders, history. The lock decides; these
//! inform. Values of another version, or that are no such thing, count as absent: nothing is concluded from them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::addresses::Announced;
use super::ending::{How, Known, Outage};
use super::interruption::Interruption;
use super::lag::Behind;
use super::limits::a_name;
use super::names::labels;
use super::record::{Cause, Record};
use super::term::Term;
use super::timing::moment_ms;
use super::vclock::Vclock;

/// What stands beside the lock of one replica set, as far as it was read.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Board {
    /// By instance UUID.
    pub members: BTreeMap<String, Member>,
    /// By instance UUID.
    pub ballots: BTreeMap<String, Ballot>,
    /// `switchover`, with its key's `ModifyIndex`.
    pub switchover: Option<(u64, Switchover)>,
    /// `pause` of the replica set, or else of the cluster.
    pub pause: Option<Pause>,
    /// What stands there and was too much to be read, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    /// There may be members whose keys are among what was not read: they are unknown, not absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub misses_members: bool,
}

impl Board {
    /// The longest lease and the highest term that any member mentions and that is `believed`.
    #[must_use]
    pub fn terms(&self, believed: impl Fn(Term) -> bool) -> (Term, Duration) {
        let terms = self.members.values().map(|member| member.term);
        let term = terms.filter(|term| believed(*term)).max();
        // A member whose key was not read may work with any.
        let unknown = self.misses_members.then_some(Record::MAX_LEASE_MS);
        let leases = self.members.values().map(|member| member.lease_ms);
        let lease = leases.chain(unknown).max();
        (
            term.unwrap_or_default(),
            Duration::from_millis(lease.unwrap_or(0).min(Record::MAX_LEASE_MS)),
        )
    }

    /// What to call each member, by instance UUID: its name, and where others have the same, a part of its UUID.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let members = self.members.values();
        labels(members.map(|member| (&*member.name, &*member.instance)))
    }
}

/// Where an agent registers its instance in Consul's catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRef {
    /// The service's id, whatever its name is at the moment.
    pub id: String,
    /// The names that it may have.
    pub names: Vec<String>,
}

/// `members/<instance-uuid>`: an instance as its agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The version of this layout.
    pub v: u64,
    /// Instance UUID.
    pub instance: String,
    /// Replica-set UUID.
    pub replicaset: String,
    /// What operators know it by: the address it announces.
    #[serde(deserialize_with = "a_name")]
    pub name: String,
    /// Where it accepts iproto connections; without a host where that is not known.
    #[serde(deserialize_with = "a_name")]
    pub uri: String,
    /// `master` or `replica`.
    pub role: String,
    /// `passing` or `critical`: whether it may be master, as far as its agent knows. In the catalog a pause and
    /// `cut_off` show, too.
    #[serde(default)]
    pub health: String,
    /// Why the master's rows do not arrive, for longer than its `REPLICA_MAX_IDLE`: its check is critical. It has what it
    /// had, so elections do not ask for this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_off: Option<String>,
    /// Why, in words.
    #[serde(default)]
    pub reason: String,
    /// Its process is proven dead, and was not seen to live since.
    #[serde(default)]
    pub dead: bool,
    /// The highest term that it knows of.
    pub term: Term,
    /// Its `MASTER_LEASE`.
    pub lease_ms: u64,
    /// Its settings that every member of the replica set is to have alike, by variable.
    #[serde(default)]
    pub shared: BTreeMap<String, String>,
    /// Its `PRIORITY`.
    #[serde(default)]
    pub priority: i64,
    /// Its vclock without component 0, when this was written.
    #[serde(default)]
    pub vclock: Vclock,
    /// How far behind the master it is, as of a moment shortly before this was written; `None`: it is master itself, or
    /// its agent does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<Behind>,
    /// How it follows its peers: instance UUID → `follow`, `disconnected`, `stopped`, …
    #[serde(default)]
    pub upstreams: BTreeMap<String, String>,
    /// For some time nobody has replicated from it, though others have joined.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unfollowed: bool,
    /// It is an anonymous replica: the others do not know it, and it never becomes master.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
    /// Of its vshard configuration, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// What is not as it should be about vshard, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vshard: Option<String>,
    /// What its agent found that is not as it should be and concerns the whole replica set, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// It does not act because of a pause.
    #[serde(default)]
    pub paused: bool,
    /// Its guard stands down for a pause, or is about to, so that nothing bounds for how long it may be writable: to an
    /// agent that comes when the record was deleted this is all that tells.
    #[serde(default)]
    pub stands_down: bool,
    /// Where the catalog says whether its agent lives. Whoever writes the key puts it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// Wall-clock seconds since the epoch when this was written, for people and for older readers.
    #[serde(default)]
    pub written: u64,
    /// The same in milliseconds; 0: its writer was an older one.
    #[serde(default)]
    pub written_ms: u64,
    /// Tarantool's version.
    #[serde(default)]
    pub tarantool_version: String,
    /// The agent's version.
    #[serde(default)]
    pub tarsec_version: String,
}

impl Member {
    /// Whether it replicates from that instance, or may begin to once that is master: with `REPLICATION=follow` its agent
    /// sees to that, and the agent of an older version does not say which it has.
    #[must_use]
    pub fn may_follow(&self, instance: &str) -> bool {
        let status = self.upstreams.get(instance).map(String::as_str);
        let keeps = self
            .shared
            .get("REPLICATION")
            .is_some_and(|it| it == "keep");
        !keeps || matches!(status, Some("follow" | "sync"))
    }
}

/// `waiting/<agent>`, beside the replica sets: an agent that has not seen its instance yet, so it knows of none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingKey {
    /// The version of this layout.
    pub v: u64,
    /// What operators know it by: the address it announces.
    pub name: String,
    /// What it waits for, in words.
    #[serde(default)]
    pub why: String,
    /// Wall-clock milliseconds since the epoch when this was written, for people.
    #[serde(default)]
    pub written_ms: u64,
    /// The agent's version.
    #[serde(default)]
    pub tarsec_version: String,
}

/// `ballots/<instance-uuid>`: a candidate's position, written when the lock is up for grabs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    /// The version of this layout.
    pub v: u64,
    /// Instance UUID.
    pub instance: String,
    /// What operators know it by.
    #[serde(deserialize_with = "a_name")]
    pub name: String,
    /// The term up for grabs.
    pub term: Term,
    /// The lock key's `ModifyIndex` that it rests on; 0: there is no key. With `term`, names the election.
    pub index: u64,
    /// Its vclock without component 0.
    #[serde(default)]
    pub vclock: Vclock,
    /// It followed the last master while that was alive.
    #[serde(default)]
    pub following: bool,
    /// Its `PRIORITY`.
    #[serde(default)]
    pub priority: i64,
    /// How long before the last master's last word it had last heard of it.
    #[serde(default)]
    pub idle_ms: u64,
    /// It has the last master's vshard configuration, or there is none.
    #[serde(default)]
    pub same_configuration: bool,
    /// Nobody replicates from it, as far as its instance knows, nor would anybody begin to: were it master, what is
    /// written would exist once.
    #[serde(default)]
    pub unfollowed: bool,
    /// Why it does not run; `None`: it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded: Option<String>,
    /// Its vclock is a vote, whether it runs or not: the instance said it after the lock came up for grabs, and no promise
    /// binds it to the last master, so nothing that is acknowledged can come to it any more. `None`: an older agent does not
    /// say.
    #[serde(default)]
    pub vote: Option<bool>,
}

/// `switchover`: what an operator asked for, and what became of it. The key is there always, so that it can be watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switchover {
    /// The version of this layout.
    pub v: u64,
    /// Chosen by whoever asks, so that it finds its own request again; empty: nothing was ever asked.
    #[serde(default)]
    pub id: String,
    /// Instance UUID or name; `None`: the best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// By whom, for people.
    #[serde(default)]
    pub by: String,
    /// Wall-clock seconds since the epoch, for people and for older readers.
    #[serde(default)]
    pub at: u64,
    /// The same in milliseconds; 0: its writer was an older one.
    #[serde(default)]
    pub at_ms: u64,
    /// How long the target may take to catch up, while nothing can be written.
    #[serde(default)]
    pub catch_up_ms: u64,
    /// How far it is.
    #[serde(default)]
    pub state: SwitchoverState,
    /// In words, where it was refused, undone or failed.
    #[serde(default)]
    pub why: String,
}

impl Switchover {
    /// Whether it is another order, and asked for later, by the clocks of who asked.
    pub(crate) fn is_asked_after(&self, other: &Self) -> bool {
        let moment = |order: &Self| moment_ms(order.at_ms, order.at);
        self.id != other.id && moment(self) > moment(other)
    }

    /// What stands there before anything was asked for.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            v: VERSION,
            id: String::new(),
            target: None,
            by: String::new(),
            at: 0,
            at_ms: 0,
            catch_up_ms: 0,
            state: SwitchoverState::None,
            why: String::new(),
        }
    }
}

/// How far a switchover is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SwitchoverState {
    /// Asked for; nobody has taken notice yet.
    Requested,
    /// The master has begun.
    Running,
    /// Somebody else is master now.
    Done,
    /// Nothing was changed, for the reason given.
    Refused,
    /// The target did not catch up in time: the same master is writable again.
    Undone,
    /// Nothing was ever asked.
    #[default]
    None,
}

/// `pause`: no automatic action while it is present, whatever its value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pause {
    /// By whom, for people.
    #[serde(default)]
    pub by: String,
    /// Wall-clock seconds since the epoch, for people and for older readers.
    #[serde(default)]
    pub at: u64,
    /// The same in milliseconds; 0: its writer was an older one.
    #[serde(default)]
    pub at_ms: u64,
    /// Why, in words.
    #[serde(default)]
    pub why: String,
    /// It stands above the whole cluster.
    #[serde(default)]
    pub cluster: bool,
}

/// `history/<term>`: one change of hands, written by who gained the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// The version of this layout.
    pub v: u64,
    /// The term that began.
    pub term: Term,
    /// Wall-clock seconds since the epoch when its instance was writable, for people and for older readers.
    pub at: u64,
    /// The same in milliseconds; 0: its writer was an older one.
    #[serde(default)]
    pub at_ms: u64,
    /// Why.
    pub cause: Cause,
    /// Why, in words.
    pub reason: String,
    /// How the last master's time ended, in a word. What its successor could only guess is completed by the ex-master's
    /// agent. `None`, as all that follows: written by an older agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<How>,
    /// Who wished it, where somebody did: an operator, or a signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// For how long nothing could be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outage: Option<Outage>,
    /// Who was master before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Party>,
    /// Who is master now.
    pub to: Party,
    /// Rows that the one before had at its last word and the new one did not have when it became master. What was
    /// written after that last word comes on top; `returned` counts it.
    #[serde(default)]
    pub rows_at_risk: u64,
    /// `exact`: the one before had no more rows than those of its last word; `at_least`: it may have written since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk_known: Option<Known>,
    /// For so many milliseconds it may have written behind its last word, where that was not its very last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_word_age_ms: Option<u64>,
    /// Rows that it wrote in a second before its last word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_rows_per_s: Option<u64>,
    /// Which refresh its last word was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refresh: Option<u64>,
    /// The new master's vclock when it became master.
    #[serde(default)]
    pub vclock: Vclock,
    /// The one before has come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned: Option<Returned>,
    /// Within the term its master was read-only for a while: the newest of these times, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interruptions: Vec<Interruption>,
    /// Milliseconds since the new holder found the lock up for grabs.
    #[serde(default)]
    pub stages_ms: Stages,
}

impl HistoryLine {
    /// Rows that the master before would have written behind its last word at the rate of the time before that word: a guess
    /// and no bound. `None`: nothing says how many, or it wrote nothing in that time, or it has counted them itself, or it is
    /// master again with all that its last word knew of.
    #[must_use]
    pub fn estimate_rows(&self) -> Option<u64> {
        let has_them = self.is_same_master() && self.rows_at_risk == 0;
        let age_ms = self
            .last_word_age_ms
            .filter(|_| self.returned.is_none() && !has_them)?;
        let rate = self.rate_rows_per_s.filter(|rate| *rate > 0)?;
        Some(rate.saturating_mul(age_ms) / 1000)
    }

    /// Whether the instance that was master before is it again.
    #[must_use]
    pub fn is_same_master(&self) -> bool {
        let from = self.from.as_ref();
        from.is_some_and(|from| from.instance == self.to.instance)
    }
}

/// One side of a change of hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Instance UUID.
    pub instance: String,
    /// What operators know it by.
    #[serde(deserialize_with = "a_name")]
    pub name: String,
}

/// What an ex-master brought back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returned {
    /// Wall-clock seconds since the epoch, for people and for older readers.
    pub at: u64,
    /// The same in milliseconds; 0: its writer was an older one.
    #[serde(default)]
    pub at_ms: u64,
    /// Rows that it wrote as master and its successor did not have when it became master.
    pub rows: u64,
    /// `at_most`: it may have been master since, in a term of which nothing was written down. `None`: that many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Known>,
}

/// How long each stage of a change of hands took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stages {
    /// Until it was clear whose turn it is.
    #[serde(default)]
    pub elected: u64,
    /// Until the lock was taken.
    #[serde(default)]
    pub acquired: u64,
    /// Until the instance was writable.
    #[serde(default)]
    pub promoted: u64,
}

/// The version of all of these.
pub const VERSION: u64 = 1;

/// Changes of hands that are remembered.
pub const HISTORY_LINES: u64 = 64;

/// A value of one of these kinds, if that is what the bytes are.
#[must_use]
pub fn parse<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Option<T> {
    #[derive(Deserialize)]
    struct VersionOnly {
        v: u64,
    }
    if bytes.len() > Record::MAX_BYTES {
        return None;
    }
    let VersionOnly { v } = serde_json::from_slice(bytes).ok()?;
    (v == VERSION)
        .then(|| serde_json::from_slice(bytes).ok())
        .flatten()
}

impl Ballot {
    /// Whether its vclock is all that its instance will ever have of the last master. An older agent says it only by running.
    pub(crate) fn is_vote(&self) -> bool {
        self.vote.unwrap_or(self.excluded.is_none())
    }
}

impl Board {
    /// Of every member, by instance UUID.
    #[must_use]
    pub fn announced(&self) -> BTreeMap<String, Announced> {
        let members = self.members.iter();
        members
            .map(|(uuid, member)| {
                let (name, uri) = (member.name.clone(), member.uri.clone());
                (uuid.clone(), Announced { name, uri })
            })
            .collect()
    }
}
