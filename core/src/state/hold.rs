//! What an agent did at the lock, and what follows from it.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::event::LockStepKind;
use crate::plan::{Attempt, Before};
use crate::words::board::{Party, Switchover};
use crate::words::ending::{End, Promoted};
use crate::words::interruption::Interruption;
use crate::words::record::Record;
use crate::words::term::Term;
use crate::words::timing::{Reading, Tick};
use crate::words::unguarded::Unguarded;

/// The master of a term, when it was last seen to be writable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Served {
    /// Then.
    pub at: Tick,
    /// How often its guard had fenced by then.
    pub fences: u64,
    /// Its process: PID, PID namespace and boot id.
    pub process: (u32, Option<String>, Option<String>),
}

/// What we did at the lock.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Hold {
    /// The record as last accepted with our session.
    pub record: Option<Record>,
    /// The step under way, or whose reply was lost.
    pub attempted: Option<Sent>,
    /// The highest `refresh` ever sent: no two writes may look alike, or a watcher would count a lease from the
    /// first of them and we from the second.
    pub refresh_sent: u64,
    /// The newest reading under an accepted record.
    pub reading: Option<Reading>,
    /// When the last record was accepted.
    pub accepted_at: Tick,
    /// The lock's last owner may be writable until then; `None`: nobody is.
    pub predecessor_over_at: Option<Tick>,
    /// Why this term began.
    pub reason: String,
    /// The guard has refused to promote since then.
    pub refused_since: Option<Tick>,
    /// A promotion in this hold got no answer: it may have been carried out.
    pub promotion_unheard: bool,
    /// We have just given the lock up: until then others go first.
    pub hold_back_until: Option<Tick>,
    /// An acquisition was refused: the next one no earlier than then.
    pub acquire_retry_at: Option<Tick>,
    /// What the guard needs to know of the terms before; nothing any more once it was promoted in this one (R6).
    pub before: Before,
    /// Why Consul could not be written or read since it last accepted or refused something from us.
    pub unwritten: Option<String>,
    /// Members named in writes whose outcome nobody knows: any of them may be what Consul holds.
    pub in_doubt: BTreeSet<String>,
    /// The members that are being asked for their promises.
    pub asked: Option<Asked>,
    /// The newest reading under which every member has promised another lease.
    pub promised: Option<Reading>,
    /// Why the members did not promise the last time.
    pub unpromised: Option<String>,
    /// Members that are writable without a guard, as they said the last time, or as they or a holder before us said and
    /// they have been silent since; `None`: nobody was asked in this term, and no such member was named.
    pub unguarded: Option<Unguarded>,
    /// Until then commits of such a member may land, or a member that was not heard may still say that it is writable;
    /// `None`: everybody promised.
    pub unguarded_until: Option<Tick>,
    /// How this term was gained; `None`: by an agent before us.
    pub gained: Option<Gained>,
    /// When the instance was last seen to be writable in this term.
    pub served: Option<Served>,
    /// It was master of this term, and was first seen then not to be writable.
    pub read_only_since: Option<Tick>,
    /// Times within this term in which it was not writable, and of which the history does not tell yet.
    pub interruptions: Vec<Interruption>,
    /// We hand the lock over at an operator's wish.
    pub handover: Option<Handover>,
}

impl Hold {
    /// A lease needs a new reading from now on.
    pub(crate) fn forgets_readings(&mut self) {
        self.reading = None;
        self.promised = None;
    }
}

/// A question for promises that is under way (R6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// The term in which we serve.
    pub term: Term,
    /// Taken before they were asked.
    pub reading: Reading,
    /// Instance UUIDs of all that must promise.
    pub members: BTreeSet<String>,
    /// We are not promoted yet, and ask whether anybody else is (R3).
    pub for_all: bool,
}

/// How a term was gained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gained {
    /// The last record before it, as last seen.
    pub predecessor: Option<Record>,
    /// There was no lock key at all, and we have never seen a record in one.
    pub unrecorded: bool,
    /// The lock key's `ModifyIndex` of the step that gained it; what has a lower one stood there before.
    pub index: u64,
    /// When the lock was found up for grabs.
    pub found_at: Tick,
    /// When it was clear whose turn it is.
    pub elected_at: Tick,
    /// When Consul had confirmed it.
    pub acquired_at: Tick,
    /// When the instance turned writable.
    pub promoted: Option<Promoted>,
    /// How the last master's time ended, as it was known when it was clear whose turn it is.
    pub end: End,
    /// The history has its line.
    pub told: bool,
}

/// A switchover that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Handover {
    /// The order.
    pub order: Switchover,
    /// To whom.
    pub to: Party,
    /// The record names the target since then, under this `ModifyIndex`.
    pub announced: Option<(u64, Tick)>,
    /// The first fence for it was begun then.
    pub fencing_since: Option<Tick>,
}

/// A lock step that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// What it writes.
    #[serde(flatten)]
    pub attempt: Attempt,
    /// Which step.
    pub step: LockStepKind,
    /// Whether promises to whoever was before may be running, where it begins a hold.
    pub after: Before,
    /// How a term is gained by it, where it begins one.
    pub gaining: Option<Gained>,
}
