//! The record: the JSON value of the lock key, written by the holder alone.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ending::End;
use super::limits::{NAMES_MAX, UUID_MAX, a_name, are_few};
use super::term::Term;
use super::timing::moment_ms;
use super::vclock::{Vclock, rows_missing};

/// What the holder says of itself in the lock key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this layout.
    pub v: u64,
    /// One higher each time the lock changes hands.
    pub term: Term,
    /// The holder's instance UUID.
    pub instance: String,
    /// Its replica set's UUID.
    pub replicaset: String,
    /// A name that operators know it by: the address it announces.
    #[serde(deserialize_with = "a_name")]
    pub name: String,
    /// Where it accepts iproto connections.
    #[serde(deserialize_with = "a_name")]
    pub uri: String,
    /// Which run of the agent wrote it: two agents, one after the other, never write the same record.
    #[serde(default)]
    pub agent: String,
    /// How far the holder is.
    pub status: Status,
    /// The longest lease that may rest on this record.
    pub lease_ms: u64,
    /// Grows with every write, so that every write is a change.
    pub refresh: u64,
    /// The holder's vclock when it wrote this, without component 0.
    #[serde(default)]
    pub vclock: Vclock,
    /// Instance UUIDs that the holder knows in its replica set.
    #[serde(default)]
    pub members: Vec<String>,
    /// Wall-clock seconds since the epoch when this term began, for people and for older readers.
    #[serde(default)]
    pub since: u64,
    /// The same in milliseconds; 0: its writer was an older one. [`Record::began_ms`] has either.
    #[serde(default)]
    pub since_ms: u64,
    /// Why the lock changed hands.
    #[serde(default)]
    pub reason: String,
    /// Why the lock changed hands, for programs.
    #[serde(default)]
    pub cause: Cause,
    /// The holder's vclock when it became master.
    #[serde(default)]
    pub base: Vclock,
    /// Members that replicated from the holder when it wrote this: whose ballots are worth waiting for.
    #[serde(default)]
    pub following: Vec<String>,
    /// Members whose rows the holder's instance refuses for good, since they were written in a time that was over: they
    /// never become master.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub split_off: Vec<String>,
    /// The holder may go on without Consul while every member promises (R6).
    #[serde(default)]
    pub failsafe: bool,
    /// The holder's guard stands down for a pause: no time bounds how long its instance may be writable.
    #[serde(default)]
    pub paused: bool,
    /// Its guard would not promote it, so it gave the lock up: it is no less fit to be master than others, and is compared
    /// with them.
    #[serde(default)]
    pub refused: bool,
    /// Who was promoted last, where its writer was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_master: Option<LastWord>,
    /// While nobody has been promoted yet: the members that said that they are writable without a guard, and have not said
    /// otherwise. The next holder asks before its instance is promoted, and waits for those. `None`: it need not ask, since
    /// every member promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unguarded: Option<BTreeSet<String>>,
    /// Rows that its instance wrote in a second between the last two words about it; `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_rows_per_s: Option<u64>,
    /// What its master's clients are told to be safe: of the last master that was promoted, until its writer is. `None`: its
    /// writer was an older one, or nobody was promoted that said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<Quorum>,
    /// Its guard does not promote it: members cast ballots, and it gives the lock up for one that has its rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub offered: bool,
    /// Members whose guards would not promote them since somebody was: others are to try before them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tried: BTreeSet<String>,
    /// How the last time of being writable ended, where its writer is not writable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// The instance UUID that is to go first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover_to: Option<String>,
    /// What is not as it should be in the replica set, in words, for the agents that do not read the members' keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// What one that was promoted had at its last word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastWord {
    /// Its instance UUID.
    pub instance: String,
    /// Its vclock, without component 0.
    pub vclock: Vclock,
}

/// Which members had to have a synchronous row before its client was told that it is safe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// So many of them, the master among them; 0: there are no synchronous spaces.
    pub size: u64,
    /// Instance UUIDs.
    pub members: BTreeSet<String>,
}

impl Quorum {
    /// Of so many members the votes are needed: every set that may have acknowledged a row has a voter among them. `None`: no
    /// votes tell anything. Without synchronous spaces there is nothing to find, and with a quorum of one the master alone may
    /// have had it.
    #[must_use]
    pub fn votes_needed(&self) -> Option<usize> {
        let size = usize::try_from(self.size).ok().filter(|size| *size > 1)?;
        Some(self.members.len().saturating_sub(size) + sound!(1; OneVoteFewer => 0))
    }
}

/// How far a holder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has the lock and is not known to be writable yet.
    Promoting,
    /// It is writable while its lease runs.
    Active,
    /// It is read-only, its last commits have landed, and whoever was before it is over too.
    Fenced,
}

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
pub enum RecordError {
    /// Another layout, from another version of tarsec: nobody may draw conclusions from it.
    #[error("the record has v={found}, this version knows v={known}", known = Record::VERSION)]
    UnknownVersion {
        /// The version found.
        found: u64,
    },
    /// Not a record at all.
    #[error("the lock key holds no record: {why}")]
    Garbage {
        /// What the parser said.
        why: String,
    },
    /// More bytes than any record has.
    #[error("the lock key holds {len} bytes, a record has at most {max}", max = Record::MAX_BYTES)]
    TooLong {
        /// How many.
        len: usize,
    },
}

#[derive(Deserialize)]
struct VersionOnly {
    v: u64,
}

impl Record {
    /// The layout that this version writes and reads.
    pub const VERSION: u64 = 1;
    /// A replica set has at most 31 members at 36 bytes a UUID; the rest is small. Consul's own limit is 512 KiB.
    pub const MAX_BYTES: usize = 64 * 1024;
    /// No number of writes is that high that was reached by counting: what a reader of JSON holds exactly ends here.
    pub const MAX_REFRESH: u64 = 1 << 53;
    /// No lease is longer (`Timing::LEASE_MAX`), so no record may make anyone wait longer.
    pub const MAX_LEASE_MS: u64 = 60_000;

    /// When its term began, in wall-clock milliseconds since the epoch.
    #[must_use]
    pub fn began_ms(&self) -> u64 {
        moment_ms(self.since_ms, self.since)
    }

    /// Its writer was promoted in its term, as far as it could say so.
    #[must_use]
    pub fn was_promoted(&self) -> bool {
        self.status == Status::Active || !self.base.is_empty()
    }

    /// Who was promoted last, if its writer says that it was not itself.
    fn master_before(&self) -> Option<&LastWord> {
        let unpromoted = self.refused && !self.was_promoted();
        self.last_master.as_ref().filter(|_| unpromoted)
    }

    /// What whoever was promoted last had, where that is known: a writer that does not say that its guard refused may
    /// have been promoted.
    #[must_use]
    pub fn last_masters_word(&self) -> Option<LastWord> {
        let handed_on = self.master_before().cloned();
        handed_on.or_else(|| self.last_promoted().filter(|_| self.was_promoted()))
    }

    /// Of its writer, if that was promoted, else of the one that was before it.
    #[must_use]
    pub fn last_promoted(&self) -> Option<LastWord> {
        let own = self.was_promoted().then(|| LastWord {
            instance: self.instance.clone(),
            vclock: self.vclock.clone(),
        });
        own.or_else(|| self.last_master.clone())
    }

    /// Takes in which members may be writable without a guard. Its writer's own instance has one.
    pub(crate) fn says_unguarded(&mut self, mut heard: Option<BTreeSet<String>>) {
        heard.as_mut().map(|heard| heard.remove(&self.instance));
        let nobody_was_promoted = self.last_promoted().is_none();
        self.unguarded = heard.filter(|_| nobody_was_promoted);
    }

    /// Members that may be writable without a guard, as it says; nobody, once somebody has been promoted.
    #[must_use]
    pub fn unguarded_before(&self) -> Option<BTreeSet<String>> {
        let heard = self.unguarded.clone();
        heard.filter(|_| self.last_promoted().is_none())
    }

    /// How many rows `vclock` lacks of what its writer or the last master had.
    #[must_use]
    pub fn rows_missing(&self, vclock: &Vclock) -> u64 {
        let before = self.master_before();
        let missing = before.map_or(0, |last| rows_missing(&last.vclock, vclock));
        missing.max(rows_missing(&self.vclock, vclock))
    }

    /// Its writer may still be master without Consul, on its members' promises (R6).
    #[must_use]
    pub fn may_run_on_promises(&self) -> bool {
        self.failsafe && self.status != Status::Fenced
    }

    /// Reads the value of a lock key. Unknown fields are ignored.
    ///
    /// # Errors
    /// Whatever keeps these bytes from being a record of this version.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(RecordError::TooLong { len: bytes.len() });
        }
        let garbage = |error: serde_json::Error| RecordError::Garbage {
            why: error.to_string(),
        };
        let VersionOnly { v } = serde_json::from_slice(bytes).map_err(garbage)?;
        if v != Self::VERSION {
            return Err(RecordError::UnknownVersion { found: v });
        }
        let record: Self = serde_json::from_slice(bytes).map_err(garbage)?;
        if record.lease_ms > Self::MAX_LEASE_MS {
            let why = format!(
                "lease_ms is {}, at most {} is allowed",
                record.lease_ms,
                Self::MAX_LEASE_MS
            );
            return Err(RecordError::Garbage { why });
        }
        if let Some(why) = record.excess() {
            return Err(RecordError::Garbage { why });
        }
        if record.term == Term::NONE {
            return Err(RecordError::Garbage {
                why: format!("term is {}", record.term),
            });
        }
        Ok(record)
    }

    /// The bytes to write to the lock key.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // A struct of strings, numbers and maps with string keys always serialises.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The longest lease that may rest on this record.
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// What changes with each write of a holder, and with nothing else.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp {
            term: self.term,
            refresh: self.refresh,
            instance: self.instance.clone(),
            agent: self.agent.clone(),
            status: self.status,
        }
    }
}

/// Two records with the same stamp are one write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stamp {
    term: Term,
    refresh: u64,
    instance: String,
    agent: String,
    status: Status,
}

impl Record {
    /// What is too long in it: the next holder hands much of it on. `None`: nothing.
    pub(crate) fn excess(&self) -> Option<String> {
        let quorum = self.quorum.iter().map(|quorum| &quorum.members);
        let sets = [&self.tried].into_iter().chain(&self.unguarded);
        let lists = [&self.members, &self.following, &self.split_off];
        let last = self.last_master.iter();
        let vclocks = [&self.vclock, &self.base].into_iter();
        let single = [&self.instance, &self.replicaset, &self.agent].into_iter();
        let single = single.chain(&self.handover_to);
        let has_room = sets.chain(quorum).all(|names| are_few(names.iter()))
            && lists.into_iter().all(|names| are_few(names.iter()))
            && vclocks
                .chain(last.clone().map(|word| &word.vclock))
                .all(|vclock| are_few(vclock.keys()))
            && single
                .chain(last.map(|word| &word.instance))
                .all(|it| it.chars().count() <= UUID_MAX);
        (!has_room).then(|| {
            format!("more than {NAMES_MAX} members or components, or a UUID of more than {UUID_MAX} characters")
        })
    }
}

/// Why the lock changed hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// There was no master that anybody knew of.
    #[default]
    First,
    /// The one before gave it up: its instance had died, or its agent was asked to stop.
    Released,
    /// The one before had not been heard of for a lease (R3, R4).
    TakenOver,
    /// An operator wished it.
    Switchover,
}
