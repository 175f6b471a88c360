//! How terms begin and end here, written down.

use std::time::Duration;

use super::lock::change_index;
use crate::state::State;
use crate::state::hold::{Gained, Sent};
use crate::words::board;
use crate::words::ending::Promoted;
use crate::words::observed::Probe;
use crate::words::timing::{Tick, millis};

impl State {
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

    /// Consul has confirmed a record of ours.
    pub(super) fn note_accepted(&mut self, sent: &Sent, now: Tick) {
        let index = self.lock.sight.as_ref().map_or(0, change_index);
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
