//! Changes of hands are written down by who gained the lock, and what an ex-master brings back by its own agent.

use std::collections::BTreeSet;
use std::time::Duration;

use super::planner::Planner;
use crate::plan::Action;
use crate::state::slots::Place;
use crate::words::board::{HistoryLine, Returned};
use crate::words::ending::{How, Known, Outage};
use crate::words::observed::Probe;
use crate::words::record::{LastWord, Quorum, Record, Status};
use crate::words::term::Term;
use crate::words::timing::{Tick, millis};
use crate::words::vclock::Vclock;

/// How often the history is read for the line that the new master is about to write.
pub(super) const READS: u32 = 10;

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
    pub(crate) fn tell_past_terms(&mut self) {
        if let Some(line) = self.state.past.untold.front()
            && !self.stays_quiet()
        {
            self.write_history(line.clone(), true);
        }
    }

    /// Of an agent that is about to end. Consul has one chance to be told.
    pub(crate) fn has_told_past_terms(&mut self) -> bool {
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
    pub(crate) fn count_rows_brought_back(&mut self) {
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
