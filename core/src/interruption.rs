//! A master that was read-only for a while within its term: nothing changed hands, and its clients saw it all the same.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Planner;
use super::board::HistoryLine;
use super::ending::{Outage, millis};
use super::observed::Probe;
use super::record::Record;
use super::state::State;
use super::timing::Tick;

/// Of one term so many are remembered, the newest: a line of history stays a line, whatever goes on.
pub const INTERRUPTIONS: usize = 8;

/// A time within a term in which its master was not writable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interruption {
    /// Wall-clock milliseconds since the epoch when it was writable again.
    pub at_ms: u64,
    /// Why it was not, in words.
    pub why: String,
    /// For how long.
    pub outage: Outage,
}

/// The master of a term, when it was last seen to be writable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Served {
    /// Then.
    pub at: Tick,
    /// How often its guard had fenced by then.
    pub fences: u64,
    /// Its process: PID, PID namespace and boot id.
    pub process: (u32, Option<String>, Option<String>),
}

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

fn keep(list: &mut Vec<Interruption>, interruption: Interruption) {
    if list.contains(&interruption) {
        return;
    }
    if list.len() == INTERRUPTIONS {
        list.remove(0);
    }
    list.push(interruption);
}

impl Planner<'_> {
    /// Of a serving master: adds what has happened within its term to the term's line. The line is read before, since an
    /// ex-master may have written there what it brought back; one that is not there is not written anew.
    pub(super) fn tell_interruptions(&mut self, record: &Record) {
        let hold = &self.state.hold;
        let untold = hold.gained.as_ref().is_some_and(|gained| !gained.told);
        if hold.interruptions.is_empty() || untold {
            return;
        }
        let Some(lines) = &self.state.past.lines else {
            self.read_history();
            return;
        };
        let Some(line) = lines.iter().find(|line| line.term == record.term) else {
            return;
        };
        let mut line = line.clone();
        for interruption in &hold.interruptions {
            keep(&mut line.interruptions, interruption.clone());
        }
        self.write_history(line, false);
    }
}
