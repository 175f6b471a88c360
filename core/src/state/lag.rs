//! How far behind the master a replica is, in rows and in time, as of one moment: what the master had at a word of its, and
//! what the replica had when it was looked at after that word had come. For people alone, nothing is decided by it.
//!
//! No two machines' clocks are compared. Tarantool's own figure (`upstream.lag`) does that, so it counts within what the
//! words prove: a row arrives at least as late as the oldest word that the replica lacks rows of is old, and no later than
//! the newest is that it has in full.

use std::collections::VecDeque;
use std::time::Duration;

use crate::words::lag::{Arrival, Behind};
use crate::words::observed::Probe;
use crate::words::record::Record;
use crate::words::timing::{Tick, millis};
use crate::words::vclock::{Vclock, rows_missing};

/// Words that rows are missing of: more are thinned out. Their ages are as exact as they lie close together.
const WORDS: usize = 16;

/// Rows that are missing for less time are on their way: a look may come between a row's being written and its arrival.
pub(crate) const MOMENT: Duration = Duration::from_secs(2);

/// Times are written down in steps of so many milliseconds, so that what jitters below is no news to Consul.
const STEP_MS: u64 = 100;

/// A word of the master.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    seen_at: Tick,
    vclock: Vclock,
}

/// What is known of one master's words and of when their rows arrived.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Lag {
    /// Words that the replica lacked rows of at the last look, the oldest first.
    missing: VecDeque<Word>,
    /// As of the last look; `None`: there was none after a word.
    pub(crate) behind: Option<Behind>,
}

/// One look at a replica.
pub(crate) struct Look<'a> {
    /// The master's last word.
    pub(crate) record: &'a Record,
    /// When that was seen.
    pub(crate) spoke_at: Tick,
    /// What the replica said, asked after that.
    pub(crate) probe: &'a Probe,
    /// It has rows that it had not at the look before.
    pub(crate) grew: bool,
    /// It is connected to somebody who may have the rows.
    pub(crate) connected: bool,
    /// Since when nothing arrives that is to arrive; `None`: it does.
    pub(crate) failing_since: Option<Tick>,
}

impl Lag {
    /// Takes note of what a look shows.
    pub(crate) fn note(&mut self, look: &Look<'_>, now: Tick) {
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
    pub(crate) fn words(&self) -> usize {
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

pub(crate) fn in_steps(late: Duration) -> u64 {
    let ms = millis(late);
    ms - ms % STEP_MS
}
