//! How the last master's time ended, as far as a candidate that reaches for its lock can tell.

use crate::state::{State, Unchanged};
use crate::words::board::{self, Party};
use crate::words::ending::{End, How};
use crate::words::record::{Cause, Record, Status};
use crate::words::term::Term;
use crate::words::timing::{Tick, millis};

impl State {
    /// What is known of the last master's end by a candidate that reaches for its lock.
    pub(crate) fn end_found(&self, cause: Cause, now: Tick) -> End {
        let known = self.lock.unchanged.as_ref();
        let Some(known) = known else {
            return End::of(if self.highest_term == Term::NONE {
                How::First
            } else {
                How::ByHand
            });
        };
        let found = self.end_by_record(known, now);
        if cause == Cause::First {
            return End {
                how: How::ByHand,
                by: None,
                complete: false,
                ..found
            };
        }
        found
    }

    fn end_by_record(&self, known: &Unchanged, now: Tick) -> End {
        let record = &known.record;
        if let Some(end) = &record.end {
            return end.later(now.since(known.seen_at));
        }
        let spoke = now.since(known.spoke_at);
        let writable_ms = known.witnessed.then(|| millis(spoke));
        match record.status {
            Status::Active => {
                let over = spoke.saturating_sub(record.lease());
                let over_ms = match (record.paused, record.failsafe) {
                    // Nothing bounds for how long it was writable.
                    (true, _) => None,
                    (false, false) => Some(millis(over)),
                    // Every further lease rested on a promise of our own guard, which outlasts it.
                    (false, true) if self.instance.process_since < known.spoke_at => {
                        Some(millis(over.min(now.since(self.instance.bound_until))))
                    }
                    (false, true) => None,
                };
                End {
                    how: self.how_it_was_lost(&record.instance),
                    over_ms,
                    writable_ms,
                    word_age_ms: writable_ms.map(|ms| ms.saturating_sub(over_ms.unwrap_or(0))),
                    ..End::default()
                }
            }
            Status::Fenced => End {
                over_ms: Some(millis(now.since(known.seen_at))),
                writable_ms,
                ..End::default()
            },
            Status::Promoting => End::default(),
        }
    }

    /// Nobody released the lock: whether the last master's instance is still there is all that its successor can tell.
    /// An instance that is gone is silent for the whole lease by now, one that is there speaks at least once a second.
    fn how_it_was_lost(&self, instance: &str) -> How {
        let patience_s = self.settings.timing.lease().as_secs_f64() / 2.0;
        let probe = self.instance.probe.as_ref();
        let upstream = probe.and_then(|probe| probe.upstream(instance));
        let speaks = upstream.is_some_and(|upstream| {
            upstream.status == "follow" && upstream.idle_s.is_some_and(|idle| idle < patience_s)
        });
        if speaks {
            How::AgentLost
        } else {
            How::MachineLost
        }
    }

    /// Who was master before: the record's writer, or the one that this names where its writer was not promoted.
    pub(crate) fn party_before(&self, record: &Record) -> Party {
        let last = record.last_master.as_ref();
        let Some(last) = last.filter(|_| record.refused && !record.was_promoted()) else {
            return Party {
                instance: record.instance.clone(),
                name: record.name.clone(),
            };
        };
        let board = self.board.as_ref().map(|(board, _)| board);
        let member = board.and_then(|board: &board::Board| board.members.get(&last.instance));
        let name = member.map_or(&last.instance, |member| &member.name);
        Party {
            instance: last.instance.clone(),
            name: name.clone(),
        }
    }
}
