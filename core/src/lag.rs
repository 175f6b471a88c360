//! How far behind the master a replica is, in rows and in time, as of one moment: what the master had at a word of its, and
//! what the replica had when it was looked at after that word had come. For people alone, nothing is decided by it.
//!
//! No two machines' clocks are compared. Tarantool's own figure (`upstream.lag`) does that, so it counts within what the
//! words prove: a row arrives at least as late as the oldest word that the replica lacks rows of is old, and no later than
//! the newest is that it has in full.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::board::rows_missing;
use super::ending::millis;
use super::observed::Probe;
use super::record::{Record, Vclock};
use super::state::{Link, State};
use super::timing::Tick;

/// Words that rows are missing of: more are thinned out. Their ages are as exact as they lie close together.
const WORDS: usize = 16;
/// Rows that are missing for less time are on their way: a look may come between a row's being written and its arrival.
pub(super) const MOMENT: Duration = Duration::from_secs(2);
/// Times are written down in steps of so many milliseconds, so that what jitters below is no news to Consul.
const STEP_MS: u64 = 100;

/// How far behind the master a replica is, in one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// The master: instance UUID.
    pub of: String,
    /// Rows that the master had at its last word and the replica lacked when it was looked at after that.
    pub rows: u64,
    /// For how long they have been missing, or how late the last ones came; where rows do not arrive, for how long.
    pub ms: u64,
    /// Whether rows arrive.
    pub arrival: Arrival,
}

/// Whether the master's rows arrive at a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// They do, or there are none.
    Arriving,
    /// There is a connection, and rows that the master has do not arrive.
    Stalled,
    /// Replication has stopped with an error.
    Stopped,
    /// There is no connection by which they could.
    Disconnected,
    /// The instance does not answer, so what it has now is not known: the rows are those that it lacked of the last word
    /// when it last answered.
    Silent,
}

/// A word of the master.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    seen_at: Tick,
    vclock: Vclock,
}

/// What is known of one master's words and of when their rows arrived.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Lag {
    /// Words that the replica lacked rows of at the last look, the oldest first.
    missing: VecDeque<Word>,
    /// As of the last look; `None`: there was none after a word.
    behind: Option<Behind>,
}

/// One look at a replica.
pub(super) struct Look<'a> {
    /// The master's last word.
    pub(super) record: &'a Record,
    /// When that was seen.
    pub(super) spoke_at: Tick,
    /// What the replica said, asked after that.
    pub(super) probe: &'a Probe,
    /// It has rows that it had not at the look before.
    pub(super) grew: bool,
    /// It is connected to somebody who may have the rows.
    pub(super) connected: bool,
    /// Since when nothing arrives that is to arrive; `None`: it does.
    pub(super) failing_since: Option<Tick>,
}

impl Lag {
    /// Takes note of what a look shows.
    pub(super) fn note(&mut self, look: &Look<'_>, now: Tick) {
        let Look { record, probe, .. } = look;
        if record.vclock.is_empty() {
            return;
        }
        if self
            .missing
            .back()
            .is_none_or(|word| word.seen_at < look.spoke_at)
        {
            self.missing.push_back(Word {
                seen_at: look.spoke_at,
                vclock: record.vclock.clone(),
            });
        }
        let mut had_at = None;
        while let Some(word) = self.missing.front()
            && !probe.lacks_rows_of(&word.vclock)
        {
            had_at = Some(word.seen_at);
            self.missing.pop_front();
        }
        self.thin_out();
        let arrival = arrival(look, now);
        let late = match (arrival, look.failing_since) {
            (Arrival::Arriving, _) | (_, None) => self.late(look, had_at, now),
            (_, Some(since)) => now.since(since),
        };
        self.behind = Some(Behind {
            of: record.instance.clone(),
            rows: rows_missing(&record.vclock, &probe.vclock),
            ms: in_steps(late),
            arrival,
        });
    }

    #[cfg(test)]
    pub(super) fn words(&self) -> usize {
        self.missing.len()
    }

    /// How late rows arrive.
    fn late(&self, look: &Look<'_>, had_at: Option<Tick>, now: Tick) -> Duration {
        let oldest = self.missing.front();
        let least = oldest.map_or(Duration::ZERO, |word| now.since(word.seen_at));
        if oldest.is_none() && !look.grew {
            // It has everything, and nothing came lately that may have been late.
            return Duration::ZERO;
        }
        let most = had_at.map_or(least, |at| now.since(at)).max(least);
        let said = said_lag(look.probe, &look.record.instance);
        said.unwrap_or(least).clamp(least, most)
    }

    /// Every second one goes, but for the oldest and the newest.
    fn thin_out(&mut self) {
        if self.missing.len() <= WORDS {
            return;
        }
        let last = self.missing.len() - 1;
        let mut index = 0;
        self.missing.retain(|_| {
            let stays = index % 2 == 0 || index == last;
            index += 1;
            stays
        });
    }
}

fn arrival(look: &Look<'_>, now: Tick) -> Arrival {
    let Some(since) = look.failing_since else {
        return Arrival::Arriving;
    };
    let upstream = look.probe.upstream(&look.record.instance);
    match (upstream.map(|upstream| &*upstream.status), look.connected) {
        (Some("stopped"), _) => Arrival::Stopped,
        (_, false) => Arrival::Disconnected,
        (_, true) if now.since(since) < MOMENT => Arrival::Arriving,
        (_, true) => Arrival::Stalled,
    }
}

/// Tarantool's word for it: of the master where it is followed itself, else of the one by whom rows come soonest.
fn said_lag(probe: &Probe, master: &str) -> Option<Duration> {
    let direct = probe.follows(master);
    let peers = probe
        .followed()
        .filter(|peer| !direct || peer.uuid == master);
    let lags = peers.filter_map(|peer| peer.upstream.as_ref()?.lag_s);
    // A clock that runs ahead of the master's makes it negative.
    let lags = lags.map(|lag| Duration::try_from_secs_f64(lag).unwrap_or_default());
    lags.min()
}

fn in_steps(late: Duration) -> u64 {
    let ms = millis(late);
    ms - ms % STEP_MS
}

impl State {
    /// How far behind the master our instance is; `None`: nobody else is known to be master, or it was not looked at since
    /// that one's first word.
    #[must_use]
    pub fn behind(&self, now: Tick) -> Option<Behind> {
        let probe = self.instance.probe.as_ref()?;
        let (record, _) = self.master_elsewhere(probe)?;
        if record.vclock.is_empty() {
            // It has not said what it has.
            return None;
        }
        let silent_for = self.unheard_since().map(|since| now.since(since));
        match silent_for {
            Some(silent_for) if silent_for >= self.settings.timing.healthcheck_timeout() => {
                Some(Behind {
                    of: record.instance.clone(),
                    rows: rows_missing(&record.vclock, &probe.vclock),
                    ms: in_steps(silent_for),
                    arrival: Arrival::Silent,
                })
            }
            Some(_) | None => {
                let feed = self.instance.feed.as_ref();
                let behind = feed.and_then(|feed| feed.lag.behind.as_ref());
                behind.filter(|it| it.of == record.instance).cloned()
            }
        }
    }

    /// Since when the instance has not answered.
    fn unheard_since(&self) -> Option<Tick> {
        match self.instance.link {
            Link::Down { since, .. } | Link::Dead { since, .. } => Some(since),
            Link::Unknown | Link::Up | Link::Unsuitable { .. } => self.instance.silent_since,
        }
    }
}
