//! How a replica set's last time of being writable ended, and what is known of the time since: said by the master that
//! knows it, with its release, or concluded by the successor of one that could say nothing.
//!
//! Two durations bound an outage, each measured on one clock: since when nothing can have been written, and since when
//! it was last known that something could. What a record says of them grows by the time since it was seen. The way of a
//! record through Consul, which nobody can measure, is not counted.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::timing::{Tick, millis};

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
    pub(crate) fn is_guessed(self) -> bool {
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
    pub(crate) fn later(&self, by: Duration) -> Self {
        let more = |ms: Option<u64>| ms.map(|ms| ms.saturating_add(millis(by)));
        Self {
            over_ms: more(self.over_ms),
            writable_ms: more(self.writable_ms),
            ..self.clone()
        }
    }

    pub(crate) fn of(how: How) -> Self {
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
    pub(crate) fn told(least: Duration, most: Duration) -> Self {
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
    pub(crate) fn outage(&self, known_at: Tick, promoted: Promoted) -> Outage {
        Outage::of(self.over_ms, self.writable_ms).until(
            promoted.earliest.since(known_at),
            promoted.latest.since(known_at),
        )
    }
}
