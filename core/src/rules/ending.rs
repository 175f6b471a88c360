//! How our own time as master ends, as the record says it.

use std::time::Duration;

use super::planner::Planner;
use crate::state::Link;
use crate::words::ending::{End, How};
use crate::words::record::{Cause, Record, Status};
use crate::words::timing::{Tick, millis};
use crate::words::vclock::Vclock;

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
