//! Times within a term in which our instance was not writable, written down.

use std::time::Duration;

use crate::state::State;
use crate::state::hold::Served;
use crate::words::board::HistoryLine;
use crate::words::ending::Outage;
use crate::words::interruption::{Interruption, keep};
use crate::words::observed::Probe;
use crate::words::timing::{Tick, millis};

impl State {
    /// Compares a word of the guard with the last one that said that the instance is master of its term. A guard that
    /// fenced says how long ago; of what others did, only the words around it tell.
    pub(super) fn note_interruption(&mut self, probe: &Probe, now: Tick) {
        let Some(record) = &self.hold.record else {
            return;
        };
        let promoted = record.was_promoted();
        if !probe.is_master(record.term) {
            let since = self.hold.read_only_since.unwrap_or(now);
            self.hold.read_only_since = promoted.then_some(since);
            return;
        }
        let served = Served {
            at: now,
            fences: probe.guard.fences,
            process: (
                probe.pid,
                probe.pid_namespace.clone(),
                probe.boot_id.clone(),
            ),
        };
        let read_only_since = self.hold.read_only_since.take();
        let known = self.hold.served.replace(served.clone());
        let restarted = known
            .as_ref()
            .is_some_and(|it| it.process != served.process);
        let fenced = known.as_ref().is_some_and(|it| it.fences != served.fences);
        let changed = restarted || fenced || read_only_since.is_some();
        if !promoted || !changed {
            return;
        }
        let ago = |at: Tick| millis(now.since(at));
        let around = Outage::of(
            read_only_since.map(ago),
            known.as_ref().map(|it| ago(it.at)),
        );
        let (fenced_ago, writable_ago) = (probe.guard.fenced_ago_ns, probe.guard.writable_ago_ns);
        let read_only_ns = fenced_ago
            .zip(writable_ago)
            .filter(|_| fenced && !restarted)
            .map(|(fenced, writable)| fenced.saturating_sub(writable));
        let (why, outage) = match (known, read_only_ns.map(Duration::from_nanos)) {
            (None, _) => ("it was read-only when its agent came", around),
            (Some(_), Some(read_only)) => {
                let why = probe.guard.last_fence.as_deref();
                (why.unwrap_or_default(), Outage::told(read_only, read_only))
            }
            (Some(_), None) if restarted => ("its process is another one", around),
            (Some(_), None) => ("somebody made it read-only", around),
        };
        let interruption = Interruption {
            at_ms: self.wall_ms,
            why: why.to_owned(),
            outage,
        };
        keep(&mut self.hold.interruptions, interruption);
        // They are added to the line as it stands in Consul.
        self.past.lines = None;
    }

    /// The line stands in Consul with these.
    pub(super) fn interruptions_told(&mut self, line: &HistoryLine) {
        let told = &line.interruptions;
        self.hold.interruptions.retain(|it| !told.contains(it));
    }
}
