//! How a term was gained, and the line of history that tells it.

use crate::plan::Action;
use crate::state::State;
use crate::state::hold::Gained;
use crate::words::board::{self, HistoryLine, Party, Stages};
use crate::words::ending::{Known, Promoted};
use crate::words::record::{Record, Status};
use crate::words::timing::{Tick, millis};
use crate::words::vclock::rows_missing;

impl State {
    /// How `record` came to be that of a master.
    pub(crate) fn line(&self, record: &Record, gained: &Gained, now: Tick) -> HistoryLine {
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

    /// How a term is gained by this step, if it begins one.
    pub(crate) fn gaining(&self, action: &Action, now: Tick) -> Option<Gained> {
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
}
