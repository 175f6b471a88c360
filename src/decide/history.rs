//! Changes of hands are written down by who gained the lock, and what an ex-master brings back by its own agent.

use std::time::Duration;

use super::board::{self, HistoryLine, Party, Returned, Stages, rows_missing};
use super::event::LockStepKind;
use super::observed::Probe;
use super::plan::Action;
use super::record::{LastWord, Record, Status, Vclock};
use super::state::Gained;
use super::timing::Tick;
use super::{Place, Planner};

/// How often the history is read for the line that the new master is about to write.
pub(super) const READS: u32 = 10;

impl Planner<'_> {
    /// Who was promoted last before `term`, where its record or that of one that was not promoted says so.
    pub(super) fn last_master(&self, own: Option<&Record>, term: u64) -> Option<LastWord> {
        if let Some(own) = own {
            let before = own.last_master.clone();
            return before.filter(|_| !own.was_promoted());
        }
        // One brought back from a backup knows nothing of who was master since.
        let before = self
            .state
            .seen_record()
            .filter(|seen| seen.term + 1 == term);
        before.and_then(Record::last_promoted)
    }

    /// The vclock at the promotion that began the term, as the record keeps it.
    pub(super) fn base(&self, own: Option<&Record>, term: u64) -> Vclock {
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
        let Some(gained) = &self.state.hold.gained else {
            return;
        };
        if gained.told || record.status != Status::Active {
            return;
        }
        let line = self.line(record, probe, gained);
        self.write_history(line);
    }

    fn line(&self, record: &Record, probe: &Probe, gained: &Gained) -> HistoryLine {
        let before = gained.predecessor.as_ref();
        // Who gave it up knows why; who took it knows only that it was free.
        let reason = before
            .filter(|before| before.status == Status::Fenced)
            .map_or(&record.reason, |before| &before.reason);
        let ms =
            |at: Tick| u64::try_from(at.since(gained.found_at).as_millis()).unwrap_or(u64::MAX);
        let promoted = gained.promoted_at.map(|_| gained.promoted_ms);
        let at_ms = promoted.unwrap_or(self.state.wall_ms);
        HistoryLine {
            v: board::VERSION,
            term: record.term,
            at: at_ms / 1000,
            at_ms,
            cause: record.cause,
            reason: reason.clone(),
            from: before.map(|before| Party {
                instance: before.instance.clone(),
                name: before.name.clone(),
            }),
            to: Party {
                instance: probe.uuid.clone(),
                name: record.name.clone(),
            },
            rows_at_risk: before.map_or(0, |before| rows_missing(&before.vclock, &record.base)),
            vclock: record.base.clone(),
            returned: None,
            stages_ms: Stages {
                elected: ms(gained.elected_at),
                acquired: ms(gained.acquired_at),
                promoted: ms(gained.promoted_at.unwrap_or(self.now)),
            },
        }
    }

    fn write_history(&mut self, line: HistoryLine) {
        if self.may_call_history() {
            self.act(Action::WriteHistory {
                line: Box::new(line),
            });
        }
    }

    fn may_call_history(&mut self) -> bool {
        let pending = &self.state.pending;
        let under_way = pending.history || self.planned(Place::History);
        self.may_call(under_way, pending.history_retry_at)
    }

    /// Of an instance that may have been master before, once somebody else is: the rows that its successor did not
    /// have. In a mesh they merge silently, overwrite newer ones or stop replication, so they are never silent here.
    pub(super) fn count_rows_brought_back(&mut self) {
        let past = &self.state.past;
        let (Some(probe), Some(record)) = (self.state.live_probe(), self.state.seen_record())
        else {
            return;
        };
        if !past.returning
            || self.state.key_session().is_none()
            || record.instance == probe.uuid
            || record.status != Status::Active
        {
            return;
        }
        let written = past.lines.as_ref().filter(|lines| {
            lines.iter().any(|line| line.term >= record.term) || past.reads >= READS
        });
        let Some(lines) = written else {
            if self.may_call_history() {
                self.act(Action::ReadHistory);
            }
            return;
        };
        let Some(line) = reign_that_ended(lines, &probe.uuid) else {
            return;
        };
        let own = probe.id.to_string();
        let lsn = |vclock: &Vclock| vclock.get(&own).copied().unwrap_or(0);
        let line = HistoryLine {
            returned: Some(Returned {
                at: self.state.wall_ms / 1000,
                at_ms: self.state.wall_ms,
                rows: lsn(&probe.vclock).saturating_sub(lsn(&line.vclock)),
            }),
            ..line.clone()
        };
        self.write_history(line);
    }
}

/// The last reign of this instance, if another one followed and its rows have not been counted yet.
fn reign_that_ended<'a>(lines: &'a [HistoryLine], uuid: &str) -> Option<&'a HistoryLine> {
    let newest = lines.iter().rev().find(|line| {
        line.to.instance == uuid || line.from.as_ref().is_some_and(|from| from.instance == uuid)
    })?;
    (newest.to.instance != uuid && newest.returned.is_none()).then_some(newest)
}

impl super::state::State {
    /// The instance is another process, or was master until now.
    pub(super) fn comes_back(&mut self) {
        self.past.returning = true;
        self.past.lines = None;
        self.past.reads = 0;
    }

    /// A step that would gain the lock is sent.
    pub(super) fn begin_gain(&mut self, action: &Action, now: Tick) {
        let lock = &self.lock;
        let (index, attempt, found_at) = if let Action::Acquire { index, attempt, .. } = action {
            (*index, attempt, lock.stood_since)
        } else if let Action::TakeOver { index, attempt, .. } = action {
            (Some(*index), attempt, lock.confirmed_at.unwrap_or(now))
        } else {
            return;
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
        let begun_at = self
            .election
            .as_ref()
            .filter(|election| Some(election.index) == index)
            .map_or(found_at, |election| election.begun_at);
        self.hold.gaining = (!same_term).then(|| Gained {
            predecessor: before.cloned(),
            index: 0,
            found_at: begun_at,
            elected_at: now,
            acquired_at: now,
            promoted_at: None,
            promoted_ms: 0,
            told: false,
        });
    }

    /// Consul has confirmed a record of ours.
    pub(super) fn note_accepted(&mut self, attempt: &super::state::Attempt, now: Tick) {
        let index = self
            .lock
            .sight
            .as_ref()
            .map_or(0, super::apply_lock::change_index);
        let begins = self.hold.attempted_step == Some(LockStepKind::Acquire);
        if let Some(gaining) = self.hold.gaining.take().filter(|_| begins) {
            self.hold.gained = Some(Gained {
                index,
                acquired_at: now,
                ..gaining
            });
        }
        if let Some(handover) = &mut self.hold.handover
            && handover.announced.is_none()
            && attempt.record.handover_to.as_ref() == Some(&handover.to.instance)
        {
            handover.announced = Some((index, now));
        }
    }

    pub(super) fn note_promotion(&mut self, probe: &Probe, now: Tick) {
        let term = self.hold.record.as_ref().map(|record| record.term);
        if let Some(gained) = &mut self.hold.gained
            && gained.promoted_at.is_none()
            && term.is_some_and(|term| probe.is_master(term))
        {
            gained.promoted_at = Some(now);
            gained.promoted_ms = self.wall_ms;
        }
    }
}

/// Between two looks for a line that is not there yet.
pub(super) const READ_AGAIN: Duration = Duration::from_secs(1);
