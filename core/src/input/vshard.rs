//! What happened to vshard, written down.

use std::time::Duration;

use super::retries::CONSUL_RETRY;
use crate::state::State;
use crate::state::vshard::Vshard;
use crate::words::sight::ConsulFault;
use crate::words::timing::Tick;
use crate::words::vshard::{Look, VshardAction, VshardEvent};

/// vshard is being configured by somebody else at the moment: codes 37 (storage) and 38 (router).
pub(super) const BUSY_RETRY: Duration = Duration::from_millis(20);

/// After a configuration that vshard did not take.
pub(super) const FAILED_RETRY: Duration = Duration::from_secs(1);

/// Until a master that a router could not reach is looked at again; the look costs a comparison where it still cannot.
pub(super) const LEFT_OUT_RETRY: Duration = Duration::from_millis(500);

impl State {
    pub(super) fn vshard_happened(&mut self, event: VshardEvent, now: Tick) {
        match event {
            VshardEvent::MastersSeen { masters } => self.vshard.masters = Some(masters),
            VshardEvent::ConfigSeen { index } => self.vshard.config = index.or(self.vshard.config),
            VshardEvent::LoginChanged => self.vshard.login_changed(),
            VshardEvent::Applied { sequence, result } => self.vshard_applied(sequence, result, now),
            VshardEvent::MasterWritten { result } => self.master_written(result, now),
            // The loop hands over to a router's agent before anything is written down.
            VshardEvent::RouterFound => {}
        }
    }

    pub(super) fn begin_vshard(&mut self, action: &VshardAction) {
        match action {
            VshardAction::Apply { sequence, wanted } => {
                self.vshard.sequence = *sequence;
                self.vshard.applying = Some(wanted.clone());
            }
            VshardAction::WriteMaster { master, .. } => self.vshard.writing = Some(master.clone()),
        }
    }

    fn vshard_applied(
        &mut self,
        sequence: u64,
        result: Result<(bool, Box<Option<Look>>), String>,
        now: Tick,
    ) {
        if let Some(look) = self.vshard.finished(sequence, result, now)
            && let Some(probe) = &mut self.instance.probe
        {
            probe.vshard = look;
        }
    }

    fn master_written(&mut self, result: Result<Option<u64>, ConsulFault>, now: Tick) {
        let written = self.vshard.writing.take();
        let masters = self.vshard.masters.as_mut();
        match (result, written, masters) {
            (Ok(Some(index)), Some(master), Some(masters)) => {
                let entry = masters.entry(master.replicaset.clone());
                let newer = |known: &u64| *known > index;
                let known = entry.or_insert_with(|| (index, master.clone()));
                if !newer(&known.0) {
                    *known = (index, master);
                }
                self.vshard.write_retry_at = None;
            }
            // Changed by somebody else, who will be seen by the watch, or nobody knows.
            (Ok(_) | Err(_), _, _) => {
                self.vshard.write_retry_at = Some(now + CONSUL_RETRY);
            }
        }
    }
}

impl Vshard {
    /// What the instance has then, if it answered.
    pub(crate) fn finished(
        &mut self,
        sequence: u64,
        result: Result<(bool, Box<Option<Look>>), String>,
        now: Tick,
    ) -> Option<Option<Look>> {
        let wanted = self.applying.take();
        let (is_busy, look) = match result {
            Ok((is_busy, look)) => (is_busy, *look),
            Err(why) => {
                self.fault = Some(why);
                self.retry_at = Some(now + FAILED_RETRY);
                return None;
            }
        };
        let report = look.as_ref().and_then(|look| look.last.clone());
        let Some(report) = report.filter(|report| !is_busy && report.sequence == sequence) else {
            self.retry_at = Some(now + BUSY_RETRY);
            return Some(look);
        };
        self.left_out.clone_from(&report.left_out);
        if let Some(why) = &report.failed {
            let pause = if report.was_busy() {
                BUSY_RETRY
            } else {
                FAILED_RETRY
            };
            self.fault = Some(why.clone());
            self.retry_at = Some(now + pause);
            return Some(look);
        }
        self.fault = None;
        self.applied = wanted;
        self.retry_at = (!report.left_out.is_empty()).then(|| now + LEFT_OUT_RETRY);
        self.again_at = Some(now + BUSY_RETRY);
        Some(look)
    }

    /// What the instance was told, or is being told, has the password of before, if it has a central configuration.
    pub(crate) fn login_changed(&mut self) {
        for told in [&mut self.applied, &mut self.applying]
            .into_iter()
            .flatten()
        {
            told.config = None;
        }
    }

    /// Another process of the instance, or the same over another connection: it is told again.
    pub(crate) fn attached(&mut self) {
        self.applied = None;
        self.fault = None;
        self.retry_at = None;
        self.left_out.clear();
    }
}
