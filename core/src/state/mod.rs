//! What an agent knows. Changed by events and by the notes of what was begun, by nothing else.

pub mod election;
mod feed;
mod history;
pub mod hold;
pub(crate) mod lag;
pub mod slots;
pub mod vshard;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::event::GuardCommandKind;
use crate::plan::CatalogEntry;
use crate::words::addresses::Announced;
use crate::words::board::{Board, Member, Party, Pause, Switchover};
use crate::words::ids::SessionId;
use crate::words::neighbours::Neighbours;
use crate::words::observed::{Heard, Probe};
use crate::words::record::{Record, Stamp};
use crate::words::settings::Settings;
use crate::words::sight::{ConsulFault, LockSight};
use crate::words::term::{SaidBy, Term};
use crate::words::timing::{InstanceTime, Reading, Tick};
use election::Election;
use slots::Slots;
use vshard::Vshard;

pub use feed::Feed;
pub use history::{LostHold, Past};
pub use hold::{Asked, Gained, Handover, Hold};

/// Everything an agent knows.
#[derive(Debug, Clone)]
pub struct State {
    /// What it was told at the start.
    pub settings: Settings,
    /// The wall clock in this turn, in milliseconds since the epoch: for what is written down for people, and for the age
    /// of a term that began before this agent saw it.
    pub wall_ms: u64,
    /// The instance beside it.
    pub instance: Instance,
    /// The lock key.
    pub lock: Lock,
    /// Its session.
    pub session: Session,
    /// The highest term seen anywhere: records, guard, member keys.
    pub highest_term: Term,
    /// What the member keys said, if they were asked since the key last held a record.
    pub member_terms: Option<MemberTerms>,
    /// What it did at the lock.
    pub hold: Hold,
    /// The election for the lock that is up for grabs, if there is one.
    pub election: Option<Election>,
    /// The board as last read, and when it was asked for, or came unasked.
    pub board: Option<(Board, Tick)>,
    /// What the members' agents say in Consul, by instance UUID, as it was seen last.
    pub announced: BTreeMap<String, Announced>,
    /// What operators asked for.
    pub orders: Orders,
    /// What is known of changes of hands.
    pub past: Past,
    /// What Consul's catalog was told.
    pub catalog: Catalog,
    /// What is known of vshard.
    pub vshard: Vshard,
    /// What is under way.
    pub pending: Slots,
    /// The signal that asked it to stop, and when.
    pub stopping: Option<(&'static str, Tick)>,
    /// Another agent owns the guard now.
    pub superseded: Option<String>,
    /// The last thing about the lock or a session that Consul refused or failed to answer, until it answers again.
    pub consul_fault: Option<ConsulFault>,
    /// What cannot be read beside the lock.
    pub unread: Unread,
    /// Why Consul denies us a session or the lock, until it allows it or fails otherwise: reads say nothing about that.
    pub denied: Option<String>,
}

/// The instance beside us.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Instance {
    /// Whether there is a connection, and if not, what became of it.
    pub link: Link,
    /// The last thing the guard said.
    #[serde(skip)]
    pub probe: Option<Probe>,
    /// When that arrived.
    pub probed_at: Option<Tick>,
    /// A promise to another (R6), as far as it was ever seen here, runs until then.
    pub bound_until: Tick,
    /// Its clock as last read, for the next lease.
    pub reading: Option<Reading>,
    /// When it heard its peers, by instance UUID.
    pub heard: BTreeMap<String, Heard>,
    /// What arrives of the rows of whoever else is master; `None`: nobody else is, for all we know.
    pub feed: Option<Feed>,
    /// Since when nobody replicates from it, though others have joined.
    pub unfollowed_since: Option<Tick>,
    /// The agent had not run, and did again from then on: what came to no end before that is no word of the instance's.
    pub overslept_at: Option<Tick>,
    /// For how long the agent had run and asked before that, between such times, since the instance was last heard.
    pub asked_in_vain: Duration,
    /// Since when pings go unanswered.
    pub silent_since: Option<Tick>,
    /// The lease that may be running inside, as far as we can tell from outside.
    pub lease: Option<Granted>,
    /// First attached to this process then: what was read from its clock before may come from another clock.
    pub process_since: Tick,
    /// Attached then: whatever answers to a command begun before speaks of another connection.
    pub attached_at: Tick,
    /// A fence that was begun then has ended, however.
    pub fence_tried_at: Option<Tick>,
    /// A command that was begun then got no answer.
    pub unanswered_at: Option<Tick>,
    /// Why its process cannot be seen or killed from here.
    pub process: Option<String>,
    /// When the command was begun whose answer is the last word of the guard.
    pub answered_begun_at: Option<Tick>,
    /// SIGKILL was sent: no code of the process runs any more, whenever the kernel is done with it.
    pub killed: bool,
    /// When that was done.
    pub killed_at: Option<Tick>,
    /// Why the last kill did not happen.
    pub kill_failed: Option<String>,
    /// Why the guard refused its last promotion or fence.
    pub guard_refused: Option<String>,
    /// Why the instance was not pointed at the master the last time (`REPLICATION=follow`).
    pub follow_fault: Option<String>,
    /// Where its peers accept connections, by instance UUID, as it last followed them.
    pub peers: BTreeMap<String, String>,
    /// The guard was told to stand down then: what it said before says nothing about that.
    pub stood_down_at: Option<Tick>,
}

/// Why members, ballots and orders cannot be read. The lock is another matter: its steps do not rest on them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// The last failure since the board could be read.
    pub board: Option<ConsulFault>,
    /// How often that has failed since.
    pub failures: u32,
    /// The last failure since a ballot could be written or ballots could be read.
    pub ballots: Option<ConsulFault>,
}

impl Unread {
    pub(crate) fn board_failed(&mut self, fault: ConsulFault) {
        self.board = Some(fault);
        self.failures = self.failures.saturating_add(1);
    }

    pub(crate) fn board_seen(&mut self) {
        self.board = None;
        self.failures = 0;
    }
}

/// What the members' keys say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct MemberTerms {
    /// The highest term that any of them mentions.
    pub term: Term,
    /// The longest lease that any of them works with.
    pub lease: Duration,
}

/// What operators asked for.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Orders {
    /// `switchover`, with its key's `ModifyIndex`.
    pub switchover: Option<(u64, Switchover)>,
    /// When that was first seen.
    pub seen_at: Tick,
    /// `pause`, as last read; by a holder with each refresh.
    pub pause: Option<Pause>,
    /// The last pause that was in force, and until when it was seen to be.
    pub last_pause: Option<(Pause, Tick)>,
    /// What is being written into the switchover key.
    #[serde(skip)]
    pub writing: Option<(Switchover, Option<Party>)>,
    /// What became of a switchover and is yet to be written down.
    pub outcome: Option<Switchover>,
}

/// The connection to the instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Link {
    /// Not tried to the end yet.
    #[default]
    Unknown,
    /// Attached.
    Up,
    /// No connection, and no proof of death.
    Down {
        /// In words.
        why: String,
        /// Since when.
        since: Tick,
    },
    /// Proven dead.
    Dead {
        /// How we know.
        proof: String,
        /// Since when.
        since: Tick,
        /// Why whoever answers in its place could not be attached, the last time.
        newest: Option<String>,
    },
    /// Waiting cannot mend it.
    Unsuitable {
        /// What to change.
        why: String,
    },
}

/// A lease that was handed to the guard, or that it may have received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Granted {
    /// Its end on the instance's clock.
    pub deadline: InstanceTime,
    /// On ours: the lease has certainly ended then (R2).
    pub over_at: Tick,
    /// On ours: it has ended if both clocks run alike; the moment to kill what is still silent (R5).
    pub due_at: Tick,
    /// When it was handed over: what the guard said before then says nothing about it.
    pub handed_at: Tick,
}

/// The lock key as last seen.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Lock {
    /// What was seen; `None`: unknown.
    pub sight: Option<LockSight>,
    /// When the answer that showed it came in.
    pub learned_at: Tick,
    /// Since when the key's index and holder have been what they are, while Consul was readable.
    pub stood_since: Tick,
    /// When the last single read was sent that was answered.
    pub confirmed_at: Option<Tick>,
    /// The last proper record, which may be older than the sight, with the time since which it has been unchanged
    /// while Consul was readable (R3).
    pub unchanged: Option<Unchanged>,
    /// The term of that record, and when it was first seen.
    pub term_seen: Option<(Term, Tick)>,
    /// How old that term was by then, as its record and this machine's wall clock have it.
    pub term_age: Duration,
    /// When the last question about it was sent that was answered, or the record was first seen.
    pub readable_at: Tick,
    /// The last read failed: Consul cannot be read now, for all we know.
    pub unreadable: bool,
    /// The sight is known to be outdated: a step was refused or its reply lost.
    pub outdated: bool,
    /// A record of our instance by another run of its agent was last seen then.
    pub rival_seen_at: Option<Tick>,
}

/// A record and how long it has stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unchanged {
    /// The record.
    pub record: Record,
    /// Which write it was.
    pub stamp: Stamp,
    /// First seen then.
    pub seen_at: Tick,
    /// The same, or seen again after a time in which Consul may not have been readable.
    pub since: Tick,
    /// Its writer's last word as master was seen then; a record that says `fenced` is no such word, it may be written
    /// long after.
    pub spoke_at: Tick,
    /// That word was seen to come, rather than found; only then is its age known.
    pub witnessed: bool,
}

/// Our session.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Session {
    /// The one to use; `None`: none yet, or lost.
    pub id: Option<SessionId>,
    /// The guard has written it down.
    pub remembered: bool,
    /// When it was created or last renewed.
    pub renewed_at: Tick,
    /// Something suggests that it is gone: ask before it is used again.
    pub doubted: bool,
}

impl Session {
    /// One that the guard has written down, whether or not it is still alive.
    pub(crate) fn found_in_guard(id: SessionId, now: Tick) -> Self {
        Self {
            id: Some(id),
            remembered: true,
            renewed_at: now,
            doubted: true,
        }
    }
}

/// What the catalog was told.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Catalog {
    /// Last accepted registration and words.
    pub told: Option<CatalogEntry>,
    /// When it was last told.
    pub told_at: Tick,
    /// When the last registration was begun.
    pub registered_at: Tick,
    /// A call was lost, and may be carried out until then, behind a newer one.
    pub doubted_until: Option<Tick>,
    /// What is being told.
    #[serde(skip)]
    pub telling: Option<CatalogEntry>,
    /// Consul does not know the service.
    pub lost: bool,
    /// The member key as last written; `None`: who knows.
    #[serde(skip)]
    pub member: Option<Member>,
    /// Since then at the latest it has said that the guard may stand down.
    pub stands_down_since: Option<Tick>,
    /// What is being written there.
    #[serde(skip)]
    pub member_writing: Option<Member>,
    /// When that was begun.
    pub member_written_at: Tick,
    /// Why Consul was not told the last time. No reason of ours rests on that, unlike [`State::consul_fault`].
    pub fault: Option<String>,
    /// Why the member key was not written the last time.
    pub member_fault: Option<String>,
    /// The service was removed because we stop.
    pub removed: bool,
    /// Who else is found under the name of a master's service.
    pub neighbours: Option<Neighbours>,
}

impl Catalog {
    /// What the member's key says is not known any more.
    pub(crate) fn forgets_member(&mut self) {
        self.member = None;
        self.stands_down_since = None;
    }
}

impl State {
    /// An agent that knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            wall_ms: 0,
            instance: Instance::default(),
            lock: Lock::default(),
            session: Session::default(),
            highest_term: Term::NONE,
            member_terms: None,
            hold: Hold::default(),
            election: None,
            board: None,
            announced: BTreeMap::new(),
            orders: Orders::default(),
            past: Past::default(),
            catalog: Catalog::default(),
            vshard: Vshard::default(),
            pending: Slots::default(),
            stopping: None,
            superseded: None,
            consul_fault: None,
            unread: Unread::default(),
            denied: None,
        }
    }

    /// A turn begins at this time of day. Called by whoever owns the clock, before anything else of the turn.
    pub fn reads_wall_clock(&mut self, wall_ms: u64) {
        self.wall_ms = wall_ms;
    }

    /// Whether the lock, as last seen, is held by our session.
    #[must_use]
    pub fn holds_lock(&self) -> bool {
        match (self.key_session(), &self.session.id) {
            (Some(holder), Some(own)) => holder == own,
            (Some(_) | None, None) | (None, Some(_)) => false,
        }
    }

    /// The session in the lock key as last seen.
    #[must_use]
    pub fn key_session(&self) -> Option<&SessionId> {
        self.lock.sight.as_ref()?.key.as_ref()?.session.as_ref()
    }

    /// The key's `ModifyIndex` as last seen.
    #[must_use]
    pub fn key_index(&self) -> Option<u64> {
        let key = self.lock.sight.as_ref()?.key.as_ref()?;
        Some(key.modify_index)
    }

    /// The last proper record in the lock key, whoever wrote it.
    #[must_use]
    pub fn seen_record(&self) -> Option<&Record> {
        self.lock.sight.as_ref()?.key.as_ref()?.record.as_ref().ok()
    }

    /// Whether the guard has not been asked since another run of our agent was seen to write: it may own the guard by
    /// now, and what it handed to it our last word from there says nothing about.
    #[must_use]
    pub fn may_be_superseded(&self) -> bool {
        self.lock.rival_seen_at.is_some()
            && self.lock.rival_seen_at > self.instance.answered_begun_at
    }

    /// Whether no other agent's record stands in the lock key.
    #[must_use]
    pub fn wrote_last(&self) -> bool {
        let seen = self.seen_record();
        seen.is_none_or(|seen| seen.agent == self.settings.agent)
    }

    /// The board, if it was asked for no earlier than that; and when.
    #[must_use]
    pub fn board_since(&self, since: Tick) -> Option<&(Board, Tick)> {
        let board = self.board.as_ref();
        board.filter(|(_, asked_at)| *asked_at >= since)
    }

    /// The instance's last word, while it is attached.
    #[must_use]
    pub fn live_probe(&self) -> Option<&Probe> {
        match self.instance.link {
            Link::Up => self.instance.probe.as_ref(),
            Link::Unknown | Link::Down { .. } | Link::Dead { .. } | Link::Unsuitable { .. } => None,
        }
    }

    /// Whether the instance is writable now, under our term.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        match (&self.hold.record, self.live_probe()) {
            (Some(record), Some(probe)) => probe.is_master(record.term),
            (Some(_) | None, None) | (None, Some(_)) => false,
        }
    }

    /// R2: whether the instance may be writable, for all we know.
    #[must_use]
    pub fn may_be_writable(&self, now: Tick) -> bool {
        if matches!(self.instance.link, Link::Dead { .. }) || self.is_fenced() {
            return false;
        }
        match self.instance.lease {
            _ if self.stands_down() => !self.instance.killed,
            Some(lease) => sound!(now < lease.over_at; LeaseKeepsNoLock => false),
            None => true,
        }
    }

    /// Whether the guard stands down for a pause, for all we know: then no time bounds how long the instance may be
    /// writable.
    #[must_use]
    pub fn stands_down(&self) -> bool {
        let told = self.pending.command() == Some(GuardCommandKind::StandDown)
            || self.instance.stood_down_at > self.instance.answered_begun_at;
        let probe = self.instance.probe.as_ref();
        let says_so = probe.is_some_and(|probe| probe.guard.stood_down);
        sound!(told || says_so; StandDownEndsLease => false)
    }

    /// Whether the guard said that the instance is fenced, and nothing was handed to it since.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        !self.lease_in_flight() && self.instance.probe.as_ref().is_some_and(Probe::is_fenced)
    }

    /// Whether a lease was running at the guard's last word, or was handed to it since, or commits under the last one
    /// may still land while we hold the lock.
    #[must_use]
    pub fn may_hold_lease(&self) -> bool {
        let unsafe_word = |probe: &Probe| {
            probe.guard.leased
                || !probe.ro
                || (probe.is_landing() && self.has_served_this_hold(probe))
        };
        self.lease_in_flight() || self.instance.probe.as_ref().is_some_and(unsafe_word)
    }

    /// Whether we hold the lock for a term that the instance may have served: commits of an earlier term are behind
    /// the release that ended it, and a lock just gained is no reason to wait for them.
    fn has_served_this_hold(&self, probe: &Probe) -> bool {
        let record = self.hold.record.as_ref();
        self.holds_lock() && record.is_none_or(|record| probe.guard.term >= record.term)
    }

    /// A lease on its way, or one whose arrival the guard's last word says nothing about: the question that it
    /// answers was asked before.
    fn lease_in_flight(&self) -> bool {
        if matches!(
            self.pending.command(),
            Some(GuardCommandKind::Promote | GuardCommandKind::Grant)
        ) {
            return true;
        }
        match (self.instance.lease, self.instance.answered_begun_at) {
            (Some(lease), Some(begun_at)) => {
                sound!(lease.handed_at > begun_at; LeaseOnItsWayKeepsNoLock => false)
            }
            (Some(_) | None, None) | (None, Some(_)) => false,
        }
    }

    /// The term under which the instance is writable at its last word, while it is attached. No guard is promoted in none, and
    /// none in a term that is not believed.
    #[must_use]
    pub fn serving_term(&self) -> Option<Term> {
        self.live_probe()
            .filter(|probe| !probe.ro && probe.guard.leased)
            .map(|probe| probe.guard.term)
            .filter(|term| *term > Term::NONE && *term <= self.highest_term)
    }
}

/// What became of the instance, in words.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("it has not answered yet"),
            Self::Up => f.write_str("it answers"),
            Self::Down { why, .. } | Self::Unsuitable { why } => f.write_str(why),
            Self::Dead {
                newest: Some(newest),
                ..
            } => write!(f, "{newest} (the process before is dead)"),
            Self::Dead { proof, .. } => write!(f, "its process is dead: {proof}"),
        }
    }
}

impl State {
    /// Whether a term can have been reached by counting, for all that is known here.
    pub(crate) fn believes(&self, term: Term, said_by: SaidBy) -> bool {
        term.is_believable_after(self.highest_term, said_by)
    }
}
