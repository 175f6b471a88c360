//! How a replica set's last time of being writable ended, and what is known of the time since: said by the master that
//! knows it, with its release, or concluded by the successor of one that could say nothing.
//!
//! Two durations bound an outage, each measured on one clock: since when nothing can have been written, and since when
//! it was last known that something could. What a record says of them grows by the time since it was seen. The way of a
//! record through Consul, which nobody can measure, is not counted.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::board::{Cause, Party};
use super::record::{Record, Status, Vclock};
use super::state::{Link, State, Unchanged};
use super::term::Term;
use super::timing::Tick;
use super::{Planner, board};

/// How a master's time ended, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The instance's process died, and its agent lived to prove it.
    Crash,
    /// The instance hung past its lease, and its agent killed it (R5).
    HangKilled,
    /// Nobody released the lock, and from its successor neither instance nor agent could be reached.
    MachineLost,
    /// Nobody released the lock, and the agent, which lived on, was back later: it could not reach Consul.
    CutOff,
    /// An operator's order.
    Switchover,
    /// The agent was asked to stop.
    Stop,
    /// Nobody released the lock, while the instance still answered: its agent was gone, or could not reach Consul.
    AgentLost,
    /// The instance had died or hung during a pause, which kept the lock until it ended.
    PauseEnded,
    /// Somebody deleted or overwrote the lock's record, or declared that the master does not run.
    ByHand,
    /// There was no master before.
    First,
    /// The holder gave the lock up for another reason, which its words tell.
    GaveUp,
    /// Written by an older agent, which did not say.
    #[default]
    #[serde(other)]
    Unknown,
}

impl How {
    /// As people read it.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::HangKilled => "hang-killed",
            Self::MachineLost => "machine lost",
            Self::CutOff => "cut off",
            Self::Switchover => "switchover",
            Self::Stop => "stop",
            Self::AgentLost => "agent lost",
            Self::PauseEnded => "pause ended",
            Self::ByHand => "by hand",
            Self::First => "first",
            Self::GaveUp => "gave up",
            Self::Unknown => "unknown",
        }
    }

    /// A successor's guess from what it could reach; the ex-master's agent knows better once it is back.
    pub(super) fn is_guessed(self) -> bool {
        match self {
            Self::MachineLost | Self::AgentLost => true,
            Self::Crash
            | Self::HangKilled
            | Self::CutOff
            | Self::Switchover
            | Self::Stop
            | Self::PauseEnded
            | Self::ByHand
            | Self::First
            | Self::GaveUp
            | Self::Unknown => false,
        }
    }
}

/// How the last time of being writable ended, as it stands in the record of a writer that is not writable.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct End {
    /// In a word.
    #[serde(default)]
    pub how: How,
    /// Who wished it, where somebody did: an operator, or a signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// For so long nothing can have been written, when this was said; `None`: nothing bounds that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_ms: Option<u64>,
    /// So long ago it was last known to be writable, when this was said; `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writable_ms: Option<u64>,
    /// The vclock that the record carries was read behind the last commit.
    #[serde(default)]
    pub complete: bool,
    /// For so long it may have written after that vclock was read; `None`: nothing bounds that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub word_age_ms: Option<u64>,
}

impl End {
    /// The same, so much later.
    pub(super) fn later(&self, by: Duration) -> Self {
        let more = |ms: Option<u64>| ms.map(|ms| ms.saturating_add(millis(by)));
        Self {
            over_ms: more(self.over_ms),
            writable_ms: more(self.writable_ms),
            ..self.clone()
        }
    }

    fn of(how: How) -> Self {
        Self {
            how,
            ..Self::default()
        }
    }
}

/// How well a number is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// It is that.
    Exact,
    /// Not below the one, not above the other.
    Between,
    /// Not below it.
    AtLeast,
    /// Not above it.
    AtMost,
    /// Not at all.
    #[serde(other)]
    Unknown,
}

/// For how long nothing could be written: from the last moment in which the one before was known to be writable until
/// the new master was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// How well that is known.
    pub known: Known,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least_ms: Option<u64>,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most_ms: Option<u64>,
}

impl Outage {
    /// Of its two bounds.
    #[must_use]
    pub fn of(at_least_ms: Option<u64>, at_most_ms: Option<u64>) -> Self {
        let known = match (at_least_ms, at_most_ms) {
            (Some(least), Some(most)) if least >= most => Known::Exact,
            (Some(_), Some(_)) => Known::Between,
            (Some(_), None) => Known::AtLeast,
            (None, Some(_)) => Known::AtMost,
            (None, None) => Known::Unknown,
        };
        Self {
            known,
            at_least_ms,
            at_most_ms,
        }
    }

    /// Told by those who turned read-only and writable: the bounds differ by the ways of their words.
    pub(super) fn told(least: Duration, most: Duration) -> Self {
        Self {
            known: Known::Exact,
            at_least_ms: Some(millis(least)),
            at_most_ms: Some(millis(most)),
        }
    }

    /// The same until a moment that was so much later.
    fn until(self, least: Duration, most: Duration) -> Self {
        let plus = |ms: Option<u64>, more| ms.map(|ms| ms.saturating_add(millis(more)));
        Self {
            at_least_ms: plus(self.at_least_ms, least),
            at_most_ms: plus(self.at_most_ms, most),
            ..self
        }
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.at_least_ms, self.at_most_ms) {
            (_, Some(most)) if self.known == Known::Exact => write_ms(f, most),
            (Some(least), Some(most)) => {
                write_ms(f, least)?;
                f.write_str(" to ")?;
                write_ms(f, most)
            }
            (Some(least), None) => {
                f.write_str("at least ")?;
                write_ms(f, least)
            }
            (None, Some(most)) => {
                f.write_str("at most ")?;
                write_ms(f, most)
            }
            (None, None) => f.write_str("a time that nobody knows"),
        }
    }
}

fn write_ms(f: &mut fmt::Formatter<'_>, ms: u64) -> fmt::Result {
    if ms < 1000 {
        write!(f, "{ms} ms")
    } else {
        write!(f, "{}.{:02} s", ms / 1000, ms % 1000 / 10)
    }
}

/// When an instance turned writable, as far as its guard's answer to its agent tells: not before the one nor after the
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Promoted {
    /// By the moment in which the guard was asked.
    pub earliest: Tick,
    /// By the moment in which it had answered.
    pub latest: Tick,
    /// The latest one by the wall clock, in milliseconds since the epoch.
    pub at_ms: u64,
}

impl End {
    /// For how long nothing could be written, of an end that was known at `known_at`.
    pub(super) fn outage(&self, known_at: Tick, promoted: Promoted) -> Outage {
        Outage::of(self.over_ms, self.writable_ms).until(
            promoted.earliest.since(known_at),
            promoted.latest.since(known_at),
        )
    }
}

impl Planner<'_> {
    /// What the record of a holder that is not writable is to say of the last master's end. Of a holder that was not
    /// promoted it is what it found itself, so much later.
    pub(super) fn end(&self, record: &Record, target: Option<&str>) -> Option<End> {
        let state = self.state;
        if !record.was_promoted() {
            let found = state.hold.gained.as_ref();
            let found = found.map(|it| it.end.later(self.now.since(it.elected_at)));
            return found.or_else(|| record.end.clone());
        }
        let (how, by) = self.how_it_ends(target);
        let ended = End { by, ..End::of(how) };
        let ago = |at: Tick| Some(millis(self.now.since(at)));
        let instance = &state.instance;
        let probed_at = instance.probed_at.unwrap_or_default();
        let fenced_ago = instance.probe.as_ref().filter(|_| state.is_fenced());
        if let Some(ns) = fenced_ago.and_then(|probe| probe.guard.fenced_ago_ns) {
            let since = self.now.since(probed_at) + Duration::from_nanos(ns);
            return Some(End {
                over_ms: Some(millis(since)),
                writable_ms: Some(millis(since)),
                complete: true,
                word_age_ms: Some(0),
                ..ended
            });
        }
        let over_at = match (&instance.link, instance.killed_at, instance.lease) {
            (Link::Dead { since, .. }, killed_at, _) => {
                Some(killed_at.map_or(*since, |at| at.min(*since)))
            }
            (_, Some(killed_at), _) => Some(killed_at),
            // Nobody stops what it does on waking.
            (Link::Up, None, _) if instance.silent_since.is_some() => None,
            (_, None, Some(lease)) => Some(lease.over_at.min(self.now)),
            (_, None, None) => None,
        };
        let word_age = over_at.map(|at| millis(at.since(probed_at)));
        Some(End {
            over_ms: over_at.and_then(ago),
            writable_ms: ago(self.heard_at(over_at.unwrap_or(self.now))),
            complete: state.is_fenced(),
            word_age_ms: if state.is_fenced() { Some(0) } else { word_age },
            ..ended
        })
    }

    /// When the instance last gave a sign of life. It is looked at with every `LIVENESS_INTERVAL` and pinged with every
    /// fourth, and it counts as silent one interval after a ping went unanswered.
    fn heard_at(&self, over_at: Tick) -> Tick {
        let state = self.state;
        let interval = state.settings.timing.liveness_interval();
        let by_pings = match state.instance.silent_since {
            Some(since) => since.before(interval * 6),
            None => over_at.before(interval * 2),
        };
        by_pings.max(state.instance.probed_at.unwrap_or_default())
    }

    fn how_it_ends(&self, target: Option<&str>) -> (How, Option<String>) {
        let state = self.state;
        let gone_since = match &state.instance.link {
            Link::Dead { since, .. } => Some(*since),
            Link::Up => state.instance.silent_since,
            Link::Down { since, .. } => Some(*since),
            Link::Unknown | Link::Unsuitable { .. } => None,
        };
        if let Some(known) = state.hold.handover.as_ref().filter(|_| target.is_some()) {
            return (How::Switchover, Some(known.order.by.clone()));
        }
        if let (Some(since), Some((pause, until))) = (gone_since, &state.orders.last_pause)
            && *until > since
        {
            return (How::PauseEnded, Some(pause.by.clone()));
        }
        let dead = matches!(state.instance.link, Link::Dead { .. });
        match (state.instance.killed_at, dead, state.stopping) {
            (Some(_), _, _) => (How::HangKilled, None),
            (None, true, _) => (How::Crash, None),
            (None, false, Some((signal, _))) => (How::Stop, Some(signal.to_owned())),
            (None, false, None) => (How::GaveUp, None),
        }
    }

    /// The same for the next record: nothing of one whose writer is writable, or may be again in the same term.
    pub(super) fn end_so_far(
        &self,
        own: Option<&Record>,
        cause: Cause,
        gains: bool,
    ) -> Option<End> {
        match own {
            Some(own) if own.was_promoted() => None,
            Some(own) => self.end(own, None),
            None if gains => Some(self.state.end_found(cause, self.now)),
            None => None,
        }
    }

    /// Rows that the instance wrote in a second since the last record under a reading, where that was not just now.
    pub(super) fn write_rate(&self, reading_at: Tick, vclock: Option<&Vclock>) -> Option<u64> {
        let last = self.state.hold.record.as_ref()?;
        let since = self.state.hold.reading?.reply_at;
        let passed = millis(reading_at.since(since));
        let own = self.state.instance.probe.as_ref()?.id.to_string();
        let lsn = |vclock: &Vclock| vclock.get(&own).copied();
        match (vclock.and_then(lsn), lsn(&last.vclock)) {
            (Some(now), Some(before)) if passed >= RATE_MIN_MS && last.status == Status::Active => {
                Some(now.saturating_sub(before).saturating_mul(1000) / passed)
            }
            (Some(_) | None, _) => last.rate_rows_per_s,
        }
    }
}

/// Over less time a rate says little.
const RATE_MIN_MS: u64 = 100;

impl State {
    /// What is known of the last master's end by a candidate that reaches for its lock.
    pub(super) fn end_found(&self, cause: Cause, now: Tick) -> End {
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
    pub(super) fn party_before(&self, record: &Record) -> Party {
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

/// In whole milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
