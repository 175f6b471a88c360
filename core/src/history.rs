//! Changes of hands are written down by who gained the lock, and what an ex-master brings back by its own agent.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use serde::Serialize;

use super::board::{self, HistoryLine, Party, Returned, Stages, rows_missing};
use super::ending::{How, Known, Outage, Promoted, millis};
use super::hold::Sent;
use super::observed::Probe;
use super::plan::Action;
use super::record::{LastWord, Quorum, Record, Status, Vclock};
use super::state::{Gained, State};
use super::term::Term;
use super::timing::Tick;
use super::{Place, Planner};

/// How often the history is read for the line that the new master is about to write.
pub(super) const READS: u32 = 10;

/// What is known of changes of hands.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Past {
    /// The instance may have been master before: whether it has rows that nobody else has is to be looked up.
    pub returning: bool,
    /// The history as read for that.
    #[serde(skip)]
    pub lines: Option<Vec<HistoryLine>>,
    /// How often it was read.
    pub reads: u32,
    /// What is being written there.
    #[serde(skip)]
    pub writing: Option<HistoryLine>,
    /// No look at it before then.
    pub read_again_at: Option<Tick>,
    /// Lines of terms that were over before Consul had them, the oldest first.
    pub untold: VecDeque<HistoryLine>,
    /// Consul denied the last call for want of rights.
    pub denied: bool,
    /// The last term in which the instance was promoted, as far as this agent knows, and which is over.
    pub reigned: Term,
    /// Its newest line.
    pub last: Option<HistoryLine>,
    /// The last hold that another one ended by taking the lock.
    pub lost: Option<LostHold>,
    /// The change of hands that this instance came back from, with what it brought.
    pub returned: Option<HistoryLine>,
}

/// A hold that another one ended by taking the lock, while this agent lived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LostHold {
    /// Its term.
    pub term: Term,
    /// Which refresh its last word was.
    pub refresh: u64,
    /// The clock was read then, before that was sent.
    pub begun_at: Tick,
    /// When that was accepted.
    pub accepted_at: Tick,
}

impl Planner<'_> {
    /// Who was promoted last before `term`, where its record or that of one that was not promoted says so.
    pub(super) fn last_master(&self, own: Option<&Record>, term: Term) -> Option<LastWord> {
        if let Some(own) = own {
            let before = own.last_master.clone();
            return before.filter(|_| !own.was_promoted());
        }
        // One brought back from a backup knows nothing of who was master since.
        let before = self.record_before(None, term);
        before.and_then(Record::last_promoted)
    }

    /// What clients rely on: of our own instance once it was promoted, else of the last one that was.
    pub(super) fn quorum(
        &self,
        own: Option<&Record>,
        term: Term,
        probe: Option<&Probe>,
    ) -> Option<Quorum> {
        let serves = probe.filter(|probe| probe.is_master(term));
        let now = serves.and_then(|probe| {
            let members = probe.replication.iter().map(|peer| peer.uuid.clone());
            Some(Quorum {
                size: probe.quorum?,
                members: members.collect(),
            })
        });
        now.or_else(|| self.record_before(own, term)?.quorum.clone())
    }

    /// Our own of this term, else of the term before it, be it one of ours in which we were not promoted.
    fn record_before<'r>(&'r self, own: Option<&'r Record>, term: Term) -> Option<&'r Record> {
        let seen = self.state.seen_record();
        let before = own.or_else(|| seen.filter(|seen| seen.term.next() == term));
        before.or(self.state.hold.record.as_ref())
    }

    /// Whose guards have refused since somebody was promoted.
    pub(super) fn tried(&self, own: Option<&Record>, term: Term) -> BTreeSet<String> {
        let before = self.record_before(own, term);
        let unpromoted = before.filter(|record| !record.was_promoted());
        unpromoted.map_or_else(BTreeSet::new, |record| record.tried.clone())
    }

    /// The vclock at the promotion that began the term, as the record keeps it.
    pub(super) fn base(&self, own: Option<&Record>, term: Term) -> Vclock {
        if let Some(own) = own.filter(|own| !own.base.is_empty()) {
            return own.base.clone();
        }
        let probe = self.state.instance.probe.as_ref();
        let promoted = probe.filter(|probe| probe.is_master(term));
        promoted
            .map(|probe| {
                probe
                    .guard
                    .base
                    .clone()
                    .unwrap_or_else(|| probe.vclock.clone())
            })
            .unwrap_or_default()
    }

    /// Of a serving master: one line for each term that it gained.
    pub(super) fn tell_history(&mut self, record: &Record, probe: &Probe) {
        self.tell_past_terms();
        self.count_rows_from_before(record, probe);
        let Some(gained) = &self.state.hold.gained else {
            return;
        };
        if gained.told || record.status != Status::Active {
            return;
        }
        let line = self.state.line(record, gained, self.now);
        self.write_history(line, false);
    }

    /// What Consul does not have yet of terms that are over. No change of hands waits for it.
    pub(super) fn tell_past_terms(&mut self) {
        if let Some(line) = self.state.past.untold.front()
            && !self.stays_quiet()
        {
            self.write_history(line.clone(), true);
        }
    }

    /// Of an agent that is about to end. Consul has one chance to be told.
    pub(super) fn has_told_past_terms(&mut self) -> bool {
        self.tell_past_terms();
        self.state.past.untold.is_empty() || self.fails(Place::History)
    }

    /// `over`: the term's master is none any more.
    pub(super) fn write_history(&mut self, line: HistoryLine, over: bool) {
        if self.may_call(Place::History) {
            self.act(Action::WriteHistory {
                line: Box::new(line),
                over,
            });
        }
    }

    /// Not too often: the line that is looked for may take its time, and one's own is not to wait for that.
    pub(super) fn read_history(&mut self) {
        let read_again_at = self.state.past.read_again_at;
        if self.is_due(read_again_at) && self.may_call(Place::History) {
            self.act(Action::ReadHistory);
        }
    }

    /// Of an instance that may have been master before, once somebody else is: the rows that its successor did not
    /// have. In a mesh they merge silently, overwrite newer ones or stop replication, so they are never silent here.
    pub(super) fn count_rows_brought_back(&mut self) {
        let (Some(probe), Some(record)) = (self.state.live_probe(), self.state.seen_record())
        else {
            return;
        };
        if self.state.key_session().is_none()
            || record.instance == probe.uuid
            || record.status != Status::Active
        {
            return;
        }
        let Some(line) = self.reign_to_count(&probe.uuid, record.term) else {
            return;
        };
        let returned = self.rows_lacked(&line, own_rows(probe, &probe.vclock), probe, record.term);
        let line = HistoryLine {
            returned: Some(returned),
            ..self.completed(&line, probe)
        };
        self.write_history(line, false);
    }

    /// The same of one that is master again before that was done. What it wrote since is no part of it.
    fn count_rows_from_before(&mut self, record: &Record, probe: &Probe) {
        let gained = self.state.hold.gained.as_ref();
        if record.base.is_empty() || gained.is_some_and(|gained| !gained.told) {
            return;
        }
        let before = record.term.before(1).filter(|it| *it > Term::NONE);
        let Some(last) = before else {
            return;
        };
        let Some(line) = self.reign_to_count(&probe.uuid, last) else {
            return;
        };
        let returned = self.rows_lacked(&line, own_rows(probe, &record.base), probe, record.term);
        let line = HistoryLine {
            returned: Some(returned),
            ..line
        };
        self.write_history(line, false);
    }

    /// The line of the term that followed the last reign of this instance before or in the term `last`, if it is known
    /// which that was and its rows have not been counted yet.
    fn reign_to_count(&mut self, uuid: &str, last: Term) -> Option<HistoryLine> {
        let past = &self.state.past;
        if !past.returning || !past.untold.is_empty() {
            return None;
        }
        let (reigned, reads) = (past.reigned, past.reads);
        let is_whole = |lines: &&Vec<HistoryLine>| {
            let known =
                reigned == Term::NONE || reign_that_ended(lines, uuid, reigned, last).is_some();
            reads >= READS || (known && lines.iter().any(|line| line.term >= last))
        };
        let Some(lines) = past.lines.as_ref().filter(is_whole) else {
            self.read_history();
            return None;
        };
        let line = reign_that_ended(lines, uuid, reigned, last)?;
        line.returned.is_none().then(|| line.clone())
    }

    /// Of an instance that had so many rows of its own when it came back from the reign that the line ended; it is now
    /// `term`.
    fn rows_lacked(&self, line: &HistoryLine, has: u64, probe: &Probe, term: Term) -> Returned {
        let past = &self.state.past;
        let mut rows = has.saturating_sub(own_rows(probe, &line.vclock));
        if line.risk_known == Some(Known::Exact) {
            // Read behind its last commit: what it has beyond that it wrote later.
            rows = rows.min(line.rows_at_risk);
        }
        let lines = past.lines.as_deref().unwrap_or_default();
        let is_told = |term| lines.iter().any(|line| line.term == term);
        let may_have_reigned_since =
            past.reigned == Term::NONE && line.term.until(term).any(|term| !is_told(term));
        let doubtful = rows > 0 && line.risk_known != Some(Known::Exact) && may_have_reigned_since;
        Returned {
            at: self.state.wall_ms / 1000,
            at_ms: self.state.wall_ms,
            rows,
            known: doubtful.then_some(Known::AtMost),
        }
    }

    /// What the ex-master's agent knows better than the successor that wrote the line: whether it lived on itself, and
    /// for how long its instance was writable behind its last word.
    fn completed(&self, line: &HistoryLine, probe: &Probe) -> HistoryLine {
        let state = self.state;
        let mut line = line.clone();
        if !line.ended.is_some_and(How::is_guessed) {
            return line;
        }
        let fenced_ago = probe.guard.fenced_ago_ns.map(Duration::from_nanos);
        let probed_at = state.instance.probed_at.unwrap_or(self.now);
        let lost = state.past.lost.as_ref();
        let lost = lost.filter(|lost| lost.term < line.term);
        let most = line.outage.and_then(|outage| outage.at_most_ms);
        let (ended, outage) = match (lost, fenced_ago) {
            (Some(lost), ago) => {
                let outage = ago.zip(most).map(|(ago, most)| {
                    let most = Duration::from_millis(most);
                    // Its last accepted word reached Consul between the two.
                    let less =
                        |word: Tick| most.saturating_sub(probed_at.since(word).saturating_sub(ago));
                    let least = less(lost.begun_at);
                    if Some(lost.refresh) == line.last_refresh {
                        Outage::told(least, less(lost.accepted_at))
                    } else {
                        // One more word reached Consul, and the answer to it nobody.
                        Outage::of(Some(millis(least)), Some(millis(most)))
                    }
                });
                (How::CutOff, outage)
            }
            // An agent that has just come, at an instance whose guard outlived the lease. Whether the lease of its
            // last word reached the guard died with the agent before.
            (None, Some(_)) if probe.guard.last_fence.as_deref() == Some(LEASE_ENDED) => {
                let lease = millis(state.settings.timing.lease());
                let outage =
                    most.map(|most| Outage::of(Some(most.saturating_sub(lease)), Some(most)));
                (How::AgentLost, outage)
            }
            (None, _) => return line,
        };
        line.ended = Some(ended);
        line.outage = outage.or(line.outage);
        line
    }
}

/// The guard's words when its lease ended, in `guard.lua`.
const LEASE_ENDED: &str = "its lease ended";

/// Rows that the instance wrote itself, of those that a vclock has.
fn own_rows(probe: &Probe, vclock: &Vclock) -> u64 {
    vclock.get(&probe.id.to_string()).copied().unwrap_or(0)
}

/// The line of the term, up to `last`, that followed the last reign of this instance. A line that is older than a reign
/// the agent knows of followed another.
fn reign_that_ended<'a>(
    lines: &'a [HistoryLine],
    uuid: &str,
    reigned: Term,
    last: Term,
) -> Option<&'a HistoryLine> {
    let is_from = |line: &HistoryLine| line.from.as_ref().is_some_and(|it| it.instance == uuid);
    let newest = lines
        .iter()
        .rev()
        .filter(|line| line.term <= last)
        .find(|line| line.to.instance == uuid || is_from(line))?;
    (newest.to.instance != uuid && newest.term > reigned).then_some(newest)
}

impl State {
    /// How `record` came to be that of a master.
    fn line(&self, record: &Record, gained: &Gained, now: Tick) -> HistoryLine {
        let before = gained.predecessor.as_ref();
        // Who gave it up knows why; who took it knows only that it was free.
        let reason = before
            .filter(|before| before.status == Status::Fenced)
            .map_or(&record.reason, |before| &before.reason);
        let ms = |at: Tick| millis(at.since(gained.found_at));
        let promoted = gained.promoted.unwrap_or(Promoted {
            earliest: now,
            latest: now,
            at_ms: self.wall_ms,
        });
        let end = &gained.end;
        let lost = before.map(|before| {
            let word = before.last_masters_word();
            word.map_or_else(|| before.vclock.clone(), |word| word.vclock)
        });
        let rows_at_risk = lost.map_or(0, |vclock| rows_missing(&vclock, &record.base));
        let from = before.map(|before| self.party_before(before));
        // What the one before wrote behind the vclock that its record carries, it has itself: nothing is at risk where it
        // is the same instance, unless its files are older than that word.
        let is_back = from
            .as_ref()
            .is_some_and(|it| it.instance == record.instance);
        let complete = end.complete || (is_back && rows_at_risk == 0);
        let word = before.map(|_| end.word_age_ms).filter(|_| !complete);
        HistoryLine {
            v: board::VERSION,
            term: record.term,
            at: promoted.at_ms / 1000,
            at_ms: promoted.at_ms,
            cause: record.cause,
            reason: reason.clone(),
            ended: Some(end.how),
            by: end.by.clone(),
            outage: before.map(|_| end.outage(gained.elected_at, promoted)),
            from,
            to: Party {
                instance: record.instance.clone(),
                name: record.name.clone(),
            },
            rows_at_risk,
            risk_known: before.map(|_| {
                if complete {
                    Known::Exact
                } else {
                    Known::AtLeast
                }
            }),
            last_word_age_ms: word.flatten(),
            rate_rows_per_s: before.and_then(|before| before.rate_rows_per_s),
            last_refresh: before.map(|before| before.refresh),
            vclock: record.base.clone(),
            returned: None,
            interruptions: Vec::new(),
            stages_ms: Stages {
                elected: ms(gained.elected_at),
                acquired: ms(gained.acquired_at),
                promoted: ms(promoted.latest),
            },
        }
    }

    /// The term of this hold is over, or another begins: what Consul does not have of it is written later.
    pub(super) fn keep_untold(&mut self, now: Tick) {
        let hold = &self.hold;
        let Some(record) = hold.record.as_ref().filter(|own| own.was_promoted()) else {
            return;
        };
        self.past.reigned = self.past.reigned.max(record.term);
        let Some(gained) = hold.gained.as_ref().filter(|gained| !gained.told) else {
            return;
        };
        let line = self.line(record, gained, now);
        let untold = &mut self.past.untold;
        if untold.len() as u64 >= board::HISTORY_LINES {
            untold.pop_front();
        }
        untold.push_back(line);
    }

    /// The instance is another process, or was master until now.
    pub(super) fn comes_back(&mut self) {
        self.past.returning = true;
        self.past.lines = None;
        self.past.reads = 0;
    }

    /// How a term is gained by this step, if it begins one.
    pub(super) fn gaining(&self, action: &Action, now: Tick) -> Option<Gained> {
        let lock = &self.lock;
        let (index, attempt, found_at) = if let Action::Acquire { index, attempt, .. } = action {
            (*index, attempt, lock.stood_since)
        } else if let Action::TakeOver { index, attempt, .. } = action {
            (Some(*index), attempt, lock.confirmed_at.unwrap_or(now))
        } else {
            return None;
        };
        let term = attempt.record.term;
        let before = self.lock.unchanged.as_ref().map(|known| &known.record);
        // Its own term, taken again after a lost session: nothing changes hands.
        let same_term = before.is_some_and(|before| before.term >= term)
            || self
                .hold
                .record
                .as_ref()
                .is_some_and(|own| own.term == term);
        let sight = self.lock.sight.as_ref();
        let found_no_key = sight.is_some_and(|sight| sight.key.is_none());
        let begun_at = self
            .election
            .as_ref()
            .filter(|election| Some(election.index) == index)
            .map_or(found_at, |election| election.begun_at);
        (!same_term).then(|| Gained {
            predecessor: before.cloned(),
            unrecorded: before.is_none() && found_no_key,
            index: 0,
            found_at: begun_at,
            elected_at: now,
            acquired_at: now,
            promoted: None,
            end: self.end_found(attempt.record.cause, now),
            told: false,
        })
    }

    /// Consul has confirmed a record of ours.
    pub(super) fn note_accepted(&mut self, sent: &Sent, now: Tick) {
        let index = self
            .lock
            .sight
            .as_ref()
            .map_or(0, super::apply_lock::change_index);
        let begins = sent.attempt.gain.is_some();
        if let Some(gaining) = &sent.gaining {
            self.keep_untold(now);
            self.hold.gained = Some(Gained {
                index,
                acquired_at: now,
                ..gaining.clone()
            });
        } else if let Some(gained) = self.hold.gained.as_mut().filter(|_| begins) {
            // Taken again in its term: a Consul that has lost its data counts from the beginning.
            gained.index = gained.index.min(index);
        }
        if let Some(handover) = &mut self.hold.handover
            && handover.announced.is_none()
            && sent.attempt.record.handover_to.as_ref() == Some(&handover.to.instance)
        {
            handover.announced = Some((index, now));
        }
    }

    /// The guard was asked at `asked_at` for what it says here.
    pub(super) fn note_promotion(&mut self, probe: &Probe, asked_at: Tick, now: Tick) {
        let term = self.hold.record.as_ref().map(|record| record.term);
        if let Some(gained) = &mut self.hold.gained
            && gained.promoted.is_none()
            && term.is_some_and(|term| probe.is_master(term))
        {
            let ago = Duration::from_nanos(probe.guard.writable_ago_ns.unwrap_or_default());
            gained.promoted = Some(Promoted {
                earliest: asked_at.before(ago),
                latest: now.before(ago),
                at_ms: self.wall_ms.saturating_sub(millis(ago)),
            });
        }
    }
}

/// Between two looks for a line that is not there yet.
pub(super) const READ_AGAIN: Duration = Duration::from_secs(1);
