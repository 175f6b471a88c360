//! Event + state → state, for what happens to our session.

use super::retries::{CONSUL_RETRY, DENIED_RETRY};
use crate::state::slots::Place;
use crate::state::{Session, State};
use crate::words::ids::SessionId;
use crate::words::sight::ConsulFault;
use crate::words::timing::Tick;

impl State {
    pub(super) fn session_created(&mut self, result: Result<SessionId, ConsulFault>, now: Tick) {
        self.pending.ends(Place::Session);
        match result {
            Ok(id) => {
                self.denied = None;
                self.session = Session {
                    id: Some(id),
                    remembered: false,
                    renewed_at: now,
                    doubted: false,
                };
            }
            Err(fault) => self.session_call_failed(fault, now),
        }
    }

    pub(super) fn session_renewed(
        &mut self,
        session: &SessionId,
        result: Result<bool, ConsulFault>,
        now: Tick,
    ) {
        self.pending.ends(Place::Session);
        if self.session.id.as_ref() != Some(session) {
            return;
        }
        match result {
            Ok(true) => {
                self.session.renewed_at = now;
                self.session.doubted = false;
            }
            Ok(false) => {
                self.session = Session::default();
                self.lock.outdated = true;
            }
            Err(fault) => self.session_call_failed(fault, now),
        }
    }

    fn session_call_failed(&mut self, fault: ConsulFault, now: Tick) {
        let pause = if fault.denied {
            DENIED_RETRY
        } else {
            CONSUL_RETRY
        };
        self.denied = fault.denied.then(|| fault.why.clone());
        self.pending.retries(Place::Session, Some(now + pause));
        self.consul_failed(&fault.why);
        self.consul_fault = Some(fault);
    }
}
